"""Iteration: after a crash each shard goes on behind the last item that was recorded as done."""

import dataclasses
import sqlite3
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import IterationFailed, LogEvent, Queue, Report, sleep
from asyncdefer.testing import VirtualClock, check_conservation


@dataclasses.dataclass
class Numbers:
    n: int

    async def split(self, shards: int) -> list[tuple[int, int]]:
        return [(-1, self.n // 2 - 1), (self.n // 2 - 1, self.n - 1)]

    async def page(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
        return [(n, n) for n in range(after + 1, min(upto, after + limit) + 1)]


def program(
    disk: Any,
    clock: VirtualClock,
    items: list[int],
    ends: list[int],
    *,
    callback: bool = True,
    finalize: bool = True,
    source: bool = True,
) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    async def each(n: int) -> None:
        await sleep(1)
        items.append(n)

    async def last(report: Report) -> None:
        ends.append(report.items)

    if callback:
        queue.task("callback")(each)
    if finalize:
        queue.task("finalize")(last)
    if source:
        queue.source(Numbers)
    return queue


async def test_what_is_recorded_is_not_repeated(disk: Any, clock: VirtualClock) -> None:
    """After any number of crashes; only what ran at the moment of one comes again."""
    items: list[int] = []
    ends: list[int] = []
    async with program(disk, clock, items, ends) as queue:
        await queue.iterate(Numbers(40), "callback", "finalize", shards=2)
        await clock.advance(5.5)
        disk.crash()
    for _ in range(5):
        async with program(disk, clock, items, ends) as queue:
            await clock.advance(4.5)
            check_conservation(queue)
            disk.crash()
    async with program(disk, clock, items, ends) as queue:
        await clock.run_until_idle()
        check_conservation(queue)
    assert sorted(items) == list(range(40))
    assert ends == [40]


async def test_shards_run_side_by_side_again(disk: Any, clock: VirtualClock) -> None:
    """Jobs that a crash interrupted run one at a time, until it is clear that they did not cause it:
    for a shard that is one item, and not all of them.
    """
    items: list[int] = []
    async with program(disk, clock, items, []) as queue:
        await queue.iterate(Numbers(2_000), "callback", shards=2)
        await clock.advance(1.5)
        disk.crash()
    async with program(disk, clock, items, []) as queue:
        items.clear()
        await clock.advance(10.5)
        assert len([n for n in items if n < 1_000]) >= 8
        assert len([n for n in items if n >= 1_000]) >= 8


async def test_an_item_that_kills_the_process(disk: Any, clock: VirtualClock) -> None:
    """At the third time its shard has failed, and the others come to their end."""
    items: list[int] = []
    async with program(disk, clock, items, []) as queue:
        handle = await queue.iterate(Numbers(6), "callback", "finalize", shards=2)
        await clock.advance(2.5)
        disk.crash()
    for _ in range(2):
        async with program(disk, clock, items, []) as queue:  # it dies at the first of them
            await clock.advance(0.5)
            disk.crash()
    async with program(disk, clock, items, []) as queue:
        await clock.run_until_idle()
        found = await queue.handle(handle.id)
        assert found is not None
        with pytest.raises(IterationFailed, match="Crashed") as failed:
            await found
        report: Report = failed.value.report
        assert report.shards[0].items in (2, 3)
        assert report.items >= 5
        assert [job.id async for job in queue.jobs()] == [handle.id]
        check_conservation(queue)


@pytest.mark.parametrize("missing", ["callback", "finalize", "source"])
async def test_a_deploy_that_lacks_something(disk: Any, clock: VirtualClock, missing: str) -> None:
    """It waits and says so; when that is registered all goes on, and nothing was lost."""
    items: list[int] = []
    ends: list[int] = []
    async with program(disk, clock, items, ends) as queue:
        handle = await queue.iterate(Numbers(10), "callback", "finalize", shards=2)
        await clock.advance(2.5)
        disk.crash()
    events: list[LogEvent] = []
    without: dict[str, bool] = {missing: False}
    async with program(disk, clock, items, ends, **without) as queue:
        queue.subscribe(events.append)
        await clock.advance(100)
        assert len(items) == 4
        told = [event.error for event in events if event.name == "job_held"]
        assert told
        assert all(error is not None and "register" in error.message for error in told) or (
            missing != "source"
        )
        disk.crash()
    async with program(disk, clock, items, ends, **without) as queue:
        await clock.advance(10)
        complete = program(disk, clock, items, ends)
        if missing == "source":
            queue.source(Numbers)
        else:
            task = complete.task_of(missing)
            queue.task(missing)(task.fn)
        await clock.advance(200)
        found = await queue.handle(handle.id)
        assert found is not None
        assert (await found).items == 10
        check_conservation(queue)
    assert sorted(items) == list(range(10))
    assert ends == [10]


def size(path: Path) -> int:
    return path.stat().st_size


async def test_it_stays_small(clock: VirtualClock, tmp_path: Path) -> None:
    """200,000 items over 8 shards take pages in memory, and a few rows in the file."""
    path = tmp_path / "timers.db"
    async with Queue(path, clock=clock) as queue:

        @queue.task("callback")
        async def callback(n: int) -> None: ...

        await queue.iterate(range(1_000), callback, shards=8)
        await clock.run_until_idle()
        before = size(path)
        tracemalloc.start()
        handle = await queue.iterate(range(200_000), callback, shards=8)
        await clock.run_until_idle(patience=60)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (await handle).items == 200_000
        assert most < 4_000_000
        assert size(path) - before < 100_000
        assert len([job async for job in queue.jobs()]) == 2


async def test_the_shards_go_with_the_record(disk: Any, clock: VirtualClock) -> None:
    """The end of an iteration and the end of what it kept are one change: at no moment is one of
    them written and the other not.
    """
    left: set[tuple[str, ...]] = set()
    async with program(disk, clock, [], []) as queue:
        assert queue.journal is not None
        store = queue.journal.store
        write = store.write

        async def watched(*args: Any, **options: Any) -> Any:
            written = await write(*args, **options)
            rows = [row async for row in store.scan(limit=100)]
            if any(row.task == "asyncdefer.iteration" and row.state == "succeeded" for row in rows):
                left.add(tuple(row.task for row in rows))
            return written

        store.write = watched  # type: ignore[method-assign]
        await queue.iterate(Numbers(10), "callback", "finalize", shards=2)
        await clock.run_until_idle()
    assert left == {("asyncdefer.iteration",)}


async def test_a_record_that_cannot_be_read(clock: VirtualClock, tmp_path: Path) -> None:
    """Its shards wait, and are not taken for those of an iteration that has ended."""
    path = tmp_path / "timers.db"
    items: list[int] = []

    def start() -> Queue:
        queue = Queue(path, clock=clock)

        @queue.task("callback")
        async def callback(n: int) -> None:
            await sleep(1)
            items.append(n)

        return queue

    async with start() as queue:
        handle = await queue.iterate(range(10), "callback", shards=2)
        await clock.advance(2.5)
    with sqlite3.connect(path) as db:
        query = "UPDATE asyncdefer_jobs SET arguments = ? WHERE task = 'asyncdefer.iteration'"
        [[before]] = db.execute(
            "SELECT arguments FROM asyncdefer_jobs WHERE task = 'asyncdefer.iteration'"
        )
        db.execute(query, ("{}",))
    db.close()
    async with start() as queue:
        await clock.advance(100)
        assert len(items) == 4
        assert len([job async for job in queue.jobs(task="asyncdefer.shard")]) == 2
    with sqlite3.connect(path) as db:
        db.execute(query, (before,))
    db.close()
    async with start() as queue:
        await clock.run_until_idle()
        found = await queue.handle(handle.id)
        assert found is not None
        assert (await found).items == 10
    assert sorted(items) == list(range(10))
