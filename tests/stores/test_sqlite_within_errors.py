"""What cannot be written in a caller's transaction, and what of the caller's stays as it was."""

import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any

import aiosqlite
import pytest

from asyncdefer.errors import JournalError, JournalFull
from asyncdefer.stores import _group, _within
from asyncdefer.stores._base import Add, Busy, Note, Set, Written
from asyncdefer.stores.memory import MemoryStore
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import Desk, opened_desk, row
from tests.stores.program import KINDS, Program, program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def desk(path: Path) -> AsyncIterator[Desk]:
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1, "k")))
        yield desk


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def beside(kind: str, desk: Desk, path: Path) -> AsyncIterator[Program]:
    async with program(desk, kind, path) as beside:
        await beside.run("CREATE TABLE users (name)")
        yield beside


@asynccontextmanager
async def unharmed(beside: Program) -> AsyncIterator[None]:
    """A transaction in which something fails: it goes on as it was, and is committed."""
    await beside.run("BEGIN IMMEDIATE")
    await beside.run("INSERT INTO users VALUES ('before')")
    await beside.run("SAVEPOINT mine")
    assert await beside.write(Add(row(2))) == Written()
    yield
    await beside.run("INSERT INTO users VALUES ('after')")
    assert await beside.write(Add(row(3))) == Written()
    await beside.run("RELEASE mine")
    await beside.run("COMMIT")
    assert [user[0] for user in await beside.run("SELECT name FROM users")] == ["before", "after"]
    assert await beside.desk.ids() == [1, 2, 3]


# -- connections that will not do


@pytest.mark.parametrize("thing", [object(), "journal.db", 7, aiosqlite], ids=repr)
async def test_another_thing_is_no_connection(desk: Desk, thing: object) -> None:
    """A `TypeError` that names the kinds."""
    with pytest.raises(TypeError, match=r"aiosqlite\.Connection or a sqlite3\.Connection"):
        await desk.store.write(desk.owner, [(Add(row(2)),)], within=thing)
    assert await desk.ids() == [1]


async def test_a_connection_of_aiosqlite_has_to_be_awaited(desk: Desk, path: Path) -> None:
    """The plain call does not take it."""
    assert isinstance(desk.store, SQLiteStore)
    async with program(desk, "aiosqlite", path) as beside:
        with pytest.raises(TypeError, match="within"):
            desk.store.write_within(desk.owner, [], beside.connection)


async def test_a_memory_store_has_no_transactions(tmp_path: Path) -> None:
    """It says what has."""
    async with (
        opened_desk(MemoryStore()) as desk,
        program(desk, "sqlite3", tmp_path / "other.db") as beside,
    ):
        with pytest.raises(JournalError, match="journal in SQLite"):
            await beside.write(Add(row(1)))


async def test_a_closed_connection(beside: Program) -> None:
    """A `ValueError`; and no transaction is open on it."""
    await beside.close()
    with pytest.raises(ValueError, match="closed"):
        await beside.write(Add(row(2)))
    assert not _within.lend(beside.connection).is_open()


async def test_a_connection_that_was_never_opened(desk: Desk, path: Path) -> None:
    """One of aiosqlite begins to be one when it is awaited."""
    connection = aiosqlite.connect(path)
    with pytest.raises(ValueError, match="awaited"):
        await desk.store.write(desk.owner, [(Add(row(2)),)], within=connection)
    assert not _within.lend(connection).is_open()


async def test_a_connection_of_another_thread(desk: Desk, path: Path) -> None:
    """As sqlite3 says; it is told in time."""
    made: list[sqlite3.Connection] = []
    thread = threading.Thread(
        target=lambda: made.append(sqlite3.connect(path, isolation_level=None))
    )
    thread.start()
    thread.join()
    with pytest.raises(ValueError, match="thread"):
        await desk.store.write(desk.owner, [(Add(row(2)),)], within=made[0])
    del made[:]


