"""Transactions that the library begins and ends itself, on a connection of the caller's."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from asyncdefer.errors import JournalError, JournalFull
from asyncdefer.stores import _lent, _within
from asyncdefer.stores._base import Add, Busy, Unknown
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
async def beside(request: pytest.FixtureRequest, desk: Desk, path: Path) -> AsyncIterator[Program]:
    async with program(desk, request.param, path) as beside:
        yield beside


def _error(code: int) -> sqlite3.OperationalError:
    error = sqlite3.OperationalError("as told")
    error.sqlite_errorcode = code
    return error


async def _done(answer: Any) -> Any:
    """Of either kind of connection."""
    return await answer if hasattr(answer, "__await__") else answer


async def test_begin_and_its_ends(beside: Program, desk: Desk) -> None:
    """For the part of the library that begins transactions itself."""
    lent = _within.lend(beside.connection)
    for end in (lent.commit, lent.roll_back):
        assert not lent.is_open()
        await _done(lent.begin())
        assert lent.is_open()
        with pytest.raises(ValueError, match="already"):
            await _done(lent.begin())
        await beside.write(Add(row(2 if end == lent.commit else 3)))
        await _done(end())
    assert not lent.is_open()
    with pytest.raises(ValueError, match="none to commit"):
        await _done(lent.commit())
    await _done(lent.roll_back())
    assert await desk.ids() == [1, 2]


async def test_begin_while_another_writes(beside: Program, desk: Desk, path: Path) -> None:
    """It waits as long as the connection does, and says so."""
    async with program(desk, "sqlite3", path) as other:
        await other.run("BEGIN IMMEDIATE")
        with pytest.raises(Busy, match="timeout"):
            await _done(_within.lend(beside.connection).begin())
    assert not _within.lend(beside.connection).is_open()


async def test_a_commit_that_fails(beside: Program, desk: Desk) -> None:
    """By a constraint of the program's: that error is its own, and the transaction is open."""
    lent = _within.lend(beside.connection)
    await beside.run("PRAGMA foreign_keys = 1")
    await beside.run("CREATE TABLE a (id INTEGER PRIMARY KEY)")
    await beside.run("CREATE TABLE b (a REFERENCES a (id) DEFERRABLE INITIALLY DEFERRED)")
    await _done(lent.begin())
    await beside.write(Add(row(2)))
    await beside.run("INSERT INTO b VALUES (7)")
    with pytest.raises(sqlite3.IntegrityError):
        await _done(lent.commit())
    assert lent.is_open()
    await beside.run("INSERT INTO a VALUES (7)")
    await _done(lent.commit())
    assert await desk.ids() == [1, 2]


@pytest.mark.parametrize(
    ("code", "kind_of_error"),
    [(sqlite3.SQLITE_FULL, JournalFull), (sqlite3.SQLITE_IOERR_FSYNC, Unknown)],
)
async def test_a_commit_that_is_lost(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind_of_error: Any
) -> None:
    """Without room it has not happened; after another error that is not known."""
    execute = _lent._Plain.execute

    def fail(self: Any, sql: str, parameters: Any = ()) -> Any:
        if sql == "COMMIT":
            execute(self, "ROLLBACK")
            raise _error(code)
        return execute(self, sql, parameters)

    async with program(desk, "sqlite3", path) as beside:
        lent = _lent.Lent(beside.connection)
        lent.begin()
        with monkeypatch.context() as patch:
            patch.setattr(_lent._Plain, "execute", fail)
            with pytest.raises(JournalError) as caught:
                lent.commit()
        assert type(caught.value) is kind_of_error
        assert not lent.is_open()


async def test_prepare_leaves_checkpoints_to_the_store(beside: Program) -> None:
    """The connection makes none any more."""
    assert await beside.run("PRAGMA wal_autocheckpoint") == [(1000,)]
    await _done(_within.lend(beside.connection).prepare())
    assert await beside.run("PRAGMA wal_autocheckpoint") == [(0,)]


@pytest.mark.parametrize(
    ("version", "has"),
    [
        ((3, 37, 0), True), ((3, 44, 5), True), ((3, 44, 6), False), ((3, 45, 0), True),
        ((3, 50, 6), True), ((3, 50, 7), False), ((3, 51, 2), True), ((3, 51, 3), False),
        ((3, 53, 0), False), ((4, 0, 0), False),
    ],
)  # fmt: skip
def test_which_versions_have_the_bug(version: tuple[int, int, int], has: bool) -> None:
    """Those before 3.51.3, but for the last of two older series."""
    assert _within.has_wal_reset_bug(version) == has


async def test_a_closed_connection_begins_nothing(beside: Program) -> None:
    """Nor does it end anything, and it says why."""
    lent = _within.lend(beside.connection)
    await beside.close()
    for step in (lent.prepare, lent.begin, lent.commit, lent.roll_back):
        with pytest.raises(ValueError, match=r"closed"):
            await _done(step())
    assert not lent.is_open()


async def test_a_commit_with_a_statement_that_writes(desk: Desk, path: Path) -> None:
    """Half read, it keeps the transaction open; afterwards it can be committed."""
    async with program(desk, "sqlite3", path) as beside:
        await beside.run("CREATE TABLE users (name)")
        lent = _lent.Lent(beside.connection)
        lent.begin()
        await beside.write(Add(row(2)))
        half = beside.connection.execute("INSERT INTO users VALUES (1), (2) RETURNING name")
        with pytest.raises(Busy, match="open still"):
            lent.commit()
        assert half.fetchall() == [(1,), (2,)]
        lent.commit()
    assert await desk.ids() == [1, 2]
