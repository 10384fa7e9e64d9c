"""The journal in SQLite as its thread sees it: plain calls, each a transaction of its own."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Final, TypeVar

from asyncdefer.errors import JournalError, JournalFull
from asyncdefer.stores import _group, _lock, _reads, _schema, _sound
from asyncdefer.stores._base import (
    LIVE,
    Add,
    Busy,
    Change,
    Command,
    Opened,
    Owner,
    Row,
    Unknown,
    Written,
)  # fmt: skip
from asyncdefer.stores._faults import BUSY_WAIT, full, told
from asyncdefer.stores._lent import Home
from asyncdefer.stores._room import Room, checkpoint, length

T = TypeVar("T")

_PURGE: Final = 1_000  # rows that go in one transaction
_QUICK_CHECK: Final = 4 << 20  # bytes that are checked in ten milliseconds or so
_NOT_WRITTEN: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_BUSY)
_WORTH_IT: Final = 1 << 20  # bytes of -wal
_GROWN: Final = 64 << 20


class Held(sqlite3.Connection):
    """The side file, locked. A callable that it is to execute is called: a step of a verb."""

    file: "File"

    def execute(self, sql: Any, parameters: Any = (), /) -> Any:
        if callable(sql):
            sql()
            return _NOTHING
        return super().execute(sql, parameters)

    def close(self) -> None:
        """The journal first: nobody else may come in while it is open."""
        self.file.close()
        super().close()


class _Nothing:
    """Where aiosqlite expects a cursor."""

    def fetchall(self) -> list[Any]:
        return []


_NOTHING: Final = _Nothing()


class File:
    """The journal, as the thread sees it. Every error is a `JournalError`."""

    def __init__(self, path: str, synchronous: int, owner: Owner) -> None:
        self.path = path = os.path.realpath(path)  # what two names lead to has one owner
        self.owner = owner
        self._log = f"{path}-wal"
        self._synchronous = synchronous
        self._identity = _lock.Identity(path)
        self._room = Room(path)
        self._db: sqlite3.Connection | None = None
        self._unsettled = False  # a commit failed, and may happen yet
        self._wrote = False  # since the -wal was brought home
        self._schema: int | None = None  # SQLite's count of its changes, as it was checked
        self._found: Opened | None = None

    # -- opened and closed

    def lock(self, *args: Any, **kwargs: Any) -> Held:
        """The connection of the side file, which is locked; a factory of `sqlite3.connect`."""
        if os.path.isdir(self.path):
            raise JournalError(f"{self.path} is a folder: name a file in it for the journal")
        _lock.create(f"{self.path}-lock")
        try:
            held = Held(*args, **kwargs)
            held.file = self
            try:
                _lock.lock(held, self.path)
            except BaseException:
                held.close()
                raise
        except sqlite3.Error as error:
            raise told(error, f"{self.path}-lock") from error
        return held

    def open(self) -> Opened:
        """Become the owner of what is there, or begin a new journal."""
        try:
            opened = self._open()
        except JournalFull:
            self._room.release()
            opened = self._open()
        self.read(self._room.keep)
        return opened

    def _open(self) -> Opened:
        _sound.check_start(self.path)
        if _lock.create(self.path):
            _lock.sync_folder(self.path)
        self._identity = _lock.Identity(self.path)
        try:
            self._db = db = _lock.connect(self.path, timeout=BUSY_WAIT)
            version = _schema.inspect(db, self.path)
            _sound.check_length(db, self.path)
            _sound.prepare(db, self.path, self._synchronous)
            if 0 < version < _schema.VERSION:
                _schema.migrate(db, self.path, version)
            opened = self._take_over(version)
        except BaseException as error:
            self.close()
            if not isinstance(error, Exception) or isinstance(error, JournalError):
                raise
            raise told(error, self.path) from error
        self._identity.opened()
        self._found = opened
        return opened

    def _take_over(self, version: int) -> Opened:
        """The new owner writes itself in; what it finds."""

        def work(db: sqlite3.Connection) -> Opened:
            if self._synchronous >= _sound.FULL:
                _sound.write_again(self.path)
            if version == 0:
                _schema.make(db)
            _schema.check(db, self.path)
            self._schema = self._schema_now(db)
            meta: dict[str, Any] = dict(db.execute("SELECT name, value FROM asyncdefer_meta"))
            if not meta["clean"] and length(db) <= _QUICK_CHECK:
                _sound.quick_check(db, self.path)  # a larger one is checked as it is used
            owner = self.owner
            new = {"epoch": owner.number, "pid": owner.pid, "host": owner.host}
            _write_meta(db, {**new, "started": owner.started, "clean": 0})
            return Opened(
                last_id=meta["last_id"],
                clean=bool(meta["clean"]),
                counts={state: meta[state] for state in LIVE},
                notes=dict(db.execute("SELECT name, value FROM asyncdefer_notes")),
            )

        return self._transact(work, owned=False)

    def finish(self, *, heard: bool) -> None:
        """Say that the owner has closed; all that was written is on the disk after it.

        `heard`: the owner was told what it found, so that the next need not hear of that.
        """
        if self._found is None:
            return
        meta = {"clean": int(heard or self._found.clean)}
        with suppress(JournalFull):  # it will be an unclean stop, with all rows there
            self._with_room(lambda: self._transact(lambda db: _write_meta(db, meta)), adds=False)
        try:
            self._ready().execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            if self._synchronous < _sound.FULL:  # else it is in the -wal for good
                raise told(error, self.path) from error

    def close(self) -> None:
        """Let go of the file."""
        db, self._db = self._db, None
        self._identity.closed()
        if db is not None:
            with suppress(sqlite3.Error):
                db.close()

    def home(self) -> Home:
        """What a connection of the caller's has to be to. May be asked in any thread."""
        return Home(self.path, self.owner, self._identity.file, self._schema)

    # -- one transaction

    def _ready(self) -> sqlite3.Connection:
        """The connection, with no transaction open, to the file that has the name."""
        db = self._db
        if db is None:
            self._identity.check()
            try:
                db = _lock.connect(self.path, timeout=BUSY_WAIT)
                self._db = db
                _sound.prepare(db, self.path, self._synchronous)
                self._check_owner(db)
                if self._unsettled:
                    self._settle(db, found=True)
            except BaseException:
                self.close()
                raise
            self._identity.opened()
            self._room.opened()
        elif db.in_transaction:
            db.execute("ROLLBACK")
        _sound.check_files(db, self.path, self._identity)
        if self._unsettled:
            self._settle(db)
        return db

    def _settle(self, db: sqlite3.Connection, *, found: bool = False) -> None:
        """After a commit that failed, have it not have happened.

        For this connection it was rolled back, but what it has left in the -wal might make it
        happen at the next start. The next commit is written over that. `found`: that connection was
        lost, and for this one it has happened if it is found in the -wal; which may be pages that
        the system could not write, and shows all the same.
        """
        try:
            db.execute("BEGIN IMMEDIATE")
            self._check_owner(db)
            if found:
                _sound.write_again(self.path)
            db.execute(_SETTLE)
            db.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise
        self._unsettled = False

    def _check_owner(self, db: sqlite3.Connection) -> None:
        """Nobody came in by another door, and nobody has changed our tables."""
        self._schema = _sound.check_owner(db, self.path, self.owner, self._schema)

    def _schema_now(self, db: sqlite3.Connection) -> int:
        number: int = db.execute("PRAGMA schema_version").fetchone()[0]
        return number

    def _transact(self, work: Callable[[sqlite3.Connection], T], *, owned: bool = True) -> T:
        """All of `work`, or nothing of it; `Unknown` when that is not to be known."""
        try:
            db = self._ready()
            db.execute("BEGIN IMMEDIATE")
            if owned:
                self._check_owner(db)
            result = work(db)
        except Exception as error:
            self._roll_back()
            if isinstance(error, JournalError):
                raise
            raise told(error, self.path) from error
        try:
            db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._not_committed(error) from error
        try:
            _sound.check_files(db, self.path, self._identity)
        except (JournalError, sqlite3.Error) as error:
            raise Unknown(f"written, but to nowhere: {error}") from error
        return result

    def _not_committed(self, error: sqlite3.Error) -> JournalError:
        """What a failed COMMIT means.

        Without room it has not happened: the frames of a transaction are appended to the -wal in
        their order, and only the last, which is then missing, makes them count. After any other
        error all of them may be there, synced or not, and found by the next start (see `_settle`).
        """
        self._roll_back()
        if error.sqlite_errorcode in _NOT_WRITTEN:
            what = told(error, self.path)
            if isinstance(what, JournalFull | Busy):
                return what
        self._unsettled = True
        return Unknown(f"it is not known whether the last write to {self.path} happened: {error}")

    def _roll_back(self) -> None:
        if self._db is not None and self._db.in_transaction:
            try:
                self._db.execute("ROLLBACK")
            except sqlite3.Error:
                self.close()  # which rolls back

    def _with_room(self, act: Callable[[], T], *, adds: bool) -> T:
        """Where the disk is full, look for room in the -wal; without adds, by way of the reserve."""
        room = self._room
        if adds and room.is_doubtful and not self.read(room.is_there):
            raise full(self.path)
        for remedy in [room.rewind] if adds else [room.rewind, room.spend]:
            try:
                return act()
            except JournalFull:
                with suppress(JournalError):
                    self.read(remedy)
        return act()

    # -- the verbs

    def write(self, commands: Sequence[Command]) -> tuple[Written, list[Row]]:
        changes = [change for command in commands for change in command]
        adds = Add in set(map(type, changes))
        return self._with_room(lambda: self._write(changes, adds=adds), adds=adds)

    def _write(self, changes: Sequence[Change], *, adds: bool) -> tuple[Written, list[Row]]:
        def work(db: sqlite3.Connection) -> tuple[Written, list[Row]]:
            written = _group.write(db, changes)
            if written is None:
                db.execute("ROLLBACK")
                db.execute("BEGIN IMMEDIATE")
                self._check_owner(db)
                written = _group.write_surely(db, changes)
            self._room.pace(db, len(changes))
            self._wrote = True
            if adds:
                self._room.keep_up(db)  # if it cannot be had, the next call will be refused
            return written

        return self._transact(work)

    def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return _reads.reading(self._ready(), read)
        except Exception as error:
            if isinstance(error, JournalError):
                raise
            raise told(error, self.path) from error

    def purge(self, now: int) -> bool:
        """Whether there may be more."""
        over = (now, _PURGE)
        if self.read(lambda db: db.execute(_OVER, over).fetchone()) is None:
            return False
        return self._transact(lambda db: db.execute(_DELETE_OVER, over).rowcount) == _PURGE

    def tidy(self) -> None:
        """Keep the -wal short, and the reserve."""
        self.read(self._check_owner)
        if self._wrote and _lock.size(self._log) > _WORTH_IT:
            # A checkpoint of a -wal that is home already may lose what another connection commits
            # at that moment, in SQLite before 3.51.3: so there is something in it.
            with suppress(JournalFull):
                self._transact(lambda db: db.execute(_SETTLE))
            checkpoint(self._ready(), "PASSIVE")
            if _lock.size(self._log) > _GROWN:
                checkpoint(self._ready(), "TRUNCATE")
            self._wrote = False
        self.read(self._room.keep)


_OVER: Final = (
    "SELECT id FROM asyncdefer_jobs INDEXED BY asyncdefer_jobs_until "
    "WHERE until IS NOT NULL AND until <= ? "
    "AND state NOT IN ('held', 'scheduled', 'running') ORDER BY until LIMIT ?"
)
_DELETE_OVER: Final = f"DELETE FROM asyncdefer_jobs WHERE id IN ({_OVER})"


_SETTLE: Final = (
    "INSERT INTO asyncdefer_meta (name, value) VALUES ('settled', 1) "
    "ON CONFLICT (name) DO UPDATE SET value = value + 1"
)


def _write_meta(db: sqlite3.Connection, values: dict[str, Any]) -> None:
    db.executemany(
        "INSERT INTO asyncdefer_meta (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        list(values.items()),
    )
