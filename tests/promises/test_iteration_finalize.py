"""Iteration: finalize has the last word, once, when all shards have ended."""

import time
from collections.abc import Callable
from typing import Any

import pytest

from asyncdefer import GiveUp, Handle, Queue, Report, Retry, Snooze, State, current, sleep
from asyncdefer.testing import VirtualClock, check_conservation


async def callback(n: int) -> None:
    await sleep(1)


async def test_it_runs_after_the_last_item(queue: Queue, clock: VirtualClock) -> None:
    """And the handle has its value, the report, when finalize has returned."""
    seen: list[Any] = []

    async def finalize(report: Report) -> None:
        seen.append(clock.now())
        await sleep(100)

    begun = clock.now()
    handle = await queue.iterate(range(10), callback, finalize, shards=2)
    await clock.advance(4)
    assert seen == []
    await clock.advance(50)
    assert [(at - begun).total_seconds() for at in seen] == [5]
    assert handle.state is State.RUNNING
    assert handle.progress().items == 10
    await clock.advance(100)
    assert (await handle).items == 10


async def test_it_may_be_a_plain_function(queue: Queue, clock: VirtualClock) -> None:
    """Then it runs in a thread."""
    seen: list[int] = []

    def finalize(report: Report) -> None:
        time.sleep(0.01)  # asyncdefer.sleep is for coroutines
        seen.append(report.items)

    handle = await queue.iterate(range(10), callback, finalize)
    await clock.run_until_idle()
    await handle
    assert seen == [10]


async def test_it_is_retried_by_its_own_rule(queue: Queue, clock: VirtualClock) -> None:
    """At its delays, with the same report; no item is repeated."""
    items: list[int] = []
    seen: list[tuple[float, int]] = []
    begun = clock.now()

    async def each(n: int) -> None:
        items.append(n)

    @queue.task("finalize", retry=Retry(3, delay=10, jitter=False))
    async def finalize(report: Report) -> None:
        seen.append(((clock.now() - begun).total_seconds(), report.items))
        if len(seen) < 3:
            raise ValueError("not yet")

    handle = await queue.iterate(range(10), each, finalize)
    await clock.advance(15)
    assert handle.progress().items == 10
    await clock.run_until_idle()
    assert (await handle).items == 10
    assert seen == [(0, 10), (10, 10), (30, 10)]
    assert sorted(items) == list(range(10))


@pytest.mark.parametrize("error", [ValueError, GiveUp])
async def test_it_may_fail_for_good(
    queue: Queue, clock: VirtualClock, error: type[Exception]
) -> None:
    """Then the iteration fails with its error, and how far the items are can still be asked."""
    tried: list[int] = []

    @queue.task("finalize", retry=Retry(2, delay=10, jitter=False))
    async def finalize(report: Report) -> None:
        tried.append(report.items)
        raise error("for good")

    handle = await queue.iterate(range(10), callback, finalize)
    await clock.run_until_idle()
    with pytest.raises(error, match="for good"):
        await handle
    assert tried == [10] * (1 if error is GiveUp else 2)
    assert (handle.progress().items, handle.progress().ended) == (10, 5)


async def test_it_may_snooze(queue: Queue, clock: VirtualClock) -> None:
    """That counts as no failure."""
    seen: list[int] = []

    @queue.task("finalize", retry=Retry(1))
    async def finalize(report: Report) -> None:
        seen.append(current().attempt)
        if len(seen) < 4:
            raise Snooze(60)

    handle = await queue.iterate(range(3), callback, finalize)
    await clock.run_until_idle()
    assert (await handle).items == 3
    assert seen == [1, 2, 3, 4]


async def test_its_timeout(queue: Queue, clock: VirtualClock) -> None:
    """The timeout of its task counts for each try."""

    @queue.task("finalize", timeout=5, retry=Retry(2, delay=10, jitter=False))
    async def finalize(report: Report) -> None:
        await sleep(100)

    begun = clock.now()
    handle = await queue.iterate([], callback, finalize)
    await clock.run_until_idle()
    with pytest.raises(TimeoutError):
        await handle
    assert (clock.now() - begun).total_seconds() == 20


