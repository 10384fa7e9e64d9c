"""J10. Memory and start-up follow what is due soon, not what is stored."""

from contextvars import ContextVar
from typing import Any

import pytest

from asyncdefer import Queue, State
from asyncdefer.testing import VirtualClock, check_conservation

HOUR = 3600


def program(disk: Any, clock: VirtualClock, ran: list[Any]) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("note")
    async def note(number: int) -> int:
        ran.append(number)
        return number

    return queue


def in_memory(queue: Queue) -> int:
    scheduler = queue._started()
    return len(scheduler.agenda)


async def test_far_timers_are_rows_only(disk: Any, clock: VirtualClock) -> None:
    """They come in when they come near, in time and in order."""
    ran: list[int] = []
    async with program(disk, clock, ran) as queue:
        note = queue.task_of("note")
        for number in range(1, 49):
            queue.enqueue_nowait(note, number, delay=number * HOUR)
        assert in_memory(queue) == 0
        assert queue.stats().waiting == 48
        for hour in range(1, 49):
            await clock.advance(HOUR - 1)
            assert len(ran) == hour - 1
            await clock.advance(1)
            assert len(ran) == hour
            assert in_memory(queue) <= 1
        check_conservation(queue)
    assert ran == list(range(1, 49))


async def test_after_a_restart_too(disk: Any, clock: VirtualClock) -> None:
    """Those that come near while the program stands still run at its start."""
    ran: list[int] = []
    async with program(disk, clock, ran) as first:
        for number in range(1, 49):
            first.enqueue_nowait(first.task_of("note"), number, delay=number * HOUR)
    await clock.advance(10 * HOUR)
    async with program(disk, clock, ran) as queue:
        await clock.advance(0)
        assert sorted(ran) == list(range(1, 11))
        assert in_memory(queue) == 0
        await clock.run_until_idle()
        check_conservation(queue)
    assert sorted(ran) == list(range(1, 49))


async def test_more_than_a_page_is_due(
    disk: Any, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overdue timers come in page by page, no more of them than memory may hold."""
    monkeypatch.setattr("asyncdefer._claims.PAGE", 10)
    monkeypatch.setattr("asyncdefer._claims.IN_MEMORY", 30)
    ran: list[int] = []
    async with program(disk, clock, ran) as first:
        first.pause()
        for number in range(500):
            first.enqueue_nowait(first.task_of("note"), number, delay=60 + number // 100)
    await clock.advance(HOUR)
    queue = program(disk, clock, ran)
    queue.pause()
    async with queue:
        await clock.advance(1)
        assert 10 <= in_memory(queue) <= 30
        assert queue.stats().waiting == 500
        queue.resume()
        await clock.advance(1)
        check_conservation(queue)
    assert sorted(ran) == list(range(500))


async def test_new_calls_between_the_pages(
    disk: Any, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call that falls among rows not yet read runs in its turn, once."""
    monkeypatch.setattr("asyncdefer._claims.PAGE", 10)
    monkeypatch.setattr("asyncdefer._claims.IN_MEMORY", 20)
    ran: list[int] = []
    async with program(disk, clock, ran) as first:
        for number in range(100):
            first.enqueue_nowait(first.task_of("note"), number, delay=60 + number)
    async with program(disk, clock, ran) as queue:
        await clock.advance(0)
        for number in range(100):
            await queue.enqueue(queue.task_of("note"), 1_000 + number, delay=60.5 + number)
        await clock.advance(HOUR)
        check_conservation(queue)
    assert ran == [number for pair in range(100) for number in (pair, 1_000 + pair)]


async def test_a_step_of_the_wall_clock_brings_far_ones_near(
    disk: Any, clock: VirtualClock
) -> None:
    """A far timer follows the wall clock, also when that is set."""
    ran: list[int] = []
    async with program(disk, clock, ran) as queue:
        await queue.enqueue(queue.task_of("note"), 1, delay=10 * HOUR)
        clock.step(10 * HOUR + 1)
        await clock.advance(1)
        assert ran == [1]


async def test_waiters_of_far_jobs(disk: Any, clock: VirtualClock) -> None:
    """A handle of a far job shows it, and is woken when it has run."""
    async with program(disk, clock, []) as queue:
        handle = await queue.enqueue(queue.task_of("note"), 1, delay=10 * HOUR)
        assert handle.state is State.SCHEDULED
        by_id = await queue.handle(handle.id)
        assert by_id is not None
        assert by_id.eta == handle.eta
        await clock.advance(10 * HOUR)
        assert (await handle, await by_id) == (1, 1)


async def test_the_listing_pages(disk: Any, clock: VirtualClock) -> None:
    """`jobs()` shows near, far and ended ones in eta order."""
    async with program(disk, clock, []) as queue:
        note = queue.task_of("note")
        for number in reversed(range(1_200)):
            queue.enqueue_nowait(note, number, delay=number * 60)
        await clock.advance(30)
        jobs = [job async for job in queue.jobs()]
        assert [job.arguments["number"] for job in jobs] == list(range(1_200))
        assert [job.state for job in jobs[:2]] == [State.SUCCEEDED, State.SCHEDULED]


user: ContextVar[str] = ContextVar("user", default="nobody")


async def test_the_horizon_moves_with_the_time(disk: Any, clock: VirtualClock) -> None:
    """A call that is near is in memory, however long ago the last claim was."""
    seen: list[str] = []
    queue = Queue(disk.store(), clock=clock)

    @queue.task("who")
    async def who() -> None:
        seen.append(user.get())

    async with queue:
        user.set("ada")
        for _ in range(3):
            await clock.advance(2 * HOUR)
            await queue.enqueue(who)
            await queue.enqueue(who, delay=30)
            assert in_memory(queue) >= 1  # the first one may be running
            await clock.advance(60)
        far = await queue.enqueue(who, delay=5 * HOUR)
        await queue.enqueue(who, delay=30)
        assert in_memory(queue) == 1
        await clock.advance(2 * HOUR)
        delayed = await queue.enqueue(who, delay=30)
        clock.step(-20)
        await clock.advance(31)
        assert delayed.done()
        await clock.advance(5 * HOUR)
        assert far.done()
        check_conservation(queue)
    assert seen == ["ada"] * 8 + ["nobody"]
