"""T1: an eta is aware, a delay is a finite length of time, and a call has one of the two."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import Any

import pytest

from asyncdefer import Handle, Queue, Snooze
from asyncdefer.testing import VirtualClock

Door = Callable[[Queue, Handle[Any], dict[str, Any]], Awaitable[object]]
REJECTED = (TypeError, ValueError)
NAIVE = datetime(2030, 1, 1)  # noqa: DTZ001 - the mistake that the law is about
AWARE = datetime(2030, 1, 1, tzinfo=UTC)


class Vague(tzinfo):
    """A zone without an offset: `tzinfo is not None` calls it aware, and it is not."""

    def utcoffset(self, when: datetime | None, /) -> timedelta | None:
        return None

    def dst(self, when: datetime | None, /) -> timedelta | None:
        return None

    def tzname(self, when: datetime | None, /) -> str | None:
        return "vague"


async def noop() -> None:
    pass


async def by_enqueue(queue: Queue, handle: Handle[Any], when: dict[str, Any]) -> object:
    return await queue.enqueue(noop, **when)


async def by_nowait(queue: Queue, handle: Handle[Any], when: dict[str, Any]) -> object:
    return queue.enqueue_nowait(noop, **when)


async def by_options(queue: Queue, handle: Handle[Any], when: dict[str, Any]) -> object:
    return await queue.options(**when).enqueue(noop)


async def by_task_options(queue: Queue, handle: Handle[Any], when: dict[str, Any]) -> object:
    return await queue.task(name="t1")(noop).options(**when).enqueue()


async def by_thread(queue: Queue, handle: Handle[Any], when: dict[str, Any]) -> object:
    return await asyncio.to_thread(queue.enqueue_from_thread, noop, **when)


async def by_reschedule(queue: Queue, handle: Handle[Any], when: dict[str, Any]) -> object:
    return await handle.reschedule(**when)


DOORS: list[Door] = [by_enqueue, by_nowait, by_options, by_task_options, by_thread, by_reschedule]
each_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


async def refused(queue: Queue, door: Door, when: dict[str, Any], error: Any) -> None:
    """Go through the door, be refused, and find everything as it was."""
    handle = await queue.enqueue(noop, delay=3600)
    eta, before = handle.eta, queue.stats()
    with pytest.raises(error):
        await door(queue, handle, when)
    after = queue.stats()
    assert (after.accepted, after.waiting) == (before.accepted, before.waiting) == (1, 1)
    assert handle.eta == eta
    await handle.cancel()


@each_door
async def test_naive_eta_is_refused(queue: Queue, door: Door) -> None:
    """A naive eta is a `ValueError` at the call, through every door, and changes nothing."""
    await refused(queue, door, {"eta": NAIVE}, ValueError)


@each_door
async def test_awareness_is_an_offset_not_a_zone(queue: Queue, door: Door) -> None:
    """An eta whose zone gives no offset is naive, although it has a `tzinfo`."""
    await refused(queue, door, {"eta": NAIVE.replace(tzinfo=Vague())}, ValueError)


@each_door
@pytest.mark.parametrize("delay", [5, 0, 0.0, timedelta(0)], ids=repr)
async def test_eta_and_delay_exclude_each_other(queue: Queue, door: Door, delay: object) -> None:
    """`eta` and `delay` together are a `TypeError`, also when the delay is zero."""
    await refused(queue, door, {"eta": AWARE, "delay": delay}, TypeError)


@each_door
@pytest.mark.parametrize(
    "delay",
    [
        -1,
        -0.001,
        timedelta(microseconds=-1),
        float("nan"),
        float("inf"),
        float("-inf"),
        True,
        False,
        "5",
        AWARE,
        [5],
    ],
    ids=repr,
)
async def test_a_delay_is_a_finite_time_forward(queue: Queue, door: Door, delay: object) -> None:
    """A delay that is negative, NaN, infinite, a bool or no number at all is refused."""
    await refused(queue, door, {"delay": delay}, REJECTED)


@each_door
@pytest.mark.parametrize("eta", ["2030-01-01T00:00:00Z", 1893456000, date(2030, 1, 1)], ids=repr)
async def test_an_eta_is_a_datetime(queue: Queue, door: Door, eta: object) -> None:
    """An eta that is not a datetime is refused, not guessed at."""
    await refused(queue, door, {"eta": eta}, REJECTED)


@pytest.mark.parametrize(
    "delay", [-1, float("nan"), float("inf"), True, timedelta(seconds=-1), "5"], ids=repr
)
async def test_a_bad_delay_is_refused_at_decoration(delay: Any) -> None:
    """A task with an impossible delay is refused when it is decorated, not when it is called."""
    with pytest.raises(REJECTED):
        Queue().task(delay=delay)(noop)


@pytest.mark.parametrize(
    "when",
    [
        {"eta": NAIVE},
        {"eta": NAIVE.replace(tzinfo=Vague())},
        {"delay": -1},
        {"delay": float("nan")},
        {"delay": float("inf")},
        {"delay": True},
        {"eta": AWARE, "delay": 0},
        {},
    ],
    ids=repr,
)
async def test_snooze_follows_the_same_rules(when: dict[str, Any]) -> None:
    """`Snooze` takes one good eta or one good delay, and says so where it is made."""
    with pytest.raises(REJECTED):
        Snooze(**when)


@pytest.mark.parametrize("delay", [0, 0.0, timedelta(0)], ids=repr)
async def test_zero_is_a_delay(queue: Queue, clock: VirtualClock, delay: Any) -> None:
    """`delay=0` is a delay: for one call it overrides the longer one of its task."""
    started: list[datetime] = []

    @queue.task(delay=60)
    async def later() -> None:
        started.append(clock.now())

    called = clock.now()
    await later.options(delay=delay).enqueue()
    await clock.advance(1)
    assert started == [called]


async def test_an_eta_for_one_call_overrides_the_delay_of_its_task(
    queue: Queue, clock: VirtualClock
) -> None:
    """The exclusion is about one call: its eta takes the place of the delay of its task."""

    @queue.task(delay=60)
    async def later() -> None:
        pass

    eta = clock.now() + timedelta(hours=2)
    handle = await later.options(eta=eta).enqueue()
    assert handle.eta == eta
    await handle.cancel()


async def test_a_refused_call_replaces_nothing(queue: Queue, clock: VirtualClock) -> None:
    """A call that is refused leaves the waiting call of its key as it was."""
    ran: list[str] = []

    async def note(word: str) -> None:
        ran.append(word)

    first = await queue.enqueue(note, "good", key="k", delay=10)
    with pytest.raises(ValueError):
        await queue.enqueue(note, "bad", key="k", eta=NAIVE)
    assert not first.replaced
    await clock.advance(10)
    assert ran == ["good"]
