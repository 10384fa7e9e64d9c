"""`queue.transaction(connection)`: a call is made with the caller's commit, or never.

Real files, on connections of aiosqlite, of sqlite3 in a thread and of SQLAlchemy over aiosqlite; beside
each call a row is written, so that the file itself says which calls are right.
"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator

import pytest

from asyncdefer import Handle, JobDropped, QueueClosed, State
from asyncdefer.stores._base import Note
from tests.edges.tills import KINDS, Shop, Till, open_till


@pytest.fixture(params=KINDS)
async def till(request: pytest.FixtureRequest, shop: Shop) -> AsyncIterator[Till]:
    async with open_till(shop, request.param) as till:
        yield till


async def dropped(*handles: Handle[int]) -> bool:
    """All of them, and they say so."""
    for handle in handles:
        with pytest.raises(JobDropped, match="rolled back"):
            await asyncio.wait_for(handle, 2)
        assert handle.state is State.DROPPED
    return True


# The two ends


async def test_a_commit_makes_the_call(till: Till, shop: Shop) -> None:
    """The order and its call are there together, and the call runs at once."""
    async with till.transaction() as tx:
        handle = await till.buy(tx, 1)
        assert shop.orders() == []
    assert shop.orders() == [1]
    assert await asyncio.wait_for(handle, 2) == 1
    assert shop.runs == [1]


async def test_nothing_runs_before_the_commit(till: Till, shop: Shop) -> None:
    """However long it takes, though the call is due; nobody else sees it, and it is held."""
    async with till.transaction() as tx:
        handle = await till.buy(tx, 1)
        await asyncio.sleep(0.7)
        assert (handle.state, handle.done(), shop.runs) == (State.HELD, False, [])
        assert shop.queue.stats().held == 1
    assert await handle == 1


async def test_a_rollback_drops_the_call(till: Till, shop: Shop) -> None:
    """An exception rolls back: no order, no call, and who awaits it is told."""
    with pytest.raises(ZeroDivisionError):
        async with till.transaction() as tx:
            handles = [await till.buy(tx, order) for order in (1, 2)]
            waiter = asyncio.create_task(handles[0].result())
            raise ZeroDivisionError
    assert await dropped(*handles)
    with pytest.raises(JobDropped):
        await waiter
    assert (shop.orders(), shop.runs) == ([], [])
    assert shop.queue.stats().dropped == 2
    assert await shop.queue.handle(handles[0].id) is None


async def test_what_is_rolled_back_leaves_no_trace(till: Till, shop: Shop) -> None:
    """The next start finds nothing of it."""
    with pytest.raises(ZeroDivisionError):
        async with till.transaction() as tx:
            await till.buy(tx, 1)
            raise ZeroDivisionError
    await shop.is_noticed()
    await shop.queue.close()
    async with shop.queue:
        assert [job async for job in shop.queue.jobs()] == []


async def test_one_connection_many_transactions(till: Till, shop: Shop) -> None:
    """Each has its own end."""
    handles = []
    for order in range(1, 11):
        try:
            async with till.transaction() as tx:
                handles.append(await till.buy(tx, order))
                if order % 3 == 0:
                    raise ZeroDivisionError
        except ZeroDivisionError:
            assert await dropped(handles.pop())
    assert [await handle for handle in handles] == shop.orders() == [1, 2, 4, 5, 7, 8, 10]


async def test_many_calls_of_one_transaction(till: Till, shop: Shop) -> None:
    """In the order in which they were made."""
    async with till.transaction() as tx:
        handles = [await till.buy(tx, order) for order in range(1, 201)]
    assert [await handle for handle in handles] == shop.runs == shop.orders()


async def test_a_block_without_a_call(till: Till, shop: Shop) -> None:
    """It is a transaction all the same."""
    async with till.transaction():
        await till.run("INSERT INTO orders VALUES (1)")
    assert shop.orders() == [1]


# Savepoints


async def test_a_savepoint_takes_its_calls_with_it(till: Till, shop: Shop) -> None:
    """Rolled back, it drops those from within it, and the others run; released, it makes none yet."""
    async with till.transaction() as tx:
        before = await till.buy(tx, 1)
        await till.run("SAVEPOINT one")
        gone = await till.buy(tx, 2)
        await till.run("SAVEPOINT two")
        gone_too = await till.buy(tx, 3)
        await till.run("RELEASE two")
        await till.run("ROLLBACK TO one")
        kept = await till.buy(tx, 4)
        await till.run("RELEASE one")
        await till.run("SAVEPOINT three")
        nested = await till.buy(tx, 5)
        await till.run("RELEASE three")
        assert {one.state for one in (before, gone, gone_too, kept, nested)} == {State.HELD}
    assert [await one for one in (before, kept, nested)] == [1, 4, 5] == shop.orders()
    assert await dropped(gone, gone_too)
    assert shop.runs == [1, 4, 5]


async def test_a_savepoint_that_is_all(till: Till, shop: Shop) -> None:
    """Everything is undone, and the transaction commits: no call, no error."""
    async with till.transaction() as tx:
        await till.run("SAVEPOINT one")
        gone = await till.buy(tx, 1)
        await till.run("ROLLBACK TO one")
        await till.run("RELEASE one")
    assert await dropped(gone)
    assert shop.orders() == []


# Crashes are in test_transaction_crashes.py, keys in test_transaction_keys.py


async def test_a_block_that_was_ended_inside(shop: Shop) -> None:
    """A commit of the program's own within the block is told: the rest of it was no transaction."""
    async with open_till(shop) as till:
        with pytest.raises(RuntimeError, match="ended inside"):
            async with till.transaction() as tx:
                handle = await till.buy(tx, 1)
                await till.run("COMMIT")
                with pytest.raises(ValueError, match="no transaction is open"):
                    await till.buy(tx, 2)
        assert await handle == 1
        with pytest.raises(RuntimeError, match="ended inside"):
            async with till.transaction() as tx:
                gone = await till.buy(tx, 3)
                await till.run("ROLLBACK")
        assert await dropped(gone)
    assert shop.orders() == [1, 2]


