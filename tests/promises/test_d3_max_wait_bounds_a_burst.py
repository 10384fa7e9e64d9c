"""D3: with `max_wait` the run starts at the latest that long after the first call of the burst."""

from datetime import timedelta

import pytest

import asyncdefer
from asyncdefer import Defer, Queue, Snooze
from asyncdefer.testing import VirtualClock


@pytest.mark.parametrize("max_wait", [25, 25.0, timedelta(seconds=25)])
async def test_a_burst_without_end_runs_at_the_bound(
    queue: Queue, clock: VirtualClock, max_wait: float | timedelta
) -> None:
    """A key that is called for ever runs every `max_wait`, with the newest arguments so far."""
    start, runs = clock.now(), list[tuple[float, int]]()

    @queue.task(delay=10, defer=Defer(max_wait=max_wait))
    async def save() -> None:
        runs.append(((clock.now() - start).total_seconds(), calls))

    for calls in range(1, 16):  # noqa: B007 # read by the job
        await save.enqueue()
        await clock.advance(4)

    # Calls at 0, 4, 8 …; bursts begin at 0 and at the first call after each run.
    assert runs == [(25.0, 7), (53.0, 14)]


async def test_the_eta_shown_is_the_bounded_one(queue: Queue, clock: VirtualClock) -> None:
    """The handle shows when the run will start, not what the delay alone would say."""
    start = clock.now()

    @queue.task(delay=10, defer=Defer(params=["doc"], max_wait=15))
    async def save(doc: str, version: int) -> int:
        return version

    first = await save.enqueue("a", 1)
    assert first.eta == start + timedelta(seconds=10)
    await clock.advance(8)
    second = await save.enqueue("a", 2)
    assert first.eta == second.eta == start + timedelta(seconds=15)
    await clock.advance(7)
    assert (await first, await second) == (2, 2)


async def test_the_newest_arguments_run_at_the_bound(queue: Queue, clock: VirtualClock) -> None:
    """The bound moves the time only: the arguments are still those of the newest call."""
    runs: list[int] = []

    @queue.task(delay=10, defer=Defer(params=["doc"], max_wait=15))
    async def save(doc: str, version: int) -> None:
        runs.append(version)

    for version in range(5):
        await save.enqueue("a", version)
        await clock.advance(3)

    assert runs == [4]


async def test_a_single_call_is_bounded_too(queue: Queue, clock: VirtualClock) -> None:
    """The first call of a burst starts within `max_wait` as well, however long its own delay."""
    start, runs = clock.now(), list[float]()

    @queue.task(defer=Defer(max_wait=15))
    async def save() -> None:
        runs.append((clock.now() - start).total_seconds())

    handle = await save.options(delay=3600).enqueue()

    assert handle.eta == start + timedelta(seconds=15)
    await clock.advance(3600)
    assert runs == [15.0]


async def test_an_explicit_eta_is_bounded(queue: Queue, clock: VirtualClock) -> None:
    """A later call's `eta` is as bounded as a `delay`."""
    start, runs = clock.now(), list[float]()

    @queue.task(delay=10, defer=Defer(max_wait=15))
    async def save() -> None:
        runs.append((clock.now() - start).total_seconds())

    await save.enqueue()
    await clock.advance(5)
    await save.options(eta=start + timedelta(hours=1)).enqueue()
    await clock.advance(7200)

    assert runs == [15.0]


async def test_an_earlier_eta_is_kept(queue: Queue, clock: VirtualClock) -> None:
    """The bound never makes a run later than the newest call's own eta."""
    start, runs = clock.now(), list[float]()

    @queue.task(defer=Defer(max_wait=15))
    async def save() -> None:
        runs.append((clock.now() - start).total_seconds())

    await save.options(delay=10).enqueue()
    await save.options(delay=2).enqueue()
    await clock.advance(60)

    assert runs == [2.0]


async def test_a_burst_ends_when_the_run_starts(queue: Queue, clock: VirtualClock) -> None:
    """A call that comes while the job runs is the first of a new burst with a bound of its own."""
    start, runs = clock.now(), list[float]()

    @queue.task(delay=10, defer=Defer(max_wait=15))
    async def save() -> None:
        runs.append((clock.now() - start).total_seconds())
        await asyncdefer.sleep(3)

    await save.enqueue()
    await clock.advance(11)  # running since 10
    for _ in range(8):  # 11, 13, … 25
        await save.enqueue()
        await clock.advance(2)
    await clock.advance(60)

    assert runs == [10.0, 26.0]


async def test_a_cancelled_burst_leaves_no_bound(queue: Queue, clock: VirtualClock) -> None:
    """A call after a cancel begins a new burst."""
    start, runs = clock.now(), list[float]()

    @queue.task(delay=10, defer=Defer(max_wait=15))
    async def save() -> None:
        runs.append((clock.now() - start).total_seconds())

    first = await save.enqueue()
    await clock.advance(9)
    assert await first.cancel()
    await save.enqueue()
    await clock.advance(60)

    assert runs == [19.0]


