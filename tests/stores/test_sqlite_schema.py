"""The tables of the journal: what is refused about them, and how an older journal comes up to date."""

import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from asyncdefer.errors import JournalError
from asyncdefer.stores import _schema
from asyncdefer.stores._base import Add, Note
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import leave, opened_desk, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def sql(path: Path | str, *statements: str) -> None:
    """What another program does to the file."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA writable_schema = 1")
        for statement in statements:
            db.execute(statement)
        db.commit()


def asked(path: Path | str, question: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as db:
        return db.execute(question).fetchall()


def content(path: Path | str) -> bytes:
    return Path(path).read_bytes()


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


# -- what is refused

STRANGERS = {
    "trigger": "CREATE TRIGGER spy AFTER UPDATE ON asyncdefer_jobs BEGIN SELECT 1; END",
    "trigger on meta": "CREATE TRIGGER spy BEFORE INSERT ON ASYNCDEFER_META BEGIN SELECT 1; END",
    "trigger elsewhere": (
        "CREATE TRIGGER spy AFTER INSERT ON users "
        "BEGIN INSERT INTO asyncdefer_notes VALUES ('n', 'v'); END"
    ),
    "view": "CREATE VIEW spy AS SELECT * FROM users JOIN asyncdefer_jobs",
    "index": "CREATE INDEX spy ON asyncdefer_jobs (task)",
    "index on notes": "CREATE UNIQUE INDEX spy ON asyncdefer_notes (value)",
}
CHANGES = {
    "column": "ALTER TABLE asyncdefer_jobs ADD COLUMN extra TEXT",
    "column of meta": "ALTER TABLE asyncdefer_meta ADD COLUMN extra TEXT",
    "renamed column": "ALTER TABLE asyncdefer_jobs RENAME COLUMN body TO content",
    "no index": "DROP INDEX asyncdefer_jobs_key",
    "no notes": "DROP TABLE asyncdefer_notes",
    "no jobs": "DROP TABLE asyncdefer_jobs",
    "weaker index": (
        "UPDATE sqlite_schema SET sql = replace(sql, 'CREATE UNIQUE', 'CREATE') "
        "WHERE name = 'asyncdefer_jobs_key'"
    ),
    "not strict": (
        "UPDATE sqlite_schema SET sql = replace(sql, 'STRICT', '') WHERE name = 'asyncdefer_jobs'"
    ),
    "no version": "DELETE FROM asyncdefer_meta WHERE name = 'version'",
    "bad version": "UPDATE asyncdefer_meta SET value = 'one' WHERE name = 'version'",
    "version 0": "UPDATE asyncdefer_meta SET value = 0 WHERE name = 'version'",
    "no meta": "DROP TABLE asyncdefer_meta",
}


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
async def test_nobody_hangs_anything_on_our_tables(path: Path, stranger: str) -> None:
    """It would run, or slow down, each of our statements. Once removed, all is well."""
    sql(path, "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    await leave(SQLiteStore(path), Add(row(1)))
    sql(path, stranger)
    before = content(path)
    with pytest.raises(JournalError, match=r"spy .*\(DROP (TRIGGER|VIEW|INDEX) spy\)"):
        await leave(SQLiteStore(path))
    assert content(path) == before
    sql(path, f"DROP {stranger.split()[1].replace('UNIQUE', 'INDEX')} spy")
    async with opened_desk(SQLiteStore(path)) as desk:
        assert await desk.ids() == [1]


@pytest.mark.parametrize("stranger", STRANGERS.values(), ids=STRANGERS)
async def test_nobody_hangs_anything_on_our_tables_later(path: Path, stranger: str) -> None:
    """While the journal is open every write looks, and does nothing until it has gone."""
    sql(path, "CREATE TABLE users (id INTEGER PRIMARY KEY)")
    async with opened_desk(SQLiteStore(path)) as desk:
        sql(path, stranger)
        for _ in range(2):
            with pytest.raises(JournalError, match="spy"):
                await desk.write(Add(row(1)), Note("n", "v"))
        sql(path, f"DROP {stranger.split()[1].replace('UNIQUE', 'INDEX')} spy")
        await desk.write(Add(row(2)))
        assert await desk.ids() == [2]


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_tables_that_were_changed_are_refused(path: Path, change: str) -> None:
    """Nothing is guessed, and nothing is repaired."""
    await leave(SQLiteStore(path), Add(row(1)))
    sql(path, change)
    before = content(path)
    with pytest.raises(JournalError, match="use another file for the journal"):
        await leave(SQLiteStore(path))
    assert content(path) == before


@pytest.mark.parametrize(
    "table",
    [
        "CREATE TABLE asyncdefer_jobs (id INTEGER PRIMARY KEY)",
        "CREATE TABLE asyncdefer_meta (version)",
        "CREATE VIEW asyncdefer_jobs AS SELECT 1",
        "CREATE TABLE asyncdefer_notes (name, value)",
    ],
)
async def test_tables_that_were_never_ours_are_refused(path: Path, table: str) -> None:
    """Somebody has taken our names."""
    sql(path, table)
    before = content(path)
    with pytest.raises(JournalError, match="use another file for the journal"):
        await leave(SQLiteStore(path))
    assert content(path) == before


async def test_white_space_is_no_change(path: Path) -> None:
    """Nor are capitals: dumps and restores write them as they like."""
    await leave(SQLiteStore(path), Add(row(1)))
    again = path.with_name("again.db")
    with closing(sqlite3.connect(path)) as db, closing(sqlite3.connect(again)) as other:
        for line in db.iterdump():
            other.execute(line.replace("CREATE TABLE ", "CREATE TABLE IF NOT EXISTS  "))
        other.commit()
    async with opened_desk(SQLiteStore(again)) as desk:
        assert await desk.ids() == [1]


async def test_a_newer_journal_is_refused(path: Path) -> None:
    """As it is, whatever its tables are."""
    await leave(SQLiteStore(path), Add(row(1)))
    sql(
        path,
        f"UPDATE asyncdefer_meta SET value = {_schema.VERSION + 1} WHERE name = 'version'",
        "DROP TABLE asyncdefer_jobs",
    )
    before = content(path)
    with pytest.raises(JournalError, match=rf"version {_schema.VERSION + 1}.*newer"):
        await leave(SQLiteStore(path))
    assert content(path) == before


# -- an older one

SHOUT = """
    CREATE TABLE asyncdefer_notes_2 (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL, loud INT) STRICT
