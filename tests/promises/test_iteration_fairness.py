"""Iteration: it takes slots like any job, and lets others come in between."""

import asyncio
import contextvars
import threading
from typing import Any

import pytest

from asyncdefer import IterationFailed, Queue, Report, Retry, current, sleep
from asyncdefer.testing import VirtualClock


@pytest.mark.parametrize("concurrency", [1, 2, 4])
@pytest.mark.parametrize("pace", ["fast", "blocks", "awaits"])
@pytest.mark.parametrize("backend", ["memory", "journal"])
async def test_others_come_in_between(
    anyio_backend: Any, tmp_path: Any, concurrency: int, pace: str, backend: str
) -> None:
    """With no more slots than shards, a job that is due waits some tens of milliseconds, not until
    the end. The slots are given up by real time, since a fast callback takes none of the clock's.
    """
    path = tmp_path / "timers.db" if backend == "journal" else None
    count = {"fast": 10_000_000, "blocks": 10_000, "awaits": 10_000}[pace]
    queue = Queue(path, concurrency=concurrency, drain_timeout=0)

    @queue.task("callback")
    async def callback(n: int) -> None:
        if pace == "blocks":
            spin = loop.time() + 0
            for _ in range(20_000):
                spin += 1
        elif pace == "awaits":
            await asyncio.sleep(0.002)

    @queue.task("other")
    async def other() -> float:
        return asyncio.get_running_loop().time()

    loop = asyncio.get_running_loop()
    async with queue:
        handle = await queue.iterate(range(count), callback, shards=4)
        await asyncio.sleep(0.1)
        for _ in range(3):
            job = await queue.enqueue(other)
            await job.result(timeout=5)
        at = handle.progress()
        assert not handle.done()
        assert sum(one.items > 0 for one in at.shards) >= min(concurrency, 2)
        await handle.cancel()