async def test_a_burst_over_a_snoozed_job_is_bounded(queue: Queue, clock: VirtualClock) -> None:
    """The burst ended when the run started: the first call over a snoozed job begins a new one."""
    start, runs = clock.now(), list[tuple[float, int]]()

    @queue.task(delay=10, defer=Defer(params=["doc"], max_wait=25))
    async def save(doc: str, version: int) -> None:
        runs.append(((clock.now() - start).total_seconds(), version))
        if version == 0:
            raise Snooze(delay=1000)

    await save.enqueue("a", 0)
    await clock.advance(12)  # snoozed at 10
    for version in range(1, 12):  # 12, 16, 20 …
        await save.enqueue("a", version)
        await clock.advance(4)

    assert runs[:2] == [(10.0, 0), (37.0, 7)]


async def test_an_explicit_reschedule_goes_past_the_bound(
    queue: Queue, clock: VirtualClock
) -> None:
    """`max_wait` bounds calls; a person who says `reschedule` means it."""
    start, runs = clock.now(), list[float]()

    @queue.task(delay=10, defer=Defer(max_wait=15))
    async def save() -> None:
        runs.append((clock.now() - start).total_seconds())

    handle = await save.enqueue()
    assert await handle.reschedule(delay=100)
    await clock.advance(99)
    assert runs == []
    await clock.advance(1)

    assert runs == [100.0]


@pytest.mark.parametrize("back", [-2, -3600])
async def test_a_wall_clock_set_back_does_not_move_the_bound(
    queue: Queue, clock: VirtualClock, back: int
) -> None:
    """An eta follows the wall clock; how long a burst has lasted does not."""
    start, runs = clock.monotonic(), list[float]()

    @queue.task(defer=Defer(max_wait=15))
    async def save() -> None:
        runs.append(clock.monotonic() - start)

    handle = await save.options(eta=clock.now() + timedelta(seconds=14)).enqueue()
    await clock.advance(5)
    clock.step(back)
    await clock.advance(9)
    assert runs == []
    await clock.advance(1)
    assert handle.done()
    assert runs == [15.0]


async def test_small_steps_back_do_not_add_up(queue: Queue, clock: VirtualClock) -> None:
    """A step of less than a second may go unnoticed, many of them do not."""
    start, runs = clock.monotonic(), list[float]()

    @queue.task(defer=Defer(max_wait=10))
    async def save() -> None:
        runs.append(clock.monotonic() - start)

    await save.options(eta=clock.now() + timedelta(seconds=9.5)).enqueue()
    for _ in range(8):
        await clock.advance(1)
        clock.step(-0.9)
    await clock.advance(30)
    assert runs == [10.0]


async def test_a_reschedule_past_the_bound_outlives_a_clock_set_back(
    queue: Queue, clock: VirtualClock
) -> None:
    """Who rescheduled has the last word, whatever the clock does afterwards."""
    start, runs = clock.monotonic(), list[float]()

    @queue.task(delay=10, defer=Defer(max_wait=15))
    async def save() -> None:
        runs.append(clock.monotonic() - start)

    handle = await save.enqueue()
    await handle.reschedule(eta=clock.now() + timedelta(seconds=60))
    await clock.advance(1)
    clock.step(-30)
    await clock.advance(88)
    assert runs == []
    await clock.advance(1)
    assert runs == [90.0]


async def test_keys_have_bounds_of_their_own(queue: Queue, clock: VirtualClock) -> None:
    """One key's long burst does not hurry another key."""
    start, runs = clock.now(), list[tuple[float, str]]()

    @queue.task(delay=10, defer=Defer(params=["doc"], max_wait=15))
    async def save(doc: str) -> None:
        runs.append(((clock.now() - start).total_seconds(), doc))

    await save.enqueue("a")
    await clock.advance(6)
    await save.enqueue("a")
    await save.enqueue("b")
    await clock.advance(8)
    await save.enqueue("b")
    await clock.advance(60)

    assert runs == [(15.0, "a"), (21.0, "b")]


@pytest.mark.parametrize("max_wait", [-1, float("nan"), float("inf"), True, "5"])
def test_a_bad_max_wait_is_refused(max_wait: object) -> None:
    """A bound that is no duration is an error where it is written."""
    with pytest.raises((TypeError, ValueError)):
        Defer(max_wait=max_wait)  # type: ignore[arg-type]


async def test_a_clock_set_twice_around_a_call(queue: Queue, clock: VirtualClock) -> None:
    """Set forward, a call by eta, and set back before the queue looked: the bound holds."""
    runs: list[float] = []
    begin = clock.monotonic()

    @queue.task(defer=Defer(["key"], max_wait=12))
    async def job(key: str) -> None:
        runs.append(clock.monotonic() - begin)

    clock.step(30)
    await job.options(eta=clock.now() + timedelta(seconds=5)).enqueue("a")
    clock.step(-30)
    await clock.advance(20)
    assert runs == [12]
