"""One owner at a time, and only of the file that has the name."""

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from textwrap import dedent

import pytest

from asyncdefer.errors import JournalError, JournalLocked
from asyncdefer.stores._base import Add, Drop, Note, Owner, Set, Written
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import LEASE, NOW, Desk, leave, opened_desk, row, rows_of

# Opens a journal, says so, and stays until it is told to close (a line) or killed.
PROCESS = """
    import asyncio, os, sys
    from asyncdefer.stores._base import Add, Owner, Row
    from asyncdefer.stores.sqlite import SQLiteStore

    async def main():
        owner = Owner(os.getpid(), os.getpid(), "elsewhere", 1_700_000_000_000_000)
        store = SQLiteStore(sys.argv[1])
        async with store.open(owner, now=1, until=2):
            await store.write(owner, [(Add(Row(1, "t", None, "running", 1)),)])
            print("open", flush=True)
            sys.stdin.readline()

    asyncio.run(main())
"""


@contextmanager
def process(path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that has the journal."""
    command = [sys.executable, "-c", dedent(PROCESS), str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "open\n"
        try:
            yield running
        finally:
            running.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def locked_out(path: Path) -> JournalLocked:
    with pytest.raises(JournalLocked) as caught:
        await leave(SQLiteStore(path))
    return caught.value


def replace(path: Path | str, by: Path | str) -> None:
    Path(by).rename(path)


def contents(folder: Path) -> dict[str, bytes]:
    """Of all files but the -shm, where readers say that they read."""
    files = (each for each in folder.iterdir() if not each.name.endswith("-shm"))
    return {each.name: each.read_bytes() for each in files}


def there(path: str) -> bool:
    return os.path.lexists(path)


def remove(path: Path | str) -> None:
    Path(path).unlink()


def copy(path: Path, to: Path) -> None:
    to.write_bytes(path.read_bytes())


# -- one at a time


async def test_another_process_is_named(path: Path) -> None:
    """By its pid, its host and the time since when it has the journal."""
    with process(path) as other:
        error = await locked_out(path)
        assert (error.pid, error.host) == (other.pid, "elsewhere")
        assert error.since == datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)
        assert f"process {other.pid} on elsewhere" in str(error)
        other.communicate("close\n")
    async with opened_desk(SQLiteStore(path)) as desk:
        assert desk.opened.clean
        assert await desk.claimed() == [1]


async def test_a_process_that_was_killed_has_nothing(path: Path) -> None:
    """The next one has the journal at once, and is told that nobody closed it."""
    for _ in range(3):
        with process(path) as other:
            await locked_out(path)
            os.kill(other.pid, signal.SIGKILL)
            other.wait()
        async with opened_desk(SQLiteStore(path)) as desk:
            assert not desk.opened.clean
            assert await desk.claimed() == [1]
            await desk.write(Drop(1, "running"))


async def test_a_program_is_its_own_second(path: Path) -> None:
    """Locks of one process do not tell its threads apart; ours does."""
    async with opened_desk(SQLiteStore(path)) as desk:
        for _ in range(3):
            error = await locked_out(path)
            assert (error.pid, error.host) == (desk.owner.pid, "host")
        with closing(sqlite3.connect(path)) as db:  # and lets its lock fall, had we relied on it
            db.execute("SELECT * FROM asyncdefer_jobs").fetchall()
        await locked_out(path)
        await desk.write(Add(row(1)))


async def test_who_comes_between_two_owners_is_not_told_of_the_one_that_left(path: Path) -> None:
    """The lock is taken before the name is written: a name of somebody who has closed says nothing."""
    await leave(SQLiteStore(path))
    with closing(sqlite3.connect(f"{path}-lock", isolation_level=None)) as held:
        held.execute("BEGIN EXCLUSIVE")
        error = await locked_out(path)
    assert (error.pid, error.host, error.since) == (None, None, None)


async def test_a_locked_journal_is_not_touched(path: Path) -> None:
    """Whoever is refused has changed nothing, and left nothing."""
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1)))
        before = contents(path.parent)
        await locked_out(path)
        assert contents(path.parent) == before


# -- forks


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded")
@pytest.mark.parametrize("way", ["exits", "leaves", "closes"])
async def test_a_forked_child_cannot_write(path: Path, way: str) -> None:
    """It is told so, ends as it likes, and takes neither the lock nor the -wal along."""
    store = SQLiteStore(path)
    async with opened_desk(store) as desk:
        await desk.write(Add(row(1)))
        child = os.fork()
        if child == 0:
            status = 1
            with suppress(BaseException):
                status = _refused(desk)
                if way == "leaves":
                    await store._end()  # as at the end of the context; it does not hang
                elif way == "closes":
                    _close_all(store)
            os._exit(status)
        _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - there is nothing else to do
        assert os.waitstatus_to_exitcode(status) == 0
        await desk.write(Add(row(2)))
        await locked_out(path)
        assert b"JournalLocked" in tried_by_another(path)
        assert await desk.ids() == [1, 2]
    async with opened_desk(SQLiteStore(path)) as desk:
        assert await desk.ids() == [1, 2]


def _close_all(store: SQLiteStore) -> None:
    """What the interpreter does at its end with connections that nobody closed."""
    desk = store._desk
    assert desk is not None
    thread = desk._thread
    assert thread is not None
    found = weakref.ref(thread._conn)
    desk.file._db = thread._connection = None
    gc.collect()
    assert found() is None


def tried_by_another(path: Path) -> bytes:
    """What another process says that tries to open the journal."""
    command = [sys.executable, "-c", dedent(PROCESS), str(path)]
    return subprocess.run(command, capture_output=True, check=False, timeout=20).stderr


def _refused(desk: Desk) -> int:
    """0 if no verb of a child does anything; driven by hand, its event loop being its parent's."""
    verbs = [
        desk.write(Add(row(9))),
        desk.claim(),
        desk.renew(),
        anext(desk.store.scan()),
    ]
    for verb in verbs:
        with pytest.raises(JournalError, match="fork"):
            verb.__await__().send(None)
    return 0


# -- by the back door


async def test_who_lost_the_journal_writes_nothing(path: Path) -> None:
    """The side file was removed and another came in: the epoch says so, to every write."""
    first = SQLiteStore(path)
    opening = first.open(Owner(7_000_001, 1, "first", NOW), now=NOW, until=NOW + LEASE)
    opened = await opening.__aenter__()
    desk = Desk(first, Owner(7_000_001, 1, "first", NOW), opened, NOW)
    await desk.write(Add(row(1)))
    remove(f"{path}-lock")
    async with opened_desk(SQLiteStore(path)) as second:
        for _ in range(2):
            with pytest.raises(JournalError, match=f"process {second.owner.pid} on host"):
                await desk.write(Add(row(2)))
            with pytest.raises(JournalError, match="belongs to"):
                await desk.write(Note("n", "v"))
            with pytest.raises(JournalError, match="belongs to"):
                await desk.renew()
        await second.write(Add(row(3)))
        assert await second.ids() == [1, 3]
        with pytest.raises(JournalError, match="belongs to"):
            await opening.__aexit__(None, None, None)
        await second.write(Add(row(4)))
    async with opened_desk(SQLiteStore(path)) as third:
        assert third.opened.clean
        assert third.opened.notes == {}
        assert await third.ids() == [1, 3, 4]


@pytest.mark.parametrize("name", ["", "-wal"])
async def test_a_file_that_is_gone_is_an_error_at_the_call(
    path: Path, tmp_path: Path, name: str
) -> None:
    """Writes to it would succeed for ever. When it is back in its place, all is well."""
    file = f"{path}{name}"
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1)))
        os.rename(file, tmp_path / "elsewhere")
        for _ in range(2):
            with pytest.raises(JournalError, match="is gone"):
                await desk.write(Add(row(2)))
            with pytest.raises(JournalError, match="is gone"):
                await desk.claim()
            with pytest.raises(JournalError, match="is gone"):
                await desk.renew()
            with pytest.raises(JournalError, match="is gone"):
                await desk.rows()
        assert not there(file)
        os.rename(tmp_path / "elsewhere", file)
        await desk.write(Add(row(3)))
        assert await desk.ids() == [1, 3]
    async with opened_desk(SQLiteStore(path)) as desk:
        assert desk.opened.clean
        assert await desk.ids() == [1, 3]


