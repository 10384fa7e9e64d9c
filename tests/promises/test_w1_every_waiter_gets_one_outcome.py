"""W1: every waiter gets exactly one outcome, on every path; none hangs."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import (
    GiveUp,
    Handle,
    JobCancelled,
    JobExpired,
    Queue,
    QueueClosed,
    Snooze,
    State,
    current,
)
from asyncdefer.testing import VirtualClock, virtual

Act = Callable[[Queue, VirtualClock, Handle[Any]], Awaitable[object]]


async def outcome(handle: Handle[Any]) -> object:
    """What a waiter gets: a result, or the class of what it raises."""
    try:
        return await handle
    except Exception as error:
        return type(error)


# What the job does.


async def works() -> str:
    await asyncdefer.sleep(5)
    return "done"


async def fails() -> str:
    await asyncdefer.sleep(5)
    raise LookupError


async def gives_up() -> str:
    raise GiveUp("never")


async def snoozes() -> str:
    if current().attempt == 1:
        raise Snooze(delay=5)
    return "done"


def plain() -> str:
    return "done"


def plain_fails() -> str:
    raise LookupError


# What happens to it. Every job is due at 10; the clock stands at 0.


async def time_passes(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    await clock.advance(30)


async def cancel_waiting(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    assert await handle.cancel()


async def cancel_running(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    await clock.advance(12)
    assert handle.state is State.RUNNING
    assert await handle.cancel()
    await clock.advance(0)


async def cancel_snoozing(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    await clock.advance(12)
    assert handle.state is State.SCHEDULED
    assert await handle.cancel()


async def pause(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    queue.pause()
    await clock.advance(30)
    queue.resume()


async def flush(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    assert await handle.flush()
    await clock.advance(6)


async def reschedule(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    assert await handle.reschedule(delay=100)
    await clock.advance(110)


async def close(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    await queue.close()


async def close_running(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    await clock.advance(12)
    assert handle.state is State.RUNNING
    await queue.close()


async def close_due(queue: Queue, clock: VirtualClock, handle: Handle[Any]) -> None:
    queue.pause()
    await clock.advance(12)
    await queue.close()


@dataclass(frozen=True)
class Path:
    """One way that a job can go, and what its waiters get at the end of it."""

    name: str
    job: Callable[[], Any]
    act: Act
    gets: object
    options: dict[str, Any] = field(default_factory=dict)


PATHS = [
    Path("ran", works, time_passes, "done"),
    Path("ran in a thread", plain, time_passes, "done"),
    Path("failed", fails, time_passes, LookupError),
    Path("failed in a thread", plain_fails, time_passes, LookupError),
    Path("gave up", gives_up, time_passes, GiveUp),
    Path("snoozed, then ran", snoozes, time_passes, "done"),
    Path("timed out", works, time_passes, TimeoutError, {"timeout": 2}),
    Path("expired", works, pause, JobExpired, {"expires": 3}),
    Path("cancelled while it waited", works, cancel_waiting, JobCancelled),
    Path("cancelled while it ran", works, cancel_running, JobCancelled),
    Path("cancelled while it snoozed", snoozes, cancel_snoozing, JobCancelled),
    Path("flushed", works, flush, "done"),
    Path("rescheduled", works, reschedule, "done"),
    Path("closed while it waited", works, close, QueueClosed),
    Path("closed while it ran", works, close_running, QueueClosed),
    Path("closed while it was due", works, close_due, QueueClosed),
]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
async def test_every_path_settles_every_waiter(path: Path) -> None:
    """Whatever becomes of a job, all waiters of all calls of its burst get the one outcome."""
    queue = Queue(drain_timeout=0)
    async with virtual(queue) as clock:
        handles = [
            await queue.options(key="k", delay=10, **path.options).enqueue(path.job)
            for _ in range(3)
        ]
        waiters = [asyncio.create_task(outcome(handle)) for handle in handles for _ in range(3)]
        await asyncio.sleep(0)  # everyone waits now
        leaver = asyncio.create_task(outcome(handles[0]))
        await asyncio.sleep(0)
        leaver.cancel()
        await path.act(queue, clock, handles[-1])
        async with asyncio.timeout(5):
            assert await asyncio.gather(*waiters) == [path.gets] * 9
            # Those who come late get it too, as often as they ask.
            for handle in handles * 2:
                assert handle.done()
                assert await outcome(handle) == path.gets
    assert leaver.cancelled()


async def test_a_result_of_none_is_an_outcome(queue: Queue, clock: VirtualClock) -> None:
    """A job that returns nothing settles its waiters with `None`."""

    async def nothing() -> None:
        pass

    handle = await queue.enqueue(nothing, delay=1)
    waiter = asyncio.create_task(outcome(handle))
    await clock.advance(1)
    assert handle.done()
    assert await waiter is None


async def test_a_waiter_that_comes_while_the_job_runs(queue: Queue, clock: VirtualClock) -> None:
    """Waiters before, during and after the run get the same outcome."""
    handle = await queue.enqueue(works, delay=1)
    before = asyncio.create_task(outcome(handle))
    await clock.advance(2)
    during = asyncio.create_task(outcome(handle))
    await clock.advance(5)
    async with asyncio.timeout(5):
        assert [await before, await during, await handle] == ["done"] * 3


async def test_calls_of_a_later_burst_have_their_own_outcome(
    queue: Queue, clock: VirtualClock
) -> None:
    """Waiters of a running job and of the call that waits behind it are not mixed up."""
    results = iter(["first", "second"])

    async def numbered() -> str:
        mine = next(results)
        await asyncdefer.sleep(5)
        return mine

    first = await queue.enqueue(numbered, key="k")
    await clock.advance(1)
    second = await queue.enqueue(numbered, key="k")
    waiters = [asyncio.create_task(outcome(handle)) for handle in (first, second, first, second)]
    await clock.advance(20)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiters) == ["first", "second"] * 2


async def test_a_held_handle_outlives_the_lookup(queue: Queue, clock: VirtualClock) -> None:
    """`result_ttl` ends the lookup by id, never the answer that a handle holds."""
    handle = await queue.enqueue(works)
    await clock.advance(timedelta(days=2))
    assert handle.done()
    assert await handle == "done"


async def test_every_way_to_a_handle_leads_to_the_outcome(
    queue: Queue, clock: VirtualClock
) -> None:
    """A handle that was looked up, by id, by key or by arguments, gets the outcome too."""

    @queue.task(delay=10, defer=True)
    async def double(n: int) -> int:
        return 2 * n

    made = await double.enqueue(21)
    by_id = await queue.handle(made.id)
    by_arguments = await double.pending(21)
    by_key = await queue.pending(double, made.key)
    assert by_id is not None and by_arguments is not None and by_key is not None
    handles = (made, by_id, by_arguments, by_key)
    waiters = [asyncio.create_task(outcome(handle)) for handle in handles]
    await clock.advance(10)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiters) == [42] * 4
    afterwards = await queue.handle(made.id)
    assert afterwards is not None
    assert await afterwards == 42


async def test_result_with_a_timeout_is_one_outcome_too(queue: Queue, clock: VirtualClock) -> None:
    """`result(timeout)` ends in the outcome or a `TimeoutError`, by the queue's clock."""
    handle = await queue.enqueue(works, delay=10)
    short = asyncio.create_task(handle.result(timeout=3))
    long = asyncio.create_task(handle.result(timeout=60))
    await asyncio.sleep(0)
    await clock.advance(4)
    async with asyncio.timeout(5):
        with pytest.raises(TimeoutError):
            await short
    assert not long.done()
    assert not handle.done()
    await clock.advance(20)
    async with asyncio.timeout(5):
        assert await long == "done"
        assert await handle.result(timeout=0) == "done"


