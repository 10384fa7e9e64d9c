"""The rule of keys in a transaction: at the commit the newest call of a key survives, and not before."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncdefer import Every, Handle, JobCancelled, Retry, State
from asyncdefer.testing import VirtualClock
from tests.edges.tills import DAY, Shop, Till, counted, open_till, opened, until


@pytest.fixture
def clock() -> VirtualClock:
    return VirtualClock()


@pytest.fixture
async def shop(tmp_path: Path, clock: VirtualClock) -> AsyncIterator[Shop]:
    async with opened(Shop(tmp_path / "shop.db", clock=clock)) as shop:
        yield shop


@pytest.fixture
async def till(shop: Shop) -> AsyncIterator[Till]:
    async with open_till(shop) as till:
        yield till


# What was waiting under the key

OLD = {
    "none": None,
    "near": 60,
    "far": 7 * DAY,
    "far_and_held": 7 * DAY,
}


@pytest.mark.parametrize("delay", [0, 60, 30 * DAY])
@pytest.mark.parametrize("old", OLD)
async def test_a_commit_replaces(
    shop: Shop, till: Till, clock: VirtualClock, old: str, delay: float
) -> None:
    """Whatever waits, in memory or as a row, near or far: it waits until the commit, and no longer."""
    first: Handle[int] | None = None
    if OLD[old] is not None:
        first = await shop.queue.enqueue(shop.ship, 1, delay=OLD[old], key="k")
    waiter = asyncio.create_task(first.result()) if first and old != "far" else None
    if old == "far":
        first = None
    async with till.transaction() as tx:
        second = await tx.enqueue(shop.ship, 2, delay=delay, key="k")
        assert second.state is State.HELD
        if first is not None:
            assert (first.state, first.replaced) == (State.SCHEDULED, False)
    await shop.is_noticed()
    if delay:
        assert second.state is State.SCHEDULED
        assert await counted(shop) == 1
        assert second.eta == (await anext(shop.queue.jobs())).eta
    if first is not None:
        assert first.replaced
        assert first.eta == second.eta
    await clock.advance(31 * DAY)
    assert await second == 2
    if waiter is not None:
        assert await waiter == 2
    assert shop.runs == [2]
    assert shop.queue.stats().replaced == (OLD[old] is not None)
    assert await counted(shop) == 0


@pytest.mark.parametrize("delay", [0, 60, 30 * DAY])
@pytest.mark.parametrize("old", OLD)
async def test_a_rollback_leaves_what_was(
    shop: Shop, till: Till, clock: VirtualClock, old: str, delay: float
) -> None:
    """What waited under the key waits on, and runs."""
    if OLD[old] is not None:
        first: Handle[int] | None = await shop.queue.enqueue(shop.ship, 1, delay=OLD[old], key="k")
    else:
        first = None
    if old == "far":
        first = None
    with pytest.raises(ZeroDivisionError):
        async with till.transaction() as tx:
            await tx.enqueue(shop.ship, 2, delay=delay, key="k")
            raise ZeroDivisionError
    await shop.is_noticed()
    assert await counted(shop) == (OLD[old] is not None)
    if first is not None:
        assert (first.state, first.replaced) == (State.SCHEDULED, False)
    await clock.advance(31 * DAY)
    assert shop.runs == ([] if OLD[old] is None else [1])
    assert shop.queue.stats().replaced == 0


async def test_a_far_row_that_comes_near_meanwhile(
    shop: Shop, till: Till, clock: VirtualClock
) -> None:
    """A row that somebody looks up, or lets go of, before the commit is counted once."""
    await shop.queue.enqueue(shop.ship, 1, delay=7 * DAY, key="k")
    async with till.transaction() as tx:
        handle = await tx.enqueue(shop.ship, 2, delay=60, key="k")
        found = await shop.queue.pending(shop.ship, "k")
        assert found is not None
        del found
        found = await shop.queue.pending(shop.ship, "k")
    await shop.is_noticed()
    assert found is not None and found.replaced
    assert await counted(shop) == 1
    await clock.advance(60)
    assert await found == await handle == 2


async def test_a_handle_that_is_let_go_of_before_the_commit(shop: Shop, till: Till) -> None:
    """The row of a far call is counted, whether or not somebody holds it when it is replaced."""
    first = await shop.queue.enqueue(shop.ship, 1, delay=7 * DAY, key="k")
    async with till.transaction() as tx:
        await tx.enqueue(shop.ship, 2, delay=60, key="k")
        assert first.state is State.SCHEDULED
        del first
    await shop.is_noticed()
    assert await counted(shop) == 1


@pytest.mark.parametrize("kept", [True, False])
async def test_what_is_cancelled_meanwhile(shop: Shop, till: Till, kept: bool) -> None:
    """The older call is cancelled while the transaction is open: that is its end, counted once."""
    ttl = 60 if kept else 0
    first = await shop.queue.options(result_ttl=ttl, delay=60, key="k").enqueue(shop.ship, 1)
    async with till.transaction() as tx:
        cancelling = asyncio.create_task(first.cancel())
        await asyncio.sleep(0)
        second = await tx.enqueue(shop.ship, 2, delay=60, key="k")
    assert await cancelling
    with pytest.raises(JobCancelled):
        await first
    await shop.is_noticed()
    assert second.state is State.SCHEDULED
    assert await counted(shop) == 1


async def test_a_run_goes_on(shop: Shop, till: Till, clock: VirtualClock) -> None:
    """A running job is never touched: the call waits as the next one of the key."""
    first = await shop.queue.enqueue(shop.wait, 1, key="k")
    await clock.advance(0, patience=0)
    await until(lambda: shop.runs == [1])
    async with till.transaction() as tx:
        second = await tx.enqueue(shop.wait, 2, key="k")
    await shop.is_noticed()
    assert (first.state, second.state) == (State.RUNNING, State.SCHEDULED)
    shop.may_end.set()
    assert (await first, await second) == (1, 2)
    assert shop.runs == [1, 2]


@pytest.mark.parametrize("during", [True, False])
async def test_a_retry_gives_way(shop: Shop, till: Till, clock: VirtualClock, during: bool) -> None:
    """A job that waits for its next attempt is replaced; also if it failed while the file was taken."""
    attempts: list[int] = []

    @shop.queue.task("flaky", retry=Retry(3, delay=600, jitter=False))
    async def flaky(order: int) -> int:
        attempts.append(order)
        await shop.may_end.wait()
        if order == 1:
            raise ConnectionError
        return order

    first = await shop.queue.enqueue(flaky, 1, key="k")
    await clock.advance(0, patience=0)
    await until(lambda: attempts == [1])
    if not during:
        shop.may_end.set()
        await clock.advance(0)
    async with till.transaction() as tx:
        second = await tx.enqueue(flaky, 2, key="k", delay=60)
        shop.may_end.set()
        await until(lambda: first.state is not State.RUNNING)
    await shop.is_noticed()
    await clock.advance(60)
    assert await first == await second == 2
    assert attempts == [1, 2]


@pytest.mark.parametrize("delay", [0, 60, 30 * DAY])
async def test_a_schedule_ends(shop: Shop, till: Till, clock: VirtualClock, delay: float) -> None:
    """A call under the key of a schedule that waits takes its place, as any call does."""
    every = await shop.queue.options(repeat=Every(60), key="k").enqueue(shop.ship, 1)
    async with till.transaction() as tx:
        handle = await tx.enqueue(shop.ship, 2, delay=delay, key="k")
        assert not every.replaced
    await shop.is_noticed()
    await clock.advance(31 * DAY)
    assert every.replaced
    assert await every == await handle == 2
    assert shop.runs == [2]


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("when", ["open", "after"])
async def test_a_schedule_whose_run_ends_meanwhile(
    shop: Shop, till: Till, clock: VirtualClock, when: str, commits: bool
) -> None:
    """The run that follows by itself is none that is newer than the call; after a rollback it goes on."""
    await shop.queue.options(repeat=Every(60), key="k").enqueue(shop.wait, 1)
    await clock.advance(60, patience=0)
    await until(lambda: shop.runs == [1])
    try:
        async with till.transaction() as tx:
            handle = await tx.enqueue(shop.wait, 2, delay=60, key="k")
            if when == "open":
                shop.may_end.set()
                await asyncio.sleep(0.05)
            if not commits:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    shop.may_end.set()
    await shop.is_noticed()
    await clock.advance(120)
    if commits:
        assert await handle == 2
        assert shop.runs == [1, 2]
        assert await shop.queue.pending(shop.wait, "k") is None
    else:
        assert shop.runs == [1, 1, 1]
        found = await shop.queue.pending(shop.wait, "k")
        assert found is not None
        await found.cancel()


# What comes meanwhile


async def test_a_call_that_becomes_due_while_the_file_is_taken(
    shop: Shop, till: Till, clock: VirtualClock
) -> None:
    """Its start waits for the file: if the transaction commits, it has been replaced before."""
    first = await shop.queue.enqueue(shop.ship, 1, delay=60, key="k")
    waiter = asyncio.create_task(first.result())
    async with till.transaction() as tx:
        second = await tx.enqueue(shop.ship, 2, key="k")
        await clock.advance(60, patience=0)
        await asyncio.sleep(0.05)
        assert shop.runs == []
    assert await second == await first == await waiter == 2
    assert first.replaced
    assert shop.runs == [2]


async def test_it_becomes_due_and_the_transaction_is_rolled_back(
    shop: Shop, till: Till, clock: VirtualClock
) -> None:
    """Then it runs."""
    first = await shop.queue.enqueue(shop.ship, 1, delay=60, key="k")
    with pytest.raises(ZeroDivisionError):
        async with till.transaction() as tx:
            await tx.enqueue(shop.ship, 2, key="k")
            await clock.advance(60, patience=0)
            raise ZeroDivisionError
    assert await first == 1
    assert shop.runs == [1]
    await shop.is_noticed()


@pytest.mark.parametrize("delay", [0, 60, 30 * DAY])
async def test_it_becomes_due_between_the_commit_and_the_adoption(
    shop: Shop, till: Till, clock: VirtualClock, delay: float
) -> None:
    """The caller has committed, and the queue has not noticed yet: the older one does not run."""
    first = await shop.queue.enqueue(shop.ship, 1, delay=60, key="k")
    waiter = asyncio.create_task(first.result())
    await till.run("BEGIN IMMEDIATE")
    async with till.transaction() as tx:
        second = await tx.enqueue(shop.ship, 2, delay=delay, key="k")
    await till.run("COMMIT")
    await clock.advance(60, patience=0)
    await shop.is_noticed()
    await clock.advance(31 * DAY)
    assert await second == await first == await waiter == 2
    assert shop.runs == [2]


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("delay", [0, 60, 30 * DAY])
@pytest.mark.parametrize("commits", [True, False])
async def test_a_newer_call_from_elsewhere(
    shop: Shop, till: Till, clock: VirtualClock, commits: bool, delay: float, old: str
) -> None:
    """It waits for the file, and is the newest then: all who wait follow it."""
    first = None
    if OLD[old] is not None:
        first = await shop.queue.enqueue(shop.ship, 1, delay=OLD[old], key="k")
    if old == "far":
        first = None
    try:
        async with till.transaction() as tx:
            second = await tx.enqueue(shop.ship, 2, delay=delay, key="k")
            newer = asyncio.create_task(shop.queue.enqueue(shop.ship, 3, delay=delay, key="k"))
            await asyncio.sleep(0.02)
            assert not newer.done()
            if not commits:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    third = await newer
    await shop.is_noticed()
    if delay:
        assert await counted(shop) == 1
    await clock.advance(31 * DAY)
    for handle in (first, second if commits else None, third):
        assert handle is None or await handle == 3
    assert shop.runs == [3]


@pytest.mark.parametrize("delay", [0, 60, 30 * DAY])
@pytest.mark.parametrize("commits", [True, False])
async def test_an_older_call_from_elsewhere(
    shop: Shop, till: Till, clock: VirtualClock, commits: bool, delay: float
) -> None:
    """It was made first and waits for the file, while a newer one is made in the transaction."""
    second = None
    try:
        async with till.transaction() as tx:
            # Another call is on its way to the file, so that this one's start joins it in line.
            shop.queue.enqueue_nowait(shop.ship, 9, delay=90 * DAY)
            await asyncio.sleep(0.02)
            older = asyncio.create_task(shop.queue.enqueue(shop.ship, 1, delay=delay, key="k"))
            await clock.advance(0, patience=0)
            second = await tx.enqueue(shop.ship, 2, delay=delay, key="k")
            if not commits:
                raise ZeroDivisionError
    except ZeroDivisionError:
        pass
    first = await older
    await shop.is_noticed()
    await clock.advance(31 * DAY)
    assert await first == (2 if commits else 1)
    assert shop.runs == [2 if commits else 1]
    assert second is not None
    assert second.state is (State.SUCCEEDED if commits else State.DROPPED)


@pytest.mark.parametrize("delay", [0, 60, 30 * DAY])
async def test_a_newer_call_before_the_adoption(
    shop: Shop, till: Till, clock: VirtualClock, delay: float
) -> None:
    """The caller has committed, and at once calls again by the other way."""
    await till.run("BEGIN IMMEDIATE")
    async with till.transaction() as tx:
        second = await tx.enqueue(shop.ship, 2, delay=60, key="k")
    await till.run("COMMIT")
    third = await shop.queue.enqueue(shop.ship, 3, delay=delay, key="k")
    await shop.is_noticed()
    await clock.advance(31 * DAY)
    assert await second == await third == 3
    assert second.replaced
    assert shop.runs == [3]