async def test_no_transaction(beside: Program, desk: Desk) -> None:
    """It is not made up: without one, the rows would come at once."""
    with pytest.raises(ValueError, match="BEGIN IMMEDIATE"):
        await beside.write(Add(row(2)))
    assert not _within.lend(beside.connection).is_open()
    assert await desk.ids() == [1]


@pytest.mark.parametrize("name", [":memory:", "other.db", ""])
async def test_another_file(desk: Desk, tmp_path: Path, kind: str, name: str) -> None:
    """In memory, or another journal even, or with the journal attached."""
    other = str(tmp_path / name) if name == "other.db" else name
    if name == "other.db":
        async with opened_desk(SQLiteStore(other)):
            pass
    async with program(desk, kind, other) as beside:
        await beside.run("ATTACH ? AS journal", (str(tmp_path / "journal.db"),))
        await beside.run("BEGIN IMMEDIATE")
        with pytest.raises(ValueError, match=r"journal\.db.*very file"):
            await beside.write(Add(row(2)))
        assert _within.lend(beside.connection).is_open()
        await beside.run("COMMIT")
    assert await desk.ids() == [1]


async def test_names_of_the_file(desk: Desk, path: Path, kind: str, tmp_path: Path) -> None:
    """A symbolic link is the file; a hard link is none, since it has another -wal."""
    soft, hard = tmp_path / "soft.db", tmp_path / "hard.db"
    soft.symlink_to(path)
    hard.hardlink_to(path)
    async with program(desk, kind, soft) as beside:
        await beside.run("BEGIN IMMEDIATE")
        await beside.write(Add(row(2)))
        await beside.run("COMMIT")
    async with program(desk, kind, f"file:{hard}?mode=ro", uri=True) as beside:
        await beside.run("BEGIN")
        with pytest.raises(ValueError, match="own name"):
            await beside.write(Add(row(3)))
    assert await desk.ids() == [1, 2]


@pytest.mark.parametrize("replaced", [False, True])
async def test_a_file_that_was_moved(desk: Desk, path: Path, kind: str, replaced: bool) -> None:
    """Under its name there is nothing or another file; what is written would not be found."""
    async with program(desk, kind, path) as beside:
        await beside.run("BEGIN IMMEDIATE")
        _rename(path, path.with_name("moved.db"))
        if replaced:
            copyfile(path.with_name("moved.db"), path)
        with pytest.raises(ValueError, match="very file"):
            await beside.write(Add(row(2)))
        _rename(path.with_name("moved.db"), path)
        assert await beside.write(Add(row(2))) == Written()
        await beside.run("COMMIT")
    assert await desk.ids() == [1, 2]


def _rename(old: Path, new: Path) -> None:
    old.rename(new)


@pytest.mark.parametrize("how", ["mode=ro", "query_only"])
async def test_a_connection_that_only_reads(desk: Desk, path: Path, kind: str, how: str) -> None:
    """The error says what to change."""
    name = f"file:{path}?mode=ro" if how == "mode=ro" else f"file:{path}"
    async with program(desk, kind, name, uri=True) as beside:
        await beside.run("BEGIN")
        if how == "query_only":
            await beside.run("PRAGMA query_only = 1")
        with pytest.raises(JournalError, match="query_only = 0"):
            await beside.write(Add(row(2)))
        assert _within.lend(beside.connection).is_open()
        if how == "query_only":
            assert await beside.run("PRAGMA query_only") == [(1,)]
            await beside.run("PRAGMA query_only = 0")
            await beside.write(Add(row(2)))
            await beside.run("COMMIT")
            assert await desk.ids() == [1, 2]


# -- transactions that will not do


async def test_a_transaction_that_is_behind(beside: Program, desk: Desk) -> None:
    """Begun without IMMEDIATE, it has read before somebody else wrote; it goes on reading."""
    await beside.run("INSERT INTO users VALUES ('ann')")
    await beside.run("BEGIN")
    assert await beside.run("SELECT count(*) FROM users") == [(1,)]
    await desk.write(Add(row(2, "k")))
    for changes in [], [Add(row(3))]:
        with pytest.raises(Busy, match="BEGIN IMMEDIATE") as caught:
            await beside.write(*changes)
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert await beside.run("SELECT count(*) FROM users") == [(1,)]
    await beside.run("COMMIT")
    assert await desk.ids() == [2]


