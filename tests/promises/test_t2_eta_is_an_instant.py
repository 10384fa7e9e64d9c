"""T2: inside, an eta is an integer of microseconds UTC; clock changes do not bend it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from asyncdefer import Queue, current
from asyncdefer.testing import VirtualClock

PARIS = ZoneInfo("Europe/Paris")
# On 2026-10-25 the hour from 02:00 to 03:00 happens twice in Paris: fold=0 begins at 00:00 UTC,
# fold=1 at 01:00 UTC. Python compares datetimes of one zone by their wall time and ignores fold.
EVE = datetime(2026, 10, 24, 23, 0, tzinfo=UTC)
EARLY = datetime(2026, 10, 25, 2, 50, fold=0, tzinfo=PARIS)
LATE = datetime(2026, 10, 25, 2, 10, fold=1, tzinfo=PARIS)
EARLY_UTC = datetime(2026, 10, 25, 0, 50, tzinfo=UTC)
LATE_UTC = datetime(2026, 10, 25, 1, 10, tzinfo=UTC)


async def noop() -> None:
    pass


@pytest.mark.parametrize("late_first", [True, False])
async def test_the_repeated_hour_runs_in_the_order_of_time(late_first: bool) -> None:
    """At the autumn clock change jobs run by the instant, although their wall times say else."""
    assert EARLY > LATE, "Python's own comparison is the trap"
    clock = VirtualClock(start=EVE)
    queue = Queue(clock=clock)
    started: list[tuple[str, datetime]] = []

    async def note(word: str) -> None:
        started.append((word, clock.now()))

    calls = [("late", LATE), ("early", EARLY)]
    async with queue:
        for word, eta in calls if late_first else reversed(calls):
            await queue.enqueue(note, word, eta=eta)
        await clock.advance(timedelta(hours=4))
    assert started == [("early", EARLY_UTC), ("late", LATE_UTC)]


async def test_fold_tells_two_equal_wall_times_apart() -> None:
    """02:30 and 02:30, an hour apart: each runs in its own half of the repeated hour."""
    clock = VirtualClock(start=EVE)
    queue = Queue(clock=clock)
    started: list[datetime] = []

    async def note() -> None:
        started.append(clock.now())

    half_past = datetime(2026, 10, 25, 2, 30, tzinfo=PARIS)
    async with queue:
        await queue.enqueue(note, eta=half_past.replace(fold=1))
        await queue.enqueue(note, eta=half_past.replace(fold=0))
        await clock.advance(timedelta(hours=4))
    assert started == [
        datetime(2026, 10, 25, 0, 30, tzinfo=UTC),
        datetime(2026, 10, 25, 1, 30, tzinfo=UTC),
    ]


async def test_a_replacement_in_the_repeated_hour_moves_the_job() -> None:
    """A newer call of a key moves the job to its own half of the repeated hour, both ways."""
    clock = VirtualClock(start=EVE)
    queue = Queue(clock=clock)
    started: list[tuple[str, datetime]] = []

    async def note(word: str) -> None:
        started.append((word, clock.now()))

    half_past = datetime(2026, 10, 25, 2, 30, tzinfo=PARIS)
    async with queue:
        await queue.enqueue(note, "forward", key="forward", eta=half_past.replace(fold=0))
        await queue.enqueue(note, "forward", key="forward", eta=half_past.replace(fold=1))
        await queue.enqueue(note, "back", key="back", eta=half_past.replace(fold=1))
        await queue.enqueue(note, "back", key="back", eta=half_past.replace(fold=0))
        await clock.advance(timedelta(hours=4))
    assert started == [
        ("back", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),
        ("forward", datetime(2026, 10, 25, 1, 30, tzinfo=UTC)),
    ]


async def test_a_wall_time_that_does_not_exist_still_has_an_instant() -> None:
    """An eta in the spring gap runs at the instant that its own offset gives."""
    clock = VirtualClock(start=datetime(2027, 3, 28, tzinfo=UTC))
    queue = Queue(clock=clock)
    started: list[datetime] = []

    async def note() -> None:
        started.append(clock.now())

    async with queue:
        await queue.enqueue(note, eta=datetime(2027, 3, 28, 2, 30, fold=0, tzinfo=PARIS))
        await queue.enqueue(note, eta=datetime(2027, 3, 28, 2, 30, fold=1, tzinfo=PARIS))
        await clock.advance(timedelta(hours=4))
    assert started == [
        datetime(2027, 3, 28, 0, 30, tzinfo=UTC),
        datetime(2027, 3, 28, 1, 30, tzinfo=UTC),
    ]


async def test_every_time_at_the_edge_is_utc() -> None:
    """Whatever zone the eta came in, handles, runs and listings show the instant in UTC."""
    clock = VirtualClock(start=EVE)
    queue = Queue(clock=clock)
    seen: list[datetime] = []

    async def note() -> None:
        seen.append(current().eta)

    async with queue:
        late = await queue.enqueue(note, eta=LATE)
        early = await queue.enqueue(note, eta=EARLY)
        assert [late.eta, early.eta] == [LATE_UTC, EARLY_UTC]
        listed = [job.eta async for job in queue.jobs()]
        assert listed == [EARLY_UTC, LATE_UTC]
        await clock.advance(timedelta(hours=4))
        for shown in [late.eta, early.eta, *listed, *seen]:
            assert shown.utcoffset() == timedelta(0)
    assert seen == [EARLY_UTC, LATE_UTC]


@pytest.mark.parametrize("year", [2026, 4321, 9999])
@pytest.mark.parametrize("microsecond", [1, 333_333, 999_999])
async def test_a_microsecond_is_not_rounded_away(queue: Queue, year: int, microsecond: int) -> None:
    """An eta is exact to the microsecond in every year; a float of seconds is not."""
    eta = datetime(year, 11, 30, 23, 59, 59, microsecond, tzinfo=UTC)
    handle = await queue.enqueue(noop, eta=eta)
    assert handle.eta == eta
    await handle.cancel()


async def test_neighbouring_microseconds_keep_their_order(
    queue: Queue, clock: VirtualClock
) -> None:
    """Two etas a microsecond apart run in that order and at those two instants."""
    started: list[tuple[str, datetime]] = []

    async def note(word: str) -> None:
        started.append((word, clock.now()))

    eta = clock.now() + timedelta(days=1000)
    after = eta + timedelta(microseconds=1)
    await queue.enqueue(note, "after", eta=after)
    await queue.enqueue(note, "before", eta=eta)
    await clock.advance(timedelta(days=1001))
    assert started == [("before", eta), ("after", after)]


async def test_odd_offsets_are_exact(queue: Queue, clock: VirtualClock) -> None:
    """An offset with seconds and microseconds in it names the same instant as UTC does."""
    odd = timezone(timedelta(hours=5, minutes=53, seconds=28, microseconds=7))
    eta = (clock.now() + timedelta(hours=1)).astimezone(odd)
    handle = await queue.enqueue(noop, eta=eta)
    assert handle.eta == clock.now() + timedelta(hours=1)
    await handle.cancel()
