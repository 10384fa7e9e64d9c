"""The store in one SQLite file: a journal that survives kill -9 and power cuts.

`File` is the journal as its thread sees it. Here it is called from the event loop: a verb is one
hop to the thread, however many statements it has, so whoever is cancelled in between leaves
nothing half-done.

The thread is that of an aiosqlite connection to the side file, which is the lock (see `_lock`):
who has the lock has the thread, and the journal's own connection can be made anew inside it.
"""

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from typing import Any, Final, Literal, TypeVar, cast

import aiosqlite

from asyncdefer.errors import JournalError
from asyncdefer.stores import _lock, _reads
from asyncdefer.stores._base import (
    PAGE,
    START,
    Busy,
    Change,
    Command,
    Opened,
    Owner,
    Place,
    Row,
    Written,
)  # fmt: skip
from asyncdefer.stores._faults import BUSY_ROUNDS
from asyncdefer.stores._file import File
from asyncdefer.stores._hop import Hop, to_the_end
from asyncdefer.stores._lent import Home, Lent
from asyncdefer.stores._within import lend

T = TypeVar("T")

_OLDEST: Final = (3, 37)  # the first with STRICT tables
_SYNCHRONOUS: Final = {"NORMAL": 1, "FULL": 2}
_LAST_ROUNDS: Final = 5  # of waiting for somebody else's transaction at the end
_LOOK: Final = 1_000  # rows that are read in one hop for a page
_GLANCE: Final = 0.01  # seconds between two looks whether a thread is still there
_PURGES: Final = 20  # transactions of one renewal


