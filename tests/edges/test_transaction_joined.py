"""A transaction that others begin and end: the block joins it, and the queue notices its end."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from asyncdefer import Handle, JobDropped, LogEvent, State
from tests.edges.tills import Shop, Till, alchemy, open_till, until


@pytest.fixture
async def till(shop: Shop) -> AsyncIterator[Till]:
    async with open_till(shop) as till:
        yield till


async def is_dropped(handle: Handle[Any]) -> bool:
    with pytest.raises(JobDropped, match="rolled back"):
        await asyncio.wait_for(handle, 1)
    return True


# Begun by the caller


async def test_the_block_leaves_it_open(till: Till, shop: Shop) -> None:
    """The calls wait for the caller's commit, and run within a second of it."""
    await till.run("BEGIN")
    async with till.transaction() as tx:
        handle = await till.buy(tx, 1)
    assert till.connection.in_transaction
    await till.run("INSERT INTO orders VALUES (2)")
    await asyncio.sleep(0.6)
    assert (shop.runs, shop.orders(), handle.state) == ([], [], State.HELD)
    await till.run("COMMIT")
    assert await asyncio.wait_for(handle, 1) == 1
    assert shop.orders() == [1, 2]


async def test_it_is_rolled_back_after_the_block(till: Till, shop: Shop) -> None:
    """Within a second the waiters know."""
    await till.run("BEGIN")
    async with till.transaction() as tx:
        handle = await till.buy(tx, 1)
    await till.run("ROLLBACK")
    assert await is_dropped(handle)


async def test_the_block_is_left_by_an_exception(till: Till, shop: Shop) -> None:
    """The transaction is the caller's, who may commit it all the same."""
    await till.run("BEGIN")
    with pytest.raises(ZeroDivisionError):
        async with till.transaction() as tx:
            handle = await till.buy(tx, 1)
            raise ZeroDivisionError
    assert till.connection.in_transaction
    await till.run("COMMIT")
    assert await asyncio.wait_for(handle, 1) == 1


async def test_the_connection_is_closed(shop: Shop) -> None:
    """Without a commit: that is a rollback."""
    async with open_till(shop) as till:
        await till.run("BEGIN")
        async with till.transaction() as tx:
            handle = await till.buy(tx, 1)
    assert await is_dropped(handle)
    assert shop.orders() == []


async def test_a_savepoint_that_is_the_transaction(till: Till, shop: Shop) -> None:
    """Outside of a transaction SAVEPOINT begins one, and RELEASE commits it."""
    await till.run("SAVEPOINT one")
    async with till.transaction() as tx:
        handle = await till.buy(tx, 1)
    await till.run("RELEASE one")
    assert await asyncio.wait_for(handle, 1) == 1


@pytest.mark.parametrize("commits", [True, False])
async def test_another_one_begins_at_once(till: Till, shop: Shop, commits: bool) -> None:
    """The connection is never seen without a transaction; the end of the first is noticed all the same."""
    await till.run("BEGIN")
    async with till.transaction() as tx:
        handle = await till.buy(tx, 1)
    await till.run("COMMIT" if commits else "ROLLBACK")
    await till.run("BEGIN")  # it holds nothing yet
    other = await shop.queue.enqueue(shop.ship, 9)
    if commits:
        assert await asyncio.wait_for(handle, 1) == 1
    else:
        assert await is_dropped(handle)
    assert await other == 9
    await till.run("ROLLBACK")


async def test_several_blocks_in_one(till: Till, shop: Shop) -> None:
    """Each has its calls, and all wait for the one commit."""
    handles = []
    await till.run("BEGIN IMMEDIATE")
    for order in (1, 2, 3):
        async with till.transaction() as tx:
            handles.append(await till.buy(tx, order))
    async with till.transaction() as outer, till.transaction() as inner:
        handles += [await till.buy(outer, 4), await till.buy(inner, 5)]
    assert shop.runs == []
    await till.run("COMMIT")
    await shop.is_noticed()
    assert [await handle for handle in handles] == shop.orders() == [1, 2, 3, 4, 5]


async def test_a_block_within_a_block(till: Till, shop: Shop) -> None:
    """The inner one joins what the outer one has begun, and ends with it."""
    with pytest.raises(ZeroDivisionError):
        async with till.transaction() as outer:
            first = await till.buy(outer, 1)
            async with till.transaction() as inner:
                second = await till.buy(inner, 2)
            assert till.connection.in_transaction
            raise ZeroDivisionError
    assert await is_dropped(first)
    assert await is_dropped(second)


async def test_drivers_that_begin_by_themselves(shop: Shop) -> None:
    """A connection as Python opens it begins with the first INSERT: before it, the block does."""
    async with aiosqlite.connect(shop.path) as db:
        till = Till(shop, db)
        async with till.transaction() as tx:
            first = await till.buy(tx, 1)
        assert await first == 1
        await till.run("INSERT INTO orders VALUES (2)")
        async with till.transaction() as tx:
            second = await till.buy(tx, 3)
        assert shop.orders() == [1]
        await db.rollback()
    assert await is_dropped(second)
    assert shop.orders() == [1]


