"""T3, T4: a clock that was set while a queue was idle moves no call that comes then."""

from datetime import timedelta
from typing import Any

from asyncdefer import Queue, SystemClock
from asyncdefer.testing import VirtualClock

HOUR = 3600


def program(disk: Any, clock: VirtualClock, ran: list[int]) -> tuple[Queue, Any]:
    q = Queue(disk.store(), clock=clock)

    @q.task("note")
    async def note(n: int) -> None:
        ran.append(n)

    return q, note


async def test_a_call_by_eta_is_claimed(disk: Any, clock: VirtualClock) -> None:
    ran: list[Any] = []
    q, note = program(disk, clock, ran)
    async with q:
        await clock.advance(5)
        clock.step(-HOUR)
        await q.enqueue(note, 1, eta=clock.now() + timedelta(minutes=20))
        await clock.advance(2 * HOUR)
        assert ran == [1]


async def test_a_far_delay_is_on_time_after_a_step_back(disk: Any, clock: VirtualClock) -> None:
    ran: list[Any] = []
    q, note = program(disk, clock, ran)
    async with q:
        await clock.advance(5)
        clock.step(-HOUR)
        handle = await q.enqueue(note, 1, delay=1200)
        assert handle.eta == clock.now() + timedelta(minutes=20)
        await clock.advance(1201)
        assert ran == [1]


async def test_a_far_delay_is_not_early_after_a_step_forward(
    disk: Any, clock: VirtualClock
) -> None:
    ran: list[Any] = []
    q, note = program(disk, clock, ran)
    async with q:
        await clock.advance(5)
        clock.step(HOUR)
        await q.enqueue(note, 1, delay=2 * HOUR)
        await clock.advance(1.5 * HOUR)
        assert ran == []


async def test_after_a_crash_it_is_not_early(disk: Any, clock: VirtualClock) -> None:
    ran: list[Any] = []
    q, note = program(disk, clock, ran)
    await q.start()
    await clock.advance(5)
    clock.step(HOUR)
    await q.enqueue(note, 1, delay=300)
    disk.crash()
    clock.detach(q._scheduler)
    again, _ = program(disk, clock, ran)
    async with again:
        await clock.advance(100)
        assert ran == []
    await q.close()


class Shifted(SystemClock):
    """The system's clock, set by an administrator (or a machine that slept)."""

    shift = 0

    def wall(self) -> int:
        return super().wall() + self.shift


async def test_an_idle_queue_on_the_real_clock(disk: Any) -> None:
    """Nothing waits, so no turn comes by that would see the step."""
    clock, ran = Shifted(), list[int]()
    q, note = program(disk, clock, ran)
    async with q:
        await q.join()
        clock.shift = HOUR * 1_000_000
        handle = await q.enqueue(note, 1, delay=2 * HOUR)
        assert abs(handle.eta - clock.now() - timedelta(hours=2)) < timedelta(seconds=5)
