"""J11. Files that we create are for their owner only; tables that are not ours are left alone."""

import os
import sqlite3
import stat
from pathlib import Path

import pytest

from asyncdefer import JournalError, Queue
from asyncdefer.testing import VirtualClock


def program(path: Path, clock: VirtualClock) -> Queue:
    queue = Queue(path, clock=clock)

    @queue.task("note")
    async def note(text: str) -> str:
        return text

    return queue


def files(folder: Path) -> list[Path]:
    return list(folder.iterdir())


async def test_files_are_private(tmp_path: Path, clock: VirtualClock) -> None:
    """0600, whatever the umask says."""
    before = os.umask(0)
    try:
        async with program(tmp_path / "timers.db", clock) as queue:
            await queue.enqueue(queue.task_of("note"), "a", delay=60)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in files(tmp_path)}
    finally:
        os.umask(before)
    assert {"timers.db", "timers.db-wal", "timers.db-shm", "timers.db-lock"} <= set(modes)
    assert set(modes.values()) == {0o600}


async def test_a_database_of_the_program(tmp_path: Path, clock: VirtualClock) -> None:
    """Its own tables beside ours stay as they are."""
    path = tmp_path / "app.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE users (name TEXT)")
        db.execute("INSERT INTO users VALUES ('ada')")
    db.close()
    async with program(path, clock) as queue:
        await (await queue.enqueue(queue.task_of("note"), "a"))
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT * FROM users").fetchall() == [("ada",)]
        tables = "SELECT name FROM sqlite_schema WHERE type = 'table'"
        names = {name for (name,) in db.execute(tables)}
    db.close()
    assert {name for name in names if not name.startswith("asyncdefer_")} - {"users"} == set()


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TRIGGER t AFTER INSERT ON asyncdefer_jobs BEGIN SELECT 1; END",
        "CREATE INDEX i ON asyncdefer_jobs (body)",
        "ALTER TABLE asyncdefer_jobs ADD COLUMN more TEXT",
        "UPDATE asyncdefer_meta SET value = 99 WHERE name = 'version'",
    ],
    ids=["trigger", "index", "column", "newer"],
)
async def test_a_changed_journal_is_refused(tmp_path: Path, clock: VirtualClock, sql: str) -> None:
    """With an error that says what is wrong, and nothing is written."""
    path = tmp_path / "timers.db"
    async with program(path, clock):
        pass
    with sqlite3.connect(path) as db:
        db.execute(sql)
    db.close()
    with pytest.raises(JournalError, match=r"asyncdefer|version"):
        await program(path, clock).start()