async def test_a_snapshot_that_is_out_of_date(till: Till, shop: Shop) -> None:
    """A transaction that has read, and the file was written since: it cannot write, and says so."""
    await till.run("BEGIN")
    await till.connection.execute_fetchall("SELECT * FROM orders")
    await shop.queue.enqueue(shop.ship, 1)
    with pytest.raises(Exception, match="BEGIN IMMEDIATE"):
        async with till.transaction():
            pass
    await till.run("ROLLBACK")
    async with till.transaction() as tx:
        assert await till.buy(tx, 2)


# SQLAlchemy


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("commits", [True, False])
async def test_engine_begin(shop: Shop, legacy: bool, commits: bool) -> None:
    """SQLAlchemy ends what it has begun; also where its driver has not sent BEGIN yet."""
    async with alchemy(shop, legacy=legacy) as engine:
        try:
            async with engine.begin() as connection:
                async with shop.queue.transaction(connection) as tx:
                    handle = await tx.enqueue(shop.ship, 1)
                await connection.execute(text("INSERT INTO orders VALUES (1)"))
                await asyncio.sleep(0.3)
                assert (shop.runs, shop.orders()) == ([], [])
                if not commits:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert await is_dropped(handle)
        else:
            assert await asyncio.wait_for(handle, 1) == 1
        assert shop.orders() == [1] * commits


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("commits", [True, False])
async def test_a_connection_without_a_transaction(shop: Shop, legacy: bool, commits: bool) -> None:
    """The block begins SQLAlchemy's own, and ends it."""
    async with alchemy(shop, legacy=legacy) as engine, engine.connect() as connection:
        for order in (1, 2):
            try:
                async with shop.queue.transaction(connection) as tx:
                    handle = await tx.enqueue(shop.ship, order)
                    await connection.execute(text(f"INSERT INTO orders VALUES ({order})"))
                    if not commits:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                assert await is_dropped(handle)
            else:
                assert await asyncio.wait_for(handle, 1) == order
            assert not connection.in_transaction()
    assert shop.orders() == [1, 2] * commits


@pytest.mark.parametrize("legacy", [False, True])
async def test_a_session(shop: Shop, legacy: bool) -> None:
    """`await session.connection()`, and the session commits; its savepoints take their calls with them."""
    async with alchemy(shop, legacy=legacy) as engine, AsyncSession(engine) as session:
        async with shop.queue.transaction(await session.connection()) as tx:
            await session.execute(text("INSERT INTO orders VALUES (1)"))
            kept = await tx.enqueue(shop.ship, 1)
            savepoint = await session.begin_nested()
            await session.execute(text("INSERT INTO orders VALUES (2)"))
            gone = await tx.enqueue(shop.ship, 2)
            await savepoint.rollback()
            async with session.begin_nested():
                nested = await tx.enqueue(shop.ship, 3)
        await session.commit()
        assert [await kept, await nested] == [1, 3]
        assert await is_dropped(gone)
    assert shop.orders() == [1]


async def test_a_pool_that_is_busy(shop: Shop) -> None:
    """The driver's connection is used again at once, by others."""
    async with alchemy(shop) as engine:
        handles: list[Handle[int]] = []
        for order in range(1, 31):
            try:
                async with engine.begin() as connection:
                    async with shop.queue.transaction(connection) as tx:
                        handle = await tx.enqueue(shop.ship, order)
                    await connection.execute(text(f"INSERT INTO orders VALUES ({order})"))
                    if order % 3 == 0:
                        raise ZeroDivisionError
            except ZeroDivisionError:
                assert await is_dropped(handle)
            else:
                handles.append(handle)
        assert [await handle for handle in handles] == shop.orders()


# The file is taken


async def test_a_slow_transaction_is_told(till: Till, shop: Shop) -> None:
    """After a second, once; of one that is joined too, when its block has been left."""
    told: list[LogEvent] = []
    shop.queue.subscribe(lambda event: event.name == "transaction_slow" and told.append(event))
    async with till.transaction() as tx:
        await till.buy(tx, 1)
        assert not told
        await asyncio.sleep(1.1)
        assert [event.seconds for event in told] == [1.0]
    await till.run("BEGIN")
    async with till.transaction() as tx:
        await till.buy(tx, 2)
    await asyncio.sleep(0.5)
    await until(lambda: len(told) == 2)
    await till.run("COMMIT")


async def test_the_callers_connection_makes_no_checkpoints(till: Till) -> None:
    """They are left to the journal's own."""
    async with till.transaction():
        pass
    assert list(await till.connection.execute_fetchall("PRAGMA wal_autocheckpoint")) == [(0,)]