async def test_another_file_of_that_name_is_an_error_at_the_call(
    path: Path, tmp_path: Path
) -> None:
    """A copy, a restored backup: what is written would be in neither."""
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1)))
        copy(path, tmp_path / "copy")
        os.rename(path, tmp_path / "original")
        replace(path, tmp_path / "copy")
        before = os.stat(path)
        with pytest.raises(JournalError, match="has been replaced"):
            await desk.write(Add(row(2)))
        assert os.stat(path).st_mtime_ns == before.st_mtime_ns
        os.rename(tmp_path / "original", path)
        await desk.write(Add(row(3)))
        assert await desk.ids() == [1, 3]


async def test_an_end_without_the_file_is_an_error(path: Path) -> None:
    """What was acknowledged is no longer there, and somebody should know."""
    opening = SQLiteStore(path).open(Owner(1, 1, "host", NOW), now=NOW, until=NOW + LEASE)
    await opening.__aenter__()
    remove(path)
    with pytest.raises(JournalError, match="is gone"):
        await opening.__aexit__(None, None, None)
    with pytest.raises(JournalError, match="remove the -wal to begin anew"):
        await leave(SQLiteStore(path), Add(row(1)))
    assert not there(str(path))
    remove(f"{path}-wal")
    await leave(SQLiteStore(path), Add(row(1)))


async def test_an_end_leaves_the_wal_of_another_file_alone(path: Path, tmp_path: Path) -> None:
    """Of a database that was put in the place of the journal."""
    opening = SQLiteStore(path).open(Owner(1, 1, "host", NOW), now=NOW, until=NOW + LEASE)
    await opening.__aenter__()
    for name in ("", "-wal", "-shm"):
        os.rename(f"{path}{name}", f"{path}{name}.moved")
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = wal")
        db.execute("CREATE TABLE users (id)")
        db.execute("INSERT INTO users VALUES (1)")
        with pytest.raises(JournalError, match="has been replaced"):
            await opening.__aexit__(None, None, None)
        assert there(f"{path}-wal")
        db.execute("INSERT INTO users VALUES (2)")
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT id FROM users").fetchall() == [(1,), (2,)]


# -- beside the program


async def test_the_program_may_write_beside_us(path: Path) -> None:
    """On a connection of its own, in the same process or in another."""
    store = SQLiteStore(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE users (id INTEGER PRIMARY KEY)")
        async with opened_desk(store) as desk:
            for id in range(1, 51):
                db.execute("INSERT INTO users VALUES (?)", (id,))
                assert await desk.write(Add(row(id))) == Written()
                assert await desk.write(Set(row(id, state="running"), "scheduled")) == Written()
        assert db.execute("SELECT count(*) FROM users, asyncdefer_jobs").fetchone() == (2500,)
    async with opened_desk(store) as desk:
        assert len(await rows_of(store)) == 50
