"""A schedule runs at its times, without drift, one run at a time, whatever becomes of a run."""

import asyncio
import contextvars
import threading
from datetime import UTC, datetime, timedelta

import pytest

import asyncdefer
from asyncdefer import (
    Cron,
    Every,
    GiveUp,
    JobCancelled,
    JobExpired,
    LogEvent,
    Queue,
    RateLimit,
    Retry,
    Snooze,
    State,
    Tasks,
)
from asyncdefer.testing import VirtualClock, virtual


class Ticks:
    """A job that notes when it starts, in seconds since this was made, and takes its time."""

    def __init__(self, clock: VirtualClock, lasts: float = 0) -> None:
        self.clock = clock
        self.lasts = lasts
        self.zero = clock.monotonic()
        self.at: list[float] = []
        self.errors: list[BaseException] = []

    async def __call__(self) -> int:
        self.at.append(round(self.clock.monotonic() - self.zero, 6))
        await asyncdefer.sleep(self.lasts)
        if self.errors:
            raise self.errors.pop(0)
        return len(self.at)


class Told:
    """What happened, as subscribers hear it."""

    def __init__(self, queue: Queue) -> None:
        self.events: list[LogEvent] = []
        queue.subscribe(self.events.append)

    def named(self, name: str) -> list[LogEvent]:
        return [event for event in self.events if event.name == name]


@pytest.fixture
def told(queue: Queue) -> Told:
    return Told(queue)


@pytest.fixture
def ticks(clock: VirtualClock) -> Ticks:
    return Ticks(clock)


# Times


async def test_every_period(queue: Queue, clock: VirtualClock, ticks: Ticks) -> None:
    """First after one period, and each run is a job of its own."""
    queue.task("tick", repeat=Every(timedelta(minutes=1)))(ticks)
    await clock.advance(59)
    assert ticks.at == []
    await clock.advance(3541)
    assert ticks.at == [60 * n for n in range(1, 61)]
    stats = queue.stats()
    assert (stats.accepted, stats.succeeded, stats.waiting) == (61, 60, 1)


async def test_no_drift(queue: Queue, clock: VirtualClock) -> None:
    """A run counts from when it was to start, not from when the one before it ended."""
    ticks = Ticks(clock, lasts=7.3)
    queue.task("tick", repeat=Every(10))(ticks)
    await clock.advance(100)
    assert ticks.at == [10 * n for n in range(1, 11)]


async def test_ninety_nights(queue: Queue, clock: VirtualClock) -> None:
    """At half past two in the morning of a place, also when its clocks change."""
    begun: list[datetime] = []

    async def night() -> None:
        begun.append(clock.now())

    queue.task("night", repeat=Cron("30 2 * * *", tz="Europe/Paris"))(night)
    await clock.advance(timedelta(days=90))
    assert len(begun) == 90
    change = [time for time in begun if time.date() == datetime(2027, 3, 28).date()]  # noqa: DTZ001 - a day
    assert change == [datetime(2027, 3, 28, 1, tzinfo=UTC)]
    assert begun[-1] == datetime(2027, 3, 31, 0, 30, tzinfo=UTC)


async def test_cron_follows_the_wall_clock(queue: Queue, clock: VirtualClock, ticks: Ticks) -> None:
    """Set forward it runs sooner, set back later, and no time comes twice."""
    queue.task("tick", repeat=Cron("@hourly"))(ticks)
    clock.step(1800)
    await clock.advance(1800)
    assert ticks.at == [1800]
    clock.step(-600)
    await clock.advance(3600)
    assert ticks.at == [1800]
    await clock.advance(600)
    assert ticks.at == [1800, 6000]


async def test_every_does_not(queue: Queue, clock: VirtualClock, ticks: Ticks) -> None:
    """A period is a span of steady time."""
    queue.task("tick", repeat=Every(60))(ticks)
    await clock.advance(90)
    clock.step(86_400)
    clock.step(-7_200)
    await clock.advance(60)
    assert ticks.at == [60, 120]


