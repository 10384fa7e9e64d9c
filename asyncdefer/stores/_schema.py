"""The tables of the journal in SQLite, and whether what is found there is them.

The file may be the program's own database. Its tables are its own and are never touched; ours
begin with `asyncdefer_`, and nobody else may hang a trigger, a view or an index on them: it would
run with our rights, or change what our statements cost. A journal of an older version is brought
up to date in one transaction, after a copy was put beside it.
"""

import os
import re
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from asyncdefer.errors import JournalError
from asyncdefer.stores import _lock

VERSION: Final = 1

Step = Callable[[sqlite3.Connection], object]
STEPS: Mapping[int, Step] = {}
"""How a journal of a version becomes one of the next, inside a transaction that is open.

A step makes a changed table anew and copies the rows: ALTER TABLE leaves another definition than
a new journal has. It must not end the transaction.
"""

# The index of waiting rows is the hot one, and has nothing in it but the eta (and the id, which
# every index has): with the state before it, as one index for all rows, an insert costs a quarter
# more. All other rows are listed, and the running ones found, by the second.
TABLES: Final = {
    "asyncdefer_meta": """
        CREATE TABLE asyncdefer_meta (name TEXT NOT NULL PRIMARY KEY, value ANY) STRICT
    """,
    "asyncdefer_notes": """
        CREATE TABLE asyncdefer_notes (name TEXT NOT NULL PRIMARY KEY, value TEXT NOT NULL) STRICT
    """,
    "asyncdefer_jobs": """
        CREATE TABLE asyncdefer_jobs (
            id INTEGER PRIMARY KEY,
            task TEXT NOT NULL,
            key TEXT,
            state TEXT NOT NULL,
            at INTEGER NOT NULL,
            until INTEGER,
            pinned INTEGER NOT NULL,
            arguments TEXT NOT NULL,
            body TEXT NOT NULL
        ) STRICT
    """,
}
INDEXES: Final = {
    "asyncdefer_jobs_key": """
        CREATE UNIQUE INDEX asyncdefer_jobs_key ON asyncdefer_jobs (task, key)
        WHERE state = 'scheduled' AND key IS NOT NULL
    """,
    "asyncdefer_jobs_waiting": """
        CREATE INDEX asyncdefer_jobs_waiting ON asyncdefer_jobs (at)
        WHERE state = 'scheduled'
    """,
    "asyncdefer_jobs_pinned": """
        CREATE INDEX asyncdefer_jobs_pinned ON asyncdefer_jobs (at)
        WHERE state = 'scheduled' AND pinned = 1
    """,
    "asyncdefer_jobs_other": """
        CREATE INDEX asyncdefer_jobs_other ON asyncdefer_jobs (state, at)
        WHERE state <> 'scheduled'
    """,
    "asyncdefer_jobs_until": """
        CREATE INDEX asyncdefer_jobs_until ON asyncdefer_jobs (until)
        WHERE until IS NOT NULL
    """,
}
_OURS: Final = {**TABLES, **INDEXES}
_META: Final = {
    "version": VERSION,
    "clean": 1,
    "last_id": 0,
    "held": 0,
    "scheduled": 0,
    "running": 0,
}
_MENTION: Final = re.compile(rf"\b({'|'.join(TABLES)})\b", re.IGNORECASE)


def inspect(db: sqlite3.Connection, path: str) -> int:
    """The version of the journal in the file, 0 if it has none yet, after a look at all of it.

    Reads only. `JournalError` if there is anything of ours that is not as it should be.
    """
    found = {
        name: sql
        for name, sql in db.execute("SELECT name, sql FROM sqlite_schema")
        if name in _OURS
    }
    if not found:
        _refuse_strangers(db, path)
        return 0
    version = _version(db, path, found)
    if version > VERSION:
        raise JournalError(
            f"the journal {path} is of version {version}, and this asyncdefer knows versions "
            f"up to {VERSION}: install the newer asyncdefer that wrote it"
        )
    if version < VERSION:
        if any(number not in STEPS for number in range(version, VERSION)):
            raise JournalError(
                f"the journal {path} is of version {version}, from which no way leads to {VERSION}"
            )
        return version
    check(db, path)
    return version


