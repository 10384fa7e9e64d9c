"""T4: an `eta` follows the wall clock through its steps, a `delay` follows the monotonic clock."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Queue, Snooze, State
from asyncdefer.testing import VirtualClock

HOUR = 3600
HALF = 1800


async def noop() -> None:
    pass


def in_seconds(clock: VirtualClock, kind: str, seconds: float) -> dict[str, Any]:
    """The same moment, as an `eta` or as a `delay`."""
    if kind == "eta":
        return {"eta": clock.now() + timedelta(seconds=seconds)}
    return {"delay": seconds}


async def test_a_forward_step_brings_etas_near_and_leaves_delays(
    queue: Queue, clock: VirtualClock
) -> None:
    """When the wall clock is set forward past an eta the job runs at once; a delay goes on."""
    by_eta = await queue.enqueue(noop, **in_seconds(clock, "eta", HALF))
    by_delay = await queue.enqueue(noop, **in_seconds(clock, "delay", HALF))
    clock.step(HOUR)
    await clock.advance(1)
    assert (by_eta.state, by_delay.state) == (State.SUCCEEDED, State.SCHEDULED)
    await clock.advance(HALF - 2)
    assert by_delay.state is State.SCHEDULED
    await clock.advance(1)
    assert by_delay.state is State.SUCCEEDED


async def test_a_backward_step_puts_etas_off_and_leaves_delays(
    queue: Queue, clock: VirtualClock
) -> None:
    """When the wall clock is set back an eta is as much further away; a delay is not."""
    by_eta = await queue.enqueue(noop, **in_seconds(clock, "eta", HALF))
    by_delay = await queue.enqueue(noop, **in_seconds(clock, "delay", HALF))
    clock.step(-HOUR)
    await clock.advance(HALF)
    assert (by_eta.state, by_delay.state) == (State.SCHEDULED, State.SUCCEEDED)
    await clock.advance(HOUR - 1)
    assert by_eta.state is State.SCHEDULED
    await clock.advance(1)
    assert by_eta.state is State.SUCCEEDED


async def test_a_small_step_moves_etas_by_just_that(queue: Queue, clock: VirtualClock) -> None:
    """A step that passes no eta shortens the wait for it by exactly the step."""
    by_eta = await queue.enqueue(noop, **in_seconds(clock, "eta", HALF))
    clock.step(600)
    await clock.advance(HALF - 601)
    assert by_eta.state is State.SCHEDULED
    await clock.advance(1)
    assert by_eta.state is State.SUCCEEDED


async def test_a_delay_given_after_a_step_counts_from_its_call(
    queue: Queue, clock: VirtualClock
) -> None:
    """Steps of the past do not shift delays that are given later."""
    clock.step(-HOUR)
    await clock.advance(1)
    clock.step(3 * HOUR)
    await clock.advance(1)
    handle = await queue.enqueue(noop, delay=10)
    await clock.advance(9)
    assert handle.state is State.SCHEDULED
    await clock.advance(1)
    assert handle.state is State.SUCCEEDED


async def test_steps_reorder_the_two_kinds(queue: Queue, clock: VirtualClock) -> None:
    """After a step the two kinds run in the order in which they really come due."""
    ran: list[str] = []

    async def note(word: str) -> None:
        ran.append(word)

    await queue.enqueue(note, "eta 100", **in_seconds(clock, "eta", 100))
    await queue.enqueue(note, "delay 50", delay=50)
    await queue.enqueue(note, "eta 300", **in_seconds(clock, "eta", 300))
    await queue.enqueue(note, "delay 150", delay=150)
    clock.step(60)
    await clock.advance(400)
    assert ran == ["eta 100", "delay 50", "delay 150", "eta 300"]


@pytest.mark.parametrize(("step", "kind"), [(HOUR, "delay"), (-HOUR, "delay"), (HOUR, "eta")])
async def test_a_snooze_follows_the_clock_it_names(
    queue: Queue, clock: VirtualClock, step: int, kind: str
) -> None:
    """`Snooze(delay=)` is not moved by a step, `Snooze(eta=)` is."""
    runs: list[float] = []

    async def snoozer() -> None:
        runs.append(clock.monotonic())
        if len(runs) == 1:
            raise Snooze(**in_seconds(clock, kind, HALF))

    await queue.enqueue(snoozer)
    await clock.advance(0)
    clock.step(step)
    await clock.advance(1)
    assert len(runs) == (2 if kind == "eta" else 1)
    await clock.advance(HALF)
    assert len(runs) == 2
    if kind == "delay":
        assert runs[1] - runs[0] == pytest.approx(HALF)


@pytest.mark.parametrize("door", ["replace", "reschedule"])
@pytest.mark.parametrize(("old", "new"), [("eta", "delay"), ("delay", "eta")])
async def test_a_moved_job_follows_the_clock_of_its_newest_time(
    queue: Queue, clock: VirtualClock, door: str, old: str, new: str
) -> None:
    """A job that had an eta and now has a delay follows the monotonic clock, and vice versa."""
    handle = await queue.enqueue(noop, key="k", **in_seconds(clock, old, HALF))
    if door == "replace":
        handle = await queue.enqueue(noop, key="k", **in_seconds(clock, new, HALF))
    else:
        assert await handle.reschedule(**in_seconds(clock, new, HALF))
    clock.step(HOUR)
    await clock.advance(1)
    assert handle.state is (State.SUCCEEDED if new == "eta" else State.SCHEDULED)
    await clock.advance(HALF - 1)
    assert handle.state is State.SUCCEEDED


async def test_a_sleep_in_a_job_is_not_cut_by_a_step(queue: Queue, clock: VirtualClock) -> None:
    """`asyncdefer.sleep` is a length of time: setting the wall clock does not end it."""

    async def sleeper() -> None:
        await asyncdefer.sleep(HALF)

    handle = await queue.enqueue(sleeper)
    await clock.advance(0)
    clock.step(HOUR)
    await clock.advance(HALF - 1)
    assert handle.state is State.RUNNING
    await clock.advance(1)
    assert handle.state is State.SUCCEEDED


async def test_many_steps_lose_nothing(queue: Queue, clock: VirtualClock) -> None:
    """However often the wall clock is set, every timer of both kinds runs exactly once."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    for n in range(40):
        await queue.enqueue(note, n, **in_seconds(clock, ("eta", "delay")[n % 2], 10 * n))
    for step in (200, -500, 30, -1, 86_400, -86_400, 0.5):
        clock.step(step)
        await clock.advance(40)
    await clock.run_until_idle()
    assert sorted(ran) == list(range(40))