"""


def to_2(db: sqlite3.Connection) -> None:
    """The notes get louder."""
    db.execute(SHOUT)
    db.execute("INSERT INTO asyncdefer_notes_2 SELECT name, upper(value), 1 FROM asyncdefer_notes")
    db.execute("DROP TABLE asyncdefer_notes")
    db.execute("ALTER TABLE asyncdefer_notes_2 RENAME TO asyncdefer_notes")


def to_3(db: sqlite3.Connection) -> None:
    """And louder."""
    db.execute("UPDATE asyncdefer_notes SET value = value || '!'")


@pytest.fixture
async def newer(path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`newer(step, …)`: a release with so many versions more than that which wrote the journal."""
    sql(path, "CREATE TABLE users (name)", "INSERT INTO users VALUES ('Ada')")
    await leave(SQLiteStore(path), Add(row(1, "k")), Note("n", "v"))

    def newer(*steps: Callable[[sqlite3.Connection], object]) -> None:
        first = _schema.VERSION
        monkeypatch.setattr(_schema, "VERSION", first + len(steps))
        monkeypatch.setattr(_schema, "STEPS", dict(enumerate(steps, first)))
        shout = SHOUT.replace("_2", "")
        for tables in (_schema.TABLES, _schema._OURS):
            monkeypatch.setitem(tables, "asyncdefer_notes", shout)  # type: ignore[arg-type]

    return newer


async def test_an_older_journal_comes_up_to_date(path: Path, newer: Callable[..., None]) -> None:
    """Step by step; nothing is lost, and it happens once."""
    newer(to_2, to_3)
    for _ in range(2):
        async with opened_desk(SQLiteStore(path)) as desk:
            assert desk.opened.notes == {"n": "V!"}
            assert desk.opened.clean
            assert await desk.rows() == [row(1, "k")]
    assert asked(path, "SELECT value FROM asyncdefer_meta WHERE name = 'version'") == [(3,)]
    assert names(path.parent) == [f"journal.db{end}" for end in ("", "-backup-v1", "-lock", "-reserve")]  # fmt: skip


async def test_the_file_as_it_was_is_kept(path: Path, newer: Callable[..., None]) -> None:
    """With the tables of the program and what was in the -wal, for its owner only."""
    with closing(sqlite3.connect(path)) as reader:  # keeps the -wal from being taken up
        reader.execute("SELECT count(*) FROM users").fetchall()
        await leave(SQLiteStore(path), Add(row(2)))
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM users").fetchall()
        newer(to_2)
        await leave(SQLiteStore(path))
    backup = f"{path}-backup-v1"
    assert stat.S_IMODE(os.stat(backup).st_mode) == 0o600
    assert asked(backup, "SELECT value FROM asyncdefer_notes") == [("v",)]
    assert asked(backup, "SELECT id FROM asyncdefer_jobs") == [(1,), (2,)]
    assert asked(backup, "SELECT name FROM users") == [("Ada",)]
    assert asked(backup, "PRAGMA integrity_check") == [("ok",)]


async def test_a_backup_is_never_written_over(path: Path, newer: Callable[..., None]) -> None:
    """Somebody may need it."""
    Path(f"{path}-backup-v1").write_text("precious")  # noqa: ASYNC240 - a few bytes
    newer(to_2)
    await leave(SQLiteStore(path))
    assert content(f"{path}-backup-v1") == b"precious"
    assert asked(f"{path}-backup-v1-2", "SELECT value FROM asyncdefer_notes") == [("v",)]


def fails(db: sqlite3.Connection) -> None:
    db.execute("UPDATE asyncdefer_notes SET nonsense = 1")


def forgets(db: sqlite3.Connection) -> None:
    """The tables do not become those of the new version."""


@pytest.mark.parametrize("bad", [fails, forgets])
async def test_a_step_that_fails_changes_nothing(
    path: Path,
    newer: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    bad: Callable[..., None],
) -> None:
    """The journal is the older one still, which the older program can open."""
    with monkeypatch.context() as patch:
        patch.setattr(_schema, "VERSION", 3)
        patch.setattr(_schema, "STEPS", {1: to_2, 2: bad})
        with pytest.raises(JournalError):
            await leave(SQLiteStore(path))
    async with opened_desk(SQLiteStore(path)) as desk:
        assert desk.opened.notes == {"n": "v"}
    newer(to_2)
    async with opened_desk(SQLiteStore(path)) as desk:
        assert desk.opened.notes == {"n": "V"}


async def test_a_version_without_a_way_is_refused(
    path: Path, newer: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing is copied."""
    newer(to_2, to_3)
    monkeypatch.setattr(_schema, "STEPS", {2: to_3})
    with pytest.raises(JournalError, match="no way leads to 3"):
        await leave(SQLiteStore(path))
    assert not any("backup" in name for name in names(path.parent))
