"""The journal by the caller's door: rows written in a transaction of the program's own.

The connection is the caller's. What is done on it here is done inside a savepoint of ours: it is
there with the caller's commit, gone with the rollback, and what fails leaves the transaction as it
was. Row factories, text factories, converters and the classes of connections have no part in it,
and are left as they were; of what a connection counts, `total_changes` and `changes()` go on.

Nothing here knows the store's own connection or its thread: it may be done in any thread, in the
one that may use the caller's connection.
"""

import os
import sqlite3
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, TypeVar, cast

import aiosqlite

from asyncdefer.errors import JournalError, JournalFull
from asyncdefer.stores import _group, _schema, _sound
from asyncdefer.stores._base import Busy, Change, Owner, Unknown, Written
from asyncdefer.stores._faults import rolled_back, told_within
from asyncdefer.stores._hop import Hop

T = TypeVar("T")

_FIXED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""The releases without the WAL-reset bug: each of its series, and the last and all after it."""

# It changes nothing, but takes the lock: what is read after it is not of the past.
_LOCK: Final = "DELETE FROM main.asyncdefer_meta WHERE 0"
_SAVE: Final = "SAVEPOINT asyncdefer_write"
_UNDO: Final = "ROLLBACK TO asyncdefer_write"
_RELEASE: Final = "RELEASE asyncdefer_write"
_SET_ROWID: Final = (
    "INSERT OR REPLACE INTO main.asyncdefer_notes (rowid, name, value) VALUES (?, '', '')"
)


class Home(NamedTuple):
    """The journal that a connection has to be to.

    `file`: device and inode. `schema`: SQLite's count of the changes of the schema when our tables
    were last looked at; None: not yet.
    """

    path: str
    owner: Owner
    file: tuple[int, int]
    schema: int | None


def has_wal_reset_bug(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Whether this SQLite may corrupt a file in WAL mode that two connections write to."""
    return version < _FIXED[-1] and not any(
        version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED
    )


def lend(connection: object) -> "Lent | AsyncLent":
    """What can be done on a connection of the caller's; `TypeError` if it is none of these kinds."""
    if isinstance(connection, aiosqlite.Connection):
        return AsyncLent(connection)
    if isinstance(connection, sqlite3.Connection):
        return Lent(connection)
    raise TypeError(
        "a transaction is one of an aiosqlite.Connection or a sqlite3.Connection to the file of "
        f"the journal, not of a {type(connection).__name__}"
    )