@pytest.mark.parametrize("error", [SystemExit, StopIteration])
async def test_what_it_raises_does_not_escape(
    queue: Queue, clock: VirtualClock, error: type[BaseException]
) -> None:
    """It is the failure of the iteration."""

    async def finalize(report: Report) -> None:
        raise error("stop")

    handle = await queue.iterate(range(3), callback, finalize)
    await clock.run_until_idle()
    assert handle.state is State.FAILED
    with pytest.raises(Exception, match="stop"):
        await handle


def program(disk: Any, clock: VirtualClock, items: list[int], ends: list[str]) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("callback")
    async def each(n: int) -> None:
        await sleep(1)
        items.append(n)

    @queue.task("finalize", retry=Retry(3, delay=1000, jitter=False))
    async def finalize(report: Report) -> None:
        ends.append(f"begins {report.items}")
        if len(ends) == 1:
            raise ValueError("once")
        await sleep(10)
        ends.append(f"ends {report.items}")

    return queue


async def test_its_failures_are_counted_over_a_restart(disk: Any, clock: VirtualClock) -> None:
    """Between two tries a restart changes nothing: the report is the same, and so is the progress."""
    items: list[int] = []
    ends: list[str] = []
    async with program(disk, clock, items, ends) as queue:
        handle = await queue.iterate(range(4), "callback", "finalize", shards=2)
        await clock.advance(10)
        disk.crash()
    async with program(disk, clock, items, ends) as queue:
        found = await queue.handle(handle.id)
        assert found is not None
        await clock.advance(500)
        assert ends == ["begins 4"]
        await clock.run_until_idle()
        assert (await found).items == 4
        check_conservation(queue)
    assert ends == ["begins 4", "begins 4", "ends 4"]
    assert sorted(items) == [0, 1, 2, 3]


MOMENTS: dict[str, Callable[[list[int], list[str]], bool]] = {
    "before the first": lambda items, ends: True,
    "in the middle": lambda items, ends: len(items) >= 5,
    "after the last": lambda items, ends: len(items) >= 12,
    "while it runs": lambda items, ends: len(ends) >= 2,
    "after it has returned": lambda items, ends: len(ends) >= 3,
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("turns", range(0, 12, 2))
async def test_it_ends_once_wherever_the_program_dies(
    disk: Any, clock: VirtualClock, moment: str, turns: int
) -> None:
    """However many turns of the loop after each step the process dies: every item is worked on, the
    iteration ends once, and finalize is called again only if it was not recorded as done.
    """
    items: list[int] = []
    ends = ["the first failure"]
    queue = program(disk, clock, items, ends)
    async with queue:
        handle = await queue.iterate(range(12), "callback", "finalize", shards=3)
        while not MOMENTS[moment](items, ends):
            await clock.advance(1)
        await clock.advance(1, patience=0)
        for _ in range(turns):
            await sleep(0)
        done_by_then, ended = list(items), list(ends)
        disk.crash()
        await queue.close()
    del items[len(done_by_then) :], ends[len(ended) :]
    async with program(disk, clock, items, ends) as queue:
        await clock.run_until_idle()
        found = await queue.handle(handle.id)
        assert found is not None
        assert (await found).items == 12
        check_conservation(queue)
        assert [job.id async for job in queue.jobs()] == [handle.id]
    assert sorted(set(items)) == list(range(12))
    assert len(items) <= 12 + 6  # those that ran when it died, and what ended during the commit
    assert ends.count("ends 12") <= (2 if moment == "after it has returned" else 1)
    assert "ends 12" in ends


async def test_a_shard_that_ends_twice(disk: Any, clock: VirtualClock) -> None:
    """Where the end of a shard was lost, it ends again, and finalize runs once."""
    items: list[int] = []
    ends = ["the first failure"]
    handle: Handle[Report] | None = None
    for _ in range(2):
        async with program(disk, clock, items, ends) as queue:
            if handle is None:
                handle = await queue.iterate(range(2), "callback", "finalize", shards=2)
            while len(items) < 2:
                await clock.advance(1, patience=0)
            disk.crash()
    async with program(disk, clock, items, ends) as queue:
        await clock.run_until_idle()
    assert ends.count("ends 2") == 1
