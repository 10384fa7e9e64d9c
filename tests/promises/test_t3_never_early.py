"""T3: a job never starts before its eta, by the clock that it follows."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncdefer import Queue, Snooze, State, current
from asyncdefer._scheduler import Scheduler
from asyncdefer.testing import VirtualClock

MICROSECOND = timedelta(microseconds=1)


async def noop() -> None:
    pass


@pytest.mark.parametrize("kind", ["eta", "delay"])
@pytest.mark.parametrize(
    "wait",
    [timedelta(microseconds=2), timedelta(seconds=0.3), timedelta(seconds=10), timedelta(days=400)],
    ids=str,
)
async def test_not_a_microsecond_early(
    queue: Queue, clock: VirtualClock, kind: str, wait: timedelta
) -> None:
    """A microsecond before its eta a job waits; at its eta it has started."""
    when: dict[str, Any] = {"eta": clock.now() + wait} if kind == "eta" else {"delay": wait}
    handle = await queue.enqueue(noop, **when)
    await clock.advance(wait - MICROSECOND)
    assert handle.state is State.SCHEDULED
    await clock.advance(MICROSECOND)
    assert handle.state is State.SUCCEEDED


async def test_not_early_in_company(queue: Queue, clock: VirtualClock) -> None:
    """A job that wakes the loop does not take along its neighbours that are not due."""
    started: list[tuple[int, datetime]] = []
    base = clock.now()

    async def note(n: int) -> None:
        started.append((n, clock.now()))

    for n in range(50, 0, -1):
        eta = base + n * MICROSECOND
        await queue.enqueue(note, n, **({"eta": eta} if n % 2 else {"delay": n * MICROSECOND}))
    await clock.advance(1)
    assert started == [(n, base + n * MICROSECOND) for n in range(1, 51)]


async def test_a_snooze_is_not_early(queue: Queue, clock: VirtualClock) -> None:
    """A run that snoozes comes back at the time that it named, not before."""
    started: list[datetime] = []
    base = clock.now()

    async def twice() -> None:
        started.append(clock.now())
        if len(started) == 1:
            raise Snooze(delay=30)
        if len(started) == 2:
            raise Snooze(eta=base + timedelta(hours=1))

    await queue.enqueue(twice)
    await clock.advance(timedelta(hours=2))
    assert started == [base, base + timedelta(seconds=30), base + timedelta(hours=1)]


async def test_a_moved_job_is_not_early(queue: Queue, clock: VirtualClock) -> None:
    """A job that was moved later does not start at the eta that it had."""
    base = clock.now()
    seen: list[datetime] = []

    async def note() -> None:
        seen.append(clock.now())

    moved = await queue.enqueue(note, delay=10)
    await moved.reschedule(delay=100)
    await queue.enqueue(note, key="k", delay=10)
    await queue.enqueue(note, key="k", delay=200)
    await clock.advance(300)
    assert seen == [base + timedelta(seconds=100), base + timedelta(seconds=200)]


async def test_not_early_on_the_system_clock() -> None:
    """On the real clocks, where event loops wake early, no job starts before its eta."""
    # Real time on purpose: only a real loop (uvloop above all) wakes up to a millisecond early.
    queue = Queue()
    early: list[str] = []
    handles = []

    async def by_wall(due: datetime) -> None:
        if (now := datetime.now(UTC)) < due or current().lateness < 0:
            early.append(f"eta {due - now} early, lateness {current().lateness}")

    async def by_steady(called: float, wait: float) -> None:
        if (now := time.monotonic()) < called + wait or current().lateness < 0:
            early.append(f"delay {called + wait - now} early, lateness {current().lateness}")

    async with queue:
        for n in range(150):
            wait = 0.02 + n * 0.0017
            eta = datetime.now(UTC) + timedelta(seconds=wait)
            handles.append(await queue.enqueue(by_wall, eta, eta=eta))
            handles.append(await queue.enqueue(by_steady, time.monotonic(), wait, delay=wait))
        async with asyncio.timeout(5):
            await asyncio.gather(*handles)
    assert early == []


async def test_a_near_timer_is_not_waited_for_in_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a millisecond is waited for by sleeping: the loop is not kept turning until it is over."""
    # Real time on purpose: uvloop, which counts in milliseconds, would call back at once.
    queue, turns = Queue(), list[int]()
    turn = Scheduler._turn

    def counted(self: Scheduler) -> None:
        turns.append(1)
        turn(self)

    monkeypatch.setattr(Scheduler, "_turn", counted)
    async with queue:
        for _ in range(20):
            await (await queue.enqueue(int, delay=0.0005))
    assert len(turns) < 20 * 6
