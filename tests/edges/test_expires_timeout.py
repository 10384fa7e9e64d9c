"""`expires`: too late to start. `timeout`: too long a run."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import JobExpired, Queue, Snooze, State
from asyncdefer.testing import VirtualClock, virtual


async def hold(seconds: float) -> str:
    await asyncdefer.sleep(seconds)
    return "held"


# expires


@pytest.mark.parametrize("expires", [5, 5.0, timedelta(seconds=5)])
async def test_expires_strikes_exactly_then(expires: float | timedelta) -> None:
    """A job that has not started at eta + expires is EXPIRED at that moment, still in its lane."""
    queue = Queue(concurrency=1)
    runs: list[int] = []
    async with virtual(queue) as clock:
        await queue.enqueue(hold, 100)
        await clock.advance(0)
        handle = await queue.options(delay=10, expires=expires).enqueue(runs.append, 1)
        await clock.advance(timedelta(seconds=14, microseconds=999_999))
        assert (handle.state, handle.done()) == (State.SCHEDULED, False)
        await clock.advance(timedelta(microseconds=1))
        assert (handle.state, handle.done()) == (State.EXPIRED, True)
        with pytest.raises(JobExpired):
            await handle
        await clock.advance(200)
        assert runs == []
        assert queue.stats().expired == 1


async def test_a_job_on_time_does_not_expire(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`expires` is about the start: a run may last as long as it likes."""
    handle = await defer_queue.options(delay=10, expires=5).enqueue(hold, 100)
    await defer_clock.advance(110)

    assert await handle == "held"


async def test_a_late_start_within_the_bound() -> None:
    """A job whose slot comes free before it expires runs, late."""
    queue = Queue(concurrency=1)
    async with virtual(queue) as clock:
        await queue.enqueue(hold, 9)
        await clock.advance(0)
        handle = await queue.options(expires=10).enqueue(hold, 100)
        await clock.advance(109)
        assert await handle == "held"


async def test_expires_of_a_task_and_of_a_call() -> None:
    """A task's `expires` is a default that a call may override."""
    queue = Queue(concurrency=1)
    task = queue.task("the.task", expires=5)(hold)
    async with virtual(queue) as clock:
        await queue.enqueue(hold, 20)
        await clock.advance(0)
        short = await task.enqueue(0)
        long = await task.options(expires=30).enqueue(0)
        await clock.advance(5)
        assert (short.state, long.state) == (State.EXPIRED, State.SCHEDULED)
        await clock.advance(15)
        assert long.state is State.SUCCEEDED


async def test_an_expired_job_frees_the_way() -> None:
    """Those behind an expired job in the lane start when the slot comes free."""
    queue = Queue(concurrency=1)
    async with virtual(queue) as clock:
        await queue.enqueue(hold, 20)
        await clock.advance(0)
        await queue.options(expires=5).enqueue(hold, 1)
        behind = await queue.enqueue(hold, 1)
        await clock.advance(20)
        assert behind.state is State.RUNNING
        await clock.advance(1)
        assert await behind == "held"


async def test_expires_follows_a_reschedule() -> None:
    """A job that is moved expires that long after its new eta."""
    queue = Queue(concurrency=1)
    async with virtual(queue) as clock:
        await queue.enqueue(hold, 100)
        await clock.advance(0)
        handle = await queue.options(delay=10, expires=5).enqueue(hold, 1)
        await handle.reschedule(delay=30)
        await clock.advance(34)
        assert handle.state is State.SCHEDULED
        await clock.advance(1)
        assert handle.state is State.EXPIRED
        await clock.advance(100)


