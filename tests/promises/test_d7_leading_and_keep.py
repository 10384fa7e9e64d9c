"""D7: `leading` runs the first call at once and the last one at the end; `keep` says what is kept."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Defer, Queue, Snooze, State
from asyncdefer.testing import VirtualClock, virtual

Args = dict[str, Any]


class Log:
    """What ran when, and with how many calls folded into it."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock, self.start = clock, clock.now()
        self.runs: list[tuple[float, object, int]] = []

    def __call__(self, what: object) -> None:
        at = (self.clock.now() - self.start).total_seconds()
        self.runs.append((at, what, asyncdefer.current().calls))


# leading


async def test_the_first_call_at_once_and_the_last_at_the_end(
    queue: Queue, clock: VirtualClock
) -> None:
    """Of a burst the first call runs at once, the last one `delay` after it came, none between."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], leading=True))
    async def search(user: int, text: str) -> str:
        log(text)
        return text

    a = await search.enqueue(1, "a")
    await clock.advance(3)
    b = await search.enqueue(1, "b")
    await clock.advance(3)
    c = await search.enqueue(1, "c")
    await clock.advance(60)

    assert log.runs == [(0.0, "a", 1), (16.0, "c", 2)]
    assert [await handle for handle in (a, b, c)] == ["a", "c", "c"]
    assert [handle.replaced for handle in (a, b, c)] == [False, True, False]


async def test_a_single_call_runs_once(queue: Queue, clock: VirtualClock) -> None:
    """If there was no second call, nothing runs at the end of the window and nothing is left."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(leading=True))
    async def search() -> None:
        log("run")

    handle = await search.enqueue()
    await clock.advance(0)
    assert handle.done()
    await clock.advance(60)

    stats = queue.stats()
    assert log.runs == [(0.0, "run", 1)]
    assert (stats.accepted, stats.succeeded, stats.waiting) == (1, 1, 0)
    assert (stats.expired, stats.cancelled, stats.replaced, stats.dropped) == (0, 0, 0, 0)
    assert [job.state async for job in queue.jobs()] == [State.SUCCEEDED]


async def test_the_empty_call_is_nobodys_pending_call(queue: Queue, clock: VirtualClock) -> None:
    """While only the window is open, there is no call to be found or moved, and the queue is idle."""

    @queue.task(delay=10, defer=Defer(params=["user"], leading=True))
    async def search(user: int) -> None: ...

    await search.enqueue(1)
    await clock.advance(1)

    assert await search.pending(1) is None
    await queue.close()
    assert queue.stats().dropped == 0


async def test_after_the_window_the_next_call_leads_again(
    queue: Queue, clock: VirtualClock
) -> None:
    """A call after the window, or after the last run, runs at once."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], leading=True))
    async def search(user: int, text: str) -> None:
        log(text)

    await search.enqueue(1, "a")
    await clock.advance(20)
    await search.enqueue(1, "b")
    await clock.advance(1)
    await search.enqueue(1, "c")
    await clock.advance(29)
    await search.enqueue(1, "d")
    await clock.advance(60)

    assert log.runs == [(0.0, "a", 1), (20.0, "b", 1), (31.0, "c", 1), (50.0, "d", 1)]


async def test_keys_have_windows_of_their_own(queue: Queue, clock: VirtualClock) -> None:
    """The first call of each key leads."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], leading=True))
    async def search(user: int) -> None:
        log(user)

    await search.enqueue(1)
    await clock.advance(2)
    await search.enqueue(2)
    await clock.advance(60)

    assert log.runs == [(0.0, 1, 1), (2.0, 2, 1)]


async def test_the_last_call_waits_for_a_slow_leading_run(
    queue: Queue, clock: VirtualClock
) -> None:
    """The run at the end does not overlap the leading one."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], leading=True))
    async def search(user: int, text: str) -> None:
        log(text)
        await asyncdefer.sleep(30)

    await search.enqueue(1, "a")
    await clock.advance(5)
    await search.enqueue(1, "b")
    await clock.advance(120)

    assert log.runs == [(0.0, "a", 1), (30.0, "b", 1)]


async def test_the_empty_call_vanishes_behind_a_slow_leading_run(
    queue: Queue, clock: VirtualClock
) -> None:
    """A window that ends while the leading run goes on leaves nothing to run."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(leading=True))
    async def search() -> None:
        log("run")
        await asyncdefer.sleep(30)

    await search.enqueue()
    await clock.advance(120)

    assert log.runs == [(0.0, "run", 1)]
    assert queue.stats().waiting == 0


