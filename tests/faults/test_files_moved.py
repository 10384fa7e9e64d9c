"""J9 when the files of a journal are removed, replaced or cut off, before a start and during a run.

The error comes at the call and says what happened; nothing is acknowledged that would not be found
again; no file of anybody else is touched; and when the files come back, so does the program.
"""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import JournalError, Queue
from asyncdefer.testing import VirtualClock, check_conservation

Deed = Callable[[Path], Callable[[], object]]
"""Something that is done to a journal; it returns what puts the files back."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    folder = tmp_path / "journal"
    folder.mkdir()
    return folder / "timers.db"


def program(path: Path, clock: VirtualClock, ran: list[str]) -> Queue:
    queue = Queue(path, clock=clock)

    @queue.task("note")
    async def note(text: str) -> str:
        ran.append(text)
        return text

    return queue


def content(path: Path) -> bytes:
    return path.read_bytes()


# ---- what is done to the files ----


def moved(*suffixes: str) -> Deed:
    """Files are moved away, and back."""

    def deed(path: Path) -> Callable[[], object]:
        files = [Path(f"{path}{suffix}") for suffix in suffixes]
        for file in files:
            file.rename(f"{file}.away")

        def back() -> None:
            for file in files:
                Path(f"{file}.away").rename(file)

        return back

    return deed


def replaced(path: Path) -> Callable[[], object]:
    """Another journal is in its place, whole and sound."""
    back = moved("", "-wal")(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE other (value TEXT)")
        db.execute("INSERT INTO other VALUES ('ours')")

    def again() -> None:
        with closing(sqlite3.connect(path)) as db:
            names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema")]
            assert names == ["other"], "somebody else's file was written to"
            assert db.execute("SELECT value FROM other").fetchall() == [("ours",)]
        path.unlink()
        back()

    return again


def replaced_by_a_copy(path: Path) -> Callable[[], object]:
    """Its own copy is in its place, as a restore from a backup leaves it."""
    shutil.copy(path, f"{path}.copy")
    back = moved("")(path)
    os.rename(f"{path}.copy", path)
    return back


def folder_moved(path: Path) -> Callable[[], object]:
    away = path.parent.with_name("elsewhere")
    path.parent.rename(away)
    return lambda: away.rename(path.parent)


GONE = [
    pytest.param(moved(""), id="journal"),
    pytest.param(moved("-wal"), id="wal"),
    pytest.param(moved("", "-wal", "-shm"), id="all"),
    pytest.param(replaced, id="replaced"),
    pytest.param(replaced_by_a_copy, id="restored"),
    pytest.param(folder_moved, id="folder"),
]


@pytest.mark.parametrize("deed", GONE)
async def test_while_it_runs(path: Path, defer_clock: VirtualClock, deed: Deed) -> None:
    """Calls are refused with what happened, jobs wait, and all goes on when the files are back."""
    ran: list[str] = []
    async with program(path, defer_clock, ran) as queue:
        soon = await queue.enqueue(queue.task_of("note"), "soon", delay=10)
        await queue.enqueue(queue.task_of("note"), "later", delay=1000)
        back = deed(path)
        for number in range(3):
            with pytest.raises(JournalError, match=r"gone|replaced"):
                await queue.enqueue(queue.task_of("note"), f"refused {number}", delay=20)
        waiter = asyncio.ensure_future(soon.result())
        await defer_clock.advance(30, patience=0)
        assert ran == []  # a start is recorded before it begins
        back()
        assert await asyncio.wait_for(waiter, 20) == "soon"
        assert await (await queue.enqueue(queue.task_of("note"), "after")) == "after"
        check_conservation(queue)
    async with program(path, defer_clock, ran):
        await defer_clock.advance(1000)
    assert ran == ["soon", "after", "later"]


async def test_while_it_runs_where_no_descriptor_has_a_name(
    path: Path, defer_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a system without /proc the -wal is asked by its name."""

    def nowhere(_: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(os, "readlink", nowhere)
    for deed in (moved("-wal"), moved("", "-wal", "-shm")):
        async with program(path, defer_clock, []) as queue:
            back = deed(path)
            with pytest.raises(JournalError, match="gone"):
                await queue.enqueue(queue.task_of("note"), "refused", delay=20)
            back()
            await queue.enqueue(queue.task_of("note"), "accepted", delay=20)


@pytest.mark.parametrize("deed", GONE)
async def test_it_is_closed_while_they_are_gone(
    path: Path, defer_clock: VirtualClock, deed: Deed
) -> None:
    """The close ends; with the files back in their place the next start has all that was accepted."""
    ran: list[str] = []
    async with program(path, defer_clock, ran) as queue:
        await queue.enqueue(queue.task_of("note"), "kept", delay=10)
        back = deed(path)
        with pytest.raises(JournalError):
            await queue.enqueue(queue.task_of("note"), "refused", delay=20)
    back()
    async with program(path, defer_clock, ran):
        await defer_clock.advance(1000)
    assert ran == ["kept"]


async def test_they_never_come_back(path: Path, defer_clock: VirtualClock) -> None:
    """A restart begins a new journal, as the error says; nobody was told that it had the calls."""
    ran: list[str] = []
    queue = program(path, defer_clock, ran)
    async with queue:
        moved("", "-wal", "-shm")(path)
        with pytest.raises(JournalError, match="begin a new journal"):
            await queue.enqueue(queue.task_of("note"), "refused", delay=20)
    async with queue:
        assert await (await queue.enqueue(queue.task_of("note"), "after")) == "after"
    assert ran == ["after"]


async def test_the_shm_alone(path: Path, defer_clock: VirtualClock) -> None:
    """It is memory of those who have the journal open, and made anew: nothing is lost with it."""
    ran: list[str] = []
    async with program(path, defer_clock, ran) as queue:
        await queue.enqueue(queue.task_of("note"), "before", delay=10)
        os.unlink(f"{path}-shm")
        await queue.enqueue(queue.task_of("note"), "after", delay=20)
    async with program(path, defer_clock, ran):
        await defer_clock.advance(30)
    assert ran == ["before", "after"]


async def test_a_loss_would_be_seen(path: Path, defer_clock: VirtualClock) -> None:
    """Control: files that are gone do take the calls with them."""
    ran: list[str] = []
    async with program(path, defer_clock, ran) as queue:
        await queue.enqueue(queue.task_of("note"), "lost", delay=10)
    moved("")(path)
    async with program(path, defer_clock, ran):
        await defer_clock.advance(30)
    assert ran == []


async def test_without_a_look_at_the_files_it_would_be_acknowledged(
    path: Path, defer_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: SQLite itself writes to a file without a name, and does not complain."""
    monkeypatch.setattr("asyncdefer.stores._lock.Identity.check", lambda _: None)
    ran: list[str] = []
    async with program(path, defer_clock, ran) as queue:
        moved("", "-wal", "-shm")(path)
        await queue.enqueue(queue.task_of("note"), "false", delay=20)
    monkeypatch.undo()
    async with program(path, defer_clock, ran):
        await defer_clock.advance(30)
    assert ran == []


# ---- before a start ----


def text(path: Path) -> None:
    path.write_bytes(b"these are notes of mine, and no database\n" * 100)


def of_a_newer_version(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE asyncdefer_meta SET value = 99 WHERE name = 'version'")


def cut_off(path: Path) -> None:
    os.truncate(path, os.path.getsize(path) // 2 // 4096 * 4096)


def overwritten(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\0" * 4096)


@pytest.mark.parametrize(
    ("deed", "says"),
    [
        (text, "not a SQLite database"),
        (of_a_newer_version, "newer asyncdefer"),
        (cut_off, "damaged"),
        (overwritten, "not a SQLite database|damaged"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_before_a_start(
    path: Path, defer_clock: VirtualClock, deed: Callable[[Path], Any], says: str
) -> None:
    """The start is refused, the file stays as it is, and the queue starts when the right one is back."""
    ran: list[str] = []
    queue = program(path, defer_clock, ran)
    async with queue:
        for number in range(50):
            queue.enqueue_nowait(queue.task_of("note"), f"kept {number}", delay=10 + number)
    shutil.copy(path, f"{path}.backup")
    deed(path)
    before = content(path)
    for _ in range(2):
        with pytest.raises(JournalError, match=says):
            await queue.start()
        assert content(path) == before
    os.replace(f"{path}.backup", path)
    async with queue:
        await defer_clock.advance(100)
        check_conservation(queue)
    assert ran == [f"kept {number}" for number in range(50)]


async def test_a_folder_that_is_not_there(tmp_path: Path, defer_clock: VirtualClock) -> None:
    """Nothing is made on the way to it; when somebody makes it the queue starts."""
    ran: list[str] = []
    path = tmp_path / "to" / "come" / "timers.db"
    queue = program(path, defer_clock, ran)
    with pytest.raises(JournalError, match="folder"):
        await queue.start()
    assert not (tmp_path / "to").exists()
    path.parent.mkdir(parents=True)
    async with queue:
        assert await (await queue.enqueue(queue.task_of("note"), "here")) == "here"
    assert ran == ["here"]