@pytest.mark.parametrize("journal", [False, True])
async def test_the_loop_is_not_blocked(anyio_backend: Any, tmp_path: Any, *, journal: bool) -> None:
    """A callback that never waits leaves the loop to others every few milliseconds, within a page
    and between pages: here a tick of 1 ms is not later than some tens. Only real time can tell.
    """
    queue = Queue(tmp_path / "timers.db" if journal else None, drain_timeout=0)

    @queue.task("callback")
    async def callback(n: int) -> None: ...

    ticks: list[float] = []
    async with queue:
        from asyncdefer._clock import real

        handle = await queue.iterate(range(800_000), callback, shards=4)
        while not handle.done():
            begun = real()
            await asyncio.sleep(0.001)
            ticks.append(real() - begun)
        assert (await handle).items == 800_000
    assert len(ticks) > 5
    assert sorted(ticks)[len(ticks) // 2] < 0.05


async def test_a_budget_ends_a_turn(
    queue: Queue, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After so many seconds of the queue's clock the shard stands in line again, behind whoever is
    due; it counts over all pages of a turn.
    """
    attempts: set[int] = set()
    seen: list[int] = []

    async def callback(n: int) -> None:
        attempts.add(current().attempt)
        seen.append(n)
        await sleep(1)

    monkeypatch.setattr("asyncdefer._shard.PAGE", 4)
    handle = await queue.iterate(range(25), callback, shards=1, budget=10)
    await clock.run_until_idle()
    assert seen == list(range(25))
    assert attempts == {1, 2, 3}
    assert (await handle).items == 25


async def test_a_budget_lets_others_run(clock: VirtualClock) -> None:
    """On one slot a job that came later is not behind the whole iteration."""
    order: list[Any] = []
    async with Queue(clock=clock, concurrency=1) as queue:

        async def callback(n: int) -> None:
            order.append(n)
            await sleep(1)

        async def other() -> None:
            order.append("other")

        await queue.iterate(range(10), callback, shards=1, budget=3)
        await clock.advance(0.5)
        await queue.enqueue(other)
        await clock.run_until_idle()
    assert order == [0, 1, 2, "other", 3, 4, 5, 6, 7, 8, 9]


async def test_a_paused_task_takes_no_slot(clock: VirtualClock) -> None:
    """A job that could not start anyway does not make shards give up their slots."""
    attempts: set[int] = set()
    async with Queue(clock=clock, concurrency=4) as queue:

        @queue.task("paused")
        async def paused() -> None: ...

        async def callback(n: int) -> None:
            attempts.add(current().attempt)
            await asyncio.sleep(0.01)

        queue.pause(paused)
        await queue.enqueue(paused)
        await queue.iterate(range(30), callback, shards=2)
        await clock.advance(1)
        queue.resume(paused)
        await clock.run_until_idle()
    assert attempts == {1}


VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable")


@pytest.mark.parametrize("timeout", [None, 60])
@pytest.mark.parametrize("plain", [False, True])
async def test_the_context_is_the_caller_s(
    queue: Queue, clock: VirtualClock, timeout: float | None, *, plain: bool
) -> None:
    """Callbacks and finalize see the variables of whoever called, and know their shard."""
    seen: list[tuple[str, int | None]] = []

    def note(_: object) -> None:
        seen.append((VARIABLE.get(), current().shard))

    async def note_async(what: object) -> None:
        note(what)

    fn = note if plain else note_async
    callback = queue.task("callback", timeout=timeout)(fn)
    finalize = queue.task("finalize", timeout=timeout)(fn)
    VARIABLE.set("caller")
    await queue.iterate(range(3), callback, finalize, shards=3)
    VARIABLE.set("other")
    await clock.run_until_idle()
    assert sorted(seen[:3], key=str) == [("caller", 0), ("caller", 1), ("caller", 2)]
    assert seen[3:] == [("caller", None)]


async def test_the_timeout_is_of_one_item(queue: Queue, clock: VirtualClock) -> None:
    """Not of the shard: an item that takes longer has failed with `TimeoutError`, and is tried again."""
    tried: list[int] = []

    @queue.task("callback", timeout=10, retry=Retry(2, delay=1, jitter=False))
    async def callback(n: int) -> None:
        tried.append(n)
        await sleep(100 if n == 1 else 9)

    begun = clock.now()
    handle = await queue.iterate(range(4), callback, shards=1, max_failures=1)
    await clock.run_until_idle()
    report = await handle
    assert tried == [0, 1, 1, 2, 3]
    assert [(one.key, one.error.type) for one in report.failed] == [(1, "TimeoutError")]
    assert (clock.now() - begun).total_seconds() == 9 + 10 + 1 + 10 + 9 + 9


async def test_who_swallows_a_timeout_has_failed(queue: Queue, clock: VirtualClock) -> None:
    """As with any job: to return after it was told to stop is no success."""

    @queue.task("callback", timeout=10)
    async def callback(n: int) -> None:
        try:
            await sleep(100)
        except asyncio.CancelledError:
            return

    handle = await queue.iterate([1], callback)
    await clock.run_until_idle()
    with pytest.raises(IterationFailed, match="TimeoutError"):
        await handle


async def test_plain_callbacks_run_in_threads(queue: Queue) -> None:
    """As many at once as there are shards, and the loop is free."""
    names: set[str] = set()
    together = threading.Barrier(3, timeout=10)

    def callback(n: int) -> None:
        names.add(threading.current_thread().name)
        together.wait()

    async def finalize(report: Report) -> None:
        names.add("finalize")

    handle = await queue.iterate(range(9), callback, finalize, shards=3)
    assert (await handle).items == 9
    assert threading.current_thread().name not in names
    assert "finalize" in names


async def test_a_thread_is_not_left_behind(queue: Queue, clock: VirtualClock) -> None:
    """Its timeout cannot stop it: the item has failed when it returns, and no other begins before."""
    running: list[int] = []
    most: list[int] = []
    release = threading.Event()

    @queue.task("callback", timeout=1)
    def callback(n: int) -> None:
        running.append(n)
        most.append(len(running))
        if n == 0:
            release.wait(10)
        running.remove(n)

    handle = await queue.iterate(range(3), callback, shards=1, max_failures=1)
    while not most:  # noqa: ASYNC110 - a thread adds to it
        await asyncio.sleep(0.001)
    await clock.advance(5, patience=0)
    await asyncio.sleep(0.05)
    assert most == [1]
    release.set()
    await clock.run_until_idle()
    report = await handle
    assert [one.error.type for one in report.failed] == ["TimeoutError"]
    assert most == [1, 1, 1]


async def test_a_plain_function_that_gives_a_coroutine(queue: Queue, clock: VirtualClock) -> None:
    """It is awaited, as with any job."""
    seen: list[int] = []

    async def work(n: int) -> None:
        seen.append(n)

    await queue.iterate(range(3), lambda n: work(n))  # noqa: PLW0108 - it is no coroutine function
    await clock.run_until_idle()
    assert sorted(seen) == [0, 1, 2]
