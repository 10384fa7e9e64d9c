"""Whose journal it is, and whether it is still the same file.

One owner at a time: a side file, `<journal>-lock`, is a SQLite database that the owner holds by
`BEGIN EXCLUSIVE`. The system lets go of it when the owner dies, however it dies; a forked child
does not inherit it, and a second opening in the same process is refused too. No file that SQLite
may have locked is ever opened here by other means: closing such a descriptor would drop every lock
that this process holds on it. The -wal is no such file.

A file that was removed, replaced or cut off takes writes without a complaint, so its identity and
its length are compared.
"""

import os
import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from asyncdefer.errors import JournalError, JournalLocked
from asyncdefer.stores._base import Owner

PRIVATE: Final = 0o600
_NOTHING: Final = (0, 0)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def connect(
    path: str, *, mode: str = "rw", timeout: float = 0, factory: Any = sqlite3.Connection
) -> Any:
    """Open a database that is there: SQLite would make a missing one, readable to all."""
    return sqlite3.connect(
        uri(path, mode),
        uri=True,
        isolation_level=None,
        timeout=timeout,
        factory=factory,
        check_same_thread=False,  # its thread may die: see _leave_behind in sqlite.py
    )


def uri(path: str, mode: str = "rw") -> str:
    return f"file:{quote(os.fsencode(path))}?mode={mode}"


def create(path: str) -> bool:
    """Make an empty file that only its owner reads, if there is none; SQLite's follow its mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, PRIVATE))
    except FileExistsError:
        return False
    except OSError as error:
        raise JournalError(
            f"{path} cannot be made ({error.strerror}): "
            "the journal needs a folder that is there and can be written to"
        ) from error
    return True


def sync_folder(path: str) -> None:
    """Make the names in the folder of a file as durable as what is in the file."""
    with suppress(OSError):  # not every system lets a folder be opened
        folder = os.open(os.path.dirname(path), os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def size(path: str) -> int:
    """How long the file is; 0 if it is not there."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def lock(connection: sqlite3.Connection, journal: str) -> None:
    """Hold the side file by this connection until it is closed, or raise who has it."""
    try:
        connection.execute("PRAGMA journal_mode = memory")  # one file is enough
        connection.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
            raise locked(journal, read_owner(journal)) from None
        raise


def locked(journal: str, owner: Owner | None) -> JournalLocked:
    if owner is None:
        return JournalLocked(
            f"the journal {journal} is open already; who has it does not say. "
            "A journal has one owner at a time: close that queue, or use on_locked='standby'"
        )
    since = _EPOCH + timedelta(microseconds=owner.started)
    return JournalLocked(
        f"the journal {journal} is open already: process {owner.pid} on {owner.host} has it "
        f"since {since:%Y-%m-%d %H:%M:%S} UTC. "
        "A journal has one owner at a time: close that queue, or use on_locked='standby'",
        pid=owner.pid,
        host=owner.host,
        since=since,
    )


def read_owner(journal: str) -> Owner | None:
    """Who has written itself into the journal, as far as that can be read."""
    try:
        with closing(connect(journal, mode="ro", timeout=1)) as db:
            rows = db.execute("SELECT name, value FROM asyncdefer_meta").fetchall()
    except (sqlite3.Error, OSError):
        return None
    meta: dict[str, Any] = dict(rows)
    if meta.get("clean"):
        return None  # the one before; who comes has not written itself in yet
    try:
        return Owner(meta["epoch"], meta["pid"], meta["host"], meta["started"])
    except KeyError:
        return None


class Identity:
    """The journal and its -wal as they were when they were opened, and how long they are."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._wal = path + "-wal"
        self.file = _look(path)[0]
        self._log = _NOTHING
        self._lengths = 0, 0
        self._descriptor: int | None = None
        self._name: str | None = None

    def opened(self) -> None:
        """The -wal is there from now on."""
        self.closed()
        self._log = _look(self._wal)[0]
        with suppress(OSError):  # then it is asked by its name
            self._descriptor = os.open(self._wal, os.O_RDONLY)
            if _which(os.fstat(self._descriptor)) == self._log:
                self._name = self._name_now()
        self.accept()

    def closed(self) -> None:
        """The -wal may go."""
        self._log = _NOTHING
        self._name = None
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def check(self) -> tuple[bool, bool] | None:
        """`JournalError` if another file has the name, or none; which of the two got shorter, if any.

        SQLite itself makes a file shorter at times, and so does who cuts it off.
        """
        file, length = _look(self._path)
        log, log_length = self._look_at_log()
        if file != self.file:
            raise self._moved(self._path)
        if log != self._log and self._log != _NOTHING:
            raise self._moved(self._wal)
        shorter = length < self._lengths[0], log_length < self._lengths[1]
        if any(shorter):
            return shorter
        self._lengths = length, log_length
        return None

    def accept(self) -> None:
        """The files are as they should be."""
        self._lengths = size(self._path), self._look_at_log()[1]

    def _look_at_log(self) -> tuple[tuple[int, int], int]:
        """The same as by its name, where the system tells the name behind a descriptor.

        `stat` asks for the time of the last change, too, and who does that makes the next commit
        a quarter dearer: that write gets a finer time then (Linux 6.13), and the inode is dirty.
        """
        if self._descriptor is not None and self._name is not None:
            with suppress(OSError):
                if self._name_now() == self._name:
                    return self._log, os.lseek(self._descriptor, 0, os.SEEK_END)
        return _look(self._wal)

    def _name_now(self) -> str:
        """Another one when the file was moved or removed."""
        return os.readlink(f"/proc/self/fd/{self._descriptor}")

    def _moved(self, path: str) -> JournalError:
        happened = "has been replaced" if os.path.exists(path) else "is gone"
        return JournalError(
            f"{path} {happened} while the journal was open: nothing that is written now would be "
            "found again. Put the file back in its place, or begin a new journal without its -wal"
        )


def _look(path: str) -> tuple[tuple[int, int], int]:
    """Which file has the name, and how long it is."""
    try:
        found = os.stat(path)
    except OSError:
        return _NOTHING, 0
    return _which(found), found.st_size


def _which(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
