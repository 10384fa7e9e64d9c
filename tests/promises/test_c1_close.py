"""C1: `close()` stops accepting, drains, cancels, waits for the end and settles every waiter.

Also when `close()` itself is cancelled. `drain_timeout` is real time, so a few tests here spend
some hundredths of a second of it; all others use 0 or end their jobs by hand.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest

import asyncdefer
from asyncdefer import DeferError, Handle, JobCancelled, Queue, QueueClosed, Snooze, State
from asyncdefer.testing import check_conservation, virtual

GUARD = 5  # seconds after which a hang is a failure


async def outcome(handle: Handle[Any]) -> object:
    try:
        return await handle
    except Exception as error:
        return type(error)


async def turns(n: int = 10) -> None:
    """Let everyone else have a few turns of the loop."""
    for _ in range(n):
        await asyncio.sleep(0)


async def noop() -> str:
    return "done"


class Long:
    """A job that waits until it is let go, and cleans up in several steps when it is cancelled."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.trace: list[str] = []

    async def __call__(self) -> str:
        self.started.set()
        try:
            await self.go.wait()
            self.trace.append("finished")
        except asyncio.CancelledError:
            await turns(5)
            self.trace.append("cleaned up")
            raise
        return "done"

    async def run(self, queue: Queue) -> Handle[str]:
        handle = await queue.enqueue(self)
        async with asyncio.timeout(GUARD):
            await self.started.wait()
        return handle


async def test_close_shuts_every_door() -> None:
    """After `close()` no call is accepted by any door."""
    queue = Queue()
    task = queue.task(name="noop")(noop)
    async with virtual(queue):
        await queue.close()
        doors: list[Callable[[], Awaitable[object]]] = [
            lambda: queue.enqueue(noop),
            lambda: queue.options(delay=5).enqueue(noop),
            task.enqueue,
            lambda: asyncio.to_thread(queue.enqueue_from_thread, noop),
        ]
        for door in doors:
            with pytest.raises(QueueClosed):
                await door()
        with pytest.raises(QueueClosed):
            queue.enqueue_nowait(noop)
        with pytest.raises(DeferError):  # the wrong door, besides
            await asyncio.to_thread(queue.enqueue_nowait, noop)
        assert queue.stats().accepted == 0


async def test_close_waits_for_running_jobs() -> None:
    """A job that ends within the drain time ends by itself; its waiters get its result."""
    queue, job = Queue(), Long()
    async with virtual(queue):
        handle = await job.run(queue)
        waiter = asyncio.create_task(outcome(handle))
        closing = asyncio.create_task(queue.close())
        await turns()
        assert not closing.done()
        job.go.set()
        async with asyncio.timeout(GUARD):
            await closing
            assert await waiter == "done"
        assert job.trace == ["finished"]
        assert handle.state is State.SUCCEEDED


async def test_nothing_starts_and_nothing_enters_while_it_drains() -> None:
    """While the queue drains, due jobs do not start and calls are `QueueClosed`."""
    queue, job = Queue(concurrency=1), Long()
    ran: list[str] = []

    async def due() -> None:
        ran.append("ran")

    async with virtual(queue):
        await job.run(queue)
        waits = await queue.enqueue(due)
        closing = asyncio.create_task(queue.close())
        await turns()
        with pytest.raises(QueueClosed):
            await queue.enqueue(noop)
        with pytest.raises(QueueClosed):
            queue.enqueue_nowait(noop)
        job.go.set()
        async with asyncio.timeout(GUARD):
            await closing
            assert await outcome(waits) is QueueClosed
    assert ran == []


async def test_a_running_job_cannot_enqueue_while_it_drains() -> None:
    """A job that is drained gets `QueueClosed` from its own calls, and can handle it."""
    queue = Queue()
    started, go = asyncio.Event(), asyncio.Event()

    async def parent() -> str:
        started.set()
        await go.wait()
        with pytest.raises(QueueClosed):
            await queue.enqueue(noop)
        return "done"

    async with virtual(queue):
        handle = await queue.enqueue(parent)
        async with asyncio.timeout(GUARD):
            await started.wait()
        closing = asyncio.create_task(queue.close())
        await turns()
        go.set()
        async with asyncio.timeout(GUARD):
            await closing
            assert await outcome(handle) == "done"


async def test_no_drain_time_cancels_at_once() -> None:
    """With `drain_timeout=0` running jobs are cancelled at once, and their clean-up awaited."""
    queue, job = Queue(drain_timeout=0), Long()
    async with virtual(queue):
        handle = await job.run(queue)
        waiter = asyncio.create_task(outcome(handle))
        async with asyncio.timeout(GUARD):
            await queue.close()
        assert job.trace == ["cleaned up"]
        assert handle.done()
        async with asyncio.timeout(GUARD):
            assert await waiter is QueueClosed