async def test_the_first_time_can_be_given(queue: Queue, clock: VirtualClock) -> None:
    """An eta or a delay is that of the first run; a period counts from there."""
    ticks, later = Ticks(clock), Ticks(clock)
    by_eta = queue.task("by_eta")(ticks)
    by_delay = queue.task("by_delay")(later)
    eta = clock.now() + timedelta(seconds=100)
    await by_eta.options(repeat=Every(30), key="a", eta=eta).enqueue()
    await by_delay.options(repeat=Cron("@hourly"), key="b", delay=5).enqueue()
    await clock.advance(7300)
    assert ticks.at[:4] == [100, 130, 160, 190]
    assert later.at == [5, 3600, 7200]


async def test_an_end_of_time(ticks: Ticks) -> None:
    """A schedule whose next time is past the year 9999 ends, and says so."""
    queue = Queue()
    told = Told(queue)
    queue.task("tick", repeat=Cron("@yearly"))(ticks)
    async with virtual(queue, start=datetime(9998, 12, 31, tzinfo=UTC)) as clock:
        handle = await queue.pending("tick", "@repeat")
        assert handle is not None
        await clock.advance(timedelta(days=2))
        assert handle.done()
        assert await handle == 1
    assert [event.task for event in told.named("schedule_ended")] == ["tick"]


async def test_no_time_at_all(ticks: Ticks) -> None:
    """It is an error at the call."""
    queue = Queue()
    async with virtual(queue, start=datetime(9999, 12, 31, tzinfo=UTC)):
        with pytest.raises(ValueError, match="no time that is still to come"):
            await queue.options(repeat=Cron("@yearly"), key="x").enqueue(ticks)
        assert queue.stats().accepted == 0


# What was missed


async def test_runs_never_overlap(queue: Queue, clock: VirtualClock) -> None:
    """A run that lasts longer than the period: once for what it missed, all of it, or none."""
    found: dict[str, Ticks] = {}
    for missed in ("once", "all", "skip"):
        found[missed] = Ticks(clock, lasts=25)
        queue.task(missed, repeat=Every(10, missed))(found[missed])
    await clock.advance(100)
    assert found["once"].at == [10, 35, 60, 85]
    assert found["all"].at == [10, 35, 60, 85]
    assert found["skip"].at == [10, 40, 70, 100]
    etas = {job.eta async for job in queue.jobs(State.SUCCEEDED, "all")}
    assert etas == {clock.now() - timedelta(seconds=100 - n) for n in (10, 20, 30)}


async def test_after_a_standstill(queue: Queue, clock: VirtualClock, told: Told) -> None:
    """Five hours and a half in pause, at one run an hour; what is left out is told."""
    found: dict[str, Ticks] = {}
    for missed in ("once", "all", "skip"):
        found[missed] = Ticks(clock)
        queue.task(missed, repeat=Cron("@hourly", missed=missed))(found[missed])
    await clock.advance(3600)
    queue.pause()
    await clock.advance(5 * 3600 + 1800)
    queue.resume()
    await clock.advance(1800 - 1)
    resumed = 6 * 3600 + 1800
    assert found["once"].at == [3600, resumed]
    assert found["all"].at == [3600, *[resumed] * 5]
    assert found["skip"].at == [3600]
    await clock.advance(1)
    for ticks in found.values():
        assert ticks.at[-1] == 7 * 3600
    begin = clock.now() - timedelta(hours=7)
    gone = [(event.eta, event.until) for event in told.named("job_missed") if event.task == "once"]
    assert gone == [(begin + timedelta(hours=3), begin + timedelta(hours=7))]
    assert [event.task for event in told.named("job_missed")].count("all") == 0
    left = [event.eta for event in told.named("job_missed") if event.task == "skip"]
    assert left == [begin + timedelta(hours=hour) for hour in (2, 3, 4, 5, 6)]


async def test_a_skipped_run_keeps_its_waiters(
    queue: Queue, clock: VirtualClock, ticks: Ticks
) -> None:
    """They get the outcome of the run that comes."""
    queue.task("tick", repeat=Every(60, missed="skip"))(ticks)
    handle = await queue.pending("tick", "@repeat")
    assert handle is not None
    waiter = asyncio.ensure_future(handle.result())
    queue.pause()
    await clock.advance(150)
    queue.resume()
    await clock.advance(30)
    assert ticks.at == [180]
    assert await waiter == 1
    assert queue.stats().expired == 0