async def test_the_window_ends_behind_a_slow_leading_run(queue: Queue, clock: VirtualClock) -> None:
    """A window ends at its time, though the run goes on: a call after it leads, when it can."""
    log = Log(clock)

    @queue.task(delay=25, defer=Defer(params=["user"], leading=True))
    async def search(user: int, text: str) -> None:
        log(text)
        await asyncdefer.sleep(30)

    await search.enqueue(1, "a")
    await clock.advance(27)  # the window ended at 25, the run ends at 30
    await search.enqueue(1, "b")
    await clock.advance(200)

    assert log.runs == [(0.0, "a", 1), (30.0, "b", 1)]


async def test_the_window_ends_in_a_paused_queue(queue: Queue, clock: VirtualClock) -> None:
    """The empty call is nobody's job: while the queue is paused it is not due, and `join` is."""

    @queue.task(delay=5, defer=Defer(params=["user"], leading=True))
    async def search(user: int) -> None: ...

    await search.enqueue(1)
    await clock.advance(1)
    queue.pause()
    await clock.advance(60)

    await asyncio.wait_for(queue.join(), 1)


async def test_calls_fold_into_a_leading_call_that_waits_for_a_slot() -> None:
    """While the first call has not started, later ones take its place: one run, the newest's."""
    queue = Queue(concurrency=1)

    @queue.task
    async def block() -> None:
        await asyncdefer.sleep(30)

    async with virtual(queue) as clock:
        log = Log(clock)

        @queue.task(delay=10, defer=Defer(params=["user"], leading=True))
        async def search(user: int, text: str) -> None:
            log(text)

        await block.enqueue()
        await clock.advance(1)
        await search.enqueue(1, "a")
        await clock.advance(5)
        await search.enqueue(1, "b")
        assert queue.stats().waiting == 1
        await clock.advance(120)
        assert log.runs == [(30.0, "b", 2)]


async def test_a_cancelled_last_call_does_not_run(queue: Queue, clock: VirtualClock) -> None:
    """Cancelling the call at the end of the window leaves the leading run alone."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], leading=True))
    async def search(user: int, text: str) -> str:
        log(text)
        return text

    a = await search.enqueue(1, "a")
    await clock.advance(1)
    b = await search.enqueue(1, "b")
    assert await b.cancel()
    await clock.advance(60)

    assert log.runs == [(0.0, "a", 1)]
    assert await a == "a"


# keep


async def test_keep_last_is_the_default(queue: Queue, clock: VirtualClock) -> None:
    """Unless told otherwise the newest arguments run."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"]))
    async def note(user: int, text: str) -> None:
        log(text)

    @queue.task(delay=10, defer=Defer(params=["user"], keep="last"))
    async def same(user: int, text: str) -> None:
        log(text)

    for task in (note, same):
        for text in "abc":
            await task.enqueue(1, text)
    await clock.advance(10)

    assert log.runs == [(10.0, "c", 3), (10.0, "c", 3)]


async def test_keep_first(queue: Queue, clock: VirtualClock) -> None:
    """`keep="first"` keeps the first call's arguments; the newest call's eta counts."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], keep="first"))
    async def note(user: int, text: str, *, urgent: bool = False) -> str:
        log((text, urgent))
        return text

    handles = [await note.enqueue(1, "a", urgent=True)]
    await clock.advance(6)
    handles.append(await note.enqueue(1, "b"))
    await clock.advance(6)
    handles.append(await note.enqueue(1, "c"))
    await clock.advance(60)

    assert log.runs == [(22.0, ("a", True), 3)]
    assert [await handle for handle in handles] == ["a"] * 3
    assert [handle.replaced for handle in handles] == [True, True, False]


async def test_keep_first_begins_anew_after_the_run(queue: Queue, clock: VirtualClock) -> None:
    """The first call is the first of its burst: a run that started keeps nothing for the next."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], keep="first"))
    async def note(user: int, text: str) -> None:
        log(text)
        await asyncdefer.sleep(5)

    await note.enqueue(1, "a")
    await clock.advance(12)  # running since 10
    await note.enqueue(1, "b")
    await note.enqueue(1, "c")
    await clock.advance(60)

    assert log.runs == [(10.0, "a", 1), (22.0, "b", 2)]