class Lent:
    """A connection of the caller's, in the thread that may use it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._plain = _Plain(db)

    def is_open(self) -> bool:
        """Whether a transaction is open; not on a closed connection. May be asked in any thread."""
        try:
            return self._db.in_transaction
        except sqlite3.ProgrammingError:
            return False

    def prepare(self) -> bool:
        """Leave checkpoints to the store; whether this SQLite has the WAL-reset bug.

        `PRAGMA wal_autocheckpoint` is 0 on the connection from here on. `ValueError` if the
        connection cannot be used.
        """
        self._check_usable()
        self._plain.execute("PRAGMA wal_autocheckpoint = 0").fetchall()
        return has_wal_reset_bug()

    def enter(self, home: Home) -> bool:
        """Begin a transaction that one may `write` in, or join the one that is open.

        Whether it was begun here. The errors are those of `begin` and `write`; after one of them
        no transaction is open that was not before. Then as `prepare`.
        """
        self._check_usable()
        begins = not self._db.in_transaction
        if begins:
            self._check_file(home)
            self.begin()
        try:
            self.write(home, ())
            self.prepare()
        except BaseException:
            if begins:
                self.roll_back()
            raise
        return begins

    def begin(self) -> None:
        """`BEGIN IMMEDIATE`.

        `ValueError` if a transaction is open; `Busy` if another connection holds the file for
        longer than this one waits, which is the `timeout` of its `connect`.
        """
        self._check_usable()
        if self._db.in_transaction:
            raise ValueError("a transaction is open on this connection already: end it first")
        try:
            self._plain.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            path = self._path()
            if _primary(error) == sqlite3.SQLITE_BUSY:
                raise Busy(
                    f"another connection holds {path} for longer than this one waits (the timeout "
                    "of its connect): end the transaction that is open there, or wait for longer"
                ) from error
            raise told_within(error, path) from error

    def commit(self) -> None:
        """`COMMIT`.

        `ValueError` if no transaction is open. `Busy`: it is open still. `JournalFull`: it was
        rolled back. `Unknown`: it is gone, and has happened or not. A constraint of the caller's
        that fails is the `sqlite3.IntegrityError` that it is, and the transaction is open still.
        """
        self._check_usable()
        if not self._db.in_transaction:
            raise ValueError("no transaction is open on this connection: there is none to commit")
        try:
            self._plain.execute("COMMIT")
        except sqlite3.IntegrityError:
            raise
        except sqlite3.Error as error:
            raise self._not_committed(error) from error

    def _not_committed(self, error: sqlite3.Error) -> JournalError:
        path = self._path()
        if self._db.in_transaction:
            return Busy(
                f"the transaction on {path} is not committed, and open still ({error}): read every "
                "statement with RETURNING to its end, and commit again"
            )
        what = told_within(error, path)
        if isinstance(what, JournalFull):
            return rolled_back(what)
        return Unknown(f"it is not known whether the commit to {path} happened: {error}")

    def roll_back(self) -> None:
        """`ROLLBACK`, if a transaction is open."""
        self._check_usable()
        if self._db.in_transaction:
            try:
                self._plain.execute("ROLLBACK")
            except sqlite3.Error as error:
                raise told_within(error, self._path()) from error

    def write(self, home: Home, changes: Sequence[Change]) -> Written:
        """Write in the transaction that is open; without changes, only see whether one could.

        `ValueError` if the connection cannot be used, is not to this file, or has no transaction
        open. Every other error is a `JournalError`. After each of them the transaction is as it
        was, unless the error says that SQLite has rolled back all of it.
        """
        self._check_usable()
        if not self._db.in_transaction:
            raise ValueError(
                "no transaction is open on this connection: begin one first, with BEGIN IMMEDIATE"
            )
        with self._as_it_was():
            names = self._check_file(home)
            rowid = _last_rowid(self._plain)
            self._save()
            try:
                written = self._write(home, changes, temporary=b"temp" in names)
                _restore_rowid(self._plain, rowid)
                self._plain.execute(_RELEASE)
            except BaseException as error:
                undone = self._undo(rowid)
                if not isinstance(error, Exception):
                    raise
                what = error if isinstance(error, JournalError) else told_within(error, home.path)
                if not undone:
                    raise rolled_back(what) from error
                if what is error:
                    raise
                raise what from error
        return written

    def _write(self, home: Home, changes: Sequence[Change], *, temporary: bool) -> Written:
        db = cast("sqlite3.Connection", self._plain)
        db.execute(_LOCK)
        if temporary:
            _schema.check_temporary(db, home.path)
        _sound.check_owner(db, home.path, home.owner, home.schema)
        written = _group.write(db, changes)
        if written is None:
            db.execute(_UNDO)
            written = _group.write_surely(db, changes)
        return written[0]

    def _save(self) -> None:
        try:
            self._plain.execute(_SAVE)
        except sqlite3.OperationalError as error:
            raise ValueError(
                "a statement that writes has not ended on this connection "
                f"({error}): read all rows of a statement with RETURNING first"
            ) from error

    def _undo(self, rowid: int) -> bool:
        """Back to where the transaction was; False: it is gone as a whole."""
        if not self._db.in_transaction:
            return False
        try:
            self._plain.execute(_UNDO)
            self._plain.execute(_RELEASE)
        except sqlite3.Error:
            with suppress(sqlite3.Error):
                self._plain.execute("ROLLBACK")  # rather nothing than a half
            return False
        with suppress(sqlite3.Error):
            _restore_rowid(self._plain, rowid)
        return self._db.in_transaction

    # -- what is the caller's

    @contextmanager
    def _as_it_was(self) -> Generator[None, None, None]:
        """Texts are str, and a change gives no rows; afterwards both are as they were."""
        db, plain = self._db, self._plain
        texts = db.text_factory
        db.text_factory = str
        try:
            counting = plain.execute("PRAGMA count_changes").fetchone() == (1,)
            if counting:
                plain.execute("PRAGMA count_changes = 0").fetchall()
            try:
                yield
            finally:
                if counting:
                    plain.execute("PRAGMA count_changes = 1").fetchall()
        finally:
            db.text_factory = texts

    def _check_usable(self) -> None:
        """It is open, and this is its thread."""
        try:
            sqlite3.Cursor(self._db).close()
        except sqlite3.ProgrammingError as error:
            raise ValueError(f"this connection cannot be used: {error}") from error

    def _databases(self) -> dict[bytes, bytes]:
        """The names of the databases of the connection, and their files."""
        texts = self._db.text_factory
        self._db.text_factory = bytes  # a name of a file need not be UTF-8
        try:
            return {name: file for _, name, file in self._plain.execute("PRAGMA database_list")}
        finally:
            self._db.text_factory = texts

    def _path(self) -> str:
        return os.fsdecode(self._databases()[b"main"]) or ":memory:"

    def _check_file(self, home: Home) -> dict[bytes, bytes]:
        names = self._databases()
        name = names[b"main"]
        if not _is_same(name, home):
            shown = os.fsdecode(name) or "a database in memory"
            raise ValueError(
                f"this connection is to {shown}, and the journal is {home.path}: "
                "a transaction has to be one on the very file of the journal, under its own name"
            )
        return names


class AsyncLent:
    """The same for a connection of aiosqlite: each call is one hop to its thread.

    Whoever is cancelled meanwhile leaves nothing half-done: it happens, or it has.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection

    def is_open(self) -> bool:
        """As `Lent.is_open`; without a hop."""
        try:
            return self._connection.in_transaction
        except (ValueError, sqlite3.ProgrammingError):
            return False

    async def prepare(self) -> bool:
        """As `Lent.prepare`."""
        return await self._hop(Lent.prepare)

    async def enter(self, home: Home) -> bool:
        """As `Lent.enter`."""
        return await self._hop(lambda lent: lent.enter(home))

    async def begin(self) -> None:
        """As `Lent.begin`."""
        await self._hop(Lent.begin)

    async def commit(self) -> None:
        """As `Lent.commit`."""
        await self._hop(Lent.commit)

    async def roll_back(self) -> None:
        """As `Lent.roll_back`."""
        await self._hop(Lent.roll_back)

    async def write(self, home: Home, changes: Sequence[Change]) -> Written:
        """As `Lent.write`."""
        return await self._hop(lambda lent: lent.write(home, changes))

    async def _hop(self, step: Callable[[Lent], T]) -> T:
        connection: Any = self._connection
        try:
            db: sqlite3.Connection = connection._conn  # noqa: SLF001 - the one that Lent works on
        except ValueError:
            raise ValueError(
                "this connection of aiosqlite is not open: it was closed, or never awaited"
            ) from None
        hop = Hop(lambda: step(Lent(db)))
        # Nothing public of aiosqlite calls what it is given in the connection's thread.
        await connection._execute(hop)  # noqa: SLF001
        return cast("T", hop.held.pop())