async def test_a_run_that_expires(queue: Queue, clock: VirtualClock, ticks: Ticks) -> None:
    """Its waiters are told, and the schedule goes on."""
    queue.task("tick", repeat=Every(60), expires=5)(ticks)
    handle = await queue.pending("tick", "@repeat")
    assert handle is not None
    waiter = asyncio.ensure_future(handle.result())
    queue.pause()
    await clock.advance(70)
    with pytest.raises(JobExpired):
        await waiter
    queue.resume()
    await clock.advance(60)
    assert ticks.at == [120]


# Outcomes


@pytest.mark.parametrize("error", [ValueError("no"), GiveUp("enough"), SystemExit(2)])
async def test_a_failure_does_not_end_it(
    queue: Queue, clock: VirtualClock, ticks: Ticks, error: BaseException
) -> None:
    """Whatever a run raises, the next one comes."""
    ticks.errors = [error]
    queue.task("tick", repeat=Every(10))(ticks)
    await clock.advance(25)
    assert ticks.at == [10, 20]
    assert (queue.stats().failed, queue.stats().succeeded) == (1, 1)


async def test_a_timeout_does_not_end_it(queue: Queue, clock: VirtualClock) -> None:
    """Nor does a run that hangs."""
    ticks = Ticks(clock, lasts=1000)
    queue.task("tick", repeat=Every(10), timeout=3)(ticks)
    await clock.advance(25)
    assert ticks.at == [10, 20]


async def test_retries_come_first(queue: Queue, clock: VirtualClock, ticks: Ticks) -> None:
    """The next run is placed when a run and its retries have ended, on the grid."""
    ticks.errors = [ValueError(str(n)) for n in range(4)]
    retry = Retry(3, delay=7, factor=1, jitter=False)
    queue.task("tick", repeat=Every(10), retry=retry)(ticks)
    await clock.advance(45)
    # The last attempt of the run for 10 stood for 20 too, since it began after that.
    assert ticks.at == [10, 17, 24, 30, 37, 40]
    attempts = [job.attempt async for job in queue.jobs(task="tick") if job.state.ended]
    assert attempts == [3, 2, 1]


async def test_a_snooze_belongs_to_the_run(queue: Queue, clock: VirtualClock, ticks: Ticks) -> None:
    """The grid does not move with it."""
    ticks.errors = [Snooze(delay=4)]
    queue.task("tick", repeat=Every(10))(ticks)
    await clock.advance(31)
    assert ticks.at == [10, 14, 20, 30]


async def test_a_dropped_run(queue: Queue, clock: VirtualClock, ticks: Ticks) -> None:
    """One that its rate has no room for is dropped, and the schedule goes on."""
    queue.task("tick", repeat=Every(10), rate_limit=RateLimit(1, per=15, drop=True))(ticks)
    await clock.advance(51)
    assert ticks.at == [10, 30, 50]
    assert queue.stats().dropped == 2


async def test_a_discarded_run(queue: Queue, clock: VirtualClock, ticks: Ticks) -> None:
    """To discard the run that waits leaves out that one."""
    queue.task("tick", repeat=Every(10))(ticks)
    (job,) = [job async for job in queue.jobs(State.SCHEDULED)]
    assert await queue.discard(job.id)
    await clock.advance(25)
    assert ticks.at == [20]


async def test_cancel_ends_it(queue: Queue, clock: VirtualClock, ticks: Ticks, told: Told) -> None:
    """While it waits."""
    queue.task("tick", repeat=Every(10))(ticks)
    await clock.advance(15)
    handle = await queue.pending("tick", "@repeat")
    assert handle is not None
    assert await handle.cancel()
    await clock.advance(100)
    assert ticks.at == [10]
    assert handle.state is State.CANCELLED
    assert not handle.replaced
    assert not await handle.cancel()
    with pytest.raises(JobCancelled):
        await handle
    assert await queue.pending("tick", "@repeat") is None
    assert len(told.named("schedule_ended")) == 1


