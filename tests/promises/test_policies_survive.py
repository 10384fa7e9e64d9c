"""Debounce bounds, retries, rates and schedules go on after a crash where they were."""

from datetime import timedelta
from typing import Any

import pytest

from asyncdefer import Cron, Defer, Every, Handle, LogEvent, Queue, RateLimit, State
from asyncdefer.testing import VirtualClock, check_conservation

HOUR = 3600


def burst(disk: Any, clock: VirtualClock, ran: list[Any]) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        return {**new, "texts": old["texts"] + new["texts"]}

    @queue.task("bounded", defer=Defer(["name"], max_wait=100), delay=60)
    async def bounded(name: str) -> None:
        ran.append(clock.now())

    @queue.task("merged", defer=Defer(["name"], keep=merge), delay=HOUR)
    async def merged(name: str, texts: list[str]) -> None:
        ran.append(texts)

    @queue.task("first", defer=Defer(["name"], keep="first"), delay=HOUR)
    async def first(name: str, text: str) -> None:
        ran.append(text)

    @queue.task("leading", defer=Defer(["name"], leading=True), delay=60)
    async def leading(name: str, text: str) -> None:
        ran.append(text)

    return queue


async def test_max_wait(disk: Any, clock: VirtualClock) -> None:
    """The bound of a burst is kept in the job."""
    ran: list[Any] = []
    start = clock.now()
    for _ in range(3):
        async with burst(disk, clock, ran) as queue:
            await queue.enqueue(queue.task_of("bounded"), "k")
            await clock.advance(40)
            disk.crash()
    async with burst(disk, clock, ran) as queue:
        await clock.advance(0)
        check_conservation(queue)
    assert ran == [start + timedelta(seconds=100)]


async def test_a_merge_sees_the_older_call(disk: Any, clock: VirtualClock) -> None:
    """A call that the newer one needs stays in memory however far it is."""
    ran: list[Any] = []
    for text in "abc":
        async with burst(disk, clock, ran) as queue:
            await queue.enqueue(queue.task_of("merged"), "k", [text])
            await queue.enqueue(queue.task_of("first"), "k", text)
            disk.crash()
    async with burst(disk, clock, ran) as queue:
        await clock.advance(HOUR)
        check_conservation(queue)
    assert sorted(map(str, ran)) == ["['a', 'b', 'c']", "a"]


async def test_a_leading_run(disk: Any, clock: VirtualClock) -> None:
    """What was called in its window runs at the end of it."""
    ran: list[Any] = []
    async with burst(disk, clock, ran) as queue:
        await queue.enqueue(queue.task_of("leading"), "k", "a")
        await clock.advance(1)
        await queue.enqueue(queue.task_of("leading"), "k", "b")
        disk.crash()
    async with burst(disk, clock, ran) as queue:
        assert ran == ["a"]
        await clock.advance(60)
        assert ran == ["a", "b"]
        check_conservation(queue)


def limited(disk: Any, clock: VirtualClock, ran: list[Any]) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("spaced", rate_limit=RateLimit(1, per=60, key=["user"]))
    async def spaced(user: int) -> None:
        ran.append((user, clock.now()))

    return queue


async def test_a_rate_keeps_its_spacing(disk: Any, clock: VirtualClock) -> None:
    """A restart is no way around a rate limit."""
    ran: list[Any] = []
    start = clock.now()
    async with limited(disk, clock, ran) as queue:
        for _ in range(3):
            await queue.enqueue(queue.task_of("spaced"), 1)
        await clock.advance(1)
        disk.crash()
    async with limited(disk, clock, ran) as queue:
        await queue.enqueue(queue.task_of("spaced"), 2)
        await clock.advance(200)
        check_conservation(queue)
    minutes = [(user, (at - start) / timedelta(seconds=1)) for user, at in ran]
    assert sorted(minutes) == [(1, 0), (1, 60), (1, 120), (2, 1)]


