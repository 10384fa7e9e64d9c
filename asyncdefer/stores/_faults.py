"""What an error of SQLite means: nothing was changed, there is no room, or worth another try."""

import sqlite3
from typing import Final

from asyncdefer.errors import JournalError, JournalFull
from asyncdefer.stores._base import Busy
from asyncdefer.stores._room import no_room

BUSY_WAIT: Final = 1
"""Seconds that a statement waits for the transaction of another connection."""

BUSY_ROUNDS: Final = 60
"""And how often that is done; other steps come in between."""


def told(error: Exception, path: str) -> JournalError:
    """What an error before the COMMIT says: nothing has been changed."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_BUSY:
            return held_by_another(path)
        case sqlite3.SQLITE_FULL:
            return full(path)
        case sqlite3.SQLITE_IOERR if no_room(path):
            return full(path)
        case sqlite3.SQLITE_NOTADB:
            return JournalError(f"{path} is not a SQLite database: name another file")
        case sqlite3.SQLITE_CORRUPT:
            return damaged(path, str(error))
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM:
            return JournalError(
                f"{path} cannot be written ({error}): "
                "the journal needs a file and a folder that this user may write to"
            )
        case None if isinstance(error, OSError):
            return JournalError(f"the files of the journal {path} could not be used: {error}")
        case None:
            return JournalError(f"a change that no journal can keep, so none of them was: {error}")
        case _:
            return JournalError(f"the journal {path} could not be read or written: {error}")


def told_within(error: Exception, path: str) -> JournalError:
    """The same on a connection of the caller's, in a transaction that is open there."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    match None if code is None else code & 0xFF:
        case sqlite3.SQLITE_BUSY:
            return Busy(
                f"another connection writes to {path}, or has written to it since this transaction "
                "began: roll back, and begin the transaction with BEGIN IMMEDIATE"
            )
        case sqlite3.SQLITE_READONLY:
            return JournalError(
                f"this connection may not write to {path} ({error}): use one that is opened for "
                "reading and writing, with PRAGMA query_only = 0"
            )
        case _:
            return told(error, path)


def rolled_back(error: JournalError) -> JournalError:
    """The same, where SQLite has not left the caller's transaction as it was."""
    return type(error)(
        f"{error}. All of the transaction on this connection has been rolled back: begin it anew"
    )


def held_by_another(path: str) -> Busy:
    return Busy(
        f"another connection has held {path} for {BUSY_ROUNDS * BUSY_WAIT} seconds: "
        "end the transaction that is open there (commit or roll back)"
    )


def full(path: str) -> JournalFull:
    return JournalFull(
        f"there is no room for another call in {path}: the disk, a quota or a file size limit is reached"
    )


def damaged(path: str, how: str) -> JournalError:
    return JournalError(
        f"the journal {path} is damaged: {how}. Put a backup in its place, or recover what is in "
        "it with the .recover command of the sqlite3 shell"
    )
