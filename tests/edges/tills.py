"""A shop that keeps its orders in the journal's own file, and connections of each kind to it."""

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiosqlite
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from asyncdefer import Handle, Queue
from asyncdefer.testing import check_conservation

KINDS: Final = ("aiosqlite", "sqlite3", "sqlalchemy")
DAY: Final = 86_400


async def until(met: Callable[[], bool]) -> None:
    """Wait for something that nobody tells; a second at the most."""
    async with asyncio.timeout(1):
        while not met():  # noqa: ASYNC110 - as said
            await asyncio.sleep(0.01)


class Shop:
    """A queue with a task `ship`, and a table `orders` beside it. `runs`: what was shipped."""

    def __init__(self, path: Path, **options: Any) -> None:
        self.path = path
        self.queue = Queue(path, **options)
        self.runs: list[int] = []
        self.may_end = asyncio.Event()

        @self.queue.task("ship")
        async def ship(order: int) -> int:
            self.runs.append(order)
            return order

        @self.queue.task("wait")
        async def wait(order: int) -> int:
            self.runs.append(order)
            await self.may_end.wait()
            return order

        self.ship, self.wait = ship, wait

    def orders(self) -> list[int]:
        """What anybody else sees in the table now."""
        db = sqlite3.connect(self.path)
        try:
            return [id for (id,) in db.execute("SELECT id FROM orders ORDER BY id")]
        finally:
            db.close()

    async def is_noticed(self) -> None:
        """Wait until the queue knows the end of each transaction; a second is the promise."""
        await until(lambda: not self.queue.stats().held)


@asynccontextmanager
async def opened(shop: Shop) -> AsyncGenerator[Shop, None]:
    """It is open; afterwards its books have to balance, and nothing is held."""
    async with shop.queue:
        db = sqlite3.connect(shop.path)
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        db.close()
        yield shop
        await shop.is_noticed()
        scheduler = shop.queue._started()
        assert not scheduler.lodged
        assert not scheduler.books.yielding
        assert scheduler.journal is not None and scheduler.journal.lent == 0
        check_conservation(shop.queue)


class Till:
    """A connection of the shop's. `tx`: what the block of a transaction is given."""

    def __init__(self, shop: Shop, connection: Any) -> None:
        self.shop = shop
        self.connection = connection

    async def run(self, sql: str) -> None:
        await self.connection.execute(sql)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any, None]:
        async with self.shop.queue.transaction(self.connection) as tx:
            yield tx

    async def buy(self, tx: Any, order: int, **options: Any) -> Handle[int]:
        """An order and its call."""
        await self.run(f"INSERT INTO orders VALUES ({order})")
        return await self.enqueue(tx, self.shop.ship, order, **options)

    async def enqueue(self, tx: Any, fn: Any, *args: Any, **options: Any) -> Handle[Any]:
        return await tx.enqueue(fn, *args, **options)


class SqlAlchemyTill(Till):
    async def run(self, sql: str) -> None:
        await self.connection.execute(text(sql))


class ThreadTill(Till):
    """In a thread of its own."""

    thread: ThreadPoolExecutor

    async def do(self, step: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self.thread, lambda: step(*args, **kwargs))

    async def run(self, sql: str) -> None:
        await self.do(self.connection.execute, sql)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Any, None]:
        block = self.shop.queue.transaction(self.connection)
        tx = await self.do(block.__enter__)
        try:
            yield tx
        except BaseException as error:
            await self.do(block.__exit__, type(error), error, None)
            raise
        await self.do(block.__exit__, None, None, None)

    async def enqueue(self, tx: Any, fn: Any, *args: Any, **options: Any) -> Handle[Any]:
        handle: Handle[Any] = await self.do(tx.enqueue, fn, *args, **options)
        return handle


@asynccontextmanager
async def open_till(shop: Shop, kind: str = "aiosqlite") -> AsyncGenerator[Till, None]:
    if kind == "aiosqlite":
        async with aiosqlite.connect(shop.path, isolation_level=None) as db:
            yield Till(shop, db)
    elif kind == "sqlite3":
        till = ThreadTill(shop, None)
        till.thread = ThreadPoolExecutor(1)
        till.connection = await till.do(sqlite3.connect, shop.path, isolation_level=None)
        try:
            yield till
        finally:
            await till.do(till.connection.close)
            till.thread.shutdown()
    else:
        async with alchemy(shop) as engine, engine.connect() as connection:
            yield SqlAlchemyTill(shop, connection)


@asynccontextmanager
async def alchemy(shop: Shop, *, legacy: bool = False) -> AsyncGenerator[AsyncEngine, None]:
    """SQLAlchemy as its documentation has it for SQLite, or with the driver left as it is."""
    engine = create_async_engine(f"sqlite+aiosqlite:///{shop.path}")

    if not legacy:

        @event.listens_for(engine.sync_engine, "connect")
        def connect(connection: Any, _: object) -> None:
            connection.isolation_level = None

        @event.listens_for(engine.sync_engine, "begin")
        def begin(connection: Any) -> None:
            connection.exec_driver_sql("BEGIN")

    try:
        yield engine
    finally:
        await engine.dispose()


async def counted(shop: Shop) -> int:
    """How many calls wait by the books, while the file is read."""
    jobs = [job async for job in shop.queue.jobs(state="scheduled")]
    assert shop.queue.stats().waiting == len(jobs)
    return len(jobs)


__all__ = [
    "DAY",
    "KINDS",
    "AsyncConnection",
    "Shop",
    "Till",
    "alchemy",
    "counted",
    "open_till",
    "opened",
    "until",
]
