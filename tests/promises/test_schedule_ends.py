"""A schedule goes on until it is ended, ends when it is, and its handle is right at every moment."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Every, LogEvent, Queue, RateLimit, Retry, State
from asyncdefer.testing import VirtualClock, virtual


class Slow:
    """A job that takes its time, and notes what it was given, and when."""

    def __init__(self, clock: VirtualClock, lasts: float) -> None:
        self.clock = clock
        self.lasts = lasts
        self.zero = clock.monotonic()
        self.seen: list[tuple[float, Any]] = []

    async def __call__(self, what: Any = None) -> Any:
        self.seen.append((round(self.clock.monotonic() - self.zero, 6), what))
        await asyncdefer.sleep(self.lasts)
        return what


async def test_who_took_the_key_ends_it(queue: Queue, clock: VirtualClock) -> None:
    """Also where the run of the old one is under way, and the new one is cancelled before that ends."""
    slow = Slow(clock, lasts=10)
    task = queue.task("slow")(slow)
    old = await task.options(repeat=Every(60), key="k").enqueue("a")
    await clock.advance(65)
    new = await task.options(repeat=Every(60), key="k").enqueue("b")
    assert old.replaced
    assert await new.cancel()
    await clock.advance(300)
    assert slow.seen == [(60, "a")]
    assert await queue.pending(task, "k") is None
    assert new.state is State.CANCELLED


async def test_the_old_run_has_its_waiters(queue: Queue, clock: VirtualClock) -> None:
    """Who awaited the run that is under way gets its outcome; who awaits later, the newer one's."""
    task = queue.task("slow")(Slow(clock, lasts=10))
    old = await task.options(repeat=Every(60), key="k").enqueue("a")
    before = asyncio.ensure_future(old.result())
    await clock.advance(65)
    await task.options(repeat=Every(30), key="k").enqueue("b")
    after = asyncio.ensure_future(old.result())
    await clock.advance(60)
    assert (await before, await after) == ("a", "b")


async def test_a_late_run_stands_for_what_came_before_it(queue: Queue, clock: VirtualClock) -> None:
    """Also for a schedule with other arguments that takes over during it."""
    slow = Slow(clock, lasts=20)
    task = queue.task("slow", concurrency=1)(slow)
    await task.options(repeat=Every(60), key="k").enqueue("a")
    queue.pause()
    await clock.advance(305)
    queue.resume()
    await clock.advance(5)
    await task.options(repeat=Every(60), key="k").enqueue("b")
    await clock.advance(120)
    assert slow.seen == [(305, "a"), (360, "b"), (420, "b")]


@pytest.mark.parametrize("first", ["eta", "delay", "rule"])
async def test_flush_leaves_what_follows_where_it_was(
    queue: Queue, clock: VirtualClock, first: str
) -> None:
    """Whoever gave the time of the first run."""
    slow = Slow(clock, lasts=0)
    options: dict[str, Any] = {
        "eta": {"eta": clock.now() + timedelta(seconds=60)},
        "delay": {"delay": 60},
        "rule": {},
    }[first]
    handle = await queue.options(repeat=Every(60), key="k", **options).enqueue(slow)
    await clock.advance(25)
    assert await handle.flush()
    await clock.advance(160)
    assert [at for at, _ in slow.seen] == [25, 120, 180]


def shows(handle: Any) -> Callable[[LogEvent], object]:
    return lambda _: (repr(handle), handle.eta, handle.attempt, handle.replaced)


async def test_a_subscriber_may_look_at_it_at_any_moment(queue: Queue, clock: VirtualClock) -> None:
    """Also between two runs; the handle goes on to stand for the next one."""
    slow = Slow(clock, lasts=150)
    handle = await queue.options(repeat=Every(60, "skip"), key="k").enqueue(slow)
    queue.subscribe(shows(handle))
    await clock.advance(300)
    waiter = asyncio.ensure_future(handle.result())
    await clock.advance(300)
    assert waiter.done()
    last = asyncio.ensure_future(handle.result())
    assert await handle.cancel()
    await clock.advance(1)
    assert isinstance(last.exception(), asyncdefer.JobCancelled)