async def test_keep_merge_collects(queue: Queue, clock: VirtualClock) -> None:
    """A merge function makes one set of arguments out of what waits and what comes."""
    log = Log(clock)
    seen: list[tuple[Args, Args]] = []

    def merge(old: Args, new: Args) -> Args:
        seen.append((dict(old), dict(new)))
        return {**new, "items": old["items"] + new["items"]}

    @queue.task(delay=10, defer=Defer(params=["user"], keep=merge))
    async def digest(user: int, items: list[str], lang: str = "en") -> list[str]:
        log((items, lang))
        return items

    first = await digest.enqueue(1, ["a"], lang="de")
    await clock.advance(5)
    await digest.enqueue(user=1, items=["b", "c"], lang="fr")
    await clock.advance(5)
    await digest.enqueue(1, ["d"], "it")
    await clock.advance(60)

    assert log.runs == [(20.0, (["a", "b", "c", "d"], "it"), 3)]
    assert await first == ["a", "b", "c", "d"]
    assert seen == [
        ({"user": 1, "items": ["a"], "lang": "de"}, {"user": 1, "items": ["b", "c"], "lang": "fr"}),
        (
            {"user": 1, "items": ["a", "b", "c"], "lang": "fr"},
            {"user": 1, "items": ["d"], "lang": "it"},
        ),
    ]


async def test_merge_sees_defaults(queue: Queue, clock: VirtualClock) -> None:
    """The bound arguments hold defaults too: a merge need not know how a call was spelled."""
    log = Log(clock)

    def merge(old: Args, new: Args) -> Args:
        return {**new, "count": old["count"] + new["count"]}

    @queue.task(delay=10, defer=Defer(params=["user"], keep=merge))
    async def seen(user: int, count: int = 1) -> None:
        log(count)

    for _ in range(5):
        await seen.enqueue(1)
    await clock.advance(10)

    assert log.runs == [(10.0, 5, 5)]


async def test_merge_of_variable_arguments(queue: Queue, clock: VirtualClock) -> None:
    """`*args`, keyword-only and `**kwargs` go through a merge and come out where they belong."""
    log = Log(clock)

    def merge(old: Args, new: Args) -> Args:
        return {
            "user": new["user"],
            "lines": (*old["lines"], *new["lines"]),
            "level": max(old["level"], new["level"]),
            "extra": {**old["extra"], **new["extra"]},
        }

    @queue.task(delay=10, defer=Defer(params=["user"], keep=merge))
    async def note(user: int, /, *lines: str, level: int = 0, **extra: int) -> None:
        log((user, lines, level, extra))

    await note.enqueue(1, "a", "b", level=3, x=1)
    await note.enqueue(1, "c", y=2)
    await clock.advance(10)

    assert log.runs == [(10.0, (1, ("a", "b", "c"), 3, {"x": 1, "y": 2}), 2)]


async def test_merge_of_variable_arguments_behind_plain_ones(
    queue: Queue, clock: VirtualClock
) -> None:
    """A plain parameter in front of `*args` is passed by position, as the call passed it."""
    log = Log(clock)

    def merge(old: Args, new: Args) -> Args:
        return {**new, "lines": (*old["lines"], *new["lines"])}

    @queue.task(delay=10, defer=Defer(params=["user"], keep=merge))
    async def note(user: int, *lines: str) -> None:
        log((user, lines))

    await note.enqueue(1, "a")
    await note.enqueue(1, "b", "c")
    await clock.advance(10)

    assert log.runs == [(10.0, (1, ("a", "b", "c")), 2)]


async def test_merge_with_a_job_that_snoozed(queue: Queue, clock: VirtualClock) -> None:
    """What a snoozed run has collected and not delivered is merged into the newer call."""
    log = Log(clock)

    def merge(old: Args, new: Args) -> Args:
        return {**new, "items": old["items"] + new["items"]}

    @queue.task(delay=10, defer=Defer(params=["user"], keep=merge))
    async def digest(user: int, items: list[str]) -> None:
        if clock.now() < log.start + timedelta(seconds=60):
            raise Snooze(delay=100)
        log(items)

    await digest.enqueue(1, ["a"])
    await clock.advance(70)
    await digest.enqueue(1, ["b"])
    await clock.advance(500)

    assert log.runs == [(80.0, ["a", "b"], 2)]


async def test_merge_is_not_called_for_other_keys_or_runs(
    queue: Queue, clock: VirtualClock
) -> None:
    """A merge joins calls that wait under one key, and nothing else."""
    merged: list[tuple[int, int]] = []

    def merge(old: Args, new: Args) -> Args:
        merged.append((old["n"], new["n"]))
        return new

    @queue.task(delay=10, defer=Defer(params=["user"], keep=merge))
    async def note(user: int, n: int) -> None:
        await asyncdefer.sleep(5)

    await note.enqueue(1, 1)
    await note.enqueue(2, 2)
    await clock.advance(12)
    await note.enqueue(1, 3)
    await note.enqueue(1, 4)
    await clock.advance(60)

    assert merged == [(3, 4)]


def broken(old: Args, new: Args) -> Args:
    raise ZeroDivisionError("merge")


def unknown(old: Args, new: Args) -> Args:
    return {**new, "colour": "red"}