async def test_a_transaction_while_another_writes(beside: Program, desk: Desk, path: Path) -> None:
    """The same; and once the other has ended, it may be written."""
    async with program(desk, "sqlite3", path) as other:
        await other.run("BEGIN IMMEDIATE")
        await beside.run("BEGIN")
        with pytest.raises(Busy, match="BEGIN IMMEDIATE"):
            await beside.write(Add(row(2)))
        await other.run("ROLLBACK")
        assert await beside.write(Add(row(2))) == Written()
        await beside.run("COMMIT")
    assert await desk.ids() == [1, 2]


async def test_a_journal_that_was_taken_over(beside: Program, desk: Desk) -> None:
    """By another process: nothing is written for the owner before."""
    async with unharmed(beside):
        await beside.run("SAVEPOINT other")
        await beside.run("UPDATE asyncdefer_meta SET value = -1 WHERE name = 'epoch'")
        with pytest.raises(JournalError, match="belongs to"):
            await beside.write(Add(row(4)))
        await beside.run("ROLLBACK TO other")


async def test_an_owner_that_has_closed(beside: Program, desk: Desk) -> None:
    """Its transactions are over as well."""
    async with opened_desk(MemoryStore()) as other:
        await beside.run("BEGIN IMMEDIATE")
        with pytest.raises(JournalError, match="open it first"):
            await desk.store.write(other.owner, [], within=beside.connection)
        await beside.run("ROLLBACK")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ("CREATE TRIGGER t AFTER INSERT ON asyncdefer_jobs BEGIN SELECT 1; END", "trigger t"),
        ("ALTER TABLE asyncdefer_jobs ADD COLUMN more TEXT", "has been changed"),
        ("DROP INDEX asyncdefer_jobs_key", "missing"),
        ("CREATE TEMP TABLE Asyncdefer_Jobs (id)", "temporary table"),
        (
            "CREATE TEMP VIEW asyncdefer_meta AS SELECT 'epoch' AS name, 1 AS value",
            "temporary view",
        ),
        (
            "CREATE TEMP TRIGGER t AFTER INSERT ON asyncdefer_jobs BEGIN DELETE FROM users; END",
            "temporary trigger",
        ),
    ],
)
async def test_tables_that_are_not_ours(beside: Program, change: str, match: str) -> None:
    """Changed in this very transaction, or hidden by something temporary."""
    async with unharmed(beside):
        await beside.run("SAVEPOINT other")
        await beside.run(change)
        with pytest.raises(JournalError, match=match):
            await beside.write(Add(row(4)))
        await beside.run("ROLLBACK TO other")


async def test_tables_of_the_programs_own(beside: Program, tmp_path: Path) -> None:
    """Made in the same transaction, temporary or attached, under any name but ours."""
    await beside.run("ATTACH ? AS other", (str(tmp_path / "other.db"),))
    await beside.run("CREATE TABLE other.asyncdefer_jobs (id)")
    async with unharmed(beside):
        await beside.run("CREATE TABLE orders (id)")
        await beside.run("CREATE TEMP TABLE basket (id)")
        await beside.run("CREATE TEMP TRIGGER t AFTER INSERT ON basket BEGIN SELECT 1; END")
        await beside.write(Note("n", "v"))
    assert await beside.run("SELECT * FROM other.asyncdefer_jobs") == []


async def test_a_statement_that_has_not_ended(desk: Desk, path: Path) -> None:
    """No savepoint can be made while one with RETURNING is half read; it is told what to do."""
    async with program(desk, "sqlite3", path) as beside:
        await beside.run("CREATE TABLE users (name)")
        async with unharmed(beside):
            await beside.run("SAVEPOINT other")
            values = "VALUES ('a'), ('b'), ('c')"
            half = beside.connection.execute(f"INSERT INTO users {values} RETURNING name")
            with pytest.raises(ValueError, match="RETURNING"):
                await beside.write(Add(row(4)))
            assert half.fetchall() == [("a",), ("b",), ("c",)]
            await beside.run("ROLLBACK TO other")


