"""Iteration: how far it is can be asked at any time, and after its end its report can."""

from datetime import timedelta
from typing import Any

import pytest

from asyncdefer import IterationFailed, LogEvent, Progress, Queue, Report, Retry, ShardReport, sleep
from asyncdefer.testing import VirtualClock, check_conservation


async def callback(n: int) -> None:
    await sleep(1)


def shown(progress: Progress) -> tuple[int, int, list[int], int]:
    assert [one.index for one in progress.shards] == list(range(len(progress.shards)))
    return (
        progress.items,
        progress.failed,
        [one.items for one in progress.shards],
        progress.ended,
    )


async def test_from_the_call_to_the_end(queue: Queue, clock: VirtualClock) -> None:
    """Items, failures, the shards and how many of them have ended."""

    async def each(n: int) -> None:
        await sleep(1)
        if n == 0:
            raise ValueError

    handle = await queue.iterate(range(7), each, shards=2, max_failures=1)
    assert shown(handle.progress()) == (0, 0, [0, 0], 0)
    await clock.advance(2.5)
    assert shown(handle.progress()) == (3, 1, [1, 2], 0)
    await clock.advance(1)
    assert shown(handle.progress()) == (5, 1, [2, 3], 1)
    await clock.run_until_idle()
    assert shown(handle.progress()) == (6, 1, [2, 4], 2)
    assert handle.progress().shards[0] == ShardReport(0, 2)


async def test_of_a_failed_one(queue: Queue, clock: VirtualClock) -> None:
    """As its report says."""

    async def each(n: int) -> None:
        if n == 2:
            raise ValueError

    handle = await queue.iterate(range(3), each, shards=1)
    await clock.run_until_idle()
    with pytest.raises(IterationFailed):
        await handle
    assert shown(handle.progress()) == (2, 1, [2], 1)


async def test_of_a_job_that_is_none(queue: Queue, clock: VirtualClock) -> None:
    """Only an iteration has a progress."""
    handle = await queue.enqueue(callback, 1, delay=10)
    with pytest.raises(TypeError, match=r"only `queue\.iterate`"):
        handle.progress()


def program(disk: Any, clock: VirtualClock, *, known: bool = True) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    async def each(n: int) -> None:
        await sleep(1)
        if n == 9:
            raise ValueError

    if known:
        queue.task("each", retry=Retry(2, delay=10_000, jitter=False))(each)
    return queue


@pytest.mark.parametrize("known", [True, False])
async def test_after_a_restart(disk: Any, clock: VirtualClock, *, known: bool) -> None:
    """At once: shards that had ended count, and those that wait, also for a task of another deploy."""
    async with program(disk, clock) as queue:
        handle = await queue.iterate(range(10), "each", shards=2, max_failures=1)
        await clock.advance(100)
        at = handle.progress()
        assert shown(at) == (9, 0, [5, 4], 1)
        disk.crash()
    async with program(disk, clock, known=known) as queue:
        found = await queue.handle(handle.id)
        assert found is not None
        assert found.progress() == at
        if known:
            await clock.run_until_idle()
            report: Report = await found
            assert shown(found.progress()) == (9, 1, [5, 4], 2)
            assert [one.key for one in report.failed] == [9]
        check_conservation(queue)
        disk.crash()
    async with program(disk, clock) as queue:
        found = await queue.handle(handle.id)
        assert found is not None
        assert shown(found.progress()) == ((9, 1, [5, 4], 2) if known else shown(at))


async def test_pages_are_events(queue: Queue, clock: VirtualClock) -> None:
    """`iteration_page`, with the iteration's id, the shard, and what it has done so far."""
    events: list[LogEvent] = []
    queue.subscribe(events.append)

    async def each(n: int) -> None: ...

    handle = await queue.iterate(range(4_000), each, shards=2)
    await clock.run_until_idle()
    pages = [event for event in events if event.name == "iteration_page"]
    assert sorted((event.shard or 0, event.items or 0) for event in pages) == [
        (0, 1_000),
        (0, 2_000),
        (1, 1_000),
        (1, 2_000),
    ]
    assert {event.job_id for event in pages} == {handle.id}
    assert {event.task for event in pages} == {"asyncdefer.iteration"}


@pytest.mark.parametrize(
    ("ttl", "after", "there"),
    [(100, 99, True), (100, 101, False), (None, 400 * 86_400, True), (timedelta(1), 3_601, True)],
)
async def test_how_long_the_report_is_kept(
    disk: Any, clock: VirtualClock, ttl: Any, after: float, *, there: bool
) -> None:
    """`result_ttl` seconds, or for ever; of its shards nothing is kept."""
    async with program(disk, clock) as queue:
        handle = await queue.iterate(range(4), "each", shards=2, result_ttl=ttl)
        await clock.advance(2)
        assert [job.id async for job in queue.jobs()] == [handle.id]
    async with program(disk, clock) as queue:
        await clock.advance(after)
        found = await queue.handle(handle.id)
        assert (found is not None) == there
        if found is not None:
            assert (await found).items == 4
        assert [job.id async for job in queue.jobs()] == ([handle.id] if there else [])


async def test_nothing_is_kept_at_all(queue: Queue, clock: VirtualClock) -> None:
    """With a `result_ttl` of 0 whoever holds the handle has the report, and nobody else."""
    handle = await queue.iterate(range(4), callback, result_ttl=0)
    await clock.run_until_idle()
    assert (await handle).items == 4
    assert [job async for job in queue.jobs()] == []
