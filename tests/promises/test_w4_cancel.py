"""W4: `cancel()` before the start means never run; during the run, the run is cancelled."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import asyncdefer
from asyncdefer import DeferError, Handle, JobCancelled, Queue, State
from asyncdefer.testing import VirtualClock, virtual


async def outcome(handle: Handle[Any]) -> object:
    try:
        return await handle
    except Exception as error:
        return type(error)


def test_job_cancelled_is_not_a_cancelled_error() -> None:
    """`JobCancelled` is an ordinary exception, so that nobody takes it for their own cancel."""
    assert issubclass(JobCancelled, DeferError)
    assert issubclass(JobCancelled, Exception)
    assert not issubclass(JobCancelled, asyncio.CancelledError)


async def test_a_cancelled_job_never_runs(queue: Queue, clock: VirtualClock) -> None:
    """A job cancelled while it waits never runs; its waiters get `JobCancelled`."""
    ran: list[str] = []

    async def note() -> None:
        ran.append("ran")

    handle = await queue.enqueue(note, delay=10)
    waiters = [asyncio.create_task(outcome(handle)) for _ in range(3)]
    await asyncio.sleep(0)
    assert await handle.cancel() is True
    assert handle.done()
    assert handle.state is State.CANCELLED
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiters) == [JobCancelled] * 3
    await clock.advance(3600)
    assert ran == []
    assert queue.stats().cancelled == 1


async def test_cancel_says_whether_it_did_anything(queue: Queue, clock: VirtualClock) -> None:
    """`cancel()` is true once, for a job that had not ended, and false ever after."""

    async def noop() -> str:
        return "done"

    cancelled = await queue.enqueue(noop, delay=10)
    assert await cancelled.cancel() is True
    assert await cancelled.cancel() is False
    ended = await queue.enqueue(noop)
    await clock.advance(0)
    assert await ended.cancel() is False
    assert await ended == "done"
    assert ended.state is State.SUCCEEDED


async def test_cancel_during_the_run_cancels_the_run(queue: Queue, clock: VirtualClock) -> None:
    """A running job gets `CancelledError` where it waits, may clean up, and is `CANCELLED`."""
    trace: list[str] = []

    async def job() -> None:
        try:
            trace.append("started")
            await asyncdefer.sleep(60)
            trace.append("went on")
        except asyncio.CancelledError:
            trace.append("cancelled")
            await asyncdefer.sleep(1)
            trace.append("cleaned up")
            raise

    handle = await queue.enqueue(job)
    waiters = [asyncio.create_task(outcome(handle)) for _ in range(3)]
    await clock.advance(5)
    assert await handle.cancel() is True
    await clock.advance(0)
    assert trace == ["started", "cancelled"]
    assert not handle.done(), "the run has not ended yet"
    await clock.advance(1)
    assert trace == ["started", "cancelled", "cleaned up"]
    assert handle.state is State.CANCELLED
    async with asyncio.timeout(5):
        assert await asyncio.gather(*waiters) == [JobCancelled] * 3


async def test_a_cancelled_job_that_returns_all_the_same(queue: Queue, clock: VirtualClock) -> None:
    """A job that swallows its cancellation and returns is `JobCancelled` none the less."""

    async def stubborn() -> str:
        try:
            await asyncdefer.sleep(60)
        except asyncio.CancelledError:
            await asyncdefer.sleep(2)
        return "done"

    handle = await queue.enqueue(stubborn)
    await clock.advance(5)
    assert await handle.cancel() is True
    await clock.advance(2)
    assert handle.state is State.CANCELLED
    assert await outcome(handle) is JobCancelled


async def test_cancel_in_the_breath_of_the_start(queue: Queue, clock: VirtualClock) -> None:
    """A cancel that comes when the job was taken, or not yet, still leads to `JobCancelled`."""
    ran: list[int] = []

    async def job(turns: int) -> None:
        await asyncdefer.sleep(1)
        ran.append(turns)

    handles = []
    for turns in range(8):
        handle = await queue.enqueue(job, turns)
        for _ in range(turns):
            await asyncio.sleep(0)
        assert await handle.cancel() is True
        handles.append(handle)
    await clock.advance(10)
    async with asyncio.timeout(5):
        assert [await outcome(handle) for handle in handles] == [JobCancelled] * 8
    assert ran == []
    assert queue.stats().running == 0


async def test_cancelling_twice_during_the_run(queue: Queue, clock: VirtualClock) -> None:
    """A second cancel of a running job does not break into its clean-up's outcome."""

    async def job() -> None:
        try:
            await asyncdefer.sleep(60)
        finally:
            await asyncdefer.sleep(1)

    handle = await queue.enqueue(job)
    await clock.advance(5)
    assert await handle.cancel() is True
    await clock.advance(0)
    await handle.cancel()
    await clock.advance(5)
    assert await outcome(handle) is JobCancelled
    assert await handle.cancel() is False


