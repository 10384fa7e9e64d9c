"""Time in tests: `VirtualClock`, `virtual` and `asyncdefer.sleep`."""

import asyncio
import time
from datetime import UTC, datetime, timedelta

import pytest

import asyncdefer
from asyncdefer import Queue, Snooze, State
from asyncdefer.testing import VirtualClock, virtual

START = datetime(2027, 1, 1, 12, 0, tzinfo=UTC)


class Log:
    """What happened, at how many seconds after the beginning."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.start = clock, clock.now()
        self.lines: list[tuple[float, object]] = []

    def __call__(self, what: object = None) -> None:
        self.lines.append(((self.clock.now() - self.start).total_seconds(), what))


# the clock itself


async def test_it_starts_where_it_is_told() -> None:
    """The start is any aware datetime, shown in UTC; a naive one is a ValueError."""
    assert VirtualClock(start=START).now() == START
    local = datetime.fromisoformat("2027-01-01T13:00+01:00")
    clock = VirtualClock(start=local)
    assert clock.now() == START
    assert clock.now().tzinfo is UTC
    assert VirtualClock().now().tzinfo is UTC
    with pytest.raises(ValueError, match="aware"):
        VirtualClock(start=datetime(2027, 1, 1))  # noqa: DTZ001 # the naive one is the point


async def test_it_stands_still_by_itself(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """No time passes unless the test says so, to the microsecond."""
    now, monotonic = defer_clock.now(), defer_clock.monotonic()
    handle = await defer_queue.enqueue(asyncdefer.sleep, 0, delay=0.000001)
    for _ in range(100):
        await asyncio.sleep(0)

    assert (defer_clock.now(), defer_clock.monotonic()) == (now, monotonic)
    assert handle.state is State.SCHEDULED


async def test_advance_moves_wall_and_monotonic_time_together(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """After `advance` both clocks have moved by exactly that much, with and without jobs."""
    now, monotonic = defer_clock.now(), defer_clock.monotonic()
    await defer_clock.advance(10)
    await defer_clock.advance(timedelta(minutes=1))
    await defer_queue.enqueue(asyncdefer.sleep, 0, delay=3)
    await defer_clock.advance(20.5)
    await defer_clock.advance(0)

    assert defer_clock.now() == now + timedelta(seconds=90.5)
    assert defer_clock.monotonic() == pytest.approx(monotonic + 90.5)


@pytest.mark.parametrize("wrong", [-1, float("nan"), float("inf"), timedelta(seconds=-1)])
async def test_time_does_not_run_backwards(
    defer_queue: Queue, defer_clock: VirtualClock, wrong: float | timedelta
) -> None:
    """`advance` goes forward; the wall clock is set back with `step`."""
    now = defer_clock.now()
    with pytest.raises(ValueError, match="advance"):
        await defer_clock.advance(wrong)
    assert defer_clock.now() == now


# from eta to eta


async def test_it_goes_from_eta_to_eta(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """One long advance starts each job at its own eta, in order."""
    log = Log(defer_clock)

    async def job(n: int) -> None:
        log(n)

    for n in (30, 10, 20, 25):
        await defer_queue.enqueue(job, n, delay=n)
    await defer_queue.enqueue(job, 15, eta=log.start + timedelta(seconds=15))
    await defer_clock.advance(60)

    assert log.lines == [(10.0, 10), (15.0, 15), (20.0, 20), (25.0, 25), (30.0, 30)]


async def test_what_is_due_at_once_starts_in_order_of_acceptance() -> None:
    """However many jobs are due at one moment and whichever clock they follow, the first goes first."""
    queue = Queue(concurrency=1)
    async with virtual(queue) as clock:
        runs: list[int] = []

        async def job(n: int) -> None:
            runs.append(n)

        eta = clock.now() + timedelta(seconds=10)
        await queue.enqueue(job, 0, eta=eta)
        for n in range(1, 2500):
            await queue.enqueue(job, n, delay=10)
        await queue.enqueue(job, 2500, eta=eta)
        await clock.advance(10)
        assert runs == list(range(2501))


async def test_it_stops_where_it_was_told(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """What is due at the very end of the advance runs; a microsecond later it does not."""
    log = Log(defer_clock)
    await defer_queue.enqueue(log, "at", delay=10)
    await defer_queue.enqueue(log, "after", delay=10.000001)
    await defer_clock.advance(10)
    assert log.lines == [(10.0, "at")]
    await defer_clock.advance(timedelta(microseconds=1))

    assert log.lines == [(10.0, "at"), (10.000001, "after")]


async def test_what_a_job_enqueues_is_on_time(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Jobs that jobs enqueue run at their own times within the same advance."""
    log = Log(defer_clock)

    async def job(depth: int) -> None:
        log(depth)
        if depth:
            await defer_queue.enqueue(job, depth - 1, delay=7)
            await defer_queue.enqueue(log, "at once")

    await defer_queue.enqueue(job, 3, delay=1)
    await defer_clock.advance(100)

    assert [entry for entry in log.lines if entry[1] != "at once"] == [
        (1.0, 3),
        (8.0, 2),
        (15.0, 1),
        (22.0, 0),
    ]
    assert [at for at, what in log.lines if what == "at once"] == [1.0, 8.0, 15.0]


