"""J7. A row that cannot be read or whose task is unknown is kept and reported, never deleted."""

from typing import Any

import pytest

from asyncdefer import JobError, LogEvent, Queue, State, sleep
from asyncdefer.testing import VirtualClock, check_conservation

HOUR = 3600


def program(disk: Any, clock: VirtualClock, ran: list[Any], *names: str) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    async def work(number: int = 0) -> int:
        ran.append(number)
        await sleep(1)
        return number

    for name in names:
        queue.task(name)(work)
    return queue


@pytest.mark.parametrize("delay", [0.5, 60, 10 * HOUR])
async def test_an_unknown_task(disk: Any, clock: VirtualClock, delay: float) -> None:
    """It is held, told once, and runs after a deploy that knows it."""
    ran: list[int] = []
    events: list[LogEvent] = []
    async with program(disk, clock, ran, "old") as first:
        for number in range(3):
            await first.enqueue(first.task_of("old"), number, delay=delay)
    without = program(disk, clock, ran, "new")
    without.subscribe(events.append)
    async with without as queue:
        await clock.advance(11 * HOUR)
        assert ran == []
        assert queue.stats().held == 3
        assert [job.state async for job in queue.jobs()] == [State.HELD] * 3
        assert [job.task async for job in queue.jobs(state=State.HELD)] == ["old"] * 3
        [held] = [event for event in events if event.name == "job_held"]
        assert isinstance(held.error, JobError)
        assert "old" in held.error.message
        check_conservation(queue)
    async with program(disk, clock, ran, "old") as queue:
        await clock.advance(2)
        assert sorted(ran) == [0, 1, 2]
        check_conservation(queue)


async def test_a_run_of_an_unknown_task(disk: Any, clock: VirtualClock) -> None:
    """What ran when the process died is held too, and runs again when it is known again."""
    ran: list[int] = []
    async with program(disk, clock, ran, "old") as first:
        await first.enqueue(first.task_of("old"), 1)
        await clock.advance(0.5)
        disk.crash()
    async with program(disk, clock, ran) as queue:
        await clock.advance(2)
        assert queue.stats().held == 1
        check_conservation(queue)
        disk.crash()
    async with program(disk, clock, ran, "old") as queue:
        await clock.advance(2)
        check_conservation(queue)
    assert ran == [1, 1]


async def test_a_task_that_is_registered_late(disk: Any, clock: VirtualClock) -> None:
    """What was held for it runs at once."""
    ran: list[int] = []
    async with program(disk, clock, ran, "old") as first:
        await first.enqueue(first.task_of("old"), 1, delay=60)
    async with program(disk, clock, ran) as queue:
        await clock.advance(100)
        assert ran == []

        @queue.task("old")
        async def old(number: int) -> None:
            ran.append(number)

        await clock.advance(0)
        assert ran == [1]
        assert queue.stats().held == 0
        check_conservation(queue)


async def test_arguments_that_do_not_fit_any_more(disk: Any, clock: VirtualClock) -> None:
    """A deploy that changed the function keeps the row until one that takes it."""
    ran: list[Any] = []
    async with program(disk, clock, ran, "old") as first:
        await first.enqueue(first.task_of("old"), 7, delay=60)
    changed = Queue(disk.store(), clock=clock)

    @changed.task("old")
    async def old(other: str) -> None:
        ran.append(other)

    async with changed:
        await clock.advance(100)
        assert changed.stats().held == 1
        check_conservation(changed)
    async with program(disk, clock, ran, "old") as queue:
        await clock.advance(1)
        assert ran == [7]
        check_conservation(queue)