def check(db: sqlite3.Connection, path: str) -> None:
    """`JournalError` if our tables are not as we made them, or bear what is not ours."""
    found: dict[str, str] = dict(
        db.execute("SELECT +name, +sql FROM sqlite_schema WHERE sql IS NOT NULL")
    )
    for name, sql in _OURS.items():
        if name not in found:
            raise JournalError(f"{name} is missing in the journal {path}. {_RESTORE}")
        if _plain(found[name]) != _plain(sql):
            raise JournalError(
                f"{name} in {path} has been changed: it is defined as {found[name]!r}. {_RESTORE}"
            )
    _refuse_strangers(db, path)


_RESTORE: Final = (
    "asyncdefer keeps its calls only in tables that are as it made them. "
    "Undo the change, or use another file for the journal"
)


def _refuse_strangers(db: sqlite3.Connection, path: str) -> None:
    for kind, name, table, sql in db.execute(_ALL):
        if name in _OURS or sql is None or (kind == "table" and table not in TABLES):
            continue
        if kind != "table" and (table.lower() in TABLES or _MENTION.search(sql)):
            raise JournalError(
                f"the {kind} {name} in {path} hangs on a table of asyncdefer, and is none of its "
                f"own: it could change what is recorded. Remove it (DROP {kind.upper()} {name}), "
                "or use another file for the journal"
            )


_ALL: Final = "SELECT +type, +name, +tbl_name, +sql FROM sqlite_schema"
"""A `+` hides the type of a column from converters that the program has for its own."""


def check_temporary(db: sqlite3.Connection, path: str) -> None:
    """`JournalError` if the connection has something temporary in the place of our tables, or on them."""
    for kind, name, table in db.execute("SELECT +type, +name, +tbl_name FROM sqlite_temp_schema"):
        if table.lower() in TABLES:
            raise JournalError(
                f"the temporary {kind} {name} of this connection stands before a table of "
                f"asyncdefer in {path}, or hangs on it: it could change what is recorded. "
                f"Remove it (DROP {kind.upper()} temp.{name})"
            )


def _version(db: sqlite3.Connection, path: str, found: Mapping[str, str]) -> int:
    version = None
    if "asyncdefer_meta" in found:
        try:
            row = db.execute("SELECT value FROM asyncdefer_meta WHERE name = 'version'").fetchone()
        except sqlite3.OperationalError:
            row = None  # another table of that name
        version = None if row is None else row[0]
    if not isinstance(version, int) or version < 1:
        raise JournalError(
            f"{path} has tables named as those of asyncdefer ({', '.join(found)}) that do not say "
            "their version: use another file for the journal"
        )
    return version


def _plain(sql: str) -> str:
    return re.sub(r'[\s"]+|if not exists', "", sql, flags=re.IGNORECASE).lower()


def make(db: sqlite3.Connection) -> None:
    """The tables, in the open transaction."""
    for sql in _OURS.values():
        db.execute(sql)
    db.executemany("INSERT INTO asyncdefer_meta (name, value) VALUES (?, ?)", list(_META.items()))


def migrate(db: sqlite3.Connection, path: str, version: int) -> None:
    """Bring an older journal up to date, with a copy of the file as it was beside it.

    The copy is made by SQLite: a copy of the file alone would lack what is in the -wal.
    """
    copy = _free_name(f"{path}-backup-v{version}")
    _lock.create(copy)
    try:
        db.execute("VACUUM INTO ?", (copy,))
        _sync(copy)
    except BaseException:
        with suppress(OSError):
            os.unlink(copy)
        raise
    db.execute("BEGIN IMMEDIATE")
    try:
        for number in range(version, VERSION):
            STEPS[number](db)
        db.execute("UPDATE asyncdefer_meta SET value = ? WHERE name = 'version'", (VERSION,))
        check(db, path)
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def _free_name(name: str) -> str:
    number, free = 1, name
    while os.path.lexists(free):
        number += 1
        free = f"{name}-{number}"
    return free


def _sync(path: str) -> None:
    file = os.open(path, os.O_RDWR)
    try:
        os.fsync(file)
    finally:
        os.close(file)
    _lock.sync_folder(path)
