"""D5: a running job is never touched, and runs of one key never overlap."""

import asyncio
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncdefer
from asyncdefer import JobCancelled, Queue, Snooze, State
from asyncdefer.testing import VirtualClock, virtual


async def test_a_call_during_the_run_waits_as_the_next_job(
    queue: Queue, clock: VirtualClock
) -> None:
    """A call that comes while its key runs starts when that run has ended, and not before."""
    start, log = clock.now(), list[tuple[float, str]]()

    @queue.task(defer=["user"])
    async def note(user: int, text: str) -> str:
        log.append(((clock.now() - start).total_seconds(), f"start {text}"))
        await asyncdefer.sleep(10)
        log.append(((clock.now() - start).total_seconds(), f"end {text}"))
        return text

    first = await note.enqueue(1, "a")
    await clock.advance(3)
    second = await note.enqueue(1, "b")
    assert (first.state, second.state) == (State.RUNNING, State.SCHEDULED)
    assert not first.replaced
    await clock.advance(30)

    assert log == [(0.0, "start a"), (10.0, "end a"), (10.0, "start b"), (20.0, "end b")]
    assert (await first, await second) == ("a", "b")


async def test_the_run_keeps_its_arguments(queue: Queue, clock: VirtualClock) -> None:
    """A newer call does not reach into the run: not its arguments, calls, id or timeout."""

    @queue.task(defer=["user"])
    async def note(user: int, items: list[str]) -> tuple[list[str], int, str]:
        await asyncdefer.sleep(10)
        run = asyncdefer.current()
        return items, run.calls, run.id

    first = await note.enqueue(1, ["a"])
    await clock.advance(3)
    await note.options(timeout=1).enqueue(1, ["b"])
    await clock.advance(7)

    assert await first == (["a"], 1, first.id)
    await clock.advance(10)


async def test_an_overdue_next_call_does_not_overlap(queue: Queue, clock: VirtualClock) -> None:
    """The next job's own eta may pass while its key is busy: it starts at the end of the run."""
    starts: list[float] = []
    start = clock.now()

    @queue.task(defer=True)
    async def note() -> None:
        starts.append((clock.now() - start).total_seconds())
        await asyncdefer.sleep(10)

    await note.enqueue()
    await clock.advance(1)
    await note.options(delay=2).enqueue()
    await clock.advance(60)

    assert starts == [0.0, 10.0]


async def test_a_far_next_call_keeps_its_eta(queue: Queue, clock: VirtualClock) -> None:
    """The end of a run does not pull the waiting call forward."""
    starts: list[float] = []
    start = clock.now()

    @queue.task(defer=True)
    async def note() -> None:
        starts.append((clock.now() - start).total_seconds())
        await asyncdefer.sleep(10)

    await note.enqueue()
    await clock.advance(1)
    await note.options(delay=59).enqueue()
    await clock.advance(120)

    assert starts == [0.0, 60.0]


async def test_calls_during_the_run_fold_among_themselves(
    queue: Queue, clock: VirtualClock
) -> None:
    """While a key runs, at most one call of it waits: the newest."""
    runs: list[tuple[int, int]] = []

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> None:
        runs.append((n, asyncdefer.current().calls))
        await asyncdefer.sleep(10)

    await note.enqueue(1, 0)
    await clock.advance(1)
    for n in range(1, 6):
        await note.enqueue(1, n)
    await clock.advance(60)

    assert runs == [(0, 1), (5, 5)]


async def test_other_keys_do_overlap(queue: Queue, clock: VirtualClock) -> None:
    """A busy key holds up nobody but itself."""
    starts: list[float] = []
    start = clock.now()

    @queue.task(defer=["user"])
    async def note(user: int) -> None:
        starts.append((clock.now() - start).total_seconds())
        await asyncdefer.sleep(10)

    for user in range(3):
        await note.enqueue(user)
    await clock.advance(0)

    assert starts == [0.0, 0.0, 0.0]
    assert queue.stats().running == 3
    await clock.advance(10)


async def test_a_busy_key_takes_no_slot() -> None:
    """A job that waits for its key leaves the free slots to others."""
    queue = Queue(concurrency=2)

    @queue.task(defer=["user"])
    async def note(user: int) -> int:
        await asyncdefer.sleep(10)
        return user

    async with virtual(queue) as clock:
        await note.enqueue(1)
        await clock.advance(1)
        await note.enqueue(1)
        other = await note.enqueue(2)
        await clock.advance(0)
        assert other.state is State.RUNNING
        assert (queue.stats().running, queue.stats().waiting) == (2, 1)
        await clock.advance(30)


async def test_an_explicit_key_is_busy_too(queue: Queue, clock: VirtualClock) -> None:
    """Runs of one `key=` of an unregistered function do not overlap either."""
    running, most = 0, 0

    async def note() -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncdefer.sleep(10)
        running -= 1

    await queue.enqueue(note, key="k")
    await clock.advance(1)
    await queue.enqueue(note, key="k")
    await clock.advance(60)

    assert most == 1
    assert queue.stats().succeeded == 2