async def test_a_retry_rule_may_look_at_it(defer_queue: Queue, clock: VirtualClock) -> None:
    """A function that says how long to wait is asked in the same moment."""
    queue = defer_queue
    states: list[object] = []
    fails = [True]

    def wait(_: int, __: BaseException) -> float:
        states.append(repr(handle))
        return 1

    async def tick() -> None:
        if fails:
            fails.pop()
            raise ValueError

    retry = Retry(2, delay=wait)
    handle = await queue.options(repeat=Every(60), key="k", retry=retry).enqueue(tick)
    await clock.advance(100)
    assert len(states) == 1
    waiter = asyncio.ensure_future(handle.result())
    await clock.advance(60)
    assert waiter.done()
    assert not handle.done()


async def test_run_until_idle_does_not_wait_for_a_schedule_that_always_runs(
    queue: Queue, clock: VirtualClock
) -> None:
    """Neither its runs nor those that wait count."""
    queue.task("slow", repeat=Every(1))(Slow(clock, lasts=2))
    await clock.advance(1)
    async with asyncio.timeout(10):
        await clock.run_until_idle()


async def test_run_until_idle_does_not_wait_for_a_resume(queue: Queue, clock: VirtualClock) -> None:
    """A job of a paused task would wait for ever; one that expires does not."""
    queue.task("tick", repeat=Every(1))(Slow(clock, lasts=0))
    job = queue.task("job")(Slow(clock, lasts=0))
    queue.pause(job)
    waits = await job.enqueue()
    expires = await job.options(expires=30).enqueue()
    async with asyncio.timeout(10):
        await clock.run_until_idle()
    assert (waits.state, expires.state) == (State.SCHEDULED, State.EXPIRED)


async def test_a_start_that_fails_leaves_nothing_running() -> None:
    """A schedule that cannot begin is an error of `start`, after which the queue can be started again."""
    fail: list[bool] = []

    def rate_key() -> str:
        if fail:
            raise LookupError("not configured")
        return "a"

    async def tick() -> None: ...

    queue = Queue()
    queue.task("a", repeat=Every(60))(tick)
    queue.task("b", repeat=Every(60), rate_limit=RateLimit(1, per=1, key=rate_key))(tick)
    fail.append(True)
    with pytest.raises(LookupError, match="not configured"):
        await queue.start()
    fail.clear()
    async with virtual(queue):
        assert queue.stats().waiting == 2


async def test_the_same_again_behind_a_newer_call(queue: Queue, clock: VirtualClock) -> None:
    """A call that waits behind the run would end the schedule; begun again, the schedule goes on."""
    slow = Slow(clock, lasts=10)
    task = queue.task("slow")(slow)
    schedule = task.options(repeat=Every(60), key="k")
    await schedule.enqueue("a")
    await clock.advance(65)
    once = await task.options(key="k", delay=30).enqueue("b")
    await schedule.enqueue("a")
    assert once.replaced
    await clock.advance(130)
    assert slow.seen == [(60, "a"), (120, "a"), (180, "a")]


async def test_positional_or_keyword_is_the_same(queue: Queue) -> None:
    """As it is for keys."""

    async def note(what: str, times: int = 1) -> None: ...

    schedule = queue.task("note")(note).options(repeat=Every(60), key="k")
    handles = [
        await schedule.enqueue("a"),
        await schedule.enqueue(what="a"),
        await schedule.enqueue("a", times=1),
    ]
    assert len({handle.id for handle in handles}) == 1


