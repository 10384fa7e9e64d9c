"""What a program has set on its connection changes nothing of what we write, and stays as it was."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncdefer.errors import JournalError
from asyncdefer.stores._base import Add, Drop, Set, Written
from asyncdefer.stores._lent import Lent
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import Desk, opened_desk, row
from tests.stores.program import KINDS, Program, program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def desk(path: Path) -> AsyncIterator[Desk]:
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1, "k")), Add(row(2, "r", "running")), Add(row(3)))
        yield desk


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


async def _write_in_every_way(beside: Program) -> None:
    """By the short way and the sure one; with what they read of the rows."""
    assert await beside.write(Add(row(10, "k"))) == Written((), (1,))
    gone = Set(row(2, "r"), "running"), Drop(99, "scheduled"), Add(row(3)), Add(row(9, "k"))
    assert await beside.write(*gone) == Written((99, 3), (9,))


async def _check(desk: Desk) -> None:
    assert await desk.rows() == [row(2, "r"), row(3), row(10, "k")]


def _dict(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> dict[str, Any]:
    return dict(zip([column[0] for column in cursor.description], values, strict=True))


@pytest.mark.parametrize("rows", [sqlite3.Row, _dict, lambda *_: 1 / 0], ids=str)
@pytest.mark.parametrize("texts", [bytes, lambda text: text.decode().upper()], ids=str)
async def test_factories(desk: Desk, path: Path, kind: str, rows: Any, texts: Any) -> None:
    """Of rows and texts."""
    async with program(desk, kind, path) as beside:
        await beside.run("BEGIN IMMEDIATE")
        beside.connection.row_factory, beside.connection.text_factory = rows, texts
        await _write_in_every_way(beside)
        assert beside.connection.row_factory is rows
        assert beside.connection.text_factory is texts
        await beside.write(Drop(10, "held"))
        with pytest.raises(JournalError):
            await beside.write(Add(row(1 << 63)))
        assert beside.connection.row_factory is rows
        assert beside.connection.text_factory is texts
        beside.connection.row_factory = None
        await beside.run("COMMIT")
    await _check(desk)


@pytest.mark.parametrize("level", ["", "DEFERRED", "IMMEDIATE", "EXCLUSIVE", None])
async def test_isolation_levels(desk: Desk, path: Path, kind: str, level: str | None) -> None:
    """Transactions that Python begins by itself, before a statement that writes."""
    async with program(desk, kind, path, isolation_level=level) as beside:
        await beside.run("CREATE TABLE users (name)")
        if level is None:
            await beside.run("BEGIN IMMEDIATE")
        await beside.run("INSERT INTO users VALUES ('ann')")
        await _write_in_every_way(beside)
        assert beside.connection.isolation_level == level
        assert beside.connection.in_transaction
        assert len(await desk.rows()) == 3
        if kind == "sqlite3":
            beside.connection.commit()
        else:
            await beside.connection.commit()
    await _check(desk)


@pytest.mark.skipif(not hasattr(sqlite3.Connection, "autocommit"), reason="since Python 3.12")
@pytest.mark.parametrize("autocommit", [True, False])
async def test_autocommit(desk: Desk, path: Path, autocommit: bool) -> None:
    """Without it, a transaction is always open."""
    async with program(desk, "sqlite3", path, autocommit=autocommit) as beside:
        if autocommit:
            await beside.run("BEGIN IMMEDIATE")
        await _write_in_every_way(beside)
        assert beside.connection.autocommit is autocommit
        if autocommit:
            await beside.run("COMMIT")
        else:
            beside.connection.commit()
    await _check(desk)


async def test_pragmas(desk: Desk, path: Path, kind: str) -> None:
    """All that change how statements are understood or rows are counted."""
    pragmas = {
        "recursive_triggers": 1,
        "foreign_keys": 1,
        "count_changes": 1,
        "reverse_unordered_selects": 1,
        "full_column_names": 1,
        "synchronous": 0,
        "wal_autocheckpoint": 7,
    }
    async with program(desk, kind, path) as beside:
        for name, value in pragmas.items():
            await beside.run(f"PRAGMA {name} = {value}")
        await beside.run("PRAGMA case_sensitive_like = 1")
        await beside.run("BEGIN IMMEDIATE")
        await _write_in_every_way(beside)
        for name, value in pragmas.items():
            assert await beside.run(f"PRAGMA {name}") == [(value,)], name
        await beside.run("COMMIT")
    await _check(desk)


async def test_functions_of_the_programs_own(desk: Desk, path: Path) -> None:
    """Under the names of SQLite's."""
    async with program(desk, "sqlite3", path) as beside:
        for name, count in (("max", 2), ("min", 2), ("lower", 1), ("coalesce", 2)):
            beside.connection.create_function(name, count, lambda *_: -1)
        await beside.run("BEGIN IMMEDIATE")
        await _write_in_every_way(beside)
        await beside.run("COMMIT")
        found = await beside.run("SELECT value FROM asyncdefer_meta WHERE name = 'last_id'")
        assert found == [(10,)]
    await _check(desk)