async def test_a_job_that_cancels_its_own_task_settles(queue: Queue, clock: VirtualClock) -> None:
    """A job that leaves a cancellation pending on its task and returns still has an outcome."""

    async def rude() -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return "done"

    handle = await queue.enqueue(rude)
    waiter = asyncio.create_task(outcome(handle))
    await asyncio.sleep(0)
    await clock.advance(1)
    async with asyncio.timeout(5):
        assert await waiter is not None
    assert handle.done()
    assert queue.stats().running == 0


async def test_a_waiter_holds_its_outcome(queue: Queue, clock: VirtualClock) -> None:
    """A waiter is answered although nobody else keeps the handle, and the collector ran."""
    waiters = []
    for n in range(10):

        async def wait(n: int = n) -> object:
            return await (await queue.enqueue(works, delay=n + 1))

        waiters.append(asyncio.create_task(wait()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    gc.collect()
    await clock.advance(30)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiters) == ["done"] * 10


async def test_a_thousand_waiters_of_one_job(queue: Queue, clock: VirtualClock) -> None:
    """The number of waiters does not matter: each gets the answer once."""
    handle = await queue.enqueue(works, delay=1)
    waiters = [asyncio.create_task(outcome(handle)) for _ in range(1000)]
    await asyncio.sleep(0)
    await clock.advance(10)
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiters) == ["done"] * 1000
