"""Whether a connection and the files behind it can be trusted with calls."""

import os
import sqlite3
from contextlib import closing, suppress
from typing import Final

from asyncdefer.errors import JournalError
from asyncdefer.stores import _lock, _schema
from asyncdefer.stores._base import Owner
from asyncdefer.stores._faults import BUSY_WAIT, damaged
from asyncdefer.stores._room import AUTOCHECKPOINT, length

FULL: Final = 2
"""PRAGMA synchronous."""

_PART: Final = 1 << 20  # bytes at once

_PRAGMAS: Final[dict[str, int]] = {
    "fullfsync": 1,  # macOS has an fsync that is none
    "checkpoint_fullfsync": 1,
    "wal_autocheckpoint": AUTOCHECKPOINT,
    "journal_size_limit": 32 << 20,
    "cache_size": -16_000,  # KiB
    "temp_store": 2,  # no files but ours
    "mmap_size": 0,  # a truncated file is an error, not a SIGBUS
    "foreign_keys": 0,
    "trusted_schema": 0,
    "cell_size_check": 1,
}


def prepare(db: sqlite3.Connection, path: str, synchronous: int) -> None:
    """Settings, read back: one that does not stick would break a promise."""
    (mode,) = db.execute("PRAGMA journal_mode = wal").fetchone()
    if mode != "wal":
        raise JournalError(
            f"{path} cannot be used in WAL mode (it is {mode!r}): "
            "a journal needs a file on a local disk, not on a network file system"
        )
    for name, value in {**_PRAGMAS, "synchronous": synchronous}.items():
        db.execute(f"PRAGMA {name} = {value}")
        found = db.execute(f"PRAGMA {name}").fetchone()
        if found != (value,) and (found is not None or value):
            raise JournalError(
                f"this build of SQLite ({sqlite3.sqlite_version}) does not take "
                f"PRAGMA {name} = {value}: it stays {found}; the journal needs one that does"
            )


def write_again(path: str) -> None:
    """Have the system write what is in the -wal once more, with the next sync.

    If a sync of a former owner's failed, that is read from memory and was never written; what comes
    behind it in the -wal would be lost with it. For who may write: then nobody else changes the
    -wal. To move it into the file instead would not do: after a power cut what there is of such a
    -wal would go over newer pages. On a disk that refuses, it is built upon as it is.
    """
    if not hasattr(os, "pwrite"):  # Windows
        return
    with suppress(OSError):
        log, at = os.open(f"{path}-wal", os.O_RDWR), 0
        try:
            while part := os.pread(log, _PART, at):
                os.pwrite(log, part, at)
                at += len(part)
        finally:
            os.close(log)


def check_start(path: str) -> None:
    """There is no journal of which only the -wal is left: SQLite would remove that."""
    if not _lock.size(path) and _lock.size(f"{path}-wal"):
        raise JournalError(
            f"the journal {path} is damaged: it is gone or empty, and calls are left in "
            f"{path}-wal. Put the file back in its place, or remove the -wal to begin anew"
        )


def check_length(db: sqlite3.Connection, path: str) -> None:
    """A file that ends before its last page was cut off; the -wal may have the pages yet."""
    wanted = length(db)
    there = _lock.size(path) + _lock.size(f"{path}-wal")
    if there < wanted:
        raise damaged(path, f"it has {there} bytes of {wanted}")


def check_owner(db: sqlite3.Connection, path: str, owner: Owner, schema: int | None) -> int:
    """Nobody came in by another door, and nobody has changed our tables.

    `schema`: SQLite's count of the changes of the schema when the tables were last looked at, None
    if never. What it is now.
    """
    row = db.execute("SELECT +value FROM asyncdefer_meta WHERE name = 'epoch'").fetchone()
    if row != (owner.number,):
        other = _lock.read_owner(path)
        name = "somebody else" if other is None else f"process {other.pid} on {other.host}"
        raise JournalError(
            f"the journal {path} belongs to {name} now (was {path}-lock removed?): "
            "nothing is written any more; stop one of the two"
        )
    now: int = db.execute("PRAGMA schema_version").fetchone()[0]
    if now != schema:
        _schema.check(db, path)
    return now


def quick_check(db: sqlite3.Connection, path: str) -> None:
    for table in _schema.TABLES:
        (result,) = db.execute(f"PRAGMA quick_check({table})").fetchone()
        if result != "ok":
            raise damaged(path, f"{table}: {result}")


def check_files(db: sqlite3.Connection, path: str, identity: _lock.Identity) -> None:
    """The files are ours, and nobody has cut them off."""
    found = identity.check()
    if found is None:
        return
    shorter, log_shorter = found
    if shorter:  # by a VACUUM, perhaps; what SQLite has in its cache is no witness
        check_start(path)
        with closing(_lock.connect(path, timeout=BUSY_WAIT)) as witness:
            _schema.check(witness, path)
            quick_check(witness, path)
    if log_shorter:
        try:
            _, frames, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            (each,) = db.execute("PRAGMA page_size").fetchone()
        except sqlite3.Error as error:
            raise damaged(path, f"its -wal was cut off ({error})") from error
        if frames > moved and frames * each > _lock.size(f"{path}-wal"):
            raise damaged(path, "its -wal was cut off")
    identity.accept()
