"""A task may limit its own runs, and its jobs may have a head start among those that wait."""

from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Queue, Snooze, State
from asyncdefer.testing import VirtualClock


class Gauge:
    """How many run at once, and the order of their starts."""

    def __init__(self) -> None:
        self.inside = self.most = 0
        self.began: list[Any] = []

    async def __call__(self, what: Any = None, seconds: float = 1) -> Any:
        self.began.append(what)
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await asyncdefer.sleep(seconds)
        finally:
            self.inside -= 1
        return what


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_no_more_than_its_own_limit(queue: Queue, clock: VirtualClock, limit: int) -> None:
    """In the order in which they came, and every slot is used."""
    gauge = Gauge()
    task = queue.task("job", concurrency=limit)(gauge)
    start = clock.monotonic()
    handles = [await task.enqueue(n) for n in range(21)]
    await clock.run_until_idle()
    assert gauge.most == limit
    assert gauge.began == list(range(21))
    assert clock.monotonic() - start == -(-21 // limit)
    assert [await handle for handle in handles] == list(range(21))


async def test_others_run_meanwhile(queue: Queue, clock: VirtualClock) -> None:
    """Who waits for a slot of its task takes none of the queue."""
    gauge = Gauge()
    task = queue.task("job", concurrency=1)(gauge)
    for n in range(300):
        await task.enqueue(n)
    handle = await queue.enqueue(abs, -3)
    await clock.advance(0)
    assert await handle == 3
    assert queue.stats().running == 1
    for dead in [job async for job in queue.jobs(state=State.SCHEDULED)]:
        await queue.discard(dead.id)


async def test_a_slot_is_free_on_every_path(queue: Queue, clock: VirtualClock) -> None:
    """Success, failure, timeout, cancel, snooze: the next one starts."""
    runs: list[str] = []

    @queue.task(concurrency=1, timeout=10)
    async def job(how: str) -> None:
        runs.append(how)
        if how == "fails":
            raise ValueError
        if how == "exits":
            raise SystemExit
        if how == "snoozes" and runs.count(how) == 1:
            raise Snooze(100)
        await asyncdefer.sleep(1000 if how in ("times out", "cancelled") else 1)

    ways = ["succeeds", "fails", "exits", "snoozes", "times out", "cancelled", "last"]
    handles = [await job.enqueue(how) for how in ways]
    await clock.advance(12)
    assert runs[-1] == "cancelled"
    await handles[5].cancel()
    await clock.advance(200)
    assert runs == [*ways, "snoozes"]
    assert all(handle.done() for handle in handles)


async def test_waiting_for_a_slot_is_not_running(queue: Queue, clock: VirtualClock) -> None:
    """It does not use up the timeout, and can be cancelled, replaced and expire."""
    gauge = Gauge()
    task = queue.task("job", concurrency=1, timeout=5, defer=["what"])(gauge)
    first = await task.enqueue("a", 4)
    second = await task.enqueue("b", 4)
    third = await task.enqueue("c", 4)
    await clock.advance(1)
    assert second.state is State.SCHEDULED
    newer = await task.enqueue("b", 3)
    assert await third.cancel()
    last = await task.options(expires=6).enqueue("d", 1)
    await clock.advance(20)
    assert (await first, await second, await newer) == ("a", "b", "b")
    assert gauge.began == ["a", "b"]
    assert last.state is State.EXPIRED


async def test_a_pause_within_the_limit(queue: Queue, clock: VirtualClock) -> None:
    """Paused and resumed, the order and the limit stay."""
    gauge = Gauge()
    task = queue.task("job", concurrency=2)(gauge)
    for n in range(6):
        await task.enqueue(n)
    await clock.advance(0.5)
    queue.pause(task)
    await clock.advance(10)
    assert gauge.began == [0, 1]
    queue.resume(task)
    await clock.run_until_idle()
    assert gauge.began == list(range(6))
    assert gauge.most == 2


@pytest.mark.parametrize("limit", [0, -1, 1.5, True, "2"])
def test_a_bad_limit_is_refused(limit: Any) -> None:
    """Where it is written; it belongs to the task, not to a call."""
    with pytest.raises(ValueError, match="concurrency"):
        Queue().task(concurrency=limit)(abs)
    with pytest.raises(TypeError, match="no option"):
        Queue().options(concurrency=1)  # type: ignore[call-arg]


async def test_priority_is_a_head_start(queue: Queue, clock: VirtualClock) -> None:
    """Among those that wait for a slot, one with 60 seconds goes before those of the last minute."""
    gauge = Gauge()
    task = queue.task("job", concurrency=1)(gauge)
    await task.enqueue("running", 100)
    await clock.advance(1)
    for n in range(4):
        await task.options(priority=0 if n < 2 else timedelta(seconds=n * 10)).enqueue(n)
        await clock.advance(1)
    await clock.advance(200)
    assert gauge.began == ["running", 3, 2, 0, 1]


async def test_priority_never_before_the_eta(queue: Queue, clock: VirtualClock) -> None:
    """A head start counts in the lane only."""
    started: list[float] = []
    begin = clock.monotonic()

    async def note() -> None:
        started.append(clock.monotonic() - begin)

    await queue.options(priority=3600, delay=10).enqueue(note)
    await clock.advance(100)
    assert started == [10]


async def test_priority_starves_nobody(queue: Queue, clock: VirtualClock) -> None:
    """Who waits longer than the head start of the others goes before them."""
    gauge = Gauge()
    task = queue.task("job", concurrency=1)(gauge)
    await task.enqueue("low", 1)
    low = await task.enqueue("patient", 1)
    for n in range(40):
        await task.options(priority=10).enqueue(n)
        await clock.advance(1)
    assert low.done()
    assert gauge.began.index("patient") <= 13
    await clock.run_until_idle()


async def test_priority_of_a_task_in_the_whole_queue(clock: VirtualClock) -> None:
    """It is for the queue's own slots as well, and a call's counts before the task's."""
    queue = Queue(concurrency=1, clock=clock)
    gauge = Gauge()
    high = queue.task("high", priority=5)(gauge)
    async with queue:
        await queue.enqueue(gauge, "running")
        await clock.advance(0)
        await queue.enqueue(gauge, "plain")
        await high.enqueue("high")
        await high.options(priority=None).enqueue("high, but not this one")
        await clock.run_until_idle()
    assert gauge.began == ["running", "high", "plain", "high, but not this one"]


@pytest.mark.parametrize("priority", [-1, "high", float("nan"), True])
def test_a_bad_priority_is_refused(priority: Any) -> None:
    """Where it is written."""
    with pytest.raises((TypeError, ValueError), match="priority"):
        Queue().options(priority=priority)