async def test_the_drain_time_is_real() -> None:
    """Running jobs have `drain_timeout` seconds of real time, also on a virtual clock."""
    queue, job = Queue(drain_timeout=0.1), Long()
    async with virtual(queue):
        handle = await job.run(queue)
        called = time.monotonic()
        async with asyncio.timeout(GUARD):
            await queue.close()
        took = time.monotonic() - called
        assert 0.095 <= took < 2
        assert job.trace == ["cleaned up"]
        assert await outcome(handle) is QueueClosed


async def test_waiting_jobs_are_dropped() -> None:
    """In memory a job that still waits is dropped, counted, and its waiters told where it is not."""
    queue = Queue()
    async with virtual(queue):
        handles = [await queue.enqueue(noop, delay=60 * n) for n in range(1, 4)]
        handles += [await queue.enqueue(noop, key="k", delay=5) for _ in range(2)]
        waiters = [asyncio.create_task(outcome(handle)) for handle in handles]
        await turns()
        async with asyncio.timeout(GUARD):
            await queue.close()
            assert await asyncio.gather(*waiters) == [QueueClosed] * 5
        assert all(handle.done() for handle in handles)
        stats = queue.stats()
        assert (stats.waiting, stats.running, stats.dropped, stats.replaced) == (0, 0, 4, 1)
        with pytest.raises(QueueClosed, match="journal"):
            await handles[0]


async def crowded(queue: Queue) -> tuple[Long, list[asyncio.Task[object]]]:
    """A running, a waiting and a due job, each with a waiter."""
    job = Long()
    handles = [
        await job.run(queue),
        await queue.enqueue(noop, delay=3600),
        await queue.enqueue(noop),
    ]
    return job, [asyncio.create_task(outcome(handle)) for handle in handles]


async def is_closed(queue: Queue, job: Long, waiters: list[asyncio.Task[object]]) -> None:
    """All that `close()` promises is done, without another turn for the queue itself."""
    assert job.trace == ["cleaned up"]
    stats = queue.stats()
    assert (stats.waiting, stats.running) == (0, 0)
    with pytest.raises(QueueClosed):
        queue.enqueue_nowait(noop)
    async with asyncio.timeout(GUARD):
        assert await asyncio.gather(*waiters) == [QueueClosed] * 3


@pytest.mark.parametrize("drain_timeout", [0, 0.05])
@pytest.mark.parametrize("cancels", [1, 2, 7])
async def test_a_close_that_is_cancelled_still_closes(cancels: int, drain_timeout: float) -> None:
    """A native cancel of the task that closes is passed on, after all was closed."""
    queue = Queue(concurrency=1, drain_timeout=drain_timeout)
    async with virtual(queue):
        job, waiters = await crowded(queue)
        closing = asyncio.create_task(queue.close())
        for _ in range(cancels):
            await asyncio.sleep(0)
            closing.cancel()
        await asyncio.wait([closing], timeout=GUARD)
        assert closing.cancelled(), "the cancellation is not swallowed"
        await is_closed(queue, job, waiters)


async def test_a_close_in_a_cancelled_scope_still_closes() -> None:
    """`close()` in an anyio scope that is already cancelled does all its work."""
    queue = Queue(concurrency=1, drain_timeout=0.05)
    async with virtual(queue):
        job, waiters = await crowded(queue)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await queue.close()
        await is_closed(queue, job, waiters)


async def test_a_close_whose_scope_times_out_still_closes() -> None:
    """`close()` in an anyio scope that is cancelled halfway does all its work."""
    queue = Queue(concurrency=1, drain_timeout=0.1)
    async with virtual(queue):
        job, waiters = await crowded(queue)
        with anyio.move_on_after(0.02) as scope:
            await queue.close()
        assert scope.cancel_called, "it ended before it could be disturbed"
        await is_closed(queue, job, waiters)


