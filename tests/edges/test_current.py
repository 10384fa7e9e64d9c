"""In the job: `current()`, and the two signals Snooze and GiveUp."""

import asyncio
from datetime import datetime, timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import GiveUp, Queue, Run, Snooze, State
from asyncdefer.testing import VirtualClock, virtual


async def run() -> Run:
    return asyncdefer.current()


# current


async def test_the_fields_of_a_run(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A run knows its job, its time and its attempt."""
    task = defer_queue.task("jobs.run", delay=10)(run)
    handle = await task.options(key="k").enqueue()
    eta = defer_clock.now() + timedelta(seconds=10)
    await defer_clock.advance(10)

    current = await handle
    assert (current.id, current.task, current.key) == (handle.id, "jobs.run", "k")
    assert (current.attempt, current.eta, current.lateness) == (1, eta, 0.0)
    assert (current.calls, current.shard) == (1, None)


async def test_a_run_without_a_key(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Without a key it is None, as on the handle."""
    handle = await defer_queue.enqueue(run)
    await defer_clock.advance(0)

    assert (await handle).key is None


async def test_lateness_is_what_the_eta_was_missed_by() -> None:
    """A job that had to wait for a slot starts late, and knows by how many seconds."""
    queue = Queue(concurrency=1)
    async with virtual(queue) as clock:
        await queue.enqueue(asyncdefer.sleep, 10)
        await clock.advance(0)
        handle = await queue.enqueue(run, delay=7)
        await clock.advance(10)
        assert (await handle).lateness == 3.0
        assert (await handle).eta == handle.eta


async def test_calls_counts_what_was_folded(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`calls` is the number of calls that this run answers."""
    handle = await defer_queue.enqueue(run, delay=10, key="k")
    for _ in range(4):
        await defer_queue.enqueue(run, delay=10, key="k")
    await defer_clock.advance(10)

    assert (await handle).calls == 5


async def test_each_job_sees_its_own_run(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Jobs that run at the same time, and jobs that jobs enqueue, do not see each other's run."""

    async def job(depth: int) -> list[str]:
        before = asyncdefer.current().id
        await asyncdefer.sleep(1)
        inner = await (await defer_queue.enqueue(job, depth - 1)) if depth else []
        await asyncdefer.sleep(1)
        assert asyncdefer.current().id == before
        return [before, *inner]

    handles = [await defer_queue.enqueue(job, 3) for _ in range(3)]
    await defer_clock.advance(10)

    ids = [id for handle in handles for id in await handle]
    assert len(set(ids)) == 12
    assert [(await handle)[0] for handle in handles] == [handle.id for handle in handles]


async def test_in_a_thread(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A plain function finds its run in its thread."""
    handle = await defer_queue.enqueue(asyncdefer.current, delay=1)
    await defer_clock.advance(1)

    assert (await handle).id == handle.id


async def test_in_what_the_job_starts(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Tasks and threads of the job's own see the job's run."""

    async def job() -> set[str]:
        async with asyncio.TaskGroup() as group:
            child = group.create_task(run())
        thread = await asyncio.to_thread(asyncdefer.current)
        return {asyncdefer.current().id, child.result().id, thread.id}

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(0)

    assert await handle == {handle.id}


async def test_a_run_cannot_be_changed(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A run is a record to read."""
    handle = await defer_queue.enqueue(run)
    await defer_clock.advance(0)
    current: Any = await handle

    with pytest.raises((AttributeError, TypeError)):
        current.attempt = 7


async def test_outside_a_job_it_is_a_lookup_error(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Outside there is no run, also right beside the queue, and after a job has run."""
    with pytest.raises(LookupError):
        asyncdefer.current()
    await (await defer_queue.enqueue(run))
    with pytest.raises(LookupError):
        asyncdefer.current()


def test_without_a_loop_it_is_a_lookup_error() -> None:
    """Nor is there one in a program without a loop."""
    with pytest.raises(LookupError):
        asyncdefer.current()


# Snooze


async def test_snooze_runs_again_later(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """The job runs again at the time it names; the handle stays pending until it ends."""
    start, runs = defer_clock.now(), list[tuple[float, int, str]]()

    @defer_queue.task(defer=["user"])
    async def job(user: int) -> str:
        current = asyncdefer.current()
        runs.append(((defer_clock.now() - start).total_seconds(), current.attempt, current.id))
        match current.attempt:
            case 1:
                raise Snooze(delay=10)
            case 2:
                raise Snooze(delay=timedelta(minutes=1))
            case 3:
                raise Snooze(eta=start + timedelta(seconds=100))
        return "awake"

    handle = await job.enqueue(1)
    await defer_clock.advance(0)
    assert (handle.state, handle.done()) == (State.SCHEDULED, False)
    assert handle.eta == start + timedelta(seconds=10)
    await defer_clock.advance(99)
    assert not handle.done()
    await defer_clock.advance(1)

    assert await handle == "awake"
    assert runs == [(at, n, handle.id) for n, at in enumerate((0.0, 10.0, 70.0, 100.0), start=1)]
    assert defer_queue.stats().failed == 0


async def test_snooze_burns_nothing(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """However often a job snoozes, it is never failed for it; `attempt` counts its starts."""

    async def job() -> int:
        attempt = asyncdefer.current().attempt
        if attempt < 500:
            raise Snooze(delay=1)
        return attempt

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(498)
    assert not handle.done()
    await defer_clock.advance(1)

    assert await handle == 500


async def test_snooze_in_a_thread_and_from_within(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A plain function may snooze, and so may what the job calls."""

    def deep() -> int:
        if asyncdefer.current().attempt == 1:
            raise Snooze(delay=5)
        return asyncdefer.current().attempt

    def plain() -> int:
        return deep()

    handle = await defer_queue.enqueue(plain)
    await defer_clock.advance(5)

    assert await handle == 2


async def test_a_snoozed_job_can_be_moved_and_cancelled(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A snoozed job waits like any other."""

    async def job() -> int:
        if asyncdefer.current().attempt == 1:
            raise Snooze(delay=3600)
        return asyncdefer.current().attempt

    flushed = await defer_queue.enqueue(job)
    cancelled = await defer_queue.enqueue(job)
    await defer_clock.advance(1)
    assert await flushed.flush() is True
    assert await cancelled.cancel() is True
    await defer_clock.advance(0)

    assert await flushed == 2
    assert cancelled.state is State.CANCELLED


async def test_a_snooze_into_the_past_runs_at_once(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """An eta that has passed is due now, and a delay of 0 is a delay."""

    async def job() -> int:
        match asyncdefer.current().attempt:
            case 1:
                raise Snooze(eta=defer_clock.now() - timedelta(days=1))
            case 2:
                raise Snooze(delay=0)
        return asyncdefer.current().attempt

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(0)

    assert await handle == 3


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({}, TypeError),
        ({"delay": 5, "eta": datetime.fromisoformat("2999-01-01T00:00Z")}, TypeError),
        ({"delay": -1}, ValueError),
        ({"delay": float("nan")}, ValueError),
        ({"delay": True}, TypeError),
        ({"eta": datetime.fromisoformat("2999-01-01")}, ValueError),
    ],
    ids=repr,
)
def test_a_snooze_needs_one_good_time(wrong: dict[str, Any], error: type[Exception]) -> None:
    """Which time it means is checked where it is written."""
    with pytest.raises(error):
        Snooze(**wrong)


# GiveUp


async def test_give_up_fails_for_good(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """The job is failed, at once, and the waiters get the GiveUp itself with its reason."""
    signal = GiveUp("the user is gone")

    async def job() -> None:
        raise signal

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(0)

    assert handle.state is State.FAILED
    with pytest.raises(GiveUp, match="the user is gone") as caught:
        await handle
    assert caught.value is signal
    await defer_clock.advance(7200)
    assert defer_queue.stats().failed == 1


async def test_give_up_in_a_thread(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A plain function may give up, too."""

    def job() -> None:
        raise GiveUp("no")

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(0)

    with pytest.raises(GiveUp, match="no"):
        await handle


async def test_give_up_keeps_its_cause(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`raise GiveUp(…) from error` shows the waiter why."""

    async def job() -> None:
        try:
            raise ZeroDivisionError
        except ZeroDivisionError as error:
            raise GiveUp("no") from error

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(0)

    with pytest.raises(GiveUp) as caught:
        await handle
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_a_redriven_job_knows_its_calls(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Also where it takes the place of the empty call of a leading window."""
    calls: list[int] = []

    @defer_queue.task(delay=60, defer=asyncdefer.Defer(["key"], leading=True))
    async def job(key: str) -> None:
        calls.append(asyncdefer.current().calls)
        raise ValueError

    defer_queue.pause()
    await job.enqueue("a")
    handle = await job.enqueue("a")
    defer_queue.resume()
    await defer_clock.advance(1)
    await defer_queue.redrive(handle.id)
    await defer_clock.advance(1)
    assert calls == [2, 2]
