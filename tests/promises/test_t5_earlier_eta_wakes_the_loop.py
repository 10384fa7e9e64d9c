"""T5: an earlier eta that arrives while the loop sleeps towards a far one is on time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

import pytest

from asyncdefer import Queue
from asyncdefer.testing import VirtualClock

Enter = Callable[[Queue, Callable[[], Awaitable[None]], float], Awaitable[object]]
FAR = 30


async def by_delay(queue: Queue, fn: Callable[[], Awaitable[None]], seconds: float) -> object:
    return await queue.enqueue(fn, delay=seconds)


async def by_callback(queue: Queue, fn: Callable[[], Awaitable[None]], seconds: float) -> object:
    return asyncio.get_running_loop().call_soon(lambda: queue.enqueue_nowait(fn, delay=seconds))


async def by_thread(queue: Queue, fn: Callable[[], Awaitable[None]], seconds: float) -> object:
    return await asyncio.to_thread(queue.enqueue_from_thread, fn, delay=seconds)


async def by_reschedule(queue: Queue, fn: Callable[[], Awaitable[None]], seconds: float) -> object:
    handle = await queue.enqueue(fn, delay=2 * FAR)
    await asyncio.sleep(0)
    return await handle.reschedule(delay=seconds)


async def by_replacement(queue: Queue, fn: Callable[[], Awaitable[None]], seconds: float) -> object:
    await queue.enqueue(fn, key="k", delay=2 * FAR)
    await asyncio.sleep(0)
    return await queue.enqueue(fn, key="k", delay=seconds)


async def by_flush(queue: Queue, fn: Callable[[], Awaitable[None]], seconds: float) -> object:
    handle = await queue.enqueue(fn, delay=2 * FAR)
    await asyncio.sleep(0)
    return await handle.flush()


DOORS: list[Enter] = [by_delay, by_callback, by_thread, by_reschedule, by_replacement, by_flush]


async def noop() -> None:
    pass


@pytest.mark.parametrize("enter", DOORS, ids=lambda enter: enter.__name__)
async def test_a_near_timer_wakes_a_loop_that_sleeps_far(enter: Enter) -> None:
    """A near timer is on time although the loop was asleep, by whatever door it came."""
    # Real time on purpose: a virtual clock asks for the next eta itself and would hide a loop
    # that nobody woke. The clock is re-read every second, so a lost wake-up costs about that.
    queue = Queue()
    started = asyncio.Event()
    near = 0.03

    async def note() -> None:
        started.set()

    async with queue:
        await queue.enqueue(noop, delay=FAR)
        await asyncio.sleep(0.02)  # the loop now sleeps towards the far timer
        called = time.monotonic()
        await enter(queue, note, near)
        async with asyncio.timeout(5):
            await started.wait()
        assert time.monotonic() - called < 0.8


async def test_each_earlier_eta_is_on_time(queue: Queue, clock: VirtualClock) -> None:
    """Etas that come in falling order each start at their own time."""
    base = clock.now()
    started: list[datetime] = []

    async def note() -> None:
        started.append(clock.now())

    for seconds in (3600, 600, 60, 6, 1):
        await queue.enqueue(note, eta=base + timedelta(seconds=seconds))
        await asyncio.sleep(0)
    await clock.advance(4000)
    assert started == [base + timedelta(seconds=s) for s in (1, 6, 60, 600, 3600)]


async def test_an_earlier_eta_from_inside_a_job_is_on_time(
    queue: Queue, clock: VirtualClock
) -> None:
    """A job that schedules something sooner than all that waits sees it run in time."""
    base = clock.now()
    started: list[datetime] = []

    async def note() -> None:
        started.append(clock.now())

    async def chain() -> None:
        await queue.enqueue(note, delay=5)

    await queue.enqueue(note, delay=1000)
    await queue.enqueue(chain, delay=10)
    await clock.advance(20)
    assert started == [base + timedelta(seconds=15)]


async def test_a_delay_before_an_eta_and_an_eta_before_a_delay(
    queue: Queue, clock: VirtualClock
) -> None:
    """The loop watches both timelines: the nearer one counts, whichever it is."""
    base = clock.now()
    started: list[datetime] = []

    async def note() -> None:
        started.append(clock.now())

    await queue.enqueue(note, eta=base + timedelta(seconds=500))
    await asyncio.sleep(0)
    await queue.enqueue(note, delay=50)
    await asyncio.sleep(0)
    await queue.enqueue(note, eta=base + timedelta(seconds=5))
    await asyncio.sleep(0)
    await clock.advance(600)
    assert started == [base + timedelta(seconds=s) for s in (5, 50, 500)]
