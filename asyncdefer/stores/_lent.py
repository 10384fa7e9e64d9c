"""A connection of the program's own, in its thread: rows of the journal written in a transaction on it.

The connection is the caller's. What is done on it here is done inside a savepoint of ours: it is
there with the caller's commit, gone with the rollback, and what fails leaves the transaction as it
was. Row factories, text factories, converters and the classes of connections have no part in it,
and are left as they were; of what a connection counts, `total_changes` and `changes()` go on.

Nothing here knows the store's own connection or its thread: it may be done in any thread, in the
one that may use the caller's connection.
"""

import os
import sqlite3
from collections.abc import Callable, Container, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, NamedTuple, cast

from asyncdefer.errors import JournalError, JournalFull
from asyncdefer.stores import _group, _schema, _sound
from asyncdefer.stores._base import Add, Busy, Change, Owner, Row, Unknown, Written
from asyncdefer.stores._faults import rolled_back, told_within

# It changes nothing, but takes the lock: what is read after it is not of the past.
_LOCK: Final = "DELETE FROM main.asyncdefer_meta WHERE 0"
_SAVE: Final = "SAVEPOINT asyncdefer_write"
_UNDO: Final = "ROLLBACK TO asyncdefer_write"
_RELEASE: Final = "RELEASE asyncdefer_write"
_SET_ROWID: Final = "INSERT INTO main.asyncdefer_notes (rowid, name, value) VALUES (?, '', '')"
_UNSET_ROWID: Final = "DELETE FROM main.asyncdefer_notes WHERE rowid = ?"


class Home(NamedTuple):
    """The journal that a connection has to be to.

    `file`: device and inode. `schema`: SQLite's count of the changes of the schema when our tables
    were last looked at; None: not yet.
    """

    path: str
    owner: Owner
    file: tuple[int, int]
    schema: int | None


class Lent:
    """A connection of the caller's, in the thread that may use it."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._plain = _Plain(db)
        self._counts = True  # as PRAGMA count_changes; False once it is known not to

    def is_open(self) -> bool:
        """Whether a transaction is open; not on a closed connection. May be asked in any thread."""
        try:
            return self._db.in_transaction
        except sqlite3.ProgrammingError:
            return False

    def prepare(self) -> None:
        """Leave checkpoints to the store.

        `PRAGMA wal_autocheckpoint` is 0 on the connection from here on. `ValueError` if the
        connection cannot be used.
        """
        self._check_usable()
        self._plain.execute("PRAGMA wal_autocheckpoint = 0").fetchall()

    def enter(self, home: Home) -> bool:
        """Begin a transaction that one may `add` in, or join the one that is open.

        Whether it was begun here. The errors are those of `begin` and `write`; after one of them
        no transaction is open that was not before. Then as `prepare`.
        """
        self._check_usable()
        begins = not self._db.in_transaction
        names = self._check_file(home)
        if begins:
            self.begin()
        try:
            with self._as_it_was() as self._counts:
                self._saved(home, lambda: self._write(home, (), names), adds=False)
            self.prepare()
        except BaseException:
            if begins:
                self.roll_back()
            raise
        return begins

    def add(self, home: Home, row: Row) -> Written:
        """As `write`, in a transaction that was entered: what cannot change in it is not looked at."""
        if self._counts or not self._db.in_transaction:
            return self.write(home, (Add(row),))
        db, texts = self._db, self._db.text_factory
        db.text_factory = str
        try:
            return self._saved(home, lambda: self._add(home, row))
        finally:
            db.text_factory = texts

    def _add(self, home: Home, row: Row) -> Written:
        plain = cast("sqlite3.Connection", self._plain)
        if plain.execute("PRAGMA schema_version").fetchone() != (home.schema,):
            _schema.check(plain, home.path)
        return _group.write_one(plain, row)

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
            return self._saved(home, lambda: self._write(home, changes, names))

    def _saved(self, home: Home, write: Callable[[], Written], *, adds: bool = True) -> Written:
        rowid = _last_rowid(self._plain)
        self._save()
        try:
            written = write()
            if adds:
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

    def _write(self, home: Home, changes: Sequence[Change], names: Container[bytes]) -> Written:
        db = cast("sqlite3.Connection", self._plain)
        db.execute(_LOCK)
        if b"temp" in names:
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
    def _as_it_was(self) -> Generator[bool, None, None]:
        """Texts are str, and a change gives no rows; afterwards both are as they were.

        Whether a change gave rows.
        """
        db, plain = self._db, self._plain
        texts = db.text_factory
        db.text_factory = str
        try:
            counting = plain.execute("PRAGMA count_changes").fetchone() == (1,)
            if counting:
                plain.execute("PRAGMA count_changes = 0").fetchall()
            try:
                yield counting
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


class _Plain:
    """Statements that the class and the row factory of the connection have no part in."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def execute(
        self, sql: str, parameters: Sequence[Any] | Mapping[str, Any] = ()
    ) -> sqlite3.Cursor:
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
    try:
        plain.execute(_SET_ROWID, (number,))
        plain.execute(_UNSET_ROWID, (number,))
    except sqlite3.IntegrityError:  # a note has it
        plain.execute(_SAVE)
        try:
            plain.execute(_SET_ROWID.replace("INSERT", "INSERT OR REPLACE"), (number,))
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
