"""T6: a past eta runs at once, an overdue timer runs however late, unless it `expires`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

import asyncdefer
from asyncdefer import JobExpired, Queue, State, current
from asyncdefer.testing import VirtualClock, virtual

MICROSECOND = timedelta(microseconds=1)
PAST = [
    datetime(1, 1, 1, tzinfo=UTC),
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),  # before year 1 in UTC
    datetime(1600, 2, 29, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(2001, 9, 11, tzinfo=timezone(timedelta(hours=-12))),
]


async def noop() -> None:
    pass


@pytest.mark.parametrize("eta", PAST, ids=str)
async def test_a_past_eta_of_any_year_runs_at_once(
    queue: Queue, clock: VirtualClock, eta: datetime
) -> None:
    """An eta in the past, however far, runs now."""
    started: list[datetime] = []
    called = clock.now()

    async def note() -> None:
        started.append(clock.now())

    handle = await queue.enqueue(note, eta=eta)
    await clock.advance(0)
    assert handle.state is State.SUCCEEDED
    assert started == [called]


async def test_timers_held_up_for_a_year_all_run() -> None:
    """Timers that found no free slot for a year run when one comes free, and know how late."""
    queue = Queue(concurrency=1)
    ran: list[tuple[int, float]] = []

    async def year() -> None:
        await asyncdefer.sleep(365 * 86_400)

    async def note(n: int) -> None:
        ran.append((n, current().lateness))

    async with virtual(queue) as clock:
        await queue.enqueue(year)
        for n in range(50):
            await queue.enqueue(note, n, delay=n + 1)
        await clock.advance(timedelta(days=364))
        assert ran == []
        await clock.advance(timedelta(days=2))
    assert [n for n, _ in ran] == list(range(50))
    for n, lateness in ran:
        assert lateness == pytest.approx(365 * 86_400 - (n + 1))


async def test_a_paused_task_catches_up(queue: Queue, clock: VirtualClock) -> None:
    """Jobs of a paused task keep their etas and all run when it is resumed."""
    ran: list[int] = []

    @queue.task
    async def note(n: int) -> None:
        ran.append(n)

    queue.pause(note)
    for n in (3, 1, 2):
        await note.options(delay=n).enqueue(n)
    await clock.advance(timedelta(days=30))
    assert ran == []
    queue.resume(note)
    await clock.advance(0)
    assert ran == [1, 2, 3]


async def test_a_leap_of_the_wall_clock_skips_nobody(queue: Queue, clock: VirtualClock) -> None:
    """When the wall clock leaps over many etas each of them still runs, in order."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    for n in range(100):
        await queue.enqueue(note, n, eta=clock.now() + timedelta(days=n + 1))
    clock.step(10 * 365 * 86_400)
    await clock.advance(1)
    assert ran == list(range(100))


@pytest.mark.parametrize("kind", ["eta", "delay"])
async def test_expires_strikes_at_eta_plus_expires(kind: str) -> None:
    """A job that still waits for a slot expires at eta + expires: not before, and not later."""
    queue = Queue(concurrency=1)
    ran: list[str] = []

    async def hour() -> None:
        await asyncdefer.sleep(3600)

    async def note() -> None:
        ran.append("ran")

    async with virtual(queue) as clock:
        when: dict[str, Any] = (
            {"eta": clock.now() + timedelta(seconds=10)} if kind == "eta" else {"delay": 10}
        )
        await queue.enqueue(hour)
        handle = await queue.options(expires=60, **when).enqueue(note)
        await clock.advance(timedelta(seconds=70) - MICROSECOND)
        assert handle.state is State.SCHEDULED
        await clock.advance(MICROSECOND)
        assert handle.state is State.EXPIRED
        with pytest.raises(JobExpired):
            await handle
        assert queue.stats().expired == 1
        await clock.advance(3600)
    assert ran == []


async def test_a_job_that_starts_in_time_does_not_expire(queue: Queue, clock: VirtualClock) -> None:
    """`expires` is about the start: a job that started may run as long as it likes."""

    async def hour() -> str:
        await asyncdefer.sleep(3600)
        return "done"

    handle = await queue.options(delay=5, expires=1).enqueue(hour)
    await clock.advance(4000)
    assert handle.state is State.SUCCEEDED


async def test_an_eta_past_its_expiry_expires_at_once(queue: Queue, clock: VirtualClock) -> None:
    """A call that is already older than its expiry when it comes never runs."""
    ran: list[str] = []

    async def note() -> None:
        ran.append("ran")

    stale = await queue.options(eta=clock.now() - timedelta(hours=2), expires=3600).enqueue(note)
    fresh = await queue.options(eta=clock.now() - timedelta(hours=2), expires=7201).enqueue(note)
    await clock.advance(0)
    assert (stale.state, fresh.state) == (State.EXPIRED, State.SUCCEEDED)
    assert ran == ["ran"]


@pytest.mark.parametrize("eta", PAST, ids=str)
async def test_a_past_eta_of_any_year_may_have_expired(
    queue: Queue, clock: VirtualClock, eta: datetime
) -> None:
    """Whether a past eta has expired is reckoned from itself, in whatever year it lies."""
    handle = await queue.options(eta=eta, expires=60).enqueue(noop)
    await clock.advance(0)
    assert handle.state is State.EXPIRED


async def test_a_crowd_that_expired_does_not_slip_through(
    queue: Queue, clock: VirtualClock
) -> None:
    """Of thousands that are past their expiry at once not one runs."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    stale = queue.options(eta=clock.now() - timedelta(hours=2), expires=3600)
    handles = [await stale.enqueue(note, n) for n in range(3000)]
    await clock.advance(1)
    assert ran == []
    assert queue.stats().expired == 3000
    assert all(handle.state is State.EXPIRED for handle in handles)


async def test_a_leap_of_the_wall_clock_expires_what_is_too_old(
    queue: Queue, clock: VirtualClock
) -> None:
    """A timer that the wall clock leapt over runs if it is within its expiry, else expires."""
    base = clock.now()
    old = await queue.options(eta=base + timedelta(hours=1), expires=3600).enqueue(noop)
    young = await queue.options(eta=base + timedelta(hours=9), expires=7200).enqueue(noop)
    clock.step(10 * 3600)
    await clock.advance(1)
    assert (old.state, young.state) == (State.EXPIRED, State.SUCCEEDED)


async def test_nothing_is_skipped_silently(queue: Queue, clock: VirtualClock) -> None:
    """Each job that expires is counted and told as an event; no other job is lost with it."""
    told: list[object] = []
    queue.subscribe(lambda event: told.append(event) if event.name == "job_expired" else None)
    ran: list[int] = []

    @queue.task
    async def note(n: int) -> None:
        ran.append(n)

    queue.pause(note)
    doomed = [await note.options(delay=n, expires=5).enqueue(n) for n in range(20)]
    kept = [await note.options(delay=n).enqueue(100 + n) for n in range(20)]
    await clock.advance(3600)
    queue.resume(note)
    await clock.advance(0)
    assert ran == [100 + n for n in range(20)]
    assert {handle.state for handle in doomed} == {State.EXPIRED}
    assert {handle.state for handle in kept} == {State.SUCCEEDED}
    assert sorted(event.job_id for event in told) == sorted(handle.id for handle in doomed)  # type: ignore[attr-defined]
    assert queue.stats().expired == 20
