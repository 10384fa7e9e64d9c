"""A handle is one caller's view of the job: what it is, how it ends, and how to move it."""

import asyncio
import threading
from datetime import timedelta

import pytest

import asyncdefer
from asyncdefer import Handle, JobCancelled, Queue, State
from asyncdefer.testing import VirtualClock, virtual


async def work(seconds: float = 0, result: object = "done") -> object:
    await asyncdefer.sleep(seconds)
    return result


async def wait(handle: Handle[object]) -> object:
    return await handle


# What it shows


async def test_what_it_shows(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """id, task, key, eta, state and attempt are there at once and follow the job."""
    task = defer_queue.task("jobs.work")(work)
    handle = await task.options(delay=10, key="k").enqueue(5)

    assert isinstance(handle.id, str)
    assert int(handle.id) > 0
    assert (handle.task, handle.key) == ("jobs.work", "k")
    assert handle.eta == defer_clock.now() + timedelta(seconds=10)
    assert (handle.state, handle.attempt, handle.replaced) == (State.SCHEDULED, 0, False)
    assert not handle.done()

    await defer_clock.advance(10)
    assert (handle.state, handle.attempt, handle.done()) == (State.RUNNING, 1, False)
    await defer_clock.advance(5)
    assert (handle.state, handle.attempt, handle.done()) == (State.SUCCEEDED, 1, True)


async def test_without_a_key(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A job without a key shows none, and an unregistered function has a readable name."""
    handle = await defer_queue.enqueue(work, delay=10)

    assert handle.key is None
    assert handle.task.endswith("work")


async def test_its_repr(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Printed in a debugger, a handle says which job it is and how it stands, without arguments."""
    task = defer_queue.task("jobs.work", delay=10)(work)
    handle = await task.enqueue(0, "the secret")

    assert "jobs.work" in repr(handle)
    assert handle.id in repr(handle)
    assert "scheduled" in repr(handle).lower()
    assert "secret" not in repr(handle)


# Waiting


async def test_it_can_be_awaited_again_and_by_many(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Any number of tasks, before and after the end, each get the same result."""
    result = object()
    handle = await defer_queue.enqueue(work, 5, result, delay=5)

    waiters = [asyncio.create_task(wait(handle)) for _ in range(10)]
    await defer_clock.advance(7)
    waiters += [asyncio.create_task(wait(handle)) for _ in range(10)]
    await defer_clock.advance(10)

    assert await asyncio.wait_for(asyncio.gather(*waiters), 5) == [result] * 20
    assert await handle is result
    assert await handle is result
    assert await handle.result() is result
    assert await handle.result(timeout=0) is result


async def test_its_exception_is_raised_each_time(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A failure reaches every waiter as the job's own exception, and its traceback does not grow."""

    async def broken() -> None:
        raise ZeroDivisionError("nothing")

    handle = await defer_queue.enqueue(broken)
    await defer_clock.advance(0)

    depths = []
    for _ in range(5):
        with pytest.raises(ZeroDivisionError, match="nothing") as caught:
            await handle
        depths.append(len(caught.traceback))
    assert depths[1:] == depths[:-1]
    assert handle.state is State.FAILED


async def test_result_with_a_timeout(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`result(timeout)` gives up waiting by the queue's clock; the job goes on."""
    handle = await defer_queue.enqueue(work, delay=10)

    for timeout in (5, timedelta(seconds=2)):
        waiter = asyncio.create_task(handle.result(timeout=timeout))
        await asyncio.sleep(0)
        seconds = timeout if isinstance(timeout, int) else timeout.total_seconds()
        await defer_clock.advance(seconds - 1)
        assert not waiter.done()
        await defer_clock.advance(1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(waiter, 5)
        assert handle.state is State.SCHEDULED

    await defer_clock.advance(3)
    assert await handle.result(timeout=5) == "done"


@pytest.mark.timeout(10)
async def test_result_with_a_timeout_of_zero(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`result(timeout=0)` asks whether there is a result now; no clock has to move for that."""
    handle = await defer_queue.enqueue(work, delay=10)

    with pytest.raises(TimeoutError):
        await handle.result(timeout=0)
    assert handle.state is State.SCHEDULED
    await defer_clock.advance(10)
    assert await handle.result(timeout=0) == "done"


async def test_result_in_time(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A result that comes in time is returned when it comes, not when the timeout would end."""
    handle = await defer_queue.enqueue(work, delay=10)
    waiter = asyncio.create_task(handle.result(timeout=60))
    await asyncio.sleep(0)
    await defer_clock.advance(10)

    assert await asyncio.wait_for(waiter, 5) == "done"


async def test_a_job_that_raises_timeouterror_is_told_apart(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """The job's own TimeoutError ends the job; that of the waiter does not."""

    async def slow() -> None:
        raise TimeoutError("the job's own")

    handle = await defer_queue.enqueue(slow, delay=1)
    waiter = asyncio.create_task(handle.result(timeout=10))
    await asyncio.sleep(0)
    await defer_clock.advance(1)

    with pytest.raises(TimeoutError, match="the job's own"):
        await asyncio.wait_for(waiter, 5)
    assert handle.state is State.FAILED


async def test_a_cancelled_waiter_leaves_the_job_and_the_others(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Cancelling one waiter touches neither the job nor another waiter."""
    handle = await defer_queue.enqueue(work, 5, delay=5)
    waiters = [asyncio.create_task(wait(handle)) for _ in range(4)]
    waiters.append(asyncio.create_task(handle.result(timeout=60)))
    await asyncio.sleep(0)
    waiters[0].cancel()
    waiters[4].cancel()
    await defer_clock.advance(7)
    waiters[1].cancel()
    await defer_clock.advance(10)

    results = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 5)
    assert [type(result) for result in results] == [
        asyncio.CancelledError,
        asyncio.CancelledError,
        str,
        str,
        asyncio.CancelledError,
    ]


async def test_asyncio_tools_take_a_handle(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """gather, wait_for and timeout work with handles, and leave the job alone when they give up."""
    a = await defer_queue.enqueue(work, 0, "a")
    b = await defer_queue.enqueue(work, 0, "b")
    assert await asyncio.wait_for(asyncio.gather(a, b), 5) == ["a", "b"]

    late = await defer_queue.enqueue(work, 0, "late", delay=5)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(late, 0)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await late
    await defer_clock.advance(5)
    assert await late == "late"


# cancel


async def test_cancel_before_the_start(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """True: it waited, it never runs, and waiters get JobCancelled, which is no CancelledError."""
    runs: list[int] = []
    handle = await defer_queue.enqueue(runs.append, 1, delay=10)
    waiter = asyncio.create_task(wait(handle))
    await asyncio.sleep(0)

    assert await handle.cancel() is True
    assert (handle.state, handle.done()) == (State.CANCELLED, True)
    for awaitable in (waiter, handle):
        with pytest.raises(JobCancelled) as caught:
            await asyncio.wait_for(awaitable, 5)
        assert not isinstance(caught.value, asyncio.CancelledError)
    assert await handle.cancel() is False
    await defer_clock.advance(60)
    assert runs == []
    assert defer_queue.stats().cancelled == 1


async def test_cancel_during_the_run(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """True: the run is cancelled; waiters get JobCancelled when it has ended, clean-up included."""
    log: list[str] = []

    async def job() -> None:
        try:
            await asyncdefer.sleep(100)
        except asyncio.CancelledError:
            log.append("cancelled")
            await asyncdefer.sleep(5)
            log.append("cleaned up")
            raise

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(1)
    assert await handle.cancel() is True
    await defer_clock.advance(4)
    assert (log, handle.done()) == (["cancelled"], False)
    await defer_clock.advance(1)

    assert log == ["cancelled", "cleaned up"]
    with pytest.raises(JobCancelled):
        await asyncio.wait_for(handle, 5)
    assert handle.state is State.CANCELLED
    assert await handle.cancel() is False


async def test_cancel_of_a_run_that_returns_all_the_same(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A job that was cancelled and returns all the same is JobCancelled."""

    async def stubborn() -> str:
        try:
            await asyncdefer.sleep(100)
        except asyncio.CancelledError:
            return "stubborn"
        return "slept"

    handle = await defer_queue.enqueue(stubborn)
    await defer_clock.advance(1)
    await handle.cancel()
    await defer_clock.advance(0)

    with pytest.raises(JobCancelled):
        await handle
    assert handle.state is State.CANCELLED


async def test_cancel_before_the_first_step(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A cancel in the same breath as the call: the function is never entered."""
    runs: list[int] = []

    async def job() -> None:
        runs.append(1)

    handle = defer_queue.enqueue_nowait(job)
    assert await handle.cancel() is True
    await defer_clock.advance(10)

    assert runs == []
    with pytest.raises(JobCancelled):
        await handle


async def test_cancel_of_a_job_that_waits_for_a_thread() -> None:
    """While all threads are taken, a plain function that is cancelled is never entered."""
    queue = Queue(threads=1)
    started, leave = threading.Event(), threading.Event()
    runs: list[int] = []

    def first() -> None:
        started.set()
        assert leave.wait(10)

    async with virtual(queue) as clock:
        await queue.enqueue(first)
        second = await queue.enqueue(runs.append, 1)
        assert await asyncio.to_thread(started.wait, 10)
        try:
            assert await second.cancel() is True
            await clock.advance(0, patience=0)  # the request reaches the run
        finally:
            leave.set()
        await clock.advance(1)
        with pytest.raises(JobCancelled):
            await second
        assert runs == []


async def test_cancel_of_a_finished_job(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """False, and the result stays what it was."""
    handle = await defer_queue.enqueue(work)
    await defer_clock.advance(0)

    assert await handle.cancel() is False
    assert await handle == "done"
    assert handle.state is State.SUCCEEDED


# flush


async def test_flush(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """True: the job runs now, once, under its own id."""
    start, runs = defer_clock.now(), list[float]()

    async def job() -> str:
        runs.append((defer_clock.now() - start).total_seconds())
        return asyncdefer.current().id

    handle = await defer_queue.enqueue(job, delay=3600, key="k")
    await defer_clock.advance(5)
    assert await handle.flush() is True
    assert handle.eta == start + timedelta(seconds=5)
    await defer_clock.advance(0)

    assert await handle == handle.id
    assert await handle.flush() is False
    await defer_clock.advance(7200)
    assert runs == [5.0]
    assert not handle.replaced


async def test_flush_of_a_wall_clock_job(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A job with an eta can be flushed as well as one with a delay."""
    handle = await defer_queue.enqueue(work, eta=defer_clock.now() + timedelta(days=1))
    assert await handle.flush() is True
    await defer_clock.advance(0)

    assert handle.done()
    await defer_clock.advance(timedelta(days=2))
    assert defer_queue.stats().succeeded == 1


async def test_flush_of_a_running_job(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """False: it runs already."""
    handle = await defer_queue.enqueue(work, 10)
    await defer_clock.advance(1)

    assert await handle.flush() is False
    await defer_clock.advance(60)
    assert defer_queue.stats().succeeded == 1


# reschedule


async def test_reschedule(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """True: the job starts at the new time, sooner or later, by the clock that the new time names."""
    start, runs = defer_clock.now(), list[tuple[float, str]]()

    async def job(name: str) -> None:
        runs.append(((defer_clock.now() - start).total_seconds(), name))

    later = await defer_queue.enqueue(job, "later", delay=10)
    sooner = await defer_queue.enqueue(job, "sooner", delay=100)
    to_eta = await defer_queue.enqueue(job, "to eta", delay=10)
    to_delay = await defer_queue.enqueue(job, "to delay", eta=start + timedelta(seconds=10))
    await defer_clock.advance(5)
    assert await later.reschedule(delay=20) is True
    assert await sooner.reschedule(delay=timedelta(seconds=3)) is True
    assert await to_eta.reschedule(eta=start + timedelta(seconds=30)) is True
    assert await to_delay.reschedule(delay=35) is True
    assert later.eta == start + timedelta(seconds=25)
    await defer_clock.advance(1000)

    assert runs == [(8.0, "sooner"), (25.0, "later"), (30.0, "to eta"), (40.0, "to delay")]


async def test_reschedule_often(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Moved to and fro, the job runs once, at the last time it was given."""
    start, runs = defer_clock.now(), list[float]()

    async def job() -> None:
        runs.append((defer_clock.now() - start).total_seconds())

    handle = await defer_queue.enqueue(job, delay=10)
    for delay in (50, 5, 100, 3, 70, 20):
        assert await handle.reschedule(delay=delay)
    await defer_clock.advance(1000)

    assert runs == [20.0]


async def test_a_rescheduled_job_keeps_its_key(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A newer call replaces a moved job as it would any other."""
    first = await defer_queue.enqueue(work, 0, 1, delay=10, key="k")
    await first.reschedule(delay=100)
    second = await defer_queue.enqueue(work, 0, 2, delay=10, key="k")
    await defer_clock.advance(10)

    assert first.replaced
    assert (await first, await second) == (2, 2)


async def test_reschedule_of_what_does_not_wait(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """False for a job that runs or has ended."""
    handle = await defer_queue.enqueue(work, 10)
    await defer_clock.advance(1)
    assert await handle.reschedule(delay=100) is False
    await defer_clock.advance(10)
    assert await handle.reschedule(delay=100) is False
    await defer_clock.advance(200)

    assert defer_queue.stats().succeeded == 1


async def test_reschedule_needs_a_time(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`reschedule()` without eta and delay is a TypeError."""
    handle = await defer_queue.enqueue(work, delay=10)

    with pytest.raises(TypeError):
        await handle.reschedule()
    assert handle.eta == defer_clock.now() + timedelta(seconds=10)
