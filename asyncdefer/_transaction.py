"""Calls that are made with the commit of a transaction on the journal's own file."""

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import Context
from datetime import datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Any, Final, Generic, Protocol, Self, TypeVar, Unpack, overload

import aiosqlite

from asyncdefer._calls import Calls
from asyncdefer._core.options import CallOptions, Options, read_options
from asyncdefer._door import running_loop
from asyncdefer._handle import Handle
from asyncdefer._lodging import Lodging, ended_inside, warn_of_wal_reset_bug
from asyncdefer.stores._hop import to_the_end
from asyncdefer.stores._lent import Home, Lent
from asyncdefer.stores._within import AsyncLent, lend

T = TypeVar("T")
R = TypeVar("R")

_RAW: Final = "get_raw_connection"


class Asked(Protocol):
    """A connection of SQLAlchemy, which has one of its driver."""

    def in_transaction(self) -> bool: ...
    def begin(self) -> Any: ...
    async def commit(self) -> None: ...
    async def rollback(self) -> None: ...
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
        self._asked_one: Asked | None = connection if hasattr(connection, _RAW) else None
        self._lent: AsyncLent | None = None
        self._writing = 0

    async def __aenter__(self) -> Self:
        home = self._enter()
        self._scheduler.check_loop()
        warn_of_wal_reset_bug()
        try:
            await to_the_end(self._begin(home))
        except asyncio.CancelledError:
            if self._own:
                await to_the_end(self._roll_back())
            raise
        self._begun()
        self._come_in()
        return self

    async def _begin(self, home: Home) -> None:
        asked = self._asked_one
        if asked is not None:
            if not asked.in_transaction():
                await asked.begin()
                self._own = True
            self._connection = (await asked.get_raw_connection()).driver_connection
        try:
            lent = lend(self._connection)
            assert isinstance(lent, AsyncLent)
            self._lent = lent
            begins = await lent.enter(home)
            self._own = self._own or (begins and asked is None)
        except BaseException:
            if self._own:
                await self._roll_back()
            self._own = False
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._go_out()
        await to_the_end(self._end(commits=error is None))

    async def _end(self, *, commits: bool) -> None:
        while self._writing:  # noqa: ASYNC110 - another task's call, which is on its way
            await asyncio.sleep(0)
        if not self._own:
            self._left()
            return
        try:
            if commits:
                await self._commit()
            else:
                await self._roll_back()
        finally:
            self._ended()

    async def _commit(self) -> None:
        assert self._lent is not None
        if not self._is_open():
            raise ended_inside()
        try:
            if self._asked_one is None:
                await self._lent.commit()
            else:
                await self._asked_one.commit()
        except BaseException as error:
            if not self._is_open():
                self._failed(error)
            await self._roll_back()
            raise

    async def _roll_back(self) -> None:
        if self._asked_one is not None:
            await self._asked_one.rollback()
        if self._lent is not None and self._is_open():
            await self._lent.roll_back()

    def _is_open(self) -> bool:
        return self._lent is not None and self._lent.is_open()

    @overload
    async def enqueue(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]: ...
    @overload
    async def enqueue(
        self,
        fn: Callable[..., R],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]: ...
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
        if self._inside is None:
            raise RuntimeError("a call is made inside of `async with queue.transaction(…) as tx:`")
        handle, lodged = self._lodge(fn, args, kwargs, eta, delay, key, given)
        assert self._lent is not None
        self._writing += 1
        try:
            await self._lent.add(self._home(), lodged.row, partial(self._written, lodged))
        except BaseException as error:
            if lodged.since is None:
                self._scheduler.lodged_ill(lodged, error)
            raise
        finally:
            self._writing -= 1
        return handle


class Transaction(Lodging):
    """The same on a connection of sqlite3, in the thread that uses it."""

    def __init__(self, queue: Calls, connection: sqlite3.Connection) -> None:
        super().__init__(queue)
        self._lent = Lent(connection)

    def __enter__(self) -> Self:
        home = self._enter()
        warn_of_wal_reset_bug()
        self._own = self._lent.enter(home)
        try:
            self._in_loop(self._begun)
        except BaseException:
            if self._own:
                self._lent.roll_back()
            raise
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
            self._tell_loop(self._left)
            return
        try:
            if error is None:
                self._commit()
            elif self._is_open():
                self._lent.roll_back()
        finally:
            self._tell_loop(self._ended)

    def _commit(self) -> None:
        if not self._is_open():
            raise ended_inside()
        try:
            self._lent.commit()
        except BaseException as error:
            if self._is_open():
                self._lent.roll_back()
            else:
                self._tell_loop(partial(self._failed, error))
            raise

    def _is_open(self) -> bool:
        return self._lent.is_open()

    @overload
    def enqueue(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]: ...
    @overload
    def enqueue(
        self,
        fn: Callable[..., R],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]: ...
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
        if self._inside is None:
            raise RuntimeError("a call is made inside of `with queue.transaction(…) as tx:`")
        handle, lodged = self._in_loop(
            lambda: self._lodge(fn, args, kwargs, eta, delay, key, given)
        )
        try:
            written = self._lent.add(self._home(), lodged.row)
        except BaseException as error:
            self._tell_loop(partial(self._scheduler.lodged_ill, lodged, error))
            raise
        self._tell_loop(partial(self._written, lodged, written))
        return handle

    def _in_loop(self, step: Callable[[], T]) -> T:
        """Do it in the loop's thread, and wait for it."""
        if running_loop() is self._scheduler.loop:
            return step()
        return self._queue.from_thread(step, _as_it_is)

    def _tell_loop(self, step: Callable[[], object]) -> None:
        """Have it done in the loop's thread, before anything else that is asked for from here."""
        loop = self._scheduler.loop
        if running_loop() is loop:
            step()
            return
        with suppress(
            RuntimeError
        ):  # the loop is closed: what was committed runs at the next start
            loop.call_soon_threadsafe(step, context=Context())


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
        raise TypeError(
            "a transaction is one of an aiosqlite.Connection, a sqlite3.Connection or an AsyncConnection"
            f" of SQLAlchemy, not of {connection!r}; of an AsyncSession: await session.connection()"
        )


async def _as_it_is(value: T) -> T:
    return value