# -- changes that fail


@pytest.mark.parametrize(
    "changes",
    [
        [Add(row(4, body="\ud800"))],
        [Add(row(1 << 63))],
        [Add(row(4, "k")), Add(row(5, "k", body=None))],  # type: ignore[arg-type]
        ["Add"],
        [Add(row(4)), None],
    ],
    ids=range(5),
)
async def test_what_cannot_be_kept(beside: Program, changes: list[Any]) -> None:
    """None of the command is written, and no other is harmed."""
    async with unharmed(beside):
        with pytest.raises(JournalError, match=r"no journal can keep|could not be"):
            await beside.write(*changes)


@pytest.mark.parametrize("where", ["write", "write_surely"])
@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE])
async def test_a_failure_in_the_middle(
    beside: Program, monkeypatch: pytest.MonkeyPatch, where: str, code: int
) -> None:
    """Half of the rows are written, and they go; the transaction stays."""
    write = getattr(_group, where)

    def fail(db: Any, changes: Any) -> Any:
        write(db, changes)
        raise _error(code)

    async with unharmed(beside):
        with monkeypatch.context() as patch:
            patch.setattr(_group, where, fail)
            with pytest.raises(JournalError) as caught:
                # The older row of the key is there: the short way gives up.
                await beside.write(Add(row(4, "k")), Add(row(1, "k")), Set(row(7), "held"))
        assert isinstance(caught.value, JournalFull) == (code == sqlite3.SQLITE_FULL)
        assert "rolled back" not in str(caught.value)
        assert await beside.run("SELECT last_insert_rowid()") == [(1,)]  # that of 'before'


async def test_a_failure_that_takes_the_transaction(
    beside: Program, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk SQLite may roll back all of it; then the error says so."""

    def fail(db: Any, changes: Any) -> Any:
        db.execute("ROLLBACK")
        raise _error(sqlite3.SQLITE_FULL)

    await beside.run("BEGIN IMMEDIATE")
    await beside.run("INSERT INTO users VALUES ('ann')")
    with monkeypatch.context() as patch:
        patch.setattr(_group, "write", fail)
        with pytest.raises(JournalFull, match="rolled back: begin it anew"):
            await beside.write(Add(row(2)))
    assert not _within.lend(beside.connection).is_open()
    assert await beside.run("SELECT * FROM users") == []
    assert await desk.ids() == [1]


async def test_a_file_that_may_not_grow(beside: Program) -> None:
    """A true SQLITE_FULL: after it the transaction goes on, and there may be room again."""
    async with unharmed(beside):
        (pages,) = (await beside.run("PRAGMA page_count"))[0]
        await beside.run(f"PRAGMA max_page_count = {pages + 3}")
        for _ in range(2):
            with pytest.raises(JournalFull) as caught:
                await beside.write(
                    *[Add(row(id, f"k:{id}", body="x" * 900)) for id in range(4, 99)]
                )
            assert "rolled back" not in str(caught.value)
        await beside.run("PRAGMA max_page_count = 100000")


async def test_an_interrupt_takes_the_transaction(desk: Desk, path: Path) -> None:
    """So does `interrupt()`, or a progress handler that says stop."""
    async with program(desk, "sqlite3", path) as beside:
        await beside.run("BEGIN IMMEDIATE")
        beside.connection.set_progress_handler(lambda: 1, 200)
        with pytest.raises(JournalError, match="rolled back"):
            await beside.write(*[Add(row(id)) for id in range(10, 500)])
        beside.connection.set_progress_handler(None, 0)
        assert not beside.connection.in_transaction
    assert await desk.ids() == [1]


def _error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("as told")
    error.sqlite_errorcode = code
    return error