class SQLiteStore:
    """A journal in a SQLite file, which may be the program's own database.

    `path`: the file; it is made, for its owner only, if it is not there. Beside it are SQLite's
    own `-wal` and `-shm`, `-lock`, by which one process at a time owns the journal, and
    `-reserve`, a mebibyte that is let go when the disk is full. `synchronous`: with "FULL" what
    was accepted survives a power cut; with "NORMAL" it survives the death of the process, and a
    power cut may take the last seconds.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, synchronous: Literal["FULL", "NORMAL"] = "FULL"
    ) -> None:
        name = os.fspath(path)
        if not isinstance(cast("object", name), str):
            raise TypeError(f"the path of a journal is a str or a Path, not {name!r}")
        if not name or "\0" in name:
            raise ValueError(f"no file can be named {name!r}")
        if name == ":memory:" or name.startswith("file:"):
            raise ValueError(
                f"{name!r} is not the path of a file; a queue without a journal is Queue()"
            )
        if synchronous not in _SYNCHRONOUS:
            raise ValueError(f'synchronous is "FULL" or "NORMAL", not {synchronous!r}')
        self._path = name
        self._synchronous = _SYNCHRONOUS[synchronous]
        self._desk: _Desk | None = None

    def __repr__(self) -> str:
        return f"SQLiteStore({self._path!r})"

    def open(self, owner: Owner, *, now: int, until: int) -> AbstractAsyncContextManager[Opened]:
        """Become the owner, until the end of the context; `JournalLocked` if there is one."""
        return _Opening(partial(self._begin, owner), self._end)

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        """As the contract says: one transaction.

        `within`: a connection to the journal's file with a transaction open, an
        `aiosqlite.Connection` (one hop to its thread) or a `sqlite3.Connection` (done here and
        now). See `write_within` for the rules and the errors; another object is a `TypeError`.
        """
        if within is not None:
            lent = lend(within)
            home, changes = self.home(owner), _changes(commands)
            if isinstance(lent, Lent):
                return lent.write(home, changes)
            return await lent.write(home, changes)
        desk = self._of(owner)
        written, rows = await desk.patiently(lambda: desk.file.write(commands))
        desk.greeting.has(rows)
        rows.clear()  # else the thread holds them until its next step
        return written

    def write_within(
        self, owner: Owner, commands: Sequence[Command], connection: sqlite3.Connection
    ) -> Written:
        """Write in the transaction that is open on a connection of the caller's.

        May be called in any thread that may use the connection. The rows are there with the
        caller's commit and gone with the rollback, and the store's own writes wait for either.
        Without commands, it only says whether one could. `TypeError` if it is no
        `sqlite3.Connection`; `ValueError` if it cannot be used here, is not to the journal's file,
        or has no transaction open; else every error is a `JournalError`. Then the transaction is
        as it was, unless the error says that SQLite has rolled back all of it.
        """
        lent = lend(connection)
        if not isinstance(lent, Lent):
            raise TypeError("a connection of aiosqlite has to be awaited: use write(within=…)")
        return lent.write(self.home(owner), _changes(commands))

    def home(self, owner: Owner) -> Home:
        """What a connection of the program's has to be to. May be asked in any thread."""
        return self._of(owner).home()

    async def claim(
        self,
        owner: Owner,
        *,
        now: int,
        until: int,
        limit: int,
        after: Place = START,
        keys: Sequence[tuple[str, str]] = (),
        ids: Sequence[int] = (),
    ) -> list[Row]:
        """As the contract says. There is one owner, and all rows are its own: nothing is written."""
        desk = self._of(owner)
        greeting = desk.greeting
        if keys or ids:
            rows = await desk.read(lambda db: _reads.named(db, keys, ids))
            greeting.has(rows)
            return rows
        left, rows = await desk.read(lambda db: greeting.coming(db, until, limit, after))
        greeting.came(rows, until, limit)
        return left + rows

    async def renew(self, owner: Owner, *, now: int, until: int) -> None:
        """As the contract says; up to 20,000 rows go, a thousand at a time."""
        desk = self._of(owner)
        for _ in range(_PURGES):
            if not await desk.patiently(lambda: desk.file.purge(now)):
                break
        await desk.patiently(desk.file.tidy)

    async def scan(
        self,
        *,
        ids: Sequence[int] | None = None,
        state: str | None = None,
        task: str | None = None,
        key_prefix: str | None = None,
        after: Place | None = None,
        limit: int = PAGE,
    ) -> AsyncIterator[Row]:
        """As the contract says: a page in a hop, and writes come in between."""
        desk = self._of()
        wanted = _reads.Wanted(ids, state, task, key_prefix)
        place: Place | None = START if after is None else after
        while place is not None and limit > 0:
            look = min(_LOOK, limit) if task is None and key_prefix is None else _LOOK
            page = partial(_reads.page, after=place, look=look, wanted=wanted)
            rows, place = await desk.read(page)
            for row in rows[:limit]:
                yield row
            limit -= len(rows)

    def _of(self, owner: Owner | None = None) -> "_Desk":
        desk = self._desk
        if desk is None or (owner is not None and desk.file.owner.number != owner.number):
            who = "nobody" if owner is None else f"owner {owner.number}"
            raise JournalError(
                f"{who} has the journal {self._path} open, or no longer: open it first"
            )
        return desk

    async def _begin(self, owner: Owner) -> Opened:
        if self._desk is not None:
            raise _lock.locked(self._path, self._desk.file.owner)
        if sqlite3.sqlite_version_info < _OLDEST:
            raise JournalError(
                f"a journal needs SQLite 3.37 or newer, and this Python has "
                f"{sqlite3.sqlite_version}"
            )
        self._desk = desk = _Desk(File(self._path, self._synchronous, owner))
        try:
            await to_the_end(desk.sit())
            opened = await desk.patiently(desk.file.open)
            desk.greeting = _reads.Greeting(opened.last_id)
            return opened
        except BaseException:
            await self._end(heard=False)
            raise

    async def _end(self, *, heard: bool = True) -> None:
        desk, self._desk = self._desk, None
        if desk is not None:
            await to_the_end(desk.leave(heard=heard))


