"""A schedule has a key: the same one again changes nothing, and its handle stands for the next run."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from asyncdefer import (
    Cron,
    Defer,
    Every,
    JobCancelled,
    LogEvent,
    Queue,
    RateLimit,
    Retry,
    State,
    current,
    sleep,
)  # fmt: skip
from asyncdefer.testing import VirtualClock


class Notes:
    """A job that notes what it was given, and when, in seconds since this was made."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.zero = clock.monotonic()
        self.seen: list[tuple[float, Any]] = []

    async def __call__(self, what: Any = None) -> Any:
        self.seen.append((round(self.clock.monotonic() - self.zero, 6), what))
        return what


@pytest.fixture
def notes(clock: VirtualClock) -> Notes:
    return Notes(clock)


@pytest.fixture
def ended(queue: Queue) -> list[LogEvent]:
    """The schedules that ended."""
    events: list[LogEvent] = []
    queue.subscribe(lambda event: event.name == "schedule_ended" and events.append(event))
    return events


# Keys


async def test_the_same_again_changes_nothing(
    queue: Queue, clock: VirtualClock, notes: Notes, ended: list[LogEvent]
) -> None:
    """A program may set its schedules each time it comes by."""
    task = queue.task("note")(notes)
    first = await task.options(repeat=Every(60), key="k", retry=3).enqueue("a")
    await clock.advance(45)
    again = await task.options(repeat=Every(60), key="k", retry=Retry(3)).enqueue("a")
    assert again.id == first.id
    await clock.advance(45)
    once_more = await task.options(
        repeat=Every(timedelta(minutes=1)), key="k", retry=3, delay=1
    ).enqueue("a")
    assert once_more.id == first.id
    assert not first.replaced
    await clock.advance(50)
    assert notes.seen == [(60, "a"), (120, "a")]
    assert queue.stats().replaced == 0
    assert ended == []


async def test_another_rule_replaces_it(
    queue: Queue, clock: VirtualClock, notes: Notes, ended: list[LogEvent]
) -> None:
    """From now on by that rule; who waits follows."""
    task = queue.task("note")(notes)
    first = await task.options(repeat=Every(60), key="k").enqueue("a")
    waiter = asyncio.ensure_future(first.result())
    await clock.advance(45)
    second = await task.options(repeat=Every(10), key="k").enqueue("b")
    await clock.advance(25)
    assert notes.seen == [(55, "b"), (65, "b")]
    assert await waiter == "b"
    assert first.replaced
    assert first.state is State.SUCCEEDED
    assert second.state is State.SCHEDULED
    assert not await first.cancel()
    assert len(ended) == 1