@pytest.mark.parametrize("how", ["native", "scope"])
async def test_a_cancelled_block_closes(how: str) -> None:
    """`async with queue:` closes the queue when its body is cancelled."""
    queue = Queue(concurrency=1, drain_timeout=0.05)
    ready = asyncio.Event()
    scope = anyio.CancelScope()
    inside: list[tuple[Long, list[asyncio.Task[object]]]] = []

    async def program() -> None:
        with scope:
            async with queue:
                inside.append(await crowded(queue))
                ready.set()
                await asyncio.Event().wait()

    running = asyncio.create_task(program())
    async with asyncio.timeout(GUARD):
        await ready.wait()
    if how == "native":
        running.cancel()
    else:
        scope.cancel()
    await asyncio.wait([running], timeout=GUARD)
    assert running.done()
    assert running.cancelled() is (how == "native")
    await is_closed(queue, *inside[0])


async def test_a_failing_block_closes() -> None:
    """`async with queue:` closes the queue when its body raises, and lets the exception pass."""
    queue = Queue(concurrency=1, drain_timeout=0)
    with pytest.raises(LookupError):
        async with queue:
            job, waiters = await crowded(queue)
            raise LookupError
    await is_closed(queue, job, waiters)


async def test_a_job_that_swallows_its_cancellation_and_ends() -> None:
    """A job that answers its cancellation by returning is waited for; nobody gets its result."""
    queue = Queue(drain_timeout=0)
    started = asyncio.Event()
    trace: list[str] = []

    async def stubborn() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await turns(5)
        trace.append("ended")
        return "done"

    async with virtual(queue):
        handle = await queue.enqueue(stubborn)
        async with asyncio.timeout(GUARD):
            await started.wait()
            await queue.close()
        assert trace == ["ended"]
        assert await outcome(handle) is QueueClosed


@pytest.mark.parametrize("reason", ["cancel", "timeout"])
async def test_a_job_that_swallowed_an_earlier_cancellation_is_cancelled(reason: str) -> None:
    """`close()` cancels whatever runs, also a job that shrugged off a cancel or its timeout."""
    queue = Queue(drain_timeout=0)
    started, shrugged = asyncio.Event(), asyncio.Event()

    async def stubborn_once() -> None:
        started.set()
        try:
            await asyncdefer.sleep(60)
        except asyncio.CancelledError:
            shrugged.set()
        await asyncio.Event().wait()

    async with virtual(queue) as clock:
        limits: dict[str, Any] = {"timeout": 1} if reason == "timeout" else {}
        handle = await queue.options(**limits).enqueue(stubborn_once)
        async with asyncio.timeout(GUARD):
            await started.wait()
            if reason == "cancel":
                assert await handle.cancel() is True
            else:
                await clock.advance(1, patience=0)
            await shrugged.wait()
        called = time.monotonic()
        async with asyncio.timeout(2 * GUARD):
            await queue.close()
        assert time.monotonic() - called < 2, "it was cancelled, not left to the grace"
        assert await outcome(handle) in (QueueClosed, JobCancelled, TimeoutError)


@pytest.mark.parametrize("scoped", [False, True], ids=["", "in a cancelled scope"])
async def test_a_job_that_cannot_be_cancelled_is_abandoned(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, scoped: bool
) -> None:
    """A job that goes on in spite of its cancellation is given a grace, then left, with an ERROR.

    It is cancelled once: a cancellation repeated at every turn would spin the loop.
    """
    monkeypatch.setattr("asyncdefer._queue.CANCEL_GRACE", 0.2)  # real time; normally 5 s
    queue = Queue(drain_timeout=0)
    started, release = asyncio.Event(), asyncio.Event()
    swallowed = 0

    async def undying() -> str:
        nonlocal swallowed
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                swallowed += 1
        return "done"

    async with virtual(queue):
        handle = await queue.enqueue(undying)
        waiter = asyncio.create_task(outcome(handle))
        async with asyncio.timeout(GUARD):
            await started.wait()
            worked = time.process_time()
            if scoped:
                with anyio.CancelScope() as scope:
                    scope.cancel()
                    await queue.close()
            else:
                await queue.close()
            assert time.process_time() - worked < 0.1, "the loop spins while it waits"
            assert await waiter is QueueClosed
        assert swallowed == 1
        loud = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert [record.name for record in loud] == ["asyncdefer"]
        assert "asyncdefer.job_abandoned" in loud[0].getMessage()
        release.set()  # when it ends after all, that changes nothing
        await turns()
        assert await outcome(handle) is QueueClosed


async def test_close_waits_for_a_plain_function() -> None:
    """A function in a thread cannot be cancelled: `close()` waits, and what it returns counts."""
    queue = Queue(drain_timeout=0)
    started, release = asyncio.Event(), threading.Event()
    trace: list[str] = []

    def blocking(loop: asyncio.AbstractEventLoop) -> str:
        loop.call_soon_threadsafe(started.set)
        release.wait(GUARD)
        trace.append("ended")
        return "done"

    async with virtual(queue):
        handle = await queue.enqueue(blocking, asyncio.get_running_loop())
        try:
            async with asyncio.timeout(GUARD):
                await started.wait()
            closing = asyncio.create_task(queue.close())
            await turns(50)
            assert not closing.done()
        finally:
            release.set()
        async with asyncio.timeout(GUARD):
            await closing
        assert trace == ["ended"]
        assert await outcome(handle) == "done"


