"""Calls that are made with the commit of a transaction on the journal's own file."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar, Unpack, overload

import aiosqlite

from asyncdefer._calls import Calls
from asyncdefer._core.options import CallOptions, Options, read_options
from asyncdefer._door import running_loop
from asyncdefer._handle import Handle
from asyncdefer._lodging import Lodging
from asyncdefer.stores._base import Add, Unknown
from asyncdefer.stores._within import AsyncLent, Lent, lend, warn_of_wal_reset_bug

T = TypeVar("T")

_RAW: Final = "get_raw_connection"


class Asked(Protocol):
    """A connection of SQLAlchemy, which is asked for that of its driver."""

    async def get_raw_connection(self) -> Any: ...


class TransactionCall(Generic[T]):
    """A transaction together with options for one call."""

    __slots__ = ("_enqueue", "_options")

    def __init__(self, enqueue: Callable[..., T], options: Options) -> None:
        self._enqueue = enqueue
        self._options = options

    def enqueue(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> T:
        """Schedule the call; every keyword argument is the function's own."""
        return self._enqueue(fn, args, kwargs, None, None, None, self._options)


class AsyncTransaction(Lodging):
    """A transaction on a connection of aiosqlite, as `queue.transaction(connection)` gives it."""

    def __init__(self, queue: Calls, connection: Any) -> None:
        super().__init__(queue)
        self._connection = connection
        self._lent: AsyncLent | None = None

    async def __aenter__(self) -> Self:
        if self._inside:
            raise RuntimeError("this transaction is entered already: make another one")
        store, journal = self._store()
        self._scheduler.check_loop()
        self._connection, self._joins = await _driver_of(self._connection)
        lent = lend(self._connection)
        assert isinstance(lent, AsyncLent)
        self._lent = lent
        warn_of_wal_reset_bug(has_bug=await lent.prepare())
        self._own = not lent.is_open()
        if self._own:
            await lent.begin()
        try:
            await store.write(journal.owner, [], within=self._connection)
        except BaseException:
            if self._own:
                await lent.roll_back()
            raise
        if self._joins:
            self._own = False
        self._begun()
        self._come_in()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._go_out()
        if not self._own:
            self._left()
            return
        task = asyncio.ensure_future(self._end(error is None))
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as stopped:
                if task.done():
                    break
                cancelled = stopped
            except Exception:  # noqa: BLE001 - it is raised below
                break
        if cancelled is not None:
            raise cancelled from None if task.cancelled() else task.exception()
        task.result()

    async def _end(self, commit: bool) -> None:
        assert self._lent is not None
        try:
            if commit and self._lent.is_open():
                await self._lent.commit()
            else:
                await self._lent.roll_back()
        except BaseException as error:
            if isinstance(error, Unknown):
                self._unknown()
            elif self._lent.is_open():
                await self._lent.roll_back()
            raise
        finally:
            self._ended()

    def _is_open(self) -> bool:
        return self._lent is not None and self._lent.is_open()

    async def enqueue(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[Any]:
        """Schedule a call that is made with the commit; as `queue.enqueue` otherwise."""
        return await self._enqueue(fn, args, kwargs, eta, delay, key, None)

    def options(
        self, **options: Unpack[CallOptions]
    ) -> TransactionCall[Coroutine[Any, Any, Handle[Any]]]:
        """Options for one call: `await tx.options(priority=60).enqueue(fn, …)`."""
        return TransactionCall(self._enqueue, read_options(options, CallOptions))

    async def _enqueue(
        self, fn: Any, args: Any, kwargs: Any, eta: Any, delay: Any, key: Any, given: Options | None
    ) -> Handle[Any]:
        if not self._inside:
            raise RuntimeError("a call is made inside of `async with queue.transaction(…) as tx:`")
        store, journal = self._store()
        handle, lodged = self._lodge(fn, args, kwargs, eta, delay, key, given)
        try:
            written = await store.write(
                journal.owner, [(Add(lodged.row),)], within=self._connection
            )
        except BaseException as error:
            self._not_written(lodged, error)
            raise
        self._written(lodged, written)
        return handle


class Transaction(Lodging):
    """The same on a connection of sqlite3, in the thread that uses it."""

    def __init__(self, queue: Calls, connection: sqlite3.Connection) -> None:
        super().__init__(queue)
        self._connection = connection
        self._lent = Lent(connection)

    def __enter__(self) -> Self:
        if self._inside:
            raise RuntimeError("this transaction is entered already: make another one")
        store, journal = self._store()
        warn_of_wal_reset_bug(has_bug=self._lent.prepare())
        self._own = not self._lent.is_open()
        if self._own:
            self._lent.begin()
        try:
            store.write_within(journal.owner, [], self._connection)
        except BaseException:
            if self._own:
                self._lent.roll_back()
            raise
        self._in_loop(self._begun)
        self._come_in()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._go_out()
        if not self._own:
            self._in_loop(self._left)
            return
        try:
            if error is None and self._lent.is_open():
                self._lent.commit()
            else:
                self._lent.roll_back()
        except BaseException as failed:
            if isinstance(failed, Unknown):
                self._in_loop(self._unknown)
            elif self._lent.is_open():
                self._lent.roll_back()
            raise
        finally:
            self._in_loop(self._ended)

    def _is_open(self) -> bool:
        return self._lent.is_open()

    def enqueue(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[Any]:
        """Schedule a call that is made with the commit; as `queue.enqueue` otherwise."""
        return self._enqueue(fn, args, kwargs, eta, delay, key, None)

    def options(self, **options: Unpack[CallOptions]) -> TransactionCall[Handle[Any]]:
        """Options for one call: `tx.options(priority=60).enqueue(fn, …)`."""
        return TransactionCall(self._enqueue, read_options(options, CallOptions))

    def _enqueue(
        self, fn: Any, args: Any, kwargs: Any, eta: Any, delay: Any, key: Any, given: Options | None
    ) -> Handle[Any]:
        if not self._inside:
            raise RuntimeError("a call is made inside of `with queue.transaction(…) as tx:`")
        store, journal = self._store()
        handle, lodged = self._in_loop(
            lambda: self._lodge(fn, args, kwargs, eta, delay, key, given)
        )
        try:
            written = store.write_within(journal.owner, [(Add(lodged.row),)], self._connection)
        except BaseException as error:
            failed = error
            self._in_loop(lambda: self._not_written(lodged, failed))
            raise
        self._in_loop(lambda: self._written(lodged, written))
        return handle

    def _in_loop(self, step: Callable[[], T]) -> T:
        """Do it in the loop's thread, and wait for it."""
        if running_loop() is self._scheduler.loop:
            return step()
        return self._queue.from_thread(step, _as_it_is)


class Transacting(Calls):
    """What makes calls within a transaction of the program's own."""

    @overload
    def transaction(self, connection: sqlite3.Connection) -> Transaction: ...
    @overload
    def transaction(self, connection: aiosqlite.Connection | Asked) -> AsyncTransaction: ...
    def transaction(self, connection: Any) -> Any:
        """Calls that are made when a transaction commits, and never if it is rolled back.

        `connection`: to the very file of the journal: an `aiosqlite.Connection` (`async with`), a
        `sqlite3.Connection` (`with`, in the thread that uses it), or an `AsyncConnection` of
        SQLAlchemy over aiosqlite. If no transaction is open, one is begun and ended by the block;
        else the block joins it, and calls follow within a second of its commit. While it is open,
        every other call of the queue waits. `ValueError` for a connection to another file.
        """
        if isinstance(connection, sqlite3.Connection):
            return Transaction(self, connection)
        if isinstance(connection, aiosqlite.Connection) or hasattr(connection, _RAW):
            return AsyncTransaction(self, connection)
        lend(connection)  # which says what is wanted
        raise AssertionError


async def _as_it_is(value: T) -> T:
    return value


async def _driver_of(connection: Any) -> tuple[Any, bool]:
    """The connection of aiosqlite, and whether somebody else ends its transactions."""
    if not hasattr(connection, _RAW):
        return connection, False
    return (await connection.get_raw_connection()).driver_connection, True
