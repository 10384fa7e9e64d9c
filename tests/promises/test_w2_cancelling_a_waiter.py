"""W2: cancelling a waiter detaches that waiter, and touches neither the job nor another one."""

from __future__ import annotations

import asyncio

import anyio
import pytest

import asyncdefer
from asyncdefer import Handle, Queue, State
from asyncdefer.testing import VirtualClock


async def works() -> str:
    await asyncdefer.sleep(5)
    return "done"


async def wait_for(handle: Handle[str]) -> str:
    return await handle


@pytest.mark.parametrize("moment", ["waits", "runs"])
@pytest.mark.parametrize("victim", [0, 1, 2])
async def test_one_of_three_leaves(
    queue: Queue, clock: VirtualClock, moment: str, victim: int
) -> None:
    """Of three who wait for one handle one is cancelled: the job and the other two go on."""
    handle = await queue.enqueue(works, delay=10)
    waiters = [asyncio.create_task(wait_for(handle)) for _ in range(3)]
    await asyncio.sleep(0)
    await clock.advance(12 if moment == "runs" else 5)
    waiters[victim].cancel()
    await asyncio.wait([waiters[victim]], timeout=5)
    assert waiters[victim].cancelled()
    assert handle.state is (State.RUNNING if moment == "runs" else State.SCHEDULED)
    await clock.advance(20)
    async with asyncio.timeout(5):
        for n, waiter in enumerate(waiters):
            if n != victim:
                assert await waiter == "done"
        assert await handle == "done"


async def test_when_all_leave_the_job_still_runs(queue: Queue, clock: VirtualClock) -> None:
    """A job whose waiters are all cancelled runs all the same, and a newcomer gets its result."""
    handle = await queue.enqueue(works, delay=10)
    waiters = [asyncio.create_task(wait_for(handle)) for _ in range(5)]
    await asyncio.sleep(0)
    for waiter in waiters:
        waiter.cancel()
    await asyncio.wait(waiters, timeout=5)
    assert all(waiter.cancelled() for waiter in waiters)
    await clock.advance(20)
    assert handle.state is State.SUCCEEDED
    assert await handle == "done"


async def test_a_waiter_of_a_replaced_call_leaves(queue: Queue, clock: VirtualClock) -> None:
    """Cancelling who waits for a replaced call does not touch the callers of the newer one."""
    old = await queue.enqueue(works, key="k", delay=10)
    of_old = [asyncio.create_task(wait_for(old)) for _ in range(2)]
    await asyncio.sleep(0)
    new = await queue.enqueue(works, key="k", delay=10)
    of_new = asyncio.create_task(wait_for(new))
    await asyncio.sleep(0)
    of_old[0].cancel()
    await clock.advance(20)
    async with asyncio.timeout(5):
        assert await of_old[1] == "done"
        assert await of_new == "done"
    assert of_old[0].cancelled()


async def test_a_cancel_scope_detaches(queue: Queue, clock: VirtualClock) -> None:
    """A waiter in an anyio scope that is cancelled leaves; the job goes on."""
    handle = await queue.enqueue(works, delay=10)
    other = asyncio.create_task(wait_for(handle))
    scope = anyio.CancelScope()

    async def scoped() -> None:
        with scope:
            await handle

    async with anyio.create_task_group() as group:
        group.start_soon(scoped)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        scope.cancel()
    assert scope.cancelled_caught
    await clock.advance(20)
    async with asyncio.timeout(5):
        assert await other == "done"


async def test_result_with_a_timeout_detaches(queue: Queue, clock: VirtualClock) -> None:
    """A `result(timeout)` that runs out leaves the job and the other waiters alone."""
    handle = await queue.enqueue(works, delay=10)
    patient = asyncio.create_task(wait_for(handle))
    hasty = asyncio.create_task(handle.result(timeout=12))
    await asyncio.sleep(0)
    await clock.advance(13)
    assert handle.state is State.RUNNING
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await hasty
    await clock.advance(10)
    async with asyncio.timeout(5):
        assert await patient == "done"


async def test_a_wait_for_that_gives_up_detaches(queue: Queue, clock: VirtualClock) -> None:
    """`asyncio.wait_for` and `asyncio.timeout` around a handle cancel the wait, not the job."""
    handle = await queue.enqueue(works, delay=10)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(wait_for(handle), 0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await handle
    assert handle.state is State.SCHEDULED
    await clock.advance(20)
    assert handle.done()
    assert await handle == "done"


async def test_leaving_in_the_moment_of_the_answer(queue: Queue, clock: VirtualClock) -> None:
    """A waiter that is cancelled in the breath in which the job ends harms nobody."""
    waiters: list[asyncio.Task[str]] = []

    async def cuts_off_its_waiter() -> str:
        waiters[1].cancel()
        return "done"

    handle = await queue.enqueue(cuts_off_its_waiter, delay=1)
    waiters += [asyncio.create_task(wait_for(handle)) for _ in range(3)]
    await asyncio.sleep(0)
    await clock.advance(1)
    async with asyncio.timeout(5):
        assert await waiters[0] == "done"
        assert await waiters[2] == "done"
    await asyncio.wait([waiters[1]], timeout=5)
    assert waiters[1].done()
    assert handle.state is State.SUCCEEDED


async def test_cancelling_a_job_that_waits_for_another(queue: Queue, clock: VirtualClock) -> None:
    """A job that waits for another job's handle is a waiter: cancelling it spares the other."""
    inner = await queue.enqueue(works, delay=10)

    async def outer_job() -> str:
        return await inner

    outer = await queue.enqueue(outer_job)
    await clock.advance(1)
    assert outer.state is State.RUNNING
    assert await outer.cancel()
    await clock.advance(0)
    assert outer.state is State.CANCELLED
    assert inner.state is State.SCHEDULED
    await clock.advance(20)
    assert inner.done()
    assert await inner == "done"


async def test_a_cancelled_gather_detaches_from_all(queue: Queue, clock: VirtualClock) -> None:
    """Cancelling a `gather` over many handles cancels none of their jobs."""
    handles = [await queue.enqueue(works, delay=n) for n in range(5)]
    together = asyncio.create_task(asyncio.wait_for(asyncio.gather(*handles), None))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    together.cancel()
    await asyncio.wait([together], timeout=5)
    assert together.cancelled()
    await clock.advance(20)
    assert {handle.state for handle in handles} == {State.SUCCEEDED}