async def test_a_snooze_while_it_drains_has_no_next_run() -> None:
    """A job that snoozes while the queue drains cannot run again: its waiters get `QueueClosed`."""
    queue = Queue()
    started, go = asyncio.Event(), asyncio.Event()

    async def snoozer() -> None:
        started.set()
        await go.wait()
        raise Snooze(delay=0)

    async with virtual(queue):
        handle = await queue.enqueue(snoozer)
        waiter = asyncio.create_task(outcome(handle))
        async with asyncio.timeout(GUARD):
            await started.wait()
            closing = asyncio.create_task(queue.close())
            await turns()
            go.set()
            await closing
            assert await waiter is QueueClosed


async def test_a_job_that_waits_for_another_is_not_left_hanging() -> None:
    """A running job that awaits one which will not run any more is settled like the rest."""
    queue = Queue(drain_timeout=0.05)
    async with virtual(queue) as clock:
        far = await queue.enqueue(noop, delay=3600)

        async def job() -> str:
            return await far

        handle = await queue.enqueue(job)
        await clock.advance(0)
        assert handle.state is State.RUNNING
        waiters = [asyncio.create_task(outcome(each)) for each in (far, handle)]
        async with asyncio.timeout(GUARD):
            await queue.close()
            assert await asyncio.gather(*waiters) == [QueueClosed] * 2


async def test_closing_again_does_nothing() -> None:
    """A second `close()`, after the first or beside it, returns when the queue is closed."""
    queue, job = Queue(), Long()
    async with virtual(queue):
        await job.run(queue)
        first = asyncio.create_task(queue.close())
        second = asyncio.create_task(queue.close())
        await turns()
        assert not first.done()
        assert not second.done()
        job.go.set()
        async with asyncio.timeout(GUARD):
            await asyncio.gather(first, second)
            await queue.close()
        assert job.trace == ["finished"]


async def test_cancelling_one_of_two_closers() -> None:
    """Of two tasks that close, one that is cancelled does not spoil the drain of the other."""
    queue, job = Queue(drain_timeout=0.05), Long()
    async with virtual(queue):
        handle = await job.run(queue)
        first = asyncio.create_task(queue.close())
        second = asyncio.create_task(queue.close())
        await turns(2)
        first.cancel()
        await asyncio.wait([first, second], timeout=GUARD)
        assert first.cancelled()
        assert second.done()
        assert second.exception() is None
        assert await outcome(handle) is QueueClosed


async def test_a_queue_that_never_started_closes() -> None:
    """`close()` of a queue that never started does nothing."""
    queue = Queue()
    async with asyncio.timeout(GUARD):
        await queue.close()
        await queue.close()
    async with virtual(queue) as clock:
        handle = await queue.enqueue(noop)
        await clock.advance(0)
        assert await handle == "done"


async def test_close_leaves_no_task_behind() -> None:
    """After `close()` none of the tasks that the queue started is left in the loop."""
    before = asyncio.all_tasks()
    queue = Queue(drain_timeout=0)

    async def sleeper() -> None:
        await asyncdefer.sleep(60)

    async with virtual(queue) as clock:
        job = Long()
        for n in range(5):
            await queue.enqueue(noop, delay=n)
        await clock.advance(2)
        await job.run(queue)
        await queue.enqueue(sleeper)
    await turns(2)
    assert asyncio.all_tasks() == before


def test_a_program_that_ends_while_the_queue_closes() -> None:
    """When `asyncio.run` cancels all tasks in the middle of a `close()`, it is still completed."""
    queue = Queue(concurrency=1, drain_timeout=60)
    handles: list[Handle[Any]] = []

    async def program() -> None:
        await queue.start()
        handles.append(await Long().run(queue))
        handles.append(await queue.enqueue(noop, delay=3600))
        handles.append(await queue.enqueue(noop))
        closing = asyncio.create_task(queue.close())
        await turns()
        assert not closing.done()

    asyncio.run(program())
    assert [handle.done() for handle in handles] == [True] * 3
    check_conservation(queue)
    stats = queue.stats()
    assert (stats.waiting, stats.running) == (0, 0)
