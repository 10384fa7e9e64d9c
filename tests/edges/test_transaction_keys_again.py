"""Several calls of one key in transactions: in one, in two, and in savepoints."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import asyncdefer
from asyncdefer import State
from asyncdefer.testing import VirtualClock
from tests.edges.tills import DAY, Shop, Till, counted, open_till, opened


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


async def test_calls_of_one_key_in_a_transaction(
    shop: Shop, till: Till, clock: VirtualClock
) -> None:
    """The last one runs, for all, be they ever so many; `calls` counts them."""
    seen: list[int] = []

    @shop.queue.task("count")
    async def count(order: int) -> int:
        seen.append(asyncdefer.current().calls)
        return order

    async with till.transaction() as tx:
        handles = [await tx.enqueue(count, n, delay=1, key="k") for n in range(1_500)]
    await shop.is_noticed()
    assert await counted(shop) == 1
    await clock.advance(1)
    assert {await handle for handle in handles} == {1_499}
    assert seen == [1_500]
    assert [handle.replaced for handle in (handles[0], handles[-1])] == [True, False]


@pytest.mark.parametrize("old", [None, 60, 7 * DAY])
@pytest.mark.parametrize("ends", ["cc", "cr", "rc", "rr"])
@pytest.mark.parametrize("late", [True, False])
async def test_two_transactions_for_one_key(
    shop: Shop, till: Till, clock: VirtualClock, ends: str, old: float | None, late: bool
) -> None:
    """The later one that commits survives, also if the first was not noticed before the second ended."""
    first = None
    if old is not None:
        first = await shop.queue.enqueue(shop.ship, 1, delay=old, key="k")
    handles = []
    if late:  # the caller's own, of which the queue hears later
        for end, order in zip(ends, (2, 3), strict=True):
            await till.run("BEGIN IMMEDIATE")
            async with till.transaction() as tx:
                handles.append(await tx.enqueue(shop.ship, order, delay=60, key="k"))
            await till.run("COMMIT" if end == "c" else "ROLLBACK")
    else:
        for end, order in zip(ends, (2, 3), strict=True):
            try:
                async with till.transaction() as tx:
                    handles.append(await tx.enqueue(shop.ship, order, delay=60, key="k"))
                    if end == "r":
                        raise ZeroDivisionError
            except ZeroDivisionError:
                pass
    await shop.is_noticed()
    expected = 3 if ends[1] == "c" else 2 if ends[0] == "c" else 1
    assert await counted(shop) == (old is not None or ends != "rr")
    await clock.advance(31 * DAY)
    assert shop.runs == ([] if ends == "rr" and old is None else [expected])
    for end, handle in zip(ends, handles, strict=True):
        if end == "c":
            assert await handle == expected
        else:
            assert handle.state is State.DROPPED
    if first is not None:
        assert await first == expected


async def test_a_savepoint_restores_what_was_replaced(
    shop: Shop, till: Till, clock: VirtualClock
) -> None:
    """Of the calls of a key, those that were rolled back with a savepoint have replaced nothing."""
    first = await shop.queue.enqueue(shop.ship, 1, delay=7 * DAY, key="k")
    del first
    async with till.transaction() as tx:
        await till.run("SAVEPOINT one")
        gone = await tx.enqueue(shop.ship, 2, delay=60, key="k")
        await till.run("ROLLBACK TO one")
        second = await tx.enqueue(shop.ship, 3, delay=60, key="k")
        await till.run("SAVEPOINT two")
        gone_too = await tx.enqueue(shop.ship, 4, delay=60, key="k")
        await till.run("ROLLBACK TO two")
    await shop.is_noticed()
    assert await counted(shop) == 1
    await clock.advance(60)
    assert await second == 3
    assert gone.state is gone_too.state is State.DROPPED
    assert shop.runs == [3]
