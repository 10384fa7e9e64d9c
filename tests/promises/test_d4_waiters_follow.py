"""D4: every caller of a burst gets the one outcome."""

import asyncio

import pytest

import asyncdefer
from asyncdefer import Handle, JobCancelled, JobExpired, Queue, QueueClosed, Snooze, State
from asyncdefer.testing import VirtualClock, virtual


async def outcomes(*handles: Handle[object]) -> list[object]:
    assert all(handle.done() for handle in handles)
    return list(await asyncio.gather(*handles, return_exceptions=True))


async def test_the_result_of_the_last_call(queue: Queue, clock: VirtualClock) -> None:
    """All callers of a burst get what the last call returned."""

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, n: int) -> int:
        return n * 10

    handles = [await note.enqueue(1, n) for n in range(5)]
    await clock.advance(10)

    assert await outcomes(*handles) == [40] * 5


async def test_callers_that_wait_already(queue: Queue, clock: VirtualClock) -> None:
    """A caller that awaits its handle when a newer call comes goes on waiting, for that one."""

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, n: int) -> int:
        return n

    async def call(n: int) -> int:
        return await (await note.enqueue(1, n))

    callers = []
    for n in range(20):
        callers.append(asyncio.create_task(call(n)))
        await asyncio.sleep(0)
        await clock.advance(9)
    assert not any(caller.done() for caller in callers)
    await clock.advance(1)

    assert await asyncio.wait_for(asyncio.gather(*callers), 5) == [19] * 20


async def test_the_failure_of_the_last_call(queue: Queue, clock: VirtualClock) -> None:
    """All callers of a burst get the exception of the one run, in its own type."""

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, n: int) -> int:
        raise ZeroDivisionError(n)

    handles = [await note.enqueue(1, n) for n in range(3)]
    await clock.advance(10)

    for outcome in await outcomes(*handles):
        assert isinstance(outcome, ZeroDivisionError)
        assert outcome.args == (2,)


async def test_a_cancel_by_any_of_them(queue: Queue, clock: VirtualClock) -> None:
    """The handle of a replaced call stands for the live job: its cancel is everyone's."""
    runs: list[int] = []

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, n: int) -> None:
        runs.append(n)

    handles = [await note.enqueue(1, n) for n in range(3)]
    assert await handles[0].cancel()
    await clock.advance(60)

    assert runs == []
    assert [type(outcome) for outcome in await outcomes(*handles)] == [JobCancelled] * 3
    assert [handle.state for handle in handles] == [State.CANCELLED] * 3


async def test_a_flush_and_a_reschedule_by_any_of_them(queue: Queue, clock: VirtualClock) -> None:
    """`flush` and `reschedule` on a replaced call's handle move the live job."""

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, n: int) -> int:
        return n

    a, b = await note.enqueue(1, 1), await note.enqueue(1, 2)
    assert await a.reschedule(delay=500)
    assert a.eta == b.eta
    await clock.advance(499)
    assert not b.done()
    assert await a.flush()
    await clock.advance(0)

    assert await outcomes(a, b) == [2, 2]


async def test_an_expiry() -> None:
    """All callers of a burst that expires get JobExpired."""
    queue = Queue(concurrency=1)

    @queue.task
    async def block() -> None:
        await asyncdefer.sleep(100)

    @queue.task(defer=True, expires=5)
    async def note() -> None: ...

    async with virtual(queue) as clock:
        await block.enqueue()
        await clock.advance(0)
        handles = [await note.enqueue() for _ in range(3)]
        await clock.advance(5)
        assert [type(outcome) for outcome in await outcomes(*handles)] == [JobExpired] * 3
        await clock.advance(95)


async def test_a_close() -> None:
    """All callers of a burst that is cut off by close() get QueueClosed."""
    queue = Queue()

    @queue.task(delay=10, defer=True)
    async def note() -> None: ...

    async with virtual(queue):
        handles = [await note.enqueue() for _ in range(3)]
        await queue.close()
        assert [type(outcome) for outcome in await outcomes(*handles)] == [QueueClosed] * 3


async def test_the_handle_shows_the_live_job(queue: Queue, clock: VirtualClock) -> None:
    """A replaced call's handle shows state, eta and outcome of the job that took its place."""

    @queue.task(defer=["user"])
    async def note(user: int) -> str:
        await asyncdefer.sleep(5)
        return "done"

    old = await note.options(delay=10).enqueue(1)
    new = await note.options(delay=20).enqueue(1)

    assert (old.state, old.eta, old.key) == (State.SCHEDULED, new.eta, new.key)
    assert not old.done()
    await clock.advance(21)
    assert old.state is State.RUNNING
    await clock.advance(4)
    assert old.state is State.SUCCEEDED
    assert await outcomes(old, new) == ["done", "done"]


async def test_callers_of_a_run_that_started_keep_their_own_outcome(
    queue: Queue, clock: VirtualClock
) -> None:
    """Only calls that wait at the same time share an outcome: a running call answers its own."""

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> int:
        await asyncdefer.sleep(10)
        return n

    first = await note.enqueue(1, 1)
    await clock.advance(5)
    second = await note.enqueue(1, 2)
    third = await note.enqueue(1, 3)
    await clock.advance(5)

    assert not first.replaced
    assert await outcomes(first) == [1]
    assert not second.done()
    await clock.advance(10)
    assert await outcomes(second, third) == [3, 3]


async def test_callers_of_a_run_that_gives_way_follow_the_newer_call(
    queue: Queue, clock: VirtualClock
) -> None:
    """A snooze of a running job gives way to a newer call that waits, and its callers follow it."""

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> int:
        await asyncdefer.sleep(10)
        if n == 1:
            raise Snooze(delay=1)
        return n

    first = await note.enqueue(1, 1)
    await clock.advance(5)
    second = await note.options(delay=60).enqueue(1, 2)
    await clock.advance(5)

    assert first.replaced
    assert first.eta == second.eta
    assert not first.done()
    await clock.advance(65)
    assert await outcomes(first, second) == [2, 2]


async def test_a_long_chain_of_replacements(queue: Queue, clock: VirtualClock) -> None:
    """The first of thousands of callers gets the answer of the last one."""

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, n: int) -> int:
        return n

    handles = [await note.enqueue(1, n) for n in range(5000)]
    await clock.advance(10)

    assert set(await outcomes(*handles)) == {4999}


async def test_a_waiter_that_leaves_takes_nobody_along(queue: Queue, clock: VirtualClock) -> None:
    """A caller that stops waiting leaves the shared outcome to the others."""

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, n: int) -> int:
        return n

    async def wait(handle: Handle[int]) -> int:
        return await handle

    a = asyncio.create_task(wait(await note.enqueue(1, 1)))
    b = asyncio.create_task(wait(await note.enqueue(1, 2)))
    await asyncio.sleep(0)
    a.cancel()
    with pytest.raises(asyncio.CancelledError):
        await a
    await clock.advance(10)

    assert await asyncio.wait_for(b, 5) == 2