class _Plain:
    """Statements that the class and the row factory of the connection have no part in."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def execute(self, sql: str, parameters: Sequence[Any] = ()) -> sqlite3.Cursor:
        return sqlite3.Cursor(self._db).execute(sql, parameters)

    def executemany(self, sql: str, rows: Sequence[Sequence[Any]]) -> sqlite3.Cursor:
        return sqlite3.Cursor(self._db).executemany(sql, rows)


def _last_rowid(plain: _Plain) -> int:
    number: int = plain.execute("SELECT last_insert_rowid()").fetchone()[0]
    return number


def _restore_rowid(plain: _Plain, number: int) -> None:
    """Have `last_insert_rowid()` be that of the caller's row again.

    An insert sets it, and undoing the insert does not.
    """
    if _last_rowid(plain) == number:
        return
    plain.execute(_SAVE)
    try:
        plain.execute(_SET_ROWID, (number,))
    finally:
        plain.execute(_UNDO)
        plain.execute(_RELEASE)


def _is_same(name: bytes, home: Home) -> bool:
    """It is the file of the journal, and so is its -wal: another name of a file has another one."""
    try:
        found = os.stat(name)
        if (found.st_dev, found.st_ino) != home.file:
            return False
        return os.fsdecode(name) == home.path or os.path.samefile(
            os.fsdecode(name) + "-wal", home.path + "-wal"
        )
    except OSError:
        return False


def _primary(error: sqlite3.Error) -> int:
    return error.sqlite_errorcode & 0xFF
