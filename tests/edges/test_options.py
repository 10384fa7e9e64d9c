"""Options: of the queue, of a task, of one call."""

import math
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Queue, State
from asyncdefer.testing import VirtualClock, virtual

LATER = datetime(2999, 1, 1, tzinfo=UTC)


async def noop() -> None: ...


@pytest.mark.parametrize(
    "delay", [90, 90.0, timedelta(minutes=1, seconds=30), timedelta(microseconds=90_000_000)]
)
async def test_a_delay_is_seconds_or_a_timedelta(
    defer_queue: Queue, defer_clock: VirtualClock, delay: float | timedelta
) -> None:
    """A delay counts from the call, in all three places where it can be written."""
    eta = defer_clock.now() + timedelta(seconds=90)
    task = defer_queue.task("the.task", delay=delay)(noop)

    for handle in (
        await defer_queue.enqueue(noop, delay=delay),
        await defer_queue.options(delay=delay).enqueue(noop),
        await task.enqueue(),
        await task.options(delay=delay).enqueue(),
        defer_queue.enqueue_nowait(noop, delay=delay),
    ):
        assert handle.eta == eta
        assert handle.eta.utcoffset() == timedelta(0)


async def test_an_eta_is_an_instant(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """An eta of any zone is shown in UTC, to the microsecond."""
    from zoneinfo import ZoneInfo

    eta = datetime(2999, 7, 1, 12, 0, 0, 123456, tzinfo=ZoneInfo("Asia/Kolkata"))
    handle = await defer_queue.enqueue(noop, eta=eta)

    assert handle.eta == eta
    assert handle.eta.tzinfo is UTC
    assert handle.eta.microsecond == 123456


WRONG_TIMES: list[tuple[dict[str, Any], type[Exception]]] = [
    ({"delay": -1}, ValueError),
    ({"delay": -0.000001}, ValueError),
    ({"delay": timedelta(seconds=-1)}, ValueError),
    ({"delay": math.nan}, ValueError),
    ({"delay": math.inf}, ValueError),
    ({"delay": 1e300}, ValueError),
    ({"delay": timedelta.max}, ValueError),
    ({"delay": True}, TypeError),
    ({"delay": "5"}, TypeError),
    ({"eta": datetime(2999, 1, 1)}, ValueError),  # noqa: DTZ001 # the naive one is the point
    ({"eta": "2999-01-01"}, TypeError),
    ({"eta": 32472144000}, TypeError),
    ({"eta": LATER, "delay": 5}, TypeError),
    ({"eta": LATER, "delay": 0}, TypeError),
]


@pytest.mark.parametrize(("wrong", "error"), WRONG_TIMES, ids=repr)
async def test_a_wrong_time_is_refused_and_changes_nothing(
    defer_queue: Queue, defer_clock: VirtualClock, wrong: dict[str, Any], error: type[Exception]
) -> None:
    """A time that is none is an error at the call; what waits under the key stays as it was."""
    task = defer_queue.task("the.task")(noop)
    waiting = await task.options(delay=60, key="k").enqueue()
    before = defer_queue.stats()

    with pytest.raises(error):
        await defer_queue.enqueue(task, key="k", **wrong)
    with pytest.raises(error):
        defer_queue.enqueue_nowait(task, key="k", **wrong)
    with pytest.raises(error):
        await task.options(key="k", **wrong).enqueue()
    with pytest.raises(error):
        await defer_queue.options(key="k", **wrong).enqueue(task)
    with pytest.raises(error):
        await waiting.reschedule(**wrong)

    assert defer_queue.stats() == before
    assert not waiting.replaced
    assert waiting.eta == defer_clock.now() + timedelta(seconds=60)


DURATIONS = ["delay", "timeout", "expires", "result_ttl"]


@pytest.mark.parametrize("option", DURATIONS)
@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "5", timedelta(seconds=-1)])
async def test_a_wrong_duration_is_refused(
    defer_queue: Queue, defer_clock: VirtualClock, option: str, value: Any
) -> None:
    """Wherever a duration can be written, what is none is an error there that names the option."""
    with pytest.raises((TypeError, ValueError), match=option):
        defer_queue.task("the.task", **{option: value})(noop)
    with pytest.raises((TypeError, ValueError), match=option):
        await defer_queue.options(**{option: value}).enqueue(noop)
    assert defer_queue.stats().accepted == 0


