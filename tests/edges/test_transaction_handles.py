"""Handles of calls in a transaction, before its end; and callers that are cancelled."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

import aiosqlite
import pytest

from asyncdefer import JobCancelled, JobDropped, State
from tests.edges.tills import KINDS, Shop, Till, open_till, until


@pytest.fixture(params=KINDS)
async def till(request: pytest.FixtureRequest, shop: Shop) -> AsyncIterator[Till]:
    async with open_till(shop, request.param) as till:
        yield till


async def test_a_call_that_is_cancelled_before_the_commit(till: Till, shop: Shop) -> None:
    """It never runs, and what it replaced neither; nothing else can be done to it yet."""
    older = await shop.queue.enqueue(shop.ship, 1, delay=60, key="k")
    async with till.transaction() as tx:
        handle = await till.enqueue(tx, shop.ship, 2, key="k")
        assert handle.state is State.HELD
        assert not await handle.flush()
        assert not await handle.reschedule(delay=5)
        found = await shop.queue.handle(handle.id)
        assert found is not None and found.id == handle.id
        assert await handle.cancel()
    for one in (handle, older):
        with pytest.raises(JobCancelled):
            await asyncio.wait_for(one, 1)
        assert one.state is State.CANCELLED
    assert shop.runs == []
    assert not await handle.cancel()


async def test_cancelled_and_rolled_back(till: Till, shop: Shop) -> None:
    """It was cancelled: that is its end."""
    with pytest.raises(ZeroDivisionError):
        async with till.transaction() as tx:
            handle = await till.enqueue(tx, shop.ship, 2)
            assert await handle.cancel()
            raise ZeroDivisionError
    with pytest.raises(JobCancelled):
        await asyncio.wait_for(handle, 1)
    assert shop.queue.stats().cancelled == 1


async def test_a_call_is_discarded_before_the_commit(shop: Shop) -> None:
    """`JobDropped`."""
    async with open_till(shop) as till, till.transaction() as tx:
        handle = await till.enqueue(tx, shop.ship, 2)
        assert await shop.queue.discard(handle.id)
    with pytest.raises(JobDropped, match="discarded"):
        await asyncio.wait_for(handle, 1)


@pytest.mark.parametrize("which", [0, 1])
async def test_one_of_two_is_cancelled(shop: Shop, which: int) -> None:
    """To cancel a call that was replaced cancels the one that took its place, in a transaction too."""
    async with open_till(shop) as till, till.transaction() as tx:
        handles = [await till.enqueue(tx, shop.ship, n, key="k") for n in (1, 2)]
        assert await handles[which].cancel()
    for handle in handles:
        with pytest.raises(JobCancelled):
            await asyncio.wait_for(handle, 1)
    assert shop.runs == []


async def test_one_is_cancelled_and_then_replaced(shop: Shop) -> None:
    """The later call was made after that, and runs."""
    async with open_till(shop) as till, till.transaction() as tx:
        first = await till.enqueue(tx, shop.ship, 1, key="k")
        assert await first.cancel()
        second = await till.enqueue(tx, shop.ship, 2, key="k")
    assert await second == 2
    with pytest.raises(JobCancelled):
        await asyncio.wait_for(first, 1)


async def test_held_jobs_are_shown(shop: Shop) -> None:
    """By the counts and in listings, in their place, though nobody else sees their rows yet."""
    for order, delay in ((1, 60), (2, 120)):
        await shop.queue.enqueue(shop.ship, order, delay=delay)
    async with open_till(shop) as till, till.transaction() as tx:
        held = [await till.enqueue(tx, shop.ship, n, delay=n) for n in (90, 150)]
        assert shop.queue.stats().held == 2
        shown = [job.arguments["order"] async for job in shop.queue.jobs()]
        assert shown == [1, 90, 2, 150]
        found = [job.id async for job in shop.queue.jobs(state="held")]
        assert found == [handle.id for handle in held]
    await shop.is_noticed()
    assert [job async for job in shop.queue.jobs(state="held")] == []
    assert len([job async for job in shop.queue.jobs()]) == 4


# Callers that are cancelled


async def held_up(till: Till, milliseconds: int) -> "asyncio.Task[Any]":
    """Have the thread of the connection busy, so that what is asked of it waits."""
    task = asyncio.ensure_future(till.connection._execute(lambda: time.sleep(milliseconds / 1000)))
    await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("pauses", range(12))
async def test_a_caller_that_is_cancelled_anywhere(shop: Shop, pauses: int) -> None:
    """At each step: no transaction of ours is left open, and what the file has is what runs."""
    async with open_till(shop) as till:

        async def work() -> None:
            async with till.transaction() as tx:
                await till.buy(tx, 1)
                await till.buy(tx, 2)

        busy = await held_up(till, 20)
        task = asyncio.create_task(work())
        for _ in range(pauses):
            await asyncio.sleep(0.004)
        task.cancel()
        for _ in range(pauses % 3):
            await asyncio.sleep(0)
            task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await busy
        assert not till.connection.in_transaction
        await shop.is_noticed()
        await until(lambda: shop.runs == shop.orders())
        assert shop.orders() in ([], [1, 2])


async def test_who_is_cancelled_in_enter(shop: Shop) -> None:
    """While BEGIN waits for its turn: what it begins is rolled back."""
    async with open_till(shop) as till:
        busy = await held_up(till, 50)
        task = asyncio.create_task(shop.queue.transaction(till.connection).__aenter__())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await busy
        assert not till.connection.in_transaction


async def test_who_is_cancelled_in_enqueue(shop: Shop) -> None:
    """The call is in the transaction all the same, as with `queue.enqueue`: whoever commits makes it."""
    older = await shop.queue.enqueue(shop.ship, 1, delay=7 * 86_400, key="k")
    del older
    async with open_till(shop) as till, till.transaction() as tx:
        busy = await held_up(till, 50)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await tx.enqueue(shop.ship, 2, key="k")
        await busy
    await until(lambda: shop.runs == [2])
    assert shop.queue.stats().waiting == 0


async def test_who_is_cancelled_in_the_commit(shop: Shop) -> None:
    """It happens, and is told as a cancellation."""
    async with open_till(shop) as till:

        async def work() -> None:
            async with till.transaction() as tx:
                await till.buy(tx, 1)
                await held_up(till, 50)

        task = asyncio.create_task(work())
        await asyncio.sleep(0.03)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await until(lambda: shop.runs == [1] == shop.orders())


async def test_the_driver_is_closed_in_the_block(shop: Shop) -> None:
    """Nothing can be committed any more, and that is told."""
    db = await aiosqlite.connect(shop.path, isolation_level=None)
    with pytest.raises(RuntimeError, match="ended inside"):
        async with shop.queue.transaction(db) as tx:
            handle = await tx.enqueue(shop.ship, 1)
            await db.close()
    with pytest.raises(JobDropped):
        await asyncio.wait_for(handle, 1)


async def test_the_callers_context(shop: Shop) -> None:
    """A job has the context variables of its caller, and is itself inside of no transaction."""
    seen: list[str] = []

    @shop.queue.task("look")
    async def look() -> int:
        seen.append(request.get())
        return await (await shop.queue.enqueue(shop.ship, 1))

    async with open_till(shop) as till:
        request.set("ann")
        async with till.transaction() as tx:
            handle = await tx.enqueue(look)
        async with till.transaction():
            await asyncio.sleep(0.05)
    assert await asyncio.wait_for(handle, 2) == 1
    assert seen == ["ann"]


request: ContextVar[str] = ContextVar("request")