async def test_who_is_told_of_an_end_finds_the_next_run(queue: Queue, clock: VirtualClock) -> None:
    """The schedule has gone on before anybody hears that a run of it has ended."""
    states: list[tuple[str, State]] = []
    handle = await queue.options(repeat=Every(60), key="k").enqueue(Slow(clock, lasts=1))
    queue.subscribe(lambda event: states.append((event.name, handle.state)))
    await clock.advance(62)
    assert ("job_succeeded", State.SCHEDULED) in states
    assert all(state in (State.SCHEDULED, State.RUNNING) for _, state in states)


async def test_the_last_run_of_one_that_was_taken_over_can_be_cancelled(
    queue: Queue, clock: VirtualClock
) -> None:
    """Its retries go on, and can be found."""
    begun: list[str] = []

    async def fails(what: str) -> None:
        begun.append(what)
        await asyncdefer.sleep(10)
        raise ValueError

    task = queue.task("fails", retry=Retry(9, delay=20, factor=1, jitter=False))(fails)
    await task.options(repeat=Every(60), key="k").enqueue("a")
    await clock.advance(65)
    await (await task.options(repeat=Every(60), key="k").enqueue("b")).cancel()
    await clock.advance(10)
    last = await queue.pending(task, "k")
    assert last is not None
    assert last.state is State.SCHEDULED
    assert await last.cancel()
    await clock.advance(300)
    assert begun == ["a"]


async def test_a_task_whose_schedule_cannot_begin_is_not_registered(queue: Queue) -> None:
    """It can be registered again when the cause is mended."""
    ready: list[str] = []

    def rate_key() -> str:
        return ready[0]

    async def tick() -> None: ...

    limit = RateLimit(1, per=1, key=rate_key)
    decorate = queue.task("tick", repeat=Every(60), rate_limit=limit)
    ready.append("a")
    fails = queue.task("other", repeat=Every(60), rate_limit=limit)
    ready.clear()
    with pytest.raises(IndexError):
        fails(tick)
    ready.append("a")
    decorate(tick)
    fails(tick)
    assert queue.stats().waiting == 2


async def test_a_clock_set_during_the_first_run(queue: Queue, clock: VirtualClock) -> None:
    """A period counts from where the eta was on the steady clock when the run began."""
    slow = Slow(clock, lasts=5)
    eta = clock.now() + timedelta(seconds=60)
    await queue.options(repeat=Every(60), key="k", eta=eta).enqueue(slow)
    await clock.advance(62)
    clock.step(1000)
    await clock.advance(130)
    assert [at for at, _ in slow.seen] == [60, 120, 180]


async def test_another_queue_that_closed_ends_nothing_here(
    queue: Queue, clock: VirtualClock
) -> None:
    """A run may fail with the `QueueClosed` of a queue that it uses."""
    begun: list[float] = []

    async def tick() -> None:
        begun.append(clock.monotonic())
        raise asyncdefer.QueueClosed("another one")

    queue.task("tick", repeat=Every(10))(tick)
    await clock.advance(35)
    assert len(begun) == 3


async def test_who_is_told_of_a_schedule_may_begin_another(
    defer_queue: Queue, clock: VirtualClock
) -> None:
    """The newest counts, also where it comes while others are told of the one before it."""
    queue = defer_queue
    slow = Slow(clock, lasts=0)
    task = queue.task("slow")(slow)
    told: list[str] = []

    def hears(event: LogEvent) -> None:
        if event.name == "job_accepted" and not told:
            told.append(event.name)
            newer = task.options(repeat=Every(10), key="k").enqueue("b")
            with pytest.raises(StopIteration):  # it does not wait for anything
                newer.send(None)

    queue.subscribe(hears)
    outer = await task.options(repeat=Every(60), key="k").enqueue("a")
    assert outer.replaced
    schedule = await queue.pending(task, "k")
    assert schedule is not None
    await clock.advance(25)
    assert slow.seen == [(10, "b"), (20, "b")]
    assert await schedule.cancel()
    assert await queue.pending(task, "k") is None
