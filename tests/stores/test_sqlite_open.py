"""What a new owner finds in the -wal is on the disk before anything is built upon it (J1, J9)."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from asyncdefer.stores._base import Add
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import opened_desk, row


async def left_in_the_wal(folder: Path) -> Path:
    """A journal whose owner has died: a row is in the -wal only."""
    path = folder / "journal.db"
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1)))
        (folder / "crashed").mkdir()
        there = folder / "crashed" / path.name
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{there}{suffix}")
    return there


def ids_at_home(path: Path) -> list[int]:
    """The rows that the file has without its -wal."""
    alone = path.with_name("alone.db")
    shutil.copy(path, alone)
    with closing(sqlite3.connect(alone)) as db:
        return [id for (id,) in db.execute("SELECT id FROM asyncdefer_jobs")]


async def test_it_is_brought_home(tmp_path: Path) -> None:
    """A sync of the former owner may have failed; then the system shows what it never wrote."""
    path = await left_in_the_wal(tmp_path)
    async with opened_desk(SQLiteStore(path)) as desk:
        assert ids_at_home(path) == [1]
        assert await desk.ids() == [1]


async def test_somebody_who_reads_does_not_stop_the_start(tmp_path: Path) -> None:
    """Then it is built upon as it is."""
    path = await left_in_the_wal(tmp_path)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM asyncdefer_jobs").fetchone() == (1,)
        async with opened_desk(SQLiteStore(path)) as desk:
            await desk.write(Add(row(2)))
            assert await desk.ids() == [1, 2]