async def test_expires_behind_a_busy_key(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A call that waits for its key's run to end may expire there."""
    await defer_queue.enqueue(hold, 50, key="k")
    await defer_clock.advance(1)
    handle = await defer_queue.options(key="k", expires=5).enqueue(hold, 1)
    await defer_clock.advance(4)
    assert handle.state is State.SCHEDULED
    await defer_clock.advance(1)
    assert handle.state is State.EXPIRED
    await defer_clock.advance(100)

    assert defer_queue.stats().succeeded == 1


async def test_expires_on_the_wall_clock(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A job with an eta that is stepped over by the clock expires instead of running late."""
    runs: list[int] = []
    eta = defer_clock.now() + timedelta(minutes=10)
    lost = await defer_queue.options(eta=eta, expires=60).enqueue(runs.append, 1)
    kept = await defer_queue.options(eta=eta, expires=7200).enqueue(runs.append, 2)
    defer_clock.step(3600)
    await defer_clock.advance(2)

    assert (lost.state, kept.state) == (State.EXPIRED, State.SUCCEEDED)
    assert runs == [2]


async def test_a_past_eta_with_expires(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """An eta further in the past than `expires` allows: accepted, and EXPIRED at once."""
    eta = defer_clock.now() - timedelta(seconds=60)
    handle = await defer_queue.options(eta=eta, expires=30).enqueue(hold, 0)
    await defer_clock.advance(0)

    assert handle.state is State.EXPIRED


# timeout


@pytest.mark.parametrize("timeout", [5, 5.0, timedelta(seconds=5)])
async def test_a_run_over_its_timeout(
    defer_queue: Queue, defer_clock: VirtualClock, timeout: float | timedelta
) -> None:
    """The run is ended when its time is up; the waiters get TimeoutError."""
    log: list[float] = []
    start = defer_clock.now()

    async def job() -> None:
        try:
            await asyncdefer.sleep(100)
        finally:
            log.append((defer_clock.now() - start).total_seconds())

    handle = await defer_queue.options(delay=10, timeout=timeout).enqueue(job)
    await defer_clock.advance(14)
    assert (handle.state, log) == (State.RUNNING, [])
    await defer_clock.advance(1)

    assert handle.state is State.FAILED
    assert log == [15.0]
    with pytest.raises(TimeoutError):
        await handle


async def test_a_run_within_its_timeout(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A run that ends in time never hears of the timeout, nor does whatever follows."""
    handle = await defer_queue.options(timeout=5).enqueue(hold, 4)
    await defer_clock.advance(100)

    assert await handle == "held"


async def test_the_timeout_counts_from_the_start() -> None:
    """Time spent waiting for a slot is not the run's."""
    queue = Queue(concurrency=1)
    async with virtual(queue) as clock:
        await queue.enqueue(hold, 20)
        await clock.advance(0)
        handle = await queue.options(timeout=5).enqueue(hold, 4)
        await clock.advance(24)
        assert await handle == "held"


async def test_the_timeout_of_a_task_and_of_a_call(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A task's `timeout` is a default that a call may override."""
    task = defer_queue.task("the.task", timeout=5)(hold)
    short = await task.enqueue(10)
    long = await task.options(timeout=20).enqueue(10)
    await defer_clock.advance(10)

    assert (short.state, long.state) == (State.FAILED, State.SUCCEEDED)


async def test_each_run_has_its_own_timeout(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A timeout is for one attempt: after a snooze the time begins anew."""

    async def job() -> int:
        await asyncdefer.sleep(4)
        if asyncdefer.current().attempt < 3:
            raise Snooze(delay=1)
        return asyncdefer.current().attempt

    handle = await defer_queue.options(timeout=5).enqueue(job)
    await defer_clock.advance(60)

    assert await handle == 3


async def test_a_timeout_ends_when_the_clean_up_has(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """The waiters hear of the timeout when the run has really ended."""

    async def job() -> None:
        try:
            await asyncdefer.sleep(100)
        finally:
            await asyncdefer.sleep(3)

    handle = await defer_queue.options(timeout=5).enqueue(job)
    await defer_clock.advance(7)
    assert not handle.done()
    await defer_clock.advance(1)

    with pytest.raises(TimeoutError):
        await handle


async def test_a_timeout_of_a_job_that_waits_for_something_real(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A timeout reaches a job wherever it waits."""
    never = asyncio.Event()
    handle = await defer_queue.options(timeout=5).enqueue(never.wait)
    await defer_clock.advance(5, patience=0)
    await defer_clock.advance(0)

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(handle, 5)


async def test_an_own_cancellation_is_no_timeout(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A job that uses asyncio's own tools inside is not mistaken for one that ran too long."""

    async def job() -> str:
        inner = asyncio.create_task(asyncdefer.sleep(100))
        await asyncio.sleep(0)
        inner.cancel()
        try:
            await inner
        except asyncio.CancelledError:
            return "went on"
        return "slept"

    handle = await defer_queue.options(timeout=5).enqueue(job)
    await defer_clock.advance(1)

    assert await handle == "went on"


@pytest.mark.parametrize("option", ["timeout", "expires"])
async def test_no_time_at_all_is_refused(defer_queue: Queue, option: str) -> None:
    """No run fits into no time and no start: 0 is a mistake, not a way to say "none"."""
    wrong: dict[str, Any] = {option: 0}
    with pytest.raises(ValueError, match=option):
        defer_queue.task("the.task", **wrong)(hold)