async def test_cancel_during_a_run_ends_it(queue: Queue, clock: VirtualClock) -> None:
    """And the run with it."""
    ticks = Ticks(clock, lasts=5)
    queue.task("tick", repeat=Every(10))(ticks)
    handle = await queue.pending("tick", "@repeat")
    assert handle is not None
    await clock.advance(12)
    assert handle.state is State.RUNNING
    assert await handle.cancel()
    await clock.advance(100)
    assert ticks.at == [10]
    assert handle.state is State.CANCELLED


# The queue's life


async def test_it_starts_with_the_queue(ticks: Ticks) -> None:
    """Each time, also from a registry."""
    queue, tasks = Queue(), Tasks("jobs.")
    tasks.task("tick", repeat=Every(10))(ticks)
    queue.include(tasks)
    for _ in range(2):
        async with virtual(queue) as clock:
            await clock.advance(25)
    assert len(ticks.at) == 4


async def test_a_task_that_comes_later(queue: Queue, clock: VirtualClock, ticks: Ticks) -> None:
    """Where the queue runs already, its schedule begins when the task is registered."""
    tasks = Tasks("jobs.")
    tasks.task("tick", repeat=Every(10))(ticks)
    await clock.advance(25)
    queue.include(tasks)
    await clock.advance(25)
    assert ticks.at == [35, 45]


async def test_close_settles_who_waits(ticks: Ticks) -> None:
    """A schedule in memory ends with its queue."""
    queue = Queue()
    queue.task("tick", repeat=Every(10))(ticks)
    async with virtual(queue) as clock:
        await clock.advance(15)
        handle = await queue.pending("tick", "@repeat")
        assert handle is not None
        waiter = asyncio.ensure_future(handle.result())
        await clock.advance(1)
    with pytest.raises(asyncdefer.QueueClosed):
        await waiter
    assert handle.state is State.DROPPED


async def test_a_run_that_ends_while_the_queue_closes() -> None:
    """It has its outcome; the one after it does not come."""
    queue, release = Queue(), asyncio.Event()

    async def slow() -> int:
        await release.wait()
        return 7

    queue.task("slow", repeat=Every(10))(slow)
    async with virtual(queue) as clock:
        handle = await queue.pending("slow", "@repeat")
        assert handle is not None
        waiter = asyncio.ensure_future(handle.result())
        await clock.advance(10, patience=0)
        asyncio.get_running_loop().call_soon(release.set)
    assert await waiter == 7
    with pytest.raises(asyncdefer.QueueClosed):
        await handle


async def test_run_until_idle_leaves_it_out(
    queue: Queue, clock: VirtualClock, ticks: Ticks
) -> None:
    """A test that runs until nothing is left would never end otherwise."""
    queue.task("tick", repeat=Every(10))(ticks)
    await queue.enqueue(abs, -1, delay=35)
    await clock.run_until_idle()
    assert ticks.at == [10, 20, 30]
    await clock.run_until_idle()
    assert ticks.at == [10, 20, 30]


async def test_no_request_is_behind_it(queue: Queue, clock: VirtualClock) -> None:
    """A schedule of a decorator runs in an empty context, one of a call in the caller's."""
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user")
    seen: list[str | None] = []

    async def look() -> None:
        seen.append(user.get(None))

    user.set("anna")
    queue.task("by_decorator", repeat=Every(10))(look)
    await queue.options(repeat=Every(10), key="k", delay=5).enqueue(look)
    await clock.advance(16)
    assert seen == ["anna", None, "anna"]


async def test_plain_functions_too(queue: Queue, clock: VirtualClock) -> None:
    """They run in a thread, each time."""
    ran: list[int] = []

    def plain() -> None:
        ran.append(threading.get_ident())

    queue.task("plain", repeat=Every(10))(plain)
    await clock.advance(100)
    assert len(ran) == 10
    assert threading.get_ident() not in ran