async def test_a_plain_function_is_cancelled_when_it_returns() -> None:
    """A thread cannot be stopped: the cancel of a plain function is seen when it returns."""
    queue = Queue()
    started, release = asyncio.Event(), threading.Event()

    def blocking(loop: asyncio.AbstractEventLoop) -> str:
        loop.call_soon_threadsafe(started.set)
        release.wait(5)
        return "done"

    async with virtual(queue):
        handle = await queue.enqueue(blocking, asyncio.get_running_loop())
        waiter = asyncio.create_task(outcome(handle))
        try:
            async with asyncio.timeout(5):
                await started.wait()
            assert await handle.cancel() is True
            for _ in range(20):
                await asyncio.sleep(0)
            assert not handle.done()
        finally:
            release.set()
        async with asyncio.timeout(5):
            assert await waiter is JobCancelled
        assert handle.state is State.CANCELLED


async def test_cancel_frees_the_key(queue: Queue, clock: VirtualClock) -> None:
    """After a cancel the key is free: the next call of it is a job of its own."""
    ran: list[str] = []

    async def note(word: str) -> str:
        ran.append(word)
        return word

    first = await queue.enqueue(note, "first", key="k", delay=10)
    await first.cancel()
    second = await queue.enqueue(note, "second", key="k", delay=10)
    await clock.advance(10)
    assert ran == ["second"]
    assert await outcome(first) is JobCancelled
    assert await outcome(second) == "second"


async def test_cancel_by_a_replaced_call(queue: Queue, clock: VirtualClock) -> None:
    """Cancel by any handle of a burst is the cancel of its one live job."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    handles = [await queue.enqueue(note, n, key="k", delay=10) for n in range(3)]
    assert await handles[0].cancel() is True
    await clock.advance(20)
    assert ran == []
    assert [await outcome(handle) for handle in handles] == [JobCancelled] * 3


async def test_cancelling_the_run_spares_the_next_of_its_key(
    queue: Queue, clock: VirtualClock
) -> None:
    """A cancel of the running job of a key leaves the call that waits behind it alone."""

    async def job(word: str) -> str:
        await asyncdefer.sleep(10)
        return word

    first = await queue.enqueue(job, "first", key="k")
    await clock.advance(1)
    second = await queue.enqueue(job, "second", key="k")
    assert await first.cancel() is True
    await clock.advance(20)
    assert await outcome(first) is JobCancelled
    assert await outcome(second) == "second"


async def test_cancelling_the_next_of_a_key_spares_the_run(
    queue: Queue, clock: VirtualClock
) -> None:
    """A cancel of the call that waits for its key leaves the running job of the key alone."""

    async def job(word: str) -> str:
        await asyncdefer.sleep(10)
        return word

    first = await queue.enqueue(job, "first", key="k")
    await clock.advance(1)
    second = await queue.enqueue(job, "second", key="k")
    assert await second.cancel() is True
    await clock.advance(20)
    assert await outcome(first) == "first"
    assert await outcome(second) is JobCancelled


@pytest.mark.parametrize("door", ["flush", "reschedule"])
async def test_a_cancelled_job_is_not_brought_back(
    queue: Queue, clock: VirtualClock, door: str
) -> None:
    """`flush` and `reschedule` of a cancelled job move nothing and say so."""
    ran: list[str] = []

    async def note() -> None:
        ran.append("ran")

    handle = await queue.enqueue(note, delay=10)
    await handle.cancel()
    moved = await (handle.flush() if door == "flush" else handle.reschedule(delay=1))
    assert moved is False
    await clock.advance(20)
    assert ran == []


async def test_a_cancel_after_the_timeout_is_the_last_word(
    queue: Queue, clock: VirtualClock
) -> None:
    """A run that tidies up after its timeout is cancelled all the same: no retry follows."""
    runs: list[int] = []

    @queue.task(timeout=5, retry=asyncdefer.Retry(3, delay=1, jitter=False))
    async def slow() -> None:
        runs.append(1)
        try:
            await asyncdefer.sleep(60)
        finally:
            await asyncdefer.sleep(10)

    handle = await slow.enqueue()
    await clock.advance(6)
    assert await handle.cancel()
    await clock.advance(100)
    assert runs == [1]
    with pytest.raises(JobCancelled):
        await handle