async def test_converters_of_the_programs_own(
    desk: Desk, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For the types of our columns."""
    for name in ("TEXT", "INTEGER", "INT", "ANY"):
        monkeypatch.setitem(sqlite3.converters, name, lambda _: "converted")
    options = {"detect_types": sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES}
    async with program(desk, "sqlite3", path, **options) as beside:
        await beside.run("BEGIN IMMEDIATE")
        assert await beside.run("SELECT id FROM asyncdefer_jobs WHERE id = 1") == [("converted",)]
        await beside.run("SAVEPOINT other")
        trigger = "CREATE TRIGGER t AFTER INSERT ON asyncdefer_jobs BEGIN SELECT 1; END"
        for stranger in (trigger, "CREATE TEMP TABLE asyncdefer_jobs (id)"):
            await beside.run(stranger)
            with pytest.raises(JournalError, match="DROP"):
                await beside.write(Add(row(4)))
            await beside.run("ROLLBACK TO other")
        await beside.run("CREATE TABLE users (name)")  # so that the schema is looked at as well
        await _write_in_every_way(beside)
        await beside.run("COMMIT")
    await _check(desk)


class Odd(sqlite3.Connection):
    """A class that makes something else of every statement."""

    def execute(self, *args: Any) -> Any:
        raise AssertionError(args)

    executemany = cursor = execute


async def test_a_class_of_the_programs_own(desk: Desk, path: Path) -> None:
    """Its methods are not asked."""
    async with program(desk, "sqlite3", path, factory=Odd) as beside:
        sqlite3.Connection.execute(beside.connection, "BEGIN IMMEDIATE")
        await _write_in_every_way(beside)
        beside.connection.commit()
    await _check(desk)


async def test_the_last_row_of_the_programs_own(desk: Desk, path: Path, kind: str) -> None:
    """`last_insert_rowid()` is that of the caller's insert, whether or not we could write."""
    async with program(desk, kind, path) as beside:
        await beside.run("CREATE TABLE users (name)")
        for number in (0, 1, 2, 77, -5, 1 << 62):
            if number:
                await beside.run("INSERT INTO users (rowid, name) VALUES (?, 'n')", (number,))
            await beside.run("BEGIN IMMEDIATE")
            await beside.write(Add(row(100 + number % 50, "z")))
            assert await beside.run("SELECT last_insert_rowid()") == [(number,)]
            await beside.run("COMMIT")


async def test_the_last_row_of_an_insert_that_failed(desk: Desk, path: Path) -> None:
    """It is the one that the insert got to, and counts as no change."""
    home = desk.store.home(desk.owner)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("CREATE TABLE users (name NOT NULL)")
        lent = Lent(db)
        lent.enter(home)
        lent.add(home, row(100))
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("INSERT INTO users (rowid, name) VALUES (600, 'ann'), (601, NULL)")
        before = db.execute("SELECT last_insert_rowid()").fetchone()
        lent.add(home, row(101))
        assert db.execute("SELECT last_insert_rowid()").fetchone() == before == (600,)
        lent.commit()


async def test_a_statement_of_the_programs_that_reads(desk: Desk, path: Path) -> None:
    """Half read, it goes on; also over one of our own tables, and over a write that fails."""
    async with program(desk, "sqlite3", path) as beside:
        await beside.run("BEGIN IMMEDIATE")
        half = beside.connection.execute("SELECT id FROM asyncdefer_jobs ORDER BY +at, id")
        assert half.fetchone() == (1,)
        await _write_in_every_way(beside)
        assert half.fetchall() == [(2,), (3,)]
        await beside.run("COMMIT")
    await _check(desk)


async def test_a_trace_hears_and_changes_nothing(desk: Desk, path: Path) -> None:
    """What the caller watches is watched to the end."""
    heard: list[str] = []
    async with program(desk, "sqlite3", path) as beside:
        beside.connection.set_trace_callback(heard.append)
        await beside.run("BEGIN IMMEDIATE")
        await _write_in_every_way(beside)
        await beside.run("COMMIT")
    assert any("INSERT INTO asyncdefer_jobs" in sql for sql in heard)
    assert heard[-1] == "COMMIT"
    await _check(desk)
