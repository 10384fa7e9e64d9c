"""Room on the disk: whether there is any, and the reserve for when there is none.

On a full disk a call can be refused, but what happens to a job has to be recorded. What helps then
is to write the -wal from its beginning again, which takes that its pages are where they belong. So
a third file, `<journal>-reserve`, holds what the journal has to grow for that, and half a mebibyte,
in whole mebibytes. It is let go when there is no other room, and calls are refused until it can be
held again.
"""

import errno
import os
import sqlite3
from contextlib import suppress
from typing import Final

from asyncdefer.stores._lock import PRIVATE, size

try:
    import resource
except ImportError:  # Windows has no such limits
    resource = None  # type: ignore[assignment]

RESERVE: Final = 1 << 20
AUTOCHECKPOINT: Final = 4_000
"""Pages of -wal. A group of a thousand changes all over the table writes more than a thousand, and
to write each of them twice would cost as much again."""

_SHORT: Final = 300
"""The same, while groups are small: a commit that makes a file longer takes twice as long as one
that writes over what is there."""
_SMALL: Final = 50  # changes
_SPARING: Final = 20  # where the disk is full: the -wal must not grow into the last room
_PROBE: Final = 64 << 10
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_NO_ROOM: Final = (*_FULL, errno.EFBIG)


def length(db: sqlite3.Connection) -> int:
    """How long the file is when all that is in the -wal is where it belongs."""
    pages: int = db.execute("PRAGMA page_count").fetchone()[0]
    each: int = db.execute("PRAGMA page_size").fetchone()[0]
    return pages * each


def no_room(journal: str) -> bool:
    """Whether an I/O error without a reason may be a full disk, a quota or a limit: try it."""
    limit = _size_limit()
    if limit is not None and max(size(journal), size(f"{journal}-wal")) + _PROBE > limit:
        return True
    path = f"{journal}-probe"
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except OSError as error:
        return error.errno in _NO_ROOM
    try:
        os.write(file, bytes(_PROBE))
        os.fsync(file)
    except OSError as error:
        return error.errno in _NO_ROOM
    finally:
        os.close(file)
        with suppress(OSError):
            os.unlink(path)
    return False


def _size_limit() -> int | None:
    """How long a file of this process may be, if there is a limit."""
    if resource is None:
        return None
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return None if limit == resource.RLIM_INFINITY else limit


class Room:
    """The room of one journal."""

    def __init__(self, journal: str) -> None:
        self._journal = journal
        self._log = f"{journal}-wal"
        self._reserve = Reserve(journal)
        self._pages = AUTOCHECKPOINT
        self._kept = 0  # bytes of the journal, at the last look

    @property
    def is_doubtful(self) -> bool:
        """Whether to look before a call is accepted."""
        return self._reserve.short or _size_limit() is not None

    def is_there(self, db: sqlite3.Connection) -> bool:
        """Whether there is room for calls beside that for what happens to them."""
        limit = _size_limit()
        if limit is not None:  # of which no other file could be a reserve
            most = limit - min(RESERVE, limit // 4)
            if size(self._log) > most:
                checkpoint(db, "TRUNCATE")
            if max(length(db), size(self._log)) > most:
                return False
        return not self._reserve.short or self.keep(db)

    def keep(self, db: sqlite3.Connection) -> bool:
        """Hold the reserve; whether it has the size it should."""
        return self._keep(db, length(db))

    def keep_up(self, db: sqlite3.Connection) -> None:
        """Hold the reserve for a journal that may have grown."""
        now = length(db)
        if now != self._kept or self._reserve.short:
            self._keep(db, now)

    def _keep(self, db: sqlite3.Connection, length: int) -> bool:
        growth = max(0, length - size(self._journal))
        if not growth:
            self._reserve.shrink()
        kept = self._reserve.keep(growth)
        self._kept = length
        if not kept:
            self._pace(db, _SPARING)
        elif self._pages == _SPARING:
            self._pace(db, AUTOCHECKPOINT)
        return kept

    def opened(self) -> None:
        """There is a new connection, with the settings of all."""
        self._pages = AUTOCHECKPOINT
        self._kept = 0

    def pace(self, db: sqlite3.Connection, changes: int) -> None:
        """Have the -wal written from its beginning again when it is as long as fits such groups."""
        if self._pages != _SPARING:
            self._pace(db, _SHORT if changes < _SMALL else AUTOCHECKPOINT)

    def rewind(self, db: sqlite3.Connection) -> None:
        """Have the -wal written from its beginning again."""
        checkpoint(db, "RESTART")

    def spend(self, db: sqlite3.Connection) -> None:
        """Let the reserve go, for what has to grow."""
        self.release()
        self.rewind(db)
        self._pace(db, _SPARING)

    def release(self) -> None:
        """Let the reserve go; nothing else can be done before the journal is open."""
        self._reserve.release()

    def _pace(self, db: sqlite3.Connection, pages: int) -> None:
        if pages != self._pages:
            db.execute(f"PRAGMA wal_autocheckpoint = {pages}")
            self._pages = pages


def checkpoint(db: sqlite3.Connection, mode: str) -> None:
    """Bring pages from the -wal to where they belong; if that fails, they are in the -wal."""
    with suppress(sqlite3.Error):
        db.execute(f"PRAGMA wal_checkpoint({mode})")


class Reserve:
    """The file that holds room."""

    def __init__(self, journal: str) -> None:
        self._path = journal + "-reserve"
        self.short = False
        """There is no room for all of it: the disk is as good as full."""

    def keep(self, growth: int = 0) -> bool:
        """Take the room, as far as it is not taken; whether more of the disk may be used."""
        there = size(self._path)
        wanted = (growth // RESERVE + 1) * RESERVE
        if growth % RESERVE > RESERVE // 2:
            wanted += RESERVE
        self.short = there < wanted and not self._take(there, wanted)
        return not self.short

    def _take(self, there: int, wanted: int) -> bool:
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)
        try:
            file = os.open(self._path, flags, PRIVATE)
        except OSError as error:
            return error.errno not in _FULL  # else nobody can have a reserve here
        try:
            _allocate(file, there, wanted)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(file, there)
            return error.errno not in _FULL
        finally:
            os.close(file)
        return True

    def shrink(self) -> None:
        """The -wal has nothing that the journal has to grow for."""
        if size(self._path) > RESERVE:
            with suppress(OSError):
                os.truncate(self._path, RESERVE)

    def release(self) -> None:
        """Let the room go."""
        with suppress(OSError):
            os.unlink(self._path)
            self.short = True


def _allocate(file: int, start: int, stop: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, stop)
    else:  # macOS
        os.lseek(file, start, os.SEEK_SET)
        os.write(file, bytes(stop - start))
        os.fsync(file)