async def test_other_arguments_take_over_its_time(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """A deploy that changes what is done does not put off when."""
    task = queue.task("note")(notes)
    await task.options(repeat=Every(60), key="k").enqueue("a")
    for word in ("b", "c"):
        await clock.advance(50)
        await task.options(repeat=Every(60), key="k").enqueue(word)
    await clock.advance(30)
    assert notes.seen == [(60, "b"), (120, "c")]


async def test_a_comparison_that_fails(
    defer_queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """Arguments that cannot be compared are others."""
    queue = defer_queue

    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError("the truth value of an array is ambiguous")

        __hash__ = None  # type: ignore[assignment]

    task = queue.task("note")(notes)
    await task.options(repeat=Every(60), key="k").enqueue(Odd())
    await task.options(repeat=Every(60), key="k").enqueue(Odd())
    await clock.advance(60)
    assert len(notes.seen) == 1
    assert queue.stats().replaced == 1


async def test_a_schedule_needs_a_key(queue: Queue, notes: Notes) -> None:
    """Otherwise nobody would find it again. A defer rule makes one."""
    task, keyed = queue.task("note")(notes), queue.task("keyed", defer=["what"])(notes)
    with pytest.raises(ValueError, match=r"options\(repeat=…, key=…\)"):
        await task.options(repeat=Every(60)).enqueue("a")
    assert queue.stats().accepted == 0
    for user in ("a", "b", "a"):
        await keyed.options(repeat=Every(60)).enqueue(user)
    assert queue.stats().waiting == 2


async def test_each_key_is_a_schedule(queue: Queue, clock: VirtualClock, notes: Notes) -> None:
    """One for each user, say; any callable will do."""
    for n in range(3):
        await queue.options(repeat=Every(10 + n), key=f"user {n}").enqueue(notes, n)
    await clock.advance(23)
    assert notes.seen == [(10, 0), (11, 1), (12, 2), (20, 0), (22, 1)]


async def test_calls_without_a_schedule_are_their_own(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """A task that repeats can be called besides; that call runs once."""
    task = queue.task("note", repeat=Every(60))(notes)
    await task.enqueue("now")
    await task.options(delay=30).enqueue("later")
    await clock.advance(150)
    assert notes.seen == [(0, "now"), (30, "later"), (60, None), (120, None)]


async def test_a_call_under_its_key_replaces_it(
    queue: Queue, clock: VirtualClock, notes: Notes, ended: list[LogEvent]
) -> None:
    """The newest call wins, its options too: it does not repeat. So the schedule ends, and says so."""
    task = queue.task("note")(notes)
    schedule = await task.options(repeat=Every(60), key="k").enqueue("a")
    await clock.advance(70)
    once = await task.options(key="k", delay=5).enqueue("b")
    assert schedule.replaced
    await clock.advance(600)
    assert notes.seen == [(60, "a"), (75, "b")]
    assert await schedule == await once == "b"
    assert len(ended) == 1


@pytest.mark.parametrize("repeat", [None, Every(7)])
async def test_a_call_during_a_run_comes_after_it(
    queue: Queue, clock: VirtualClock, ended: list[LogEvent], repeat: Every | None
) -> None:
    """The run has its outcome, and the newer call is what follows."""
    ran: list[str] = []

    @queue.task
    async def slow(word: str) -> str:
        ran.append(word)
        await sleep(0 if word == "b" else 5)
        return word

    schedule = await slow.options(repeat=Every(60), key="k").enqueue("a")
    waiter = asyncio.ensure_future(schedule.result())
    await clock.advance(62)
    options: Any = {"key": "k", "delay": 0} | ({} if repeat is None else {"repeat": repeat})
    newer = await slow.options(**options).enqueue("b")
    await clock.advance(4)
    assert ran == ["a", "b"]
    assert await waiter == "a"
    assert schedule.replaced
    assert len(ended) == 1
    assert newer.done() is (repeat is None)
    await clock.advance(8)
    assert ran == ["a", "b", "b"][: 2 if repeat is None else 3]


async def test_a_retry_gives_way(queue: Queue, clock: VirtualClock, notes: Notes) -> None:
    """To a newer call of the key that waits by then; its waiters follow that one."""
    release = asyncio.Event()

    async def fails(word: str) -> str:
        if word == "a":
            await release.wait()
            raise ValueError("no")
        return word

    task = queue.task("fails", retry=5)(fails)
    schedule = await task.options(repeat=Every(60), key="k").enqueue("a")
    waiter = asyncio.ensure_future(schedule.result())
    await clock.advance(60, patience=0)
    await task.options(key="k", delay=100).enqueue("b")
    release.set()
    await clock.advance(200)
    assert await waiter == "b"
    assert schedule.replaced
    assert queue.stats().balanced


async def test_max_wait_and_windows_are_for_calls(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """A schedule is no burst: nothing bounds it, and no leading run comes first."""
    rule = Defer(["what"], max_wait=5, leading=True, keep="first")
    task = queue.task("note", delay=3, defer=rule)(notes)
    await task.options(repeat=Every(60)).enqueue("a")
    await clock.advance(130)
    assert notes.seen == [(60, "a"), (120, "a")]


async def test_a_window_that_stands_open(queue: Queue, clock: VirtualClock, notes: Notes) -> None:
    """The empty call of a leading window is no obstacle."""
    task = queue.task("note", delay=50, defer=Defer(["what"], leading=True))(notes)
    await task.enqueue("a")
    await clock.advance(1)
    schedule = await task.options(repeat=Every(60)).enqueue("a")
    await clock.advance(130)
    assert notes.seen == [(0, "a"), (61, "a"), (121, "a")]
    assert await schedule.cancel()


# Handles


async def test_awaiting_it_gives_the_next_outcome(queue: Queue, clock: VirtualClock) -> None:
    """Each time one awaits it. It is never done while the schedule goes on."""
    count = 0

    async def tick() -> int:
        nonlocal count
        count += 1
        if count == 2:
            raise ValueError("two")
        return count

    handle = await queue.options(repeat=Every(60), key="k").enqueue(tick)
    first = asyncio.ensure_future(handle.result())
    await clock.advance(60)
    assert await first == 1
    assert not handle.done()
    assert handle.eta == clock.now() + timedelta(seconds=60)
    second = asyncio.ensure_future(handle.result())
    await clock.advance(60)
    with pytest.raises(ValueError, match="two"):
        await second
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0)
    assert (handle.state, handle.attempt, handle.replaced) == (State.SCHEDULED, 0, False)
    await handle.cancel()
    with pytest.raises(JobCancelled):
        await handle


async def test_each_run_is_found_by_its_id(queue: Queue, clock: VirtualClock, notes: Notes) -> None:
    """With its own outcome; the id of the schedule's handle is that of its first run."""
    schedule = await queue.options(repeat=Every(60), key="k").enqueue(notes, "a")
    waiting = await queue.handle(schedule.id)
    assert waiting is not None
    assert waiting.state is State.SCHEDULED
    await clock.advance(150)
    ids = [job.id async for job in queue.jobs()]
    assert ids[0] == schedule.id
    assert len(set(ids)) == 3
    states = [(await found(queue, id_)).state for id_ in ids]
    assert states == [State.SUCCEEDED, State.SUCCEEDED, State.SCHEDULED]
    assert await (await found(queue, ids[0])) == "a"
    last = await found(queue, ids[2])
    assert await last.cancel()
    assert schedule.state is State.CANCELLED


async def found(queue: Queue, id_: str) -> Any:
    handle = await queue.handle(id_)
    assert handle is not None
    return handle


async def test_flush_and_reschedule_move_one_run(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """The run that waits moves, and what follows stays where it was."""
    handle = await queue.options(repeat=Every(60, "skip"), key="k").enqueue(notes)
    await clock.advance(10)
    assert await handle.flush()
    await clock.advance(60)
    assert [at for at, _ in notes.seen] == [10]
    assert handle.eta == clock.now() + timedelta(seconds=50)
    assert await handle.reschedule(delay=55)
    await clock.advance(120)
    assert [at for at, _ in notes.seen] == [10, 125, 180]


async def test_awaiting_oneself(queue: Queue, clock: VirtualClock) -> None:
    """A run that awaits its own schedule would wait for ever."""
    errors: list[str] = []

    async def tick() -> None:
        mine = await queue.pending("tick", "@repeat")
        assert mine is not None
        assert mine.state is State.RUNNING
        try:
            await mine
        except RuntimeError as error:
            errors.append(str(error))

    queue.task("tick", repeat=Every(60))(tick)
    schedule = await queue.pending("tick", "@repeat")
    assert schedule is not None
    await clock.advance(60)
    assert len(errors) == 1
    assert "own key" in errors[0]


async def test_a_job_knows_its_run(queue: Queue, clock: VirtualClock) -> None:
    """`current()` tells what it tells any job."""
    runs: list[Any] = []

    async def tick() -> None:
        runs.append(current())

    queue.task("tick", repeat=Every(60))(tick)
    await clock.advance(120)
    assert [(run.key, run.attempt, run.calls, run.lateness) for run in runs] == [
        ("@repeat", 1, 1, 0)
    ] * 2
    assert runs[0].id != runs[1].id
    assert runs[1].eta - runs[0].eta == timedelta(seconds=60)


async def test_enqueued_at_is_when_it_was_placed(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """The id of a run is of its own time, not of the first one's."""
    queue.task("note", repeat=Every(60))(notes)
    await clock.advance(150)
    (job,) = [job async for job in queue.jobs(State.SCHEDULED)]
    assert job.enqueued_at == clock.now() - timedelta(seconds=30)


async def test_a_failed_run_is_not_redriven_while_it_goes_on(
    queue: Queue, clock: VirtualClock
) -> None:
    """The next one is on its way; after the end of the schedule it can be."""
    fails = True

    async def tick() -> str:
        if fails:
            raise ValueError("no")
        return "yes"

    schedule = await queue.options(repeat=Every(60), key="k").enqueue(tick)
    await clock.advance(60)
    (failed,) = [job async for job in queue.jobs(State.FAILED)]
    with pytest.raises(ValueError, match="its next run will come"):
        await queue.redrive(failed.id)
    await schedule.cancel()
    fails = False
    again = await queue.redrive(failed.id)
    await clock.advance(600)
    assert await again == "yes"
    assert queue.stats().succeeded == 1


# Bad input


async def test_arguments_are_needed(queue: Queue) -> None:
    """A decorator has none to give, so it is an error there."""

    async def greet(name: str) -> None: ...

    with pytest.raises(ValueError, match=r"called without arguments.*options\(repeat"):
        queue.task("greet", repeat=Every(60))(greet)
    limit = RateLimit(1, per=1, key=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        queue.task("limited", repeat=Every(60), rate_limit=limit)(lambda: None)
    with pytest.raises(TypeError, match="missing"):
        await queue.task("later")(greet).options(repeat=Every(60), key="k").enqueue()  # type: ignore[call-arg]
    assert queue.stats().accepted == 0


async def test_a_rule_is_a_rule(queue: Queue, notes: Notes) -> None:
    """Text or seconds are not taken for one."""
    bad: Any
    for bad in ("@daily", 60, timedelta(hours=1)):
        with pytest.raises(TypeError, match="repeat takes Cron"):
            queue.task("note", repeat=bad)(notes)
        with pytest.raises(TypeError, match="repeat takes Cron"):
            queue.options(repeat=bad)
    queue.options(repeat=None)


async def test_a_schedule_can_be_called_off_for_one_call(
    queue: Queue, clock: VirtualClock, notes: Notes
) -> None:
    """`repeat=None` says that this call does not repeat, as none does that does not say so."""
    task = queue.task("note", repeat=Cron("@daily"))(notes)
    handle = await task.options(repeat=None, delay=1).enqueue("a")
    await clock.advance(1)
    assert await handle == "a"
    assert handle.done()
