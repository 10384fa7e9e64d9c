"""Where a schedule meets clocks that were set, rates, expiry, retries, threads."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Cron, Every, JobExpired, LogEvent, Queue, RateLimit, Retry, WrongLoop
from asyncdefer.testing import VirtualClock


class Notes:
    """A job that notes what it was given, and when, in seconds since this was made."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.zero = clock.monotonic()
        self.seen: list[tuple[float, Any]] = []
        self.fails = 0
        self.lasts = 0.0

    async def __call__(self, what: Any = None) -> Any:
        self.seen.append((round(self.clock.monotonic() - self.zero, 6), what))
        await asyncdefer.sleep(self.lasts)
        if self.fails:
            self.fails -= 1
            raise ValueError("no")
        return what

    @property
    def at(self) -> list[float]:
        return [at for at, _ in self.seen]


@pytest.fixture
def notes(clock: VirtualClock) -> Notes:
    return Notes(clock)


async def test_a_first_time_on_the_other_clock(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """A period counts from an eta, a calendar goes on after a delay, also where the clocks differ."""
    clock.step(-1000)
    other = Notes(clock)
    by_eta, by_delay = queue.task("by_eta")(notes), queue.task("by_delay")(other)
    eta = clock.now() + timedelta(seconds=100)
    await by_eta.options(repeat=Every(30), key="a", eta=eta).enqueue()
    await by_delay.options(repeat=Cron("* * * * *"), key="b", delay=5).enqueue()
    await clock.advance(165)
    assert notes.at == [100, 130, 160]
    assert other.at == [5, 40, 100, 160]  # the wall clock shows whole minutes then


async def test_a_retry_of_the_first_run(queue: Queue, clock: VirtualClock, notes: Notes) -> None:
    """What follows counts from the eta that was given, not from the retry."""
    notes.fails = 1
    task = queue.task("note", retry=Retry(3, delay=7, jitter=False))(notes)
    eta = clock.now() + timedelta(seconds=100)
    await task.options(repeat=Every(30), key="a", eta=eta).enqueue()
    await clock.advance(140)
    assert notes.at == [100, 107, 130]


async def test_other_arguments_during_a_run(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """The schedule that takes over keeps the grid of the one whose run is under way."""
    notes.lasts = 5
    task = queue.task("note")(notes)
    first = await task.options(repeat=Every(60), key="k").enqueue("a")
    await clock.advance(62)
    again = await task.options(repeat=Every(60), key="k").enqueue("a")
    assert again.id == first.id
    await task.options(repeat=Every(60), key="k").enqueue("b")
    await clock.advance(130)
    assert notes.seen == [(60, "a"), (120, "b"), (180, "b")]


async def test_the_same_again_whatever_its_first_time(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """An eta or delay is about the first run, which is settled."""
    task = queue.task("note")(notes)
    repeat = Every(60)
    first = await task.options(repeat=repeat, key="k", delay=5).enqueue()
    eta = clock.now() + timedelta(seconds=1)
    for options in ({}, {"eta": eta}, {"delay": 2}):
        again = await task.options(repeat=repeat, key="k", **options).enqueue()  # type: ignore[arg-type]
        assert again.id == first.id
    await clock.advance(70)
    assert notes.at == [5, 65]


async def test_what_is_missed_is_told_in_wall_time(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """Also of a period, which goes by the other clock."""
    told: list[LogEvent] = []
    queue.subscribe(lambda event: event.name == "job_missed" and told.append(event))
    clock.step(7200)
    start = clock.now()
    notes.lasts = 35
    queue.task("note", repeat=Every(10))(notes)
    await clock.advance(46)
    assert notes.at == [10, 45]
    (event,) = told
    assert (event.eta, event.until) == (
        start + timedelta(seconds=20),
        start + timedelta(seconds=40),
    )


async def test_a_rate_for_each_key(queue: Queue, clock: VirtualClock, notes: Notes) -> None:
    """Each run stands in the lane of its own rate key, the first one and all others."""
    limit = RateLimit(1, per=90, key=["what"])
    task = queue.task("note", rate_limit=limit, repeat=Every(60))(notes)
    for user in ("a", "b"):
        await task.options(repeat=Every(60), key=user).enqueue(user)
    await clock.advance(200)
    assert notes.seen == [(at, user) for at in (60, 150) for user in (None, "a", "b")]


async def test_a_call_by_hand_shares_the_rate(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """The schedule of a decorator stands in the lane of the key that its arguments make."""
    limit = RateLimit(1, per=90, key=["what"])
    task = queue.task("note", rate_limit=limit, repeat=Every(60))(notes)
    await clock.advance(61)
    await task.enqueue()
    await clock.advance(200)
    assert notes.at == [60, 150, 240]


async def test_skip_on_a_clock_that_was_set(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """A run is missed by its own clock."""
    clock.step(-86_400)
    queue.task("note", repeat=Cron("@hourly", missed="skip"))(notes)
    queue.pause()
    await clock.advance(3600 + 30)
    queue.resume()
    await clock.advance(1)
    assert notes.at == [3630]
    queue.pause()
    await clock.advance(3600 + 30)
    queue.resume()
    await clock.advance(1)
    assert notes.at == [3630]


@pytest.mark.parametrize("step", [0, -86_400, 86_400])
@pytest.mark.parametrize("rule", [Every(3600, "skip"), Cron("@hourly", missed="skip")], ids=str)
@pytest.mark.parametrize(("expires", "expired"), [(5, True), (1000, False)])
async def test_skip_and_expires(
    queue: Queue, clock: VirtualClock, notes: Notes,
    rule: Cron | Every, step: float, expires: float, expired: bool,
) -> None:  # fmt: skip
    """Whichever is first: the one ends the run, the other leaves it out."""
    clock.step(step)
    queue.task("note", repeat=rule, expires=expires)(notes)
    schedule = await queue.pending("note", "@repeat")
    assert schedule is not None
    waiter = asyncio.ensure_future(schedule.result())
    queue.pause()
    await clock.advance(3600 + 120)
    queue.resume()
    await clock.advance(3600)
    assert notes.at == [7200]
    assert queue.stats().expired == expired
    if expired:
        with pytest.raises(JobExpired):
            await waiter
    else:
        assert await waiter is None


async def test_a_retry_is_not_skipped(queue: Queue, clock: VirtualClock, notes: Notes) -> None:
    """A run that has begun is tried as often as was said."""
    notes.fails = 1
    retry = Retry(3, delay=70, jitter=False)
    queue.task("note", repeat=Every(100, "skip"), retry=retry)(notes)
    await clock.advance(350)
    assert notes.at == [100, 170, 200, 300]


async def test_a_run_that_was_moved_is_not_skipped(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """Who moves it has the last word."""
    schedule = await queue.options(repeat=Every(60, "skip"), key="k").enqueue(notes)
    await schedule.reschedule(delay=170)
    await clock.advance(200)
    assert notes.at == [170, 180]


async def test_replaced_while_nobody_listens(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """The books are right whether or not anybody is told."""
    task = queue.task("note")(notes)
    schedule = await task.options(repeat=Every(60), key="k").enqueue("a")
    await task.options(key="k", delay=5).enqueue("b")
    assert schedule.replaced
    await clock.run_until_idle()
    assert await schedule == "b"
    assert schedule.done()


async def test_a_pending_schedule_outlives_its_runs(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """What `pending` finds is the schedule."""
    queue.task("note", repeat=Every(60))(notes)
    schedule = await queue.pending("note", "@repeat")
    assert schedule is not None
    await clock.advance(200)
    assert not schedule.done()
    assert schedule.eta == clock.now() + timedelta(seconds=40)


async def test_not_from_another_thread(queue: Queue, notes: Notes) -> None:
    """A task whose schedule would begin is registered where the queue runs, or not at all."""
    with pytest.raises(WrongLoop):
        await asyncio.to_thread(queue.task("note", repeat=Every(60)), notes)
    queue.task("note", repeat=Every(60))(notes)
    assert queue.stats().waiting == 1


def test_a_rate_key_that_needs_arguments() -> None:
    """It is an error at the decorator, since a schedule has none."""
    limit = RateLimit(1, per=1, key=lambda what: what)

    async def note(what: str = "a") -> None: ...

    with pytest.raises(ValueError, match="called without arguments"):
        Queue().task("note", repeat=Every(60), rate_limit=limit)(note)