async def test_the_closing_of_the_queue_inside_a_block(shop: Shop) -> None:
    """What is committed afterwards runs at the next start; waiters are told when the queue closes."""
    async with open_till(shop) as till, till.transaction() as tx:
        handle = await till.buy(tx, 1)
        await shop.queue.close()
        with pytest.raises(QueueClosed, match="if it commits"):
            await handle
        with pytest.raises(QueueClosed):
            await till.enqueue(tx, shop.ship, 2)
    assert shop.orders() == [1]
    async with shop.queue:
        await shop.queue.join()
        assert shop.runs == [1]


@pytest.mark.parametrize("counts", [0, 1])
async def test_the_connection_stays_the_callers(shop: Shop, counts: int) -> None:
    """Its settings, its factories and its last rowid are as they were after each call."""
    scheduler = shop.queue._started()
    assert scheduler.journal is not None
    scheduler.journal.log(
        Note("of a rate", "1")
    )  # the first row of its table, as order 1 of its own
    await scheduler.recorded()
    async with open_till(shop) as till:
        db = till.connection
        db.row_factory, db.text_factory = dict_of, bytes
        await db.execute_fetchall(f"PRAGMA count_changes = {counts}")
        async with till.transaction() as tx:
            handles = [await tx.enqueue(shop.ship, 0)]
            for order in (77, 1):
                await db.execute_fetchall(f"INSERT INTO orders VALUES ({order})")
                for key in (None, "k", "k", None):
                    handles.append(await tx.enqueue(shop.ship, order, key=key))
                    ((found,),) = await db.execute_fetchall("SELECT last_insert_rowid()")
                    assert found == "last_insert_rowid()"
                    rows = await db.execute_fetchall("SELECT last_insert_rowid() AS id, 'x' AS t")
                    assert list(rows) == [{"id": order, "t": b"x"}]
        assert (db.row_factory, db.text_factory) == (dict_of, bytes)
        await asyncio.gather(*handles)


def dict_of(cursor: sqlite3.Cursor, row: tuple[object, ...]) -> dict[str, object]:
    return {name: value for (name, *_), value in zip(cursor.description, row, strict=True)}
