"""T7: equal etas run in the order of acceptance."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Queue
from asyncdefer.testing import VirtualClock, virtual

each_width = pytest.mark.parametrize("concurrency", [1, 7, 1000])


@each_width
async def test_equal_etas_start_in_the_order_of_their_calls(concurrency: int) -> None:
    """Jobs of one eta start in the order of acceptance, with few slots and with many."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)
        await asyncdefer.sleep(1)

    queue = Queue(concurrency=concurrency)
    async with virtual(queue) as clock:
        eta = clock.now() + timedelta(seconds=10)
        for n in range(200):
            await queue.enqueue(note, n, eta=eta)
        await clock.advance(500)
    assert ran == list(range(200))


@each_width
async def test_both_timelines_share_the_order(concurrency: int) -> None:
    """Where an `eta` and a `delay` meet in one instant, the earlier call starts first."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    queue = Queue(concurrency=concurrency)
    rng = random.Random(7)
    async with virtual(queue) as clock:
        for n in range(200):
            when: dict[str, Any] = (
                {"eta": clock.now() + timedelta(seconds=10)}
                if rng.random() < 0.5
                else {"delay": 10}
            )
            await queue.enqueue(note, n, **when)
        await clock.advance(10)
    assert ran == list(range(200))


@pytest.mark.parametrize("first", ["eta", "delay"])
async def test_a_crowd_on_one_timeline_does_not_pass_the_other(first: str) -> None:
    """One call that was accepted before thousands of its eta starts before them, of either kind."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    queue = Queue(concurrency=10)
    async with virtual(queue) as clock:
        at, after = {"eta": clock.now() + timedelta(seconds=10)}, {"delay": 10}
        for n in range(3000):
            await queue.enqueue(note, n, **(at if (n == 0) == (first == "eta") else after))
        await clock.advance(10)
    assert ran == list(range(3000))


@each_width
async def test_order_holds_among_other_etas(concurrency: int) -> None:
    """The order is by eta, then by acceptance, however the calls were shuffled."""
    ran: list[tuple[int, int]] = []

    async def note(second: int, n: int) -> None:
        ran.append((second, n))

    queue = Queue(concurrency=concurrency)
    rng = random.Random(11)
    async with virtual(queue) as clock:
        for n in range(300):
            second = rng.randint(1, 5)
            await queue.enqueue(note, second, n, delay=second)
        await clock.advance(10)
    assert ran == sorted(ran)
    assert len(ran) == 300


async def test_calls_for_now_run_in_order(queue: Queue, clock: VirtualClock) -> None:
    """Calls without a time run in the order in which they were made, by all doors."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    for n in range(0, 60, 3):
        await queue.enqueue(note, n)
        queue.enqueue_nowait(note, n + 1)
        await queue.options(delay=0).enqueue(note, n + 2)
    await clock.advance(0)
    assert ran == list(range(60))


async def test_overdue_jobs_behind_a_full_queue_keep_the_order() -> None:
    """Equal etas that waited long for a slot still start in the order of acceptance."""
    ran: list[int] = []

    async def hour() -> None:
        await asyncdefer.sleep(3600)

    async def note(n: int) -> None:
        ran.append(n)

    queue = Queue(concurrency=1)
    async with virtual(queue) as clock:
        await queue.enqueue(hour)
        for n in range(30):
            await queue.enqueue(note, n, delay=10)
        await clock.advance(4000)
    assert ran == list(range(30))


async def test_resumed_jobs_keep_the_order(queue: Queue, clock: VirtualClock) -> None:
    """Equal etas that waited out a pause start in the order of acceptance."""
    ran: list[int] = []

    @queue.task
    async def note(n: int) -> None:
        ran.append(n)

    queue.pause(note)
    for n in range(30):
        await note.options(delay=10).enqueue(n)
    await clock.advance(100)
    queue.resume(note)
    await clock.advance(0)
    assert ran == list(range(30))


async def test_a_replacement_is_a_new_call(queue: Queue, clock: VirtualClock) -> None:
    """A call that replaced another stands where it was accepted, not where the old one stood."""
    ran: list[str] = []

    async def note(word: str) -> None:
        ran.append(word)

    eta = clock.now() + timedelta(seconds=10)
    await queue.enqueue(note, "old", key="k", eta=eta)
    await queue.enqueue(note, "between", eta=eta)
    await queue.enqueue(note, "new", key="k", eta=eta)
    await clock.advance(10)
    assert ran == ["between", "new"]


async def test_a_moved_job_keeps_its_place_among_equals(queue: Queue, clock: VirtualClock) -> None:
    """A rescheduled or flushed job is no new call: among equals it stands by its own age."""
    ran: list[str] = []

    async def note(word: str) -> None:
        ran.append(word)

    eta = clock.now() + timedelta(seconds=10)
    first = await queue.enqueue(note, "first", eta=eta + timedelta(hours=1))
    await queue.enqueue(note, "second", eta=eta)
    third = await queue.enqueue(note, "third", eta=eta - timedelta(seconds=5))
    await queue.enqueue(note, "fourth", eta=eta)
    await first.reschedule(eta=eta)
    await third.reschedule(eta=eta)
    await clock.advance(10)
    assert ran == ["first", "second", "third", "fourth"]
