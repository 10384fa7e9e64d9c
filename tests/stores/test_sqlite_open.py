"""What a new owner finds in the -wal goes to the disk before anything is built upon it (J1, J9)."""

import errno
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

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


def log_of(path: Path) -> bytes:
    return Path(f"{path}-wal").read_bytes()


class Written:
    """What is written by `os.pwrite`, by its place in the -wal."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch, error: int = 0) -> None:
        self.parts: dict[int, bytes] = {}
        self._log = f"{path}-wal"
        self._error = error
        self._write = os.pwrite
        monkeypatch.setattr(os, "pwrite", self)

    def __call__(self, file: int, part: bytes, at: int) -> int:
        assert os.path.samestat(os.fstat(file), os.stat(self._log))
        if self._error:
            raise OSError(self._error, os.strerror(self._error))
        self.parts[at] = part
        return self._write(file, part, at)

    def all(self) -> bytes:
        found = b""
        for at, part in sorted(self.parts.items()):
            assert at == len(found)
            found += part
        return found


async def test_all_of_it_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sync of the former owner may have failed; then the system shows what it never wrote."""
    path = await left_in_the_wal(tmp_path)
    found = log_of(path)
    monkeypatch.setattr("asyncdefer.stores._sound._PART", 10_000)
    written = Written(path, monkeypatch)
    async with opened_desk(SQLiteStore(path)) as desk:
        assert len(found) > 3 * 10_000
        assert written.all() == found
        assert log_of(path)[: len(found)] == found
        assert await desk.ids() == [1]


async def test_after_a_commit_whose_connection_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it has happened is what a new connection finds; and that may never have been written."""
    path = tmp_path / "journal.db"
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1)))
        with closing(sqlite3.connect(path)) as reader:  # which keeps the -wal there
            reader.execute("SELECT count(*) FROM asyncdefer_jobs").fetchone()
            file: Any = desk.store._desk.file
            file._unsettled = True
            file.close()
            found, written = log_of(path), Written(path, monkeypatch)
            await desk.write(Add(row(2)))
            assert written.all() == found
            assert not file._unsettled
            written.parts.clear()
            await desk.write(Add(row(3)))
            assert not written.parts
        assert await desk.ids() == [1, 2, 3]


async def test_nobody_else_writes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else what somebody has just committed would be written over."""
    path = await left_in_the_wal(tmp_path)
    tried: list[str] = []

    class Disturbed(Written):
        def __call__(self, file: int, part: bytes, at: int) -> int:
            with closing(sqlite3.connect(path, timeout=0)) as other:
                with pytest.raises(sqlite3.OperationalError) as raised:
                    other.execute("BEGIN IMMEDIATE")
                tried.append(str(raised.value))
            return super().__call__(file, part, at)

    Disturbed(path, monkeypatch)
    async with opened_desk(SQLiteStore(path)):
        assert tried == ["database is locked"]


async def test_without_a_promise_it_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With NORMAL a power cut may take the last seconds anyway."""
    path = await left_in_the_wal(tmp_path)
    written = Written(path, monkeypatch)
    async with opened_desk(SQLiteStore(path, synchronous="NORMAL")):
        assert not written.parts


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
async def test_a_disk_that_refuses_does_not_stop_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: int
) -> None:
    """Then it is built upon as it is."""
    path = await left_in_the_wal(tmp_path)
    Written(path, monkeypatch, error)
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(2)))
        assert await desk.ids() == [1, 2]


async def test_nor_does_somebody_who_reads(tmp_path: Path) -> None:
    path = await left_in_the_wal(tmp_path)
    with closing(sqlite3.connect(path)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM asyncdefer_jobs").fetchone() == (1,)
        async with opened_desk(SQLiteStore(path)) as desk:
            await desk.write(Add(row(2)))
            assert await desk.ids() == [1, 2]


async def test_the_wal_of_a_program_that_has_its_own_tables_there(tmp_path: Path) -> None:
    """Nothing is moved from it and nothing lost, though the one before has closed."""
    path = tmp_path / "shop.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as shop:
        shop.execute("PRAGMA journal_mode = wal")
        shop.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        for n in range(1, 6):
            async with opened_desk(SQLiteStore(path)) as desk:
                await desk.write(Add(row(n)))
            shop.execute("INSERT INTO orders VALUES (?)", (n,))
    async with opened_desk(SQLiteStore(path)) as desk:
        assert await desk.ids() == [1, 2, 3, 4, 5]
    with closing(sqlite3.connect(path)) as shop:
        found: list[Any] = shop.execute("SELECT id FROM orders").fetchall()
        assert found == [(n,) for n in range(1, 6)]
        assert shop.execute("PRAGMA integrity_check").fetchone() == ("ok",)