def missing(old: Args, new: Args) -> Args:
    return {"user": new["user"]}


def nothing(old: Args, new: Args) -> Args:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("merge", "error"),
    [(broken, ZeroDivisionError), (unknown, TypeError), (missing, TypeError), (nothing, TypeError)],
)
async def test_a_failing_merge_leaves_everything_as_it_was(
    queue: Queue, clock: VirtualClock, merge: Any, error: type[Exception]
) -> None:
    """A merge that fails, or returns what the function cannot take, is an error at the call."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], keep=merge))
    async def note(user: int, text: str) -> str:
        log(text)
        return text

    handle = await note.enqueue(1, "a")
    await clock.advance(5)
    before = queue.stats()
    with pytest.raises(error):
        await note.enqueue(1, "b")

    assert queue.stats() == before
    assert not handle.replaced
    assert handle.eta == clock.now() + timedelta(seconds=5)
    await clock.advance(60)
    assert log.runs == [(10.0, "a", 1)]


@pytest.mark.parametrize("meddling", ["enqueue", "cancel", "reschedule"])
async def test_a_merge_that_uses_the_queue_harms_nobody(
    defer_queue: Queue, clock: VirtualClock, meddling: str
) -> None:
    """Refused or not, a merge that touches its own key breaks no books and stops no other job."""
    queue = defer_queue
    handles: list[asyncdefer.Handle[Any]] = []
    meddled = False

    def merge(old: Args, new: Args) -> Args:
        nonlocal meddled
        if not meddled:
            meddled = True
            if meddling == "enqueue":
                handles.append(queue.enqueue_nowait(note, 1, ["x"]))
            else:
                first = handles[0]
                call = first.cancel() if meddling == "cancel" else first.reschedule(delay=50)
                with pytest.raises(StopIteration):
                    call.send(None)  # a merge cannot await; the coroutine does not need to
        return {**new, "items": old["items"] + new["items"]}

    @queue.task(delay=10, defer=Defer(params=["user"], keep=merge))
    async def note(user: int, items: list[str]) -> list[str]:
        return items

    handles.append(await note.enqueue(1, ["a"]))
    with suppress(Exception):
        handles.append(await note.enqueue(1, ["b"]))
    other = await note.enqueue(2, ["other"])
    assert meddled
    await clock.advance(100)

    assert all(handle.done() for handle in handles)
    await asyncio.gather(*handles, return_exceptions=True)
    assert await other == ["other"]
    assert (queue.stats().waiting, queue.stats().running) == (0, 0)


@pytest.mark.parametrize("keep", ["middle", "", None, 3])
def test_an_unknown_keep_is_refused(keep: Any) -> None:
    """`keep` is "last", "first" or a function."""
    with pytest.raises((TypeError, ValueError), match="last"):
        Defer(keep=keep)


# both


async def test_leading_with_keep_first(queue: Queue, clock: VirtualClock) -> None:
    """After the leading run the first call of the rest is kept, not the leading one again."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], leading=True, keep="first"))
    async def note(user: int, text: str) -> None:
        log(text)

    for text in "abc":
        await note.enqueue(1, text)
        await clock.advance(2)
    await clock.advance(60)

    assert log.runs == [(0.0, "a", 1), (14.0, "b", 2)]


async def test_leading_with_merge(queue: Queue, clock: VirtualClock) -> None:
    """The empty call has no arguments: the first call after the leading run is not merged."""
    log = Log(clock)

    def merge(old: Args, new: Args) -> Args:
        return {"user": new["user"], "text": old["text"] + new["text"]}

    @queue.task(delay=10, defer=Defer(params=["user"], leading=True, keep=merge))
    async def note(user: int, text: str) -> None:
        log(text)

    for text in "abcd":
        await note.enqueue(1, text)
        await clock.advance(2)
    await clock.advance(60)

    assert log.runs == [(0.0, "a", 1), (16.0, "bcd", 3)]


async def test_leading_with_max_wait(queue: Queue, clock: VirtualClock) -> None:
    """With `max_wait` a burst without end leads once and then runs at least that often."""
    log = Log(clock)

    @queue.task(delay=10, defer=Defer(params=["user"], leading=True, max_wait=15))
    async def note(user: int, n: int) -> None:
        log(n)

    for n in range(20):
        await note.enqueue(1, n)
        await clock.advance(2)
    await clock.advance(60)

    times = [at for at, _, _ in log.runs]
    assert times[0] == 0.0
    assert all(later - earlier <= 15 + 2 for earlier, later in pairwise(times))
    assert log.runs[-1][1] == 19
    assert sum(calls for _, _, calls in log.runs) == 20
