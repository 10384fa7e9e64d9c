"""`pause` and `resume`: a paused task's jobs keep their etas and run when it is resumed."""

import asyncio
from datetime import timedelta

import pytest

import asyncdefer
from asyncdefer import JobExpired, Queue, State
from asyncdefer.testing import VirtualClock


async def test_a_paused_task_does_not_start(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Its jobs wait past their etas, keep them, and run when it is resumed; others run on time."""
    start, runs = defer_clock.now(), list[tuple[float, str, float]]()

    def log(name: str) -> None:
        run = asyncdefer.current()
        runs.append(((defer_clock.now() - start).total_seconds(), name, run.lateness))

    @defer_queue.task(delay=10)
    async def mail() -> None:
        log("mail")

    @defer_queue.task(delay=10)
    async def push() -> None:
        log("push")

    defer_queue.pause(mail)
    handle = await mail.enqueue()
    await push.enqueue()
    await defer_clock.advance(60)
    assert runs == [(10.0, "push", 0.0)]
    assert (handle.state, handle.eta) == (State.SCHEDULED, start + timedelta(seconds=10))
    assert defer_queue.stats().waiting == 1
    defer_queue.resume(mail)
    await defer_clock.advance(0)

    assert runs[1:] == [(60.0, "mail", 50.0)]


async def test_by_name(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A task may be given by its name."""
    runs: list[int] = []

    @defer_queue.task("jobs.mail")
    async def mail() -> None:
        runs.append(1)

    defer_queue.pause("jobs.mail")
    await mail.enqueue()
    await defer_clock.advance(5)
    assert runs == []
    defer_queue.resume("jobs.mail")
    await defer_clock.advance(0)

    assert runs == [1]


async def test_the_whole_queue(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Without a task everything waits, unregistered functions included, and starts in eta order."""
    runs: list[int] = []

    async def job(n: int) -> None:
        runs.append(n)

    defer_queue.pause()
    for n in (3, 1, 2):
        await defer_queue.enqueue(job, n, delay=n)
    await defer_queue.enqueue(runs.append, 0)
    await defer_clock.advance(60)
    assert runs == []
    assert defer_queue.stats().waiting == 4
    defer_queue.resume()
    await defer_clock.advance(0)

    assert sorted(runs) == [0, 1, 2, 3]
    assert [n for n in runs if n] == [1, 2, 3]


async def test_what_becomes_due_after_the_resume_is_on_time(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A pause that ends before the eta delays nothing."""
    start, runs = defer_clock.now(), list[float]()

    @defer_queue.task(delay=10)
    async def mail() -> None:
        runs.append((defer_clock.now() - start).total_seconds())

    defer_queue.pause(mail)
    await mail.enqueue()
    await defer_clock.advance(5)
    defer_queue.resume(mail)
    await defer_clock.advance(60)

    assert runs == [10.0]


async def test_a_run_that_has_started_goes_on(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Pausing stops starts, not runs."""

    @defer_queue.task
    async def mail() -> str:
        await asyncdefer.sleep(10)
        return "sent"

    handle = await mail.enqueue()
    await defer_clock.advance(1)
    defer_queue.pause()
    defer_queue.pause(mail)
    await defer_clock.advance(9)

    assert await handle == "sent"


async def test_a_paused_job_can_be_cancelled_moved_and_replaced(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A job in the lane of a paused task is a waiting job like any other."""
    runs: list[str] = []

    @defer_queue.task
    async def mail(text: str) -> None:
        runs.append(text)

    defer_queue.pause(mail)
    cancelled = await mail.enqueue("cancelled")
    moved = await mail.enqueue("moved")
    await mail.options(key="k").enqueue("old")
    flushed = await mail.options(delay=500).enqueue("flushed")
    await defer_clock.advance(5)
    assert await cancelled.cancel() is True
    assert await moved.reschedule(delay=100) is True
    assert await flushed.flush() is True
    await mail.options(key="k").enqueue("new")
    await defer_clock.advance(5)
    assert runs == []
    defer_queue.resume(mail)
    await defer_clock.advance(0)
    assert sorted(runs) == ["flushed", "new"]
    await defer_clock.advance(100)

    assert sorted(runs) == ["flushed", "moved", "new"]


async def test_a_paused_job_can_expire(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`expires` strikes on time in a paused task as well."""
    runs: list[int] = []

    @defer_queue.task(delay=10, expires=5)
    async def mail() -> None:
        runs.append(1)

    defer_queue.pause(mail)
    handle = await mail.enqueue()
    await defer_clock.advance(14)
    assert handle.state is State.SCHEDULED
    await defer_clock.advance(1)
    assert handle.state is State.EXPIRED
    with pytest.raises(JobExpired):
        await handle
    defer_queue.resume(mail)
    await defer_clock.advance(60)

    assert runs == []


async def test_pausing_twice_and_resuming_what_runs(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A pause is a state, not a count; resuming what is not paused does nothing."""
    runs: list[int] = []

    @defer_queue.task
    async def mail() -> None:
        runs.append(1)

    defer_queue.resume(mail)
    defer_queue.resume()
    defer_queue.pause(mail)
    defer_queue.pause(mail)
    await mail.enqueue()
    await defer_clock.advance(1)
    assert runs == []
    defer_queue.resume(mail)
    await defer_clock.advance(0)

    assert runs == [1]


async def test_a_task_and_the_queue_are_paused_apart(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Resuming the queue leaves a task paused that was paused by itself, and the other way round."""
    runs: list[str] = []

    @defer_queue.task
    async def mail() -> None:
        runs.append("mail")

    @defer_queue.task
    async def push() -> None:
        runs.append("push")

    defer_queue.pause()
    defer_queue.pause(mail)
    await mail.enqueue()
    await push.enqueue()
    await defer_clock.advance(1)
    defer_queue.resume()
    await defer_clock.advance(1)
    assert runs == ["push"]
    defer_queue.pause()
    defer_queue.resume(mail)
    await defer_clock.advance(1)
    assert runs == ["push"]
    defer_queue.resume()
    await defer_clock.advance(1)

    assert runs == ["push", "mail"]


async def test_a_resume_wakes_the_loop(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """What is due starts at once after `resume`, with nobody else to wake the queue."""

    @defer_queue.task
    async def mail() -> str:
        return "sent"

    defer_queue.pause(mail)
    handle = await mail.enqueue()
    await asyncio.sleep(0)
    defer_queue.resume(mail)

    assert await asyncio.wait_for(handle, 5) == "sent"