class _Opening(AbstractAsyncContextManager[Opened]):
    """What `open` gives. Not a generator: an owner that is collected half-way has not closed."""

    def __init__(
        self,
        begin: Callable[[], Coroutine[Any, Any, Opened]],
        end: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        self._begin = begin
        self._end = end

    async def __aenter__(self) -> Opened:
        return await self._begin()

    async def __aexit__(self, *exc_info: object) -> None:
        await self._end()


class _Desk:
    """An owner's time at the store: the journal, the thread that works on it, and hops to it."""

    def __init__(self, file: File) -> None:
        self.file = file
        self.greeting = _reads.Greeting(0)
        self._pid = os.getpid()
        self._loop = asyncio.get_running_loop()
        self._thread: aiosqlite.Connection | None = None

    async def sit(self) -> None:
        """Lock the journal, and have a thread for it."""
        thread = aiosqlite.connect(
            _lock.uri(f"{self.file.path}-lock"),
            uri=True,
            factory=self.file.lock,
            isolation_level=None,
            check_same_thread=False,  # see `_leave_behind`
            timeout=0,
        )
        # A forgotten queue must not keep the interpreter from exiting.
        _thread_of(thread).daemon = True
        try:
            self._thread = await thread
        except BaseException:
            _thread_of(thread).join()  # it has been told to end
            raise

    def home(self) -> Home:
        """What a connection of the caller's has to be to. May be asked in any thread."""
        self._check_process()
        return self.file.home()

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise JournalError(
                f"the journal {self.file.path} was opened by process {self._pid}, of which this "
                "one is a fork: open another journal here"
            )

    async def hop(self, step: Callable[[], T]) -> T:
        """Have the thread do a step: all of it, whatever becomes of the caller meanwhile."""
        self._check_process()
        if self._thread is None:
            raise JournalError(f"the journal {self.file.path} is not open yet")
        hop = Hop(step)
        try:
            # aiosqlite hands on what it is to execute, and our connection calls it.
            await self._thread.execute_fetchall(cast("str", hop))
            return cast("T", hop.held.pop())
        except ValueError as error:
            raise JournalError(f"the journal {self.file.path} has been closed") from error

    async def patiently(self, step: Callable[[], T], rounds: int = BUSY_ROUNDS) -> T:
        """A step, again and again while somebody else's transaction has the file."""
        while True:
            rounds -= 1
            try:
                return await self.hop(step)
            except Busy:
                if not rounds:
                    raise

    async def read(self, read: Callable[[sqlite3.Connection], T]) -> T:
        return await self.patiently(lambda: self.file.read(read))

    async def leave(self, *, heard: bool) -> None:
        """Say that the owner has closed, let go of the files and end the thread."""
        thread = self._thread
        if thread is None or os.getpid() != self._pid:
            return
        if self._loop is not asyncio.get_running_loop():
            await self._leave_behind(thread)
            return
        try:
            with suppress(Busy):  # the next one will find it not closed, and all rows there
                await self.patiently(lambda: self.file.finish(heard=heard), _LAST_ROUNDS)
        finally:
            await thread.close()
            _thread_of(thread).join()

    async def _leave_behind(self, thread: aiosqlite.Connection) -> None:
        """Let go of the files after the loop has ended without a close.

        The thread may have died of having to answer to that loop, or may be about to.
        """
        held: sqlite3.Connection = thread._conn  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        closing = asyncio.create_task(thread.close())
        while _thread_of(thread).is_alive():  # noqa: ASYNC110 - it tells nobody that it dies
            await asyncio.sleep(_GLANCE)
        while not closing.done():
            closing.cancel()
            await asyncio.sleep(0)
        held.close()


def _changes(commands: Sequence[Command]) -> list[Change]:
    return [change for command in commands for change in command]


def _thread_of(connection: aiosqlite.Connection) -> threading.Thread:
    """An aiosqlite connection has a thread since 0.22, and was one before."""
    return cast("threading.Thread", getattr(connection, "_thread", connection))
