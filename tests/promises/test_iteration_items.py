"""Iteration: every item of a list or a range is worked on once, in the order of its shard."""

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from asyncdefer import Queue, Report, current, sleep
from asyncdefer.testing import VirtualClock, check_conservation

RANGES = [
    range(25),
    range(100),
    range(-1000, 1001),
    range(0, 100, 7),
    range(5, 6),
    range(100, -100, -3),
    range(-5, -50, -1),
    range(0),
    range(10, 0),
]


@pytest.mark.parametrize("shards", [1, 2, 5, 7, 200])
@pytest.mark.parametrize("items", RANGES, ids=str)
async def test_a_range_is_split_without_gaps(
    queue: Queue, clock: VirtualClock, items: range, shards: int
) -> None:
    """Each number comes once, whatever the step and the number of shards, and each shard goes up."""
    seen: dict[int | None, list[int]] = {}

    async def callback(n: int) -> None:
        seen.setdefault(current().shard, []).append(n)

    handle = await queue.iterate(items, callback, shards=shards)
    await clock.run_until_idle()
    report = await handle
    assert sorted(n for part in seen.values() for n in part) == sorted(items)
    assert all(part == sorted(part) for part in seen.values())
    assert sorted(seen, key=str) == sorted(range(min(shards, len(items))), key=str)
    assert report.items == len(items)
    assert [(one.index, one.items) for one in report.shards] == [
        (index, len(seen[index])) for index in range(len(report.shards))
    ]
    assert max(map(len, seen.values()), default=0) - min(map(len, seen.values()), default=0) <= 1


async def test_a_list_may_have_duplicates(queue: Queue, clock: VirtualClock) -> None:
    """Its places are the keys, so equal items are all worked on, in the order of their shard."""
    seen: dict[int | None, list[str]] = {}

    async def callback(text: str) -> None:
        seen.setdefault(current().shard, []).append(text)

    handle = await queue.iterate(["a", "b"] * 10 + ["a"], callback, shards=4)
    await clock.run_until_idle()
    assert (await handle).items == 21
    assert [text for shard in sorted(seen, key=str) for text in seen[shard]] == ["a", "b"] * 10 + [
        "a"
    ]


async def test_a_list_is_as_it_was_at_the_call(queue: Queue, clock: VirtualClock) -> None:
    """What the caller does to the list afterwards changes nothing."""
    seen: list[int] = []

    async def callback(n: int) -> None:
        seen.append(n)

    items = [1, 2, 3]
    await queue.iterate(items, callback, shards=2)
    items.clear()
    await clock.run_until_idle()
    assert sorted(seen) == [1, 2, 3]


@pytest.mark.parametrize("items", [[], (), range(0)], ids=str)
async def test_nothing_to_do_is_done(queue: Queue, clock: VirtualClock, items: Any) -> None:
    """Of an empty source finalize runs all the same, once, with zero items."""
    reports: list[Report] = []

    async def callback(item: int) -> None:
        raise AssertionError

    async def finalize(report: Report) -> None:
        reports.append(report)

    handle = await queue.iterate(items, callback, finalize)
    await clock.run_until_idle()
    assert (await handle).items == 0
    assert [(one.items, one.failed, one.shards) for one in reports] == [(0, [], [])]
    assert handle.progress().items == 0


async def test_arguments_follow_the_item_and_the_report(queue: Queue, clock: VirtualClock) -> None:
    """`args` are given to the callback behind the item, and to finalize behind the report."""
    seen: list[Any] = []

    async def callback(n: int, tag: str, factor: int = 2) -> None:
        seen.append((n, tag, factor))

    async def finalize(report: Report, tag: str, other: int = 3) -> None:
        seen.append((report.items, tag, other))

    await queue.iterate(range(2), callback, finalize, shards=1, args=("x",))
    await clock.run_until_idle()
    assert seen == [(0, "x", 2), (1, "x", 2), (2, "x", 3)]
    seen.clear()
    await queue.iterate([7], callback, finalize, args=["y", 9])
    await clock.run_until_idle()
    assert seen == [(7, "y", 9), (1, "y", 9)]


async def test_times_of_the_report(queue: Queue, clock: VirtualClock) -> None:
    """It says in UTC when the iteration was accepted and when its last shard had ended."""

    async def callback(n: int) -> None:
        await sleep(10)

    begun = clock.now()
    handle = await queue.iterate(range(6), callback, shards=2)
    await clock.run_until_idle()
    report = await handle
    assert report.started_at == begun
    assert report.finished_at == begun + timedelta(seconds=30)
    assert report.finished_at.tzinfo is UTC


@dataclasses.dataclass
class Point:
    x: int
    at: datetime


POINTS = [Point(n, datetime(2027, 1, 1 + n, tzinfo=ZoneInfo("Europe/Oslo"))) for n in range(6)]


def program(disk: Any, clock: VirtualClock, seen: list[Any]) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("point")
    async def point(item: Point, since: datetime) -> None:
        await sleep(1)
        seen.append((item, since))

    @queue.task("moment")
    async def moment(item: datetime) -> None:
        await sleep(1)
        seen.append(item)

    @queue.task("many")
    async def many(item: Point, *more: datetime) -> None:
        await sleep(1)
        seen.append((item, more))

    @queue.task("last")
    async def last(report: Report, since: datetime) -> None:
        seen.append((report.items, since))

    return queue


@pytest.mark.parametrize("crash", [False, True])
async def test_items_have_the_types_of_the_callback(
    disk: Any, clock: VirtualClock, *, crash: bool
) -> None:
    """What is in a journal arrives as the callback's annotation says, also after a restart."""
    seen: list[Any] = []
    since = datetime(2020, 1, 1, tzinfo=UTC)
    async with program(disk, clock, seen) as queue:
        await queue.iterate(
            POINTS, queue.task_of("point"), queue.task_of("last"), shards=2, args=(since,)
        )
        times = [point.at for point in POINTS]
        await queue.iterate(times, queue.task_of("moment"), shards=2)
        await queue.iterate(POINTS[:1], queue.task_of("many"), args=(since, since))
        if crash:
            await clock.advance(1.5)
            disk.crash()
        else:
            await clock.run_until_idle()
            check_conservation(queue)
    if crash:
        async with program(disk, clock, seen) as queue:
            await clock.run_until_idle()
            check_conservation(queue)
    points = [one for one in seen if isinstance(one, tuple) and isinstance(one[0], Point)]
    assert sorted((one for one in points if one[1] == since), key=lambda one: one[0].x) == [
        (point, since) for point in POINTS
    ]
    assert (POINTS[0], (since, since)) in points
    moments = sorted(one for one in seen if isinstance(one, datetime))
    assert moments == [point.at for point in POINTS]
    assert all(isinstance(one.tzinfo, ZoneInfo) for one in moments)
    assert seen[-1] == (6, since) or (6, since) in seen


async def test_in_a_journal_items_are_copies(disk: Any, clock: VirtualClock) -> None:
    """As with any call: what the caller does to an item afterwards is not seen."""
    seen: list[Any] = []
    async with program(disk, clock, seen) as queue:
        point = Point(1, datetime(2027, 1, 1, tzinfo=UTC))
        await queue.iterate([point], queue.task_of("many"))
        point.x = 9
        await clock.run_until_idle()
    assert seen[0][0].x == 1
