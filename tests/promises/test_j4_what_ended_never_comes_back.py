"""J4. A replaced, cancelled or finished job never comes back."""

from typing import Any

import pytest

from asyncdefer import JobCancelled, Queue, Retry, State
from asyncdefer.testing import VirtualClock, check_conservation


def program(disk: Any, clock: VirtualClock, ran: list[Any]) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("note", defer=["name"])
    async def note(name: str, text: str) -> str:
        ran.append(text)
        return text

    @queue.task("plain")
    async def plain(text: str) -> str:
        ran.append(text)
        return text

    @queue.task("bad", retry=Retry(2, delay=10, jitter=False))
    async def bad() -> None:
        ran.append("bad")
        raise ValueError("no")

    return queue


NEAR, FAR = 60, 86_400


@pytest.mark.parametrize("delay", [NEAR, FAR])
async def test_a_cancelled_job(disk: Any, clock: VirtualClock, delay: float) -> None:
    """When `cancel()` has returned it is gone, also from the journal."""
    ran: list[str] = []
    async with program(disk, clock, ran) as first:
        handle = await first.enqueue(first.task_of("plain"), "a", delay=delay)
        assert await handle.cancel()
        with pytest.raises(JobCancelled):
            await handle
        check_conservation(first)
        disk.crash()
    async with program(disk, clock, ran) as queue:
        await clock.advance(2 * FAR)
        again = await queue.handle(handle.id)
        assert again is None or again.state is State.CANCELLED
    assert ran == []


@pytest.mark.parametrize("before", [NEAR, FAR])
@pytest.mark.parametrize("after", [NEAR, FAR])
async def test_a_replaced_job(disk: Any, clock: VirtualClock, before: float, after: float) -> None:
    """Whether the two are near or far."""
    ran: list[str] = []
    async with program(disk, clock, ran) as first:
        note = first.task_of("note")
        old = await first.options(delay=before).enqueue(note, "k", "old")
        new = await first.options(delay=after).enqueue(note, "k", "new")
        assert old.replaced
        assert old.eta == new.eta
        check_conservation(first)
        disk.crash()
    async with program(disk, clock, ran) as queue:
        assert queue.stats().waiting == 1
        await clock.advance(2 * FAR)
        check_conservation(queue)
    assert ran == ["new"]


async def test_a_replaced_job_of_another_process(disk: Any, clock: VirtualClock) -> None:
    """A call replaces one that is only a row by now."""
    ran: list[str] = []
    async with program(disk, clock, ran) as first:
        await first.options(delay=FAR).enqueue(first.task_of("note"), "k", "old")
    async with program(disk, clock, ran) as queue:
        new = await queue.options(delay=FAR + 60).enqueue(queue.task_of("note"), "k", "new")
        assert queue.stats().waiting == 1
        await clock.advance(2 * FAR)
        assert await new == "new"
        check_conservation(queue)
    assert ran == ["new"]


async def test_a_finished_job(disk: Any, clock: VirtualClock) -> None:
    """Its result can be looked up for `result_ttl`, and it does not run again."""
    ran: list[str] = []
    async with program(disk, clock, ran) as first:
        handle = await first.enqueue(first.task_of("plain"), "a")
        await handle
        disk.crash()
    async with program(disk, clock, ran) as queue:
        again = await queue.handle(handle.id)
        assert again is not None
        assert (again.state, await again) == (State.SUCCEEDED, "a")
        await clock.advance(3_601)
        assert await queue.handle(handle.id) is None
    assert ran == ["a"]


async def test_a_job_that_failed_for_good(disk: Any, clock: VirtualClock) -> None:
    """It stays listed with its error, and `redrive` and `discard` know it after a restart."""
    ran: list[str] = []
    async with program(disk, clock, ran) as first:
        await first.enqueue(first.task_of("bad"))
        await clock.advance(20)
    async with program(disk, clock, ran) as queue:
        await clock.advance(100)
        assert ran == ["bad"] * 2
        [job] = [job async for job in queue.jobs(state="failed")]
        assert job.error is not None
        assert (job.error.type, job.error.message, job.attempt) == ("ValueError", "no", 2)
        assert "raise ValueError" in job.error.traceback
        again = await queue.redrive(job.id)
        assert again.id == job.id
        await clock.advance(20)
        assert ran == ["bad"] * 4
        assert await queue.discard(job.id)
        disk.crash()
    async with program(disk, clock, ran) as queue:
        assert [job async for job in queue.jobs()] == []


@pytest.mark.parametrize("before", [NEAR, FAR])
@pytest.mark.parametrize("after", [NEAR, FAR])
async def test_a_moved_job_has_its_new_eta(
    disk: Any, clock: VirtualClock, before: float, after: float
) -> None:
    """A reschedule is in the journal when it returns."""
    ran: list[str] = []
    async with program(disk, clock, ran) as first:
        handle = await first.enqueue(first.task_of("plain"), "a", delay=before)
        assert await handle.reschedule(delay=after + 5)
        wanted = handle.eta
        check_conservation(first)
        disk.crash()
    async with program(disk, clock, ran) as queue:
        again = await queue.handle(handle.id)
        assert again is not None
        assert again.eta == wanted
        await clock.advance(after + 4)
        assert ran == []
        await clock.advance(1)
        assert ran == ["a"]


@pytest.mark.parametrize("delay", [NEAR, FAR])
async def test_a_flushed_job_runs_now(disk: Any, clock: VirtualClock, delay: float) -> None:
    """However far it was."""
    ran: list[str] = []
    async with program(disk, clock, ran) as queue:
        handle = await queue.enqueue(queue.task_of("plain"), "a", delay=delay)
        assert await handle.flush()
        assert await handle == "a"
        check_conservation(queue)
    assert ran == ["a"]


@pytest.mark.parametrize("delay", [NEAR, FAR])
async def test_a_discarded_job(disk: Any, clock: VirtualClock, delay: float) -> None:
    """A job that waits can be dropped by its id in another process."""
    ran: list[str] = []
    async with program(disk, clock, ran) as first:
        handle = await first.enqueue(first.task_of("plain"), "a", delay=delay)
    async with program(disk, clock, ran) as queue:
        assert await queue.discard(handle.id)
        check_conservation(queue)
        disk.crash()
    async with program(disk, clock, ran) as queue:
        await clock.advance(2 * FAR)
    assert ran == []
