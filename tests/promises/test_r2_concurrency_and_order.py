"""R2: at most `concurrency` jobs at once; among due jobs by eta, then by acceptance."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import asyncdefer
from asyncdefer import GiveUp, Queue, RateLimit, Snooze, State, current
from asyncdefer.testing import VirtualClock, virtual


class Gauge:
    """Counts who is inside at once, from any thread."""

    def __init__(self) -> None:
        self.inside = 0
        self.peak = 0
        self._lock = threading.Lock()

    @contextmanager
    def entered(self) -> Iterator[None]:
        with self._lock:
            self.inside += 1
            self.peak = max(self.peak, self.inside)
        try:
            yield
        finally:
            with self._lock:
                self.inside -= 1


@pytest.mark.parametrize("concurrency", [1, 3, 16])
async def test_never_more_than_concurrency(concurrency: int) -> None:
    """As many jobs run at once as there are slots: not one more, and not one less."""
    queue = Queue(concurrency=concurrency)
    gauge = Gauge()

    async def job() -> None:
        with gauge.entered():
            await asyncdefer.sleep(10)

    async with virtual(queue) as clock:
        for n in range(48):
            await queue.enqueue(job, delay=n % 3)
        await clock.advance(5)
        assert queue.stats().running == gauge.inside == concurrency
        await clock.advance(1000)
        assert queue.stats().succeeded == 48
    assert gauge.peak == concurrency


async def test_the_default_is_a_hundred(queue: Queue, clock: VirtualClock) -> None:
    """Without a word about it a hundred jobs run at once."""
    gauge = Gauge()

    async def job() -> None:
        with gauge.entered():
            await asyncdefer.sleep(10)

    for _ in range(250):
        await queue.enqueue(job)
    await clock.advance(100)
    assert gauge.peak == 100
    assert queue.stats().succeeded == 250


async def test_threads_count_too(clock: VirtualClock) -> None:
    """Plain functions in their threads take slots like coroutines."""
    queue = Queue(concurrency=2)
    gauge = Gauge()
    pairs = threading.Barrier(2)

    def job() -> None:
        with gauge.entered():
            pairs.wait(5)  # passes only when both slots are taken

    async with virtual(queue):
        handles = [await queue.enqueue(job) for _ in range(8)]
        async with asyncio.timeout(30):
            await asyncio.gather(*handles)
    assert gauge.peak == 2


async def finishes() -> None:
    pass


async def fails() -> None:
    raise LookupError


async def gives_up() -> None:
    raise GiveUp("no")


async def exits() -> None:
    raise SystemExit


async def hangs() -> None:
    await asyncdefer.sleep(100)


async def snoozes() -> None:
    if current().attempt < 3:
        raise Snooze(delay=1)


def plain() -> None:
    pass


@pytest.mark.parametrize(
    ("job", "options"),
    [
        (finishes, {}),
        (fails, {}),
        (gives_up, {}),
        (exits, {}),
        (hangs, {"timeout": 1}),
        (snoozes, {}),
        (plain, {}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_every_end_gives_back_the_slot(
    job: Callable[[], Any], options: dict[str, Any]
) -> None:
    """However a run ends, its slot is free again, once."""
    queue = Queue(concurrency=2)
    gauge = Gauge()

    async def measure() -> None:
        with gauge.entered():
            await asyncdefer.sleep(10)

    async with virtual(queue) as clock:
        for _ in range(6):
            await queue.options(**options).enqueue(job)
        await clock.advance(60)
        assert queue.stats().running == 0
        for _ in range(6):
            await queue.enqueue(measure)
        await clock.advance(100)
        assert queue.stats().running == 0
    assert gauge.peak == 2


@pytest.mark.parametrize("moment", ["waiting for a slot", "running"])
async def test_a_cancel_gives_back_the_slot(moment: str) -> None:
    """A job that is cancelled, in its run or in front of it, neither keeps nor loses a slot."""
    queue = Queue(concurrency=1)
    gauge = Gauge()

    async def job() -> None:
        with gauge.entered():
            await asyncdefer.sleep(10)

    async with virtual(queue) as clock:
        running = await queue.enqueue(job)
        waiting = [await queue.enqueue(job) for _ in range(3)]
        await clock.advance(1)
        await (running if moment == "running" else waiting[0]).cancel()
        await clock.advance(1)
        assert queue.stats().running == 1
        await clock.advance(100)
        assert queue.stats().succeeded == 3
        assert queue.stats().running == 0
    assert gauge.peak == 1


async def test_a_snooze_leaves_the_slot_to_others() -> None:
    """A job that snoozes holds no slot while it sleeps."""
    queue = Queue(concurrency=1)
    ran: list[str] = []

    async def snoozer() -> None:
        ran.append("snoozer")
        if current().attempt == 1:
            raise Snooze(delay=60)

    async def other() -> None:
        ran.append("other")

    async with virtual(queue) as clock:
        await queue.enqueue(snoozer)
        await queue.enqueue(other)
        await clock.advance(100)
    assert ran == ["snoozer", "other", "snoozer"]


async def test_due_jobs_start_by_eta() -> None:
    """Among the jobs that wait for a slot the one with the earliest eta starts first."""
    queue = Queue(concurrency=1)
    ran: list[int] = []

    async def hour() -> None:
        await asyncdefer.sleep(3600)

    async def note(n: int) -> None:
        ran.append(n)

    async with virtual(queue) as clock:
        await queue.enqueue(hour)
        for n in (30, 10, 50, 20, 40):
            await queue.enqueue(note, n, delay=n)
        await clock.advance(100)
        # All of these are due by now. A latecomer with an earlier eta goes before them.
        await queue.enqueue(note, 0, eta=clock.now().replace(year=2000))
        await clock.advance(4000)
    assert ran == [0, 10, 20, 30, 40, 50]


async def test_a_call_that_folds_in_the_line_keeps_the_place() -> None:
    """A newer call of a job that waits for a slot takes its place in the line.

    Else a key that is called again and again would stand at the end of the line for ever.
    """
    queue = Queue(concurrency=1)
    ran: list[str] = []

    async def hour() -> None:
        await asyncdefer.sleep(3600)

    async def note(word: str) -> None:
        ran.append(word)

    async with virtual(queue) as clock:
        await queue.enqueue(hour)
        await queue.enqueue(note, "old", key="k", delay=2)
        await queue.enqueue(note, "after", delay=3)
        await queue.enqueue(note, "before", delay=1)
        for n in range(3):
            await clock.advance(10)
            await queue.enqueue(note, f"new {n}", key="k")
        await clock.advance(4000)
    assert ran == ["before", "new 2", "after"]


@pytest.mark.parametrize("drop", [False, True])
async def test_who_is_next_is_not_overtaken_when_the_one_before_it_cannot_start(
    drop: bool,
) -> None:
    """A slot of a task comes free, and the first who waits for it has no room in its rate.

    Whether that one waits on or is dropped: the next of the task starts before calls that came
    after it.
    """
    ran: list[str] = []

    async def note(who: str, seconds: float = 0) -> None:
        ran.append(who)
        await asyncdefer.sleep(seconds)

    queue = Queue(concurrency=2)
    rate = RateLimit(1, per=3600, key=["who"], drop=drop)
    task = queue.task("job", concurrency=1, rate_limit=rate)(note)
    async with virtual(queue) as own:
        for who, seconds in (("anne", 10), ("anne", 0), ("bob", 0)):
            await task.enqueue(who, seconds)
        await own.advance(1)
        await queue.enqueue(note, "all slots are taken", 600)
        await own.advance(1)
        await queue.enqueue(note, "came last")
        await own.advance(60)
    assert ran == ["anne", "all slots are taken", "bob", "came last"]


async def test_a_job_that_waits_for_a_slot_can_be_moved(clock: VirtualClock) -> None:
    """A job taken out of the line by a reschedule does not start when a slot comes free."""
    queue = Queue(concurrency=1)
    ran: list[str] = []

    async def note(word: str, seconds: float = 0) -> None:
        ran.append(word)
        await asyncdefer.sleep(seconds)

    async with virtual(queue) as own:
        await queue.enqueue(note, "hour", 3600)
        moved = await queue.enqueue(note, "moved", delay=1)
        await queue.enqueue(note, "stays", delay=2)
        await own.advance(10)
        assert moved.state is State.SCHEDULED
        assert await moved.reschedule(delay=7200) is True
        await own.advance(3600)
        assert ran == ["hour", "stays"]
        await own.advance(3600)
        assert ran == ["hour", "stays", "moved"]