async def test_a_job_settles_before_the_next_eta(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A job that does something real has done it before the clock moves on."""
    log = Log(defer_clock)

    async def real() -> None:
        assert await asyncio.to_thread(sum, range(100_000)) == 4999950000
        log("real")

    await defer_queue.enqueue(real, delay=1)
    await defer_queue.enqueue(log, "next", delay=1.000001)
    await defer_clock.advance(60)

    assert log.lines == [(1.0, "real"), (1.000001, "next")]


async def test_threads_settle_before_the_next_eta(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """The time that a plain function sees stands still while it runs in its thread."""
    log = Log(defer_clock)

    def plain(n: int) -> None:
        before = defer_clock.now()
        sum(range(200_000))
        assert defer_clock.now() == before
        log(n)

    for n in range(20):
        await defer_queue.enqueue(plain, n, delay=n)
    await defer_clock.advance(60)

    assert log.lines == [(float(n), n) for n in range(20)]


# asyncdefer.sleep


async def test_sleep_in_a_job_takes_virtual_time(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A job that sleeps wakes at its time, and the jobs between go their way."""
    log = Log(defer_clock)

    async def job(name: str, seconds: float) -> None:
        await asyncdefer.sleep(seconds)
        log(name)
        await asyncdefer.sleep(seconds)
        log(name)

    for name, seconds in (("a", 10), ("b", 7), ("c", 3600)):
        await defer_queue.enqueue(job, name, seconds)
    await defer_clock.advance(30)

    assert log.lines == [(7.0, "b"), (10.0, "a"), (14.0, "b"), (20.0, "a")]
    assert defer_queue.stats().running == 1
    await defer_clock.advance(7200)


async def test_sleep_takes_a_timedelta(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A duration is float seconds or a timedelta, here as everywhere."""
    handle = await defer_queue.enqueue(asyncdefer.sleep, timedelta(minutes=1))
    await defer_clock.advance(59)
    assert not handle.done()
    await defer_clock.advance(1)

    assert await handle is None
    await asyncdefer.sleep(timedelta(0))


async def test_sleep_of_nothing(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`sleep(0)` lets others run and takes no time."""
    log = Log(defer_clock)

    async def job(name: str) -> None:
        for _ in range(3):
            log(name)
            await asyncdefer.sleep(0)

    await defer_queue.enqueue(job, "a")
    await defer_queue.enqueue(job, "b")
    await defer_clock.advance(0)

    assert sorted(log.lines) == [(0.0, "a")] * 3 + [(0.0, "b")] * 3
    assert [what for _, what in log.lines] != ["a"] * 3 + ["b"] * 3


async def test_tasks_of_a_job_sleep_on_its_clock(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """What a job starts sleeps with it: a run waits for the clock when any task of its context does."""

    async def job() -> list[float]:
        begin = defer_clock.monotonic()

        async def child(seconds: float) -> float:
            await asyncdefer.sleep(seconds)
            return defer_clock.monotonic() - begin

        async with asyncio.TaskGroup() as group:
            children = [group.create_task(child(n)) for n in (3, 1, 2)]
        return [round(child.result(), 6) for child in children]

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(3)

    assert await handle == [3, 1, 2]


async def test_a_cancelled_sleep_is_forgotten(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A sleep that was cancelled holds up nobody."""

    async def job() -> str:
        sleeper = asyncio.create_task(asyncdefer.sleep(100))
        await asyncdefer.sleep(1)
        sleeper.cancel()
        await asyncdefer.sleep(1)
        return "done"

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(2)

    assert await handle == "done"


async def test_sleep_outside_a_job_is_asyncios(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Outside, where no queue's clock is, `sleep` is `asyncio.sleep`."""
    before = defer_clock.now()
    await asyncdefer.sleep(0.001)

    assert defer_clock.now() == before


async def test_a_job_that_awaits_a_handle_waits_for_the_clock(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A job may wait for another job: the clock goes on for both."""
    log = Log(defer_clock)

    async def child(n: int) -> int:
        await asyncdefer.sleep(5)
        return n

    async def parent() -> int:
        handles = [await defer_queue.enqueue(child, n, delay=10 * n) for n in (1, 2)]
        total = sum([await handle for handle in handles])
        log("sum")
        total += await (await defer_queue.enqueue(child, 10, delay=10)).result(timeout=60)
        log("result")
        return total

    handle = await defer_queue.enqueue(parent)
    await defer_clock.advance(60)

    assert await handle == 13
    assert log.lines == [(25.0, "sum"), (40.0, "result")]


async def test_two_queues_on_one_clock(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A job that awaits a job of another queue on the same clock waits for the clock as well."""
    async with Queue(clock=defer_clock) as other:

        async def parent() -> int:
            return 1 + await (await other.enqueue(len, "abc", delay=10))

        handle = await defer_queue.enqueue(parent)
        await defer_clock.advance(10, patience=1)
        assert await handle == 4


# busy jobs


async def test_advance_waits_for_a_busy_job(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A job that waits for anything but the clock is waited for, in real time."""
    log = Log(defer_clock)
    loop = asyncio.get_running_loop()

    async def job() -> None:
        event = asyncio.Event()
        loop.call_later(0.02, event.set)
        await event.wait()
        log("job")

    handle = await defer_queue.enqueue(job, delay=5)
    await defer_queue.enqueue(log, "next", delay=6)
    await defer_clock.advance(10)

    assert handle.done()
    assert log.lines == [(5.0, "job"), (6.0, "next")]


async def test_patience_ends(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A job that stays busy is an error that names it, and the clock stands where it got busy."""
    event = asyncio.Event()

    @defer_queue.task("jobs.stuck", delay=5)
    async def stuck() -> None:
        await event.wait()

    log = Log(defer_clock)
    handle = await stuck.enqueue()
    with pytest.raises(Exception, match=r"jobs\.stuck"):
        await defer_clock.advance(10, patience=0.02)
    log("error")
    assert log.lines == [(5.0, "error")]

    event.set()
    await defer_clock.advance(5)
    assert handle.done()


async def test_without_patience_busy_jobs_are_left_alone(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """`patience=0` goes on at once: for jobs that are meant to be stuck."""
    event = asyncio.Event()
    log = Log(defer_clock)
    handle = await defer_queue.enqueue(event.wait, delay=5)
    await defer_queue.enqueue(log, "next", delay=6)
    await defer_clock.advance(10, patience=0)
    assert handle.state is State.RUNNING
    assert defer_clock.now() == log.start + timedelta(seconds=10)
    event.set()
    await defer_clock.advance(0)

    assert handle.done()
    assert [what for _, what in log.lines] == ["next"]


# run_until_idle


async def test_run_until_idle(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """It runs everything that waits, and what that enqueues, and stops at the last of it."""
    log = Log(defer_clock)

    async def job(depth: int) -> None:
        log(depth)
        await asyncdefer.sleep(5)
        if depth:
            await defer_queue.enqueue(job, depth - 1, delay=10)

    await defer_queue.enqueue(job, 2, delay=10)
    await defer_queue.enqueue(log, "eta", eta=log.start + timedelta(days=1))
    await defer_clock.run_until_idle()

    assert log.lines == [(10.0, 2), (25.0, 1), (40.0, 0), (86400.0, "eta")]
    assert (defer_queue.stats().waiting, defer_queue.stats().running) == (0, 0)
    assert defer_clock.now() == log.start + timedelta(days=1)


async def test_run_until_idle_waits_for_snoozes_and_sleepers(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A job that snoozes or sleeps is not idle."""

    async def job() -> int:
        await asyncdefer.sleep(100)
        if asyncdefer.current().attempt < 5:
            raise Snooze(delay=100)
        return asyncdefer.current().attempt

    handle = await defer_queue.enqueue(job)
    await defer_clock.run_until_idle()

    assert await handle == 5


async def test_run_until_idle_of_an_idle_queue(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """With nothing to do it returns at once, and no time has passed."""
    now = defer_clock.now()
    await defer_clock.run_until_idle()

    assert defer_clock.now() == now


# step


async def test_a_step_moves_the_wall_clock_alone(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """`step` is an administrator who sets the clock: the monotonic clock does not move."""
    now, monotonic = defer_clock.now(), defer_clock.monotonic()
    defer_clock.step(3600)
    assert defer_clock.now() == now + timedelta(hours=1)
    defer_clock.step(-7200)
    assert defer_clock.now() == now - timedelta(hours=1)
    defer_clock.step(timedelta(hours=1))

    assert defer_clock.now() == now
    assert defer_clock.monotonic() == monotonic


async def test_etas_follow_a_step_forward_and_delays_do_not(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """After a step over its eta a job is due at once; a delay still has its seconds to go."""
    by_eta = await defer_queue.enqueue(
        asyncdefer.sleep, 0, eta=defer_clock.now() + timedelta(minutes=30)
    )
    by_delay = await defer_queue.enqueue(asyncdefer.sleep, 0, delay=1800)
    defer_clock.step(3600)
    await defer_clock.advance(1)
    assert (by_eta.state, by_delay.state) == (State.SUCCEEDED, State.SCHEDULED)
    await defer_clock.advance(1798)
    assert by_delay.state is State.SCHEDULED
    await defer_clock.advance(1)

    assert by_delay.state is State.SUCCEEDED


async def test_etas_follow_a_step_back_and_delays_do_not(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """After a step back a job with an eta waits longer; a delay does not."""
    eta = defer_clock.now() + timedelta(minutes=30)
    by_eta = await defer_queue.enqueue(asyncdefer.sleep, 0, eta=eta)
    by_delay = await defer_queue.enqueue(asyncdefer.sleep, 0, delay=1800)
    defer_clock.step(-3600)
    await defer_clock.advance(1800)
    assert (by_eta.state, by_delay.state) == (State.SCHEDULED, State.SUCCEEDED)
    await defer_clock.advance(3599)
    assert by_eta.state is State.SCHEDULED
    await defer_clock.advance(1)

    assert by_eta.state is State.SUCCEEDED
    assert defer_clock.now() == eta


async def test_a_sleeping_job_does_not_notice_a_step(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Sleeps and timeouts are durations."""
    sleeper = await defer_queue.enqueue(asyncdefer.sleep, 100)
    await defer_clock.advance(10)
    defer_clock.step(3600)
    await defer_clock.advance(89)
    assert sleeper.state is State.RUNNING
    await defer_clock.advance(1)

    assert sleeper.state is State.SUCCEEDED


# virtual


async def test_a_programs_own_queue_on_a_virtual_clock() -> None:
    """`virtual` runs the queue with its registered tasks, stops it, and can do so again."""
    queue = Queue()

    @queue.task(delay=timedelta(hours=1))
    async def remind(name: str) -> str:
        return f"hello {name}"

    for name in ("Ada", "Alan"):
        async with virtual(queue) as clock:
            handle = await remind.enqueue(name)
            await clock.advance(3600)
            assert await handle == f"hello {name}"
        with pytest.raises(asyncdefer.QueueClosed):
            await remind.enqueue(name)


async def test_a_queue_is_its_own_again_afterwards() -> None:
    """After `virtual` the queue follows the system's clock as before."""
    queue = Queue()
    async with virtual(queue) as clock:
        await clock.advance(timedelta(days=1000))
    async with queue:
        handle = await queue.enqueue(asyncdefer.sleep, 0, delay=3600)
        assert abs(handle.eta - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)


async def test_an_error_in_the_test_is_the_tests_own() -> None:
    """An exception in the block is raised as it is, and the queue is stopped."""
    queue = Queue()
    with pytest.raises(ZeroDivisionError):
        async with virtual(queue):
            await queue.enqueue(asyncdefer.sleep, 0, delay=10)
            raise ZeroDivisionError
    with pytest.raises(asyncdefer.QueueClosed):
        await queue.enqueue(asyncdefer.sleep, 0)


async def test_a_clock_of_ones_own() -> None:
    """`Queue(clock=VirtualClock(…))` follows that clock."""
    clock = VirtualClock(start=START)
    async with Queue(clock=clock) as queue:
        handle = await queue.enqueue(asyncdefer.sleep, 0, eta=START + timedelta(hours=1))
        await clock.advance(3599)
        assert not handle.done()
        await clock.advance(1)
        assert handle.done()


# a month


async def test_a_month_of_daily_jobs(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A month of daily jobs is 30 runs at the right hour, in no time."""
    days: list[datetime] = []

    async def daily(at: datetime) -> None:
        days.append(defer_clock.now())
        await asyncdefer.sleep(600)
        await defer_queue.enqueue(daily, at + timedelta(days=1), eta=at + timedelta(days=1))

    first = defer_clock.now() + timedelta(hours=3)
    begin = time.perf_counter()
    await defer_queue.enqueue(daily, first, eta=first)
    await defer_clock.advance(timedelta(days=30))
    took = time.perf_counter() - begin

    assert days == [first + timedelta(days=n) for n in range(30)]
    assert took < 20