@pytest.mark.parametrize("option", ["colour", "name", "concurrency", "rate_limit", "retries"])
async def test_an_option_that_a_call_cannot_have_is_a_type_error(
    defer_queue: Queue, defer_clock: VirtualClock, option: str
) -> None:
    """`name`, `concurrency` and `rate_limit` belong to the task; a misspelled option to nobody."""
    task = defer_queue.task("the.task")(noop)

    with pytest.raises(TypeError, match=option):
        await defer_queue.options(**{option: 1}).enqueue(noop)
    with pytest.raises(TypeError, match=option):
        await task.options(**{option: 1}).enqueue()
    assert defer_queue.stats().accepted == 0


def test_an_unknown_task_option_is_a_type_error() -> None:
    """A misspelled option of a task is an error at the decoration."""
    with pytest.raises(TypeError, match="retries"):
        Queue().task("the.task", retries=3)(noop)  # type: ignore[call-overload]


async def test_options_of_a_call_hold_for_that_call(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Options given for one call leave the task and the next call alone."""
    start, runs = defer_clock.now(), list[tuple[float, int]]()

    @defer_queue.task(delay=10)
    async def note(n: int) -> None:
        runs.append(((defer_clock.now() - start).total_seconds(), n))

    await note.options(delay=2).enqueue(1)
    await note.enqueue(2)
    await defer_queue.enqueue(note, 3, delay=3)
    await defer_queue.enqueue(note, 4, eta=start + timedelta(seconds=4))
    await defer_queue.enqueue(note, 5)
    await note.options(delay=0).enqueue(6)
    await defer_clock.advance(60)

    assert runs == [(0.0, 6), (2.0, 1), (3.0, 3), (4.0, 4), (10.0, 2), (10.0, 5)]


async def test_options_can_be_kept_and_used_again(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """What `.options` returns is a way of calling: its delay counts from each call."""
    start, runs = defer_clock.now(), list[tuple[float, int]]()

    @defer_queue.task
    async def note(n: int) -> None:
        runs.append(((defer_clock.now() - start).total_seconds(), n))

    soon = note.options(delay=10)
    soon_too = defer_queue.options(delay=10)
    await soon.enqueue(1)
    await soon_too.enqueue(note, 2)
    await defer_clock.advance(5)
    await soon.enqueue(3)
    await soon_too.enqueue(note, 4)
    await defer_clock.advance(60)

    assert runs == [(10.0, 1), (10.0, 2), (15.0, 3), (15.0, 4)]


async def test_an_eta_for_one_call_takes_the_place_of_the_tasks_delay(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """The task's delay is a default, no second time that would contradict the call's eta."""
    eta = defer_clock.now() + timedelta(seconds=3)
    task = defer_queue.task("the.task", delay=60)(noop)

    assert (await defer_queue.enqueue(task, eta=eta)).eta == eta
    assert (await task.options(eta=eta).enqueue()).eta == eta


async def test_a_key_for_one_call_takes_the_place_of_the_tasks_defer(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """`key` on a call of a task with `defer` is that call's key."""

    @defer_queue.task(delay=5, defer=["user"])
    async def note(user: int) -> None: ...

    a = await note.enqueue(1)
    b = await note.options(key="other").enqueue(1)
    c = await note.options(key="other").enqueue(2)

    assert [handle.replaced for handle in (a, b, c)] == [False, True, False]
    assert [handle.key for handle in (a, b, c)] == ["[1]", "other", "other"]


async def test_the_past_runs_at_once(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """An eta that has passed is due now."""
    handle = await defer_queue.enqueue(noop, eta=datetime(1970, 1, 1, tzinfo=UTC))
    await defer_clock.advance(0)

    assert handle.state is State.SUCCEEDED


async def test_the_epoch_is_an_eta_like_any_other(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """1970-01-01T00:00Z, which is 0 to a computer, takes the place of the task's delay."""
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    task = defer_queue.task("the.task", delay=60)(noop)

    for handle in (
        await task.options(eta=epoch).enqueue(),
        await defer_queue.options(eta=epoch).enqueue(task),
        await defer_queue.enqueue(task, eta=epoch),
    ):
        assert handle.eta == epoch
    await defer_clock.advance(0)
    assert defer_queue.stats().succeeded == 3


async def test_none_takes_a_tasks_option_away(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """An option that is given as None for one call is not there for that call."""

    @defer_queue.task(delay=10, defer=["n"], timeout=5)
    async def note(n: int) -> int:
        await asyncdefer.sleep(20)
        return n

    assert (await note.options(delay=None).enqueue(1)).eta == defer_clock.now()
    assert (await note.options(defer=None).enqueue(2)).key is None
    assert (await note.options(defer=False).enqueue(3)).key is None
    assert (await note.options(key=None).enqueue(4)).key == "[4]"
    patient = await note.options(timeout=None).enqueue(5)
    await defer_clock.advance(30)

    assert await patient == 5
    assert defer_queue.stats().failed == 4


async def test_nowait_is_accepted(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`enqueue_nowait` is the same call without the wait; in memory it is accepted at once."""

    @defer_queue.task(delay=5, defer=["user"])
    async def note(user: int, n: int) -> int:
        return n

    first = defer_queue.enqueue_nowait(note, 1, 1)
    second = defer_queue.enqueue_nowait(note, 1, n=2)
    await first.accepted()
    await second.accepted()

    assert first.replaced
    await defer_clock.advance(5)
    assert await first == 2


# The queue's own


@pytest.mark.parametrize(
    "wrong",
    [
        {"concurrency": 0},
        {"concurrency": -1},
        {"concurrency": True},
        {"concurrency": 2.5},
        {"threads": 0},
        {"threads": "4"},
        {"result_ttl": -1},
        {"result_ttl": math.nan},
        {"drain_timeout": -1},
        {"drain_timeout": math.nan},
        {"on_locked": "wait"},
    ],
    ids=repr,
)
def test_a_wrong_option_of_the_queue_is_refused(wrong: dict[str, Any]) -> None:
    """A queue that cannot work is an error where it is made, and where it is configured."""
    (option,) = wrong
    with pytest.raises((TypeError, ValueError), match=option):
        Queue(**wrong)
    queue = Queue()
    with pytest.raises((TypeError, ValueError), match=option):
        queue.configure(**wrong)


def test_an_unknown_option_of_the_queue_is_a_type_error() -> None:
    """A misspelled option is never ignored."""
    with pytest.raises(TypeError, match="concurency"):
        Queue(concurency=1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="concurency"):
        Queue().configure(concurency=1)  # type: ignore[call-arg]


async def test_configure_while_stopped() -> None:
    """Settings known later than the import are given before the start, and hold."""
    queue = Queue(concurrency=5)
    queue.configure(concurrency=1)

    async with virtual(queue) as clock:
        for _ in range(3):
            await queue.enqueue(asyncdefer.sleep, 10)
        await clock.advance(0)
        assert queue.stats().running == 1
        await clock.advance(30)

    queue.configure(concurrency=2)
    async with virtual(queue) as clock:
        for _ in range(3):
            await queue.enqueue(asyncdefer.sleep, 10)
        await clock.advance(0)
        assert queue.stats().running == 2
        await clock.advance(30)


async def test_configure_leaves_out_what_is_not_named() -> None:
    """`configure` changes what it is given, and nothing else."""
    queue = Queue(concurrency=1)
    queue.configure(threads=3)

    async with virtual(queue) as clock:
        for _ in range(2):
            await queue.enqueue(asyncdefer.sleep, 10)
        await clock.advance(0)
        assert queue.stats().running == 1
        await clock.advance(30)


async def test_a_journal_can_be_configured(tmp_path: Path) -> None:
    """Its path is known later than the import; what is no journal changes nothing."""
    queue = Queue()

    @queue.task("note")
    async def note() -> None: ...

    queue.configure(journal=tmp_path / "timers.db", on_locked="standby")
    with pytest.raises(TypeError, match="journal"):
        queue.configure(threads=3, journal=5)  # type: ignore[arg-type]
    async with queue:
        await note.options(delay=60).enqueue()
    async with queue:
        assert queue.stats().claimed == 1
    queue.configure(journal=None)
    async with queue:
        assert queue.stats().claimed == 0


async def test_a_queue_on_a_virtual_clock_keeps_its_own_journal(tmp_path: Path) -> None:
    """It gets it back, with its own clock, when the test has ended."""
    queue = Queue(tmp_path / "timers.db")
    clock = queue.clock
    async with virtual(queue, tmp_path / "test.db"):
        pass
    assert queue.clock is clock
    assert not (tmp_path / "timers.db").exists()
    async with queue:
        assert (tmp_path / "timers.db").exists()


async def test_configure_while_started_is_an_error(defer_queue: Queue) -> None:
    """A running queue keeps the options that it started with."""
    with pytest.raises(RuntimeError):
        defer_queue.configure(concurrency=1)
    with pytest.raises(RuntimeError):
        defer_queue.configure(journal=None)