def scheduled(disk: Any, clock: VirtualClock, ran: list[Any], repeat: Any) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("tick", repeat=repeat)
    async def tick() -> None:
        ran.append(clock.now())

    @queue.task("report")
    async def report(name: str) -> str:
        ran.append(name)
        return name

    return queue


@pytest.mark.parametrize("repeat", [Every(HOUR), Cron("0 * * * *")])
async def test_a_schedule_goes_on(disk: Any, clock: VirtualClock, repeat: Any) -> None:
    """It keeps its grid through downtimes, and runs once for all it missed."""
    ran: list[Any] = []
    start = clock.now()
    async with scheduled(disk, clock, ran, repeat):
        await clock.advance(1.5 * HOUR)
        disk.crash()
    await clock.advance(3 * HOUR)
    async with scheduled(disk, clock, ran, repeat) as queue:
        await clock.advance(HOUR)
        check_conservation(queue)
    hours = [(at - start) / timedelta(hours=1) for at in ran]
    assert hours == [1, 4.5, 5]


async def test_a_schedule_by_options(disk: Any, clock: VirtualClock) -> None:
    """Begun by a program's code it survives too, and beginning it again changes nothing."""
    ran: list[Any] = []

    async def begin(queue: Queue) -> Handle[Any]:
        call = queue.options(repeat=Every(HOUR), key="daily")
        return await call.enqueue(queue.task_of("report"), "x")

    async with scheduled(disk, clock, ran, None) as queue:
        await begin(queue)
        await clock.advance(0.5 * HOUR)
        disk.crash()
    async with scheduled(disk, clock, ran, None) as queue:
        handle = await begin(queue)
        assert queue.stats().accepted == 0
        await clock.advance(0.5 * HOUR)
        assert ran == ["x"]
        assert await handle.cancel()
        disk.crash()
    async with scheduled(disk, clock, ran, None) as queue:
        await clock.advance(5 * HOUR)
        assert queue.stats().waiting == 0
        check_conservation(queue)
    assert ran == ["x"]


async def test_a_crash_during_a_run_of_a_schedule(disk: Any, clock: VirtualClock) -> None:
    """The run is run again, and the next one comes in its time."""
    ran: list[Any] = []
    start = clock.now()

    def slow() -> Queue:
        queue = Queue(disk.store(), clock=clock)

        @queue.task("slow", repeat=Every(HOUR))
        async def slow() -> None:
            from asyncdefer import sleep

            ran.append((clock.now() - start) / timedelta(hours=1))
            await sleep(0.25 * HOUR)

        return queue

    async with slow():
        await clock.advance(1.125 * HOUR)
        disk.crash()
    async with slow() as queue:
        await clock.advance(2 * HOUR)
        check_conservation(queue)
    assert ran == [1, 1.125, 2, 3]


@pytest.mark.parametrize("repeat", [None, Every(2 * HOUR), Cron("30 * * * *")])
async def test_a_deploy_with_another_schedule(disk: Any, clock: VirtualClock, repeat: Any) -> None:
    """One without the `repeat` ends the schedule with an event; another rule begins anew."""
    ran: list[Any] = []
    start = clock.now()
    async with scheduled(disk, clock, ran, Every(HOUR)):
        await clock.advance(0.25 * HOUR)
    events: list[LogEvent] = []
    queue = scheduled(disk, clock, ran, repeat)
    queue.subscribe(events.append)
    async with queue:
        await clock.advance(2.25 * HOUR)
        check_conservation(queue)
        waiting = [job.eta async for job in queue.jobs(state=State.SCHEDULED)]
    hours = [(at - start) / timedelta(hours=1) for at in ran]
    wanted = {"None": [], "Every": [2.25], "Cron": [0.5, 1.5, 2.5]}[
        "None" if repeat is None else type(repeat).__name__
    ]
    assert hours == wanted
    assert "schedule_ended" in [event.name for event in events]
    assert len(waiting) == (repeat is not None)