async def test_a_cancelled_run_still_holds_its_key(queue: Queue, clock: VirtualClock) -> None:
    """A cancelled run holds its key until its clean-up has ended."""
    log: list[str] = []

    @queue.task(defer=["user"])
    async def note(user: int, text: str) -> None:
        log.append(f"start {text}")
        try:
            await asyncdefer.sleep(100)
        finally:
            await asyncdefer.sleep(5)
            log.append(f"end {text}")

    first = await note.enqueue(1, "a")
    await clock.advance(1)
    assert await first.cancel()
    second = await note.enqueue(1, "b")
    await clock.advance(4)
    assert log == ["start a"]
    assert (first.done(), second.state) == (False, State.SCHEDULED)
    await clock.advance(1)

    assert log == ["start a", "end a", "start b"]
    with pytest.raises(JobCancelled):
        await first
    await clock.advance(200)


async def test_a_run_that_timed_out_still_holds_its_key(queue: Queue, clock: VirtualClock) -> None:
    """A run over its timeout holds its key until its clean-up has ended."""
    log: list[str] = []

    @queue.task(defer=["user"], timeout=3)
    async def note(user: int, text: str) -> None:
        log.append(f"start {text}")
        try:
            await asyncdefer.sleep(100)
        finally:
            await asyncdefer.sleep(5)
            log.append(f"end {text}")

    await note.enqueue(1, "a")
    await clock.advance(1)
    await note.enqueue(1, "b")
    await clock.advance(6)
    assert log == ["start a"]
    await clock.advance(1)
    assert log == ["start a", "end a", "start b"]
    await clock.advance(60)


async def test_a_cancelled_thread_still_holds_its_key(queue: Queue, clock: VirtualClock) -> None:
    """A thread cannot be stopped: until it ends, the next run of its key does not start."""
    started, leave = threading.Event(), threading.Event()
    log: list[str] = []

    @queue.task(defer=["user"])
    def note(user: int, text: str) -> None:
        log.append(f"start {text}")
        if text == "a":
            started.set()
            assert leave.wait(10)
        log.append(f"end {text}")

    first = await note.enqueue(1, "a")
    assert await asyncio.to_thread(started.wait, 10)
    try:
        assert await first.cancel()
        second = await note.enqueue(1, "b")
        await clock.advance(60, patience=0)
        assert log == ["start a"]
        assert second.state is State.SCHEDULED
    finally:
        leave.set()
    await clock.advance(0)

    assert log == ["start a", "end a", "start b", "end b"]
    with pytest.raises(JobCancelled):
        await first


async def test_a_call_of_its_own_key_from_inside(queue: Queue, clock: VirtualClock) -> None:
    """A job that enqueues its own key does not replace itself: it runs again afterwards."""
    runs: list[int] = []

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> int:
        runs.append(n)
        if n < 3:
            await note.enqueue(user, n + 1)
        return n

    first = await note.enqueue(1, 0)
    await clock.run_until_idle()

    assert runs == [0, 1, 2, 3]
    assert await first == 0
    assert queue.stats().replaced == 0


async def test_a_snooze_gives_way_to_the_waiting_call(queue: Queue, clock: VirtualClock) -> None:
    """A run that asks to run again does not push out the newer call that waits."""
    start, runs = clock.now(), list[tuple[float, int]]()

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> None:
        runs.append(((clock.now() - start).total_seconds(), n))
        if n == 1:
            await asyncdefer.sleep(10)
            raise Snooze(delay=1)

    await note.enqueue(1, 1)
    await clock.advance(5)
    await note.options(delay=45).enqueue(1, 2)
    await clock.advance(500)

    assert runs == [(0.0, 1), (50.0, 2)]


CALLS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 9), st.integers(0, 12)),
    max_size=30,
)


@given(calls=CALLS, concurrency=st.integers(1, 4))
async def test_runs_of_one_key_never_overlap(
    calls: list[tuple[int, int, int, int]], concurrency: int
) -> None:
    """Whatever comes when, each key runs one call at a time, and each call ran or was replaced."""
    queue = Queue(concurrency=concurrency, drain_timeout=0)
    running: Counter[int] = Counter()
    ran: list[int] = []

    @queue.task(defer=["key"])
    async def work(key: int, n: int, takes: int) -> int:
        running[key] += 1
        assert running[key] == 1
        try:
            await asyncdefer.sleep(takes)
            ran.append(n)
            return n
        finally:
            running[key] -= 1

    async with virtual(queue) as clock:
        handles = []
        for n, (gap, key, delay, takes) in enumerate(calls):
            await clock.advance(gap)
            handles.append(await work.options(delay=delay).enqueue(key, n, takes))
        await clock.run_until_idle()
        for n, handle in enumerate(handles):
            assert handle.done()
            assert (await handle == n) is not handle.replaced
        assert sorted(ran) == [n for n, handle in enumerate(handles) if not handle.replaced]
