"""`after` with a journal: a held job goes on after a restart and a crash as if there had been none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from asyncdefer import (
    GiveUp,
    Handle,
    JobCancelled,
    JobDropped,
    Queue,
    QueueClosed,
    State,
    current,
    sleep,
)
from asyncdefer.testing import VirtualClock, check_conservation

HOUR = 3_600


def program(store: Any, clock: VirtualClock, ran: list[Any], *, without: str = "") -> Queue:
    """A program with these tasks, but for those that a deploy has left out."""
    queue = Queue(store, clock=clock)

    async def work(text: str, seconds: float = 0) -> str:
        ran.append(text)
        await sleep(seconds)
        return text

    async def fail() -> None:
        raise GiveUp("no")

    async def last(text: str) -> list[str]:
        told = [str(state) for state in current().after.values()]
        ran.append((text, *told))
        return told

    for fn in (work, fail, last):
        if fn.__name__ not in without.split():
            queue.task(fn.__name__)(fn)
    register[queue] = (work, fail, last)
    return queue


register: dict[Queue, tuple[Any, ...]] = {}


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    yield
    register.clear()


def register_late(queue: Queue, name: str) -> None:
    for fn in register[queue]:
        if fn.__name__ == name:
            queue.task(name)(fn)


async def held(
    queue: Queue, handles: list[Handle[Any]], text: str = "last", **options: Any
) -> Handle[Any]:
    return await queue.options(after=handles, **options).enqueue(queue.task_of("last"), text)


@pytest.mark.parametrize("ttl", [0, HOUR])
@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("at", [0, 5, 10, 15, 19.5, 20, 30])
async def test_a_restart_at_every_step(
    disk: Any, clock: VirtualClock, at: float, crash: bool, ttl: float
) -> None:
    """Before, between and after the ends, and whatever is kept of them: it runs once, and is told all."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        work, options = queue.task_of("work"), {"result_ttl": ttl}
        handles: list[Handle[Any]] = [
            await queue.options(**options, delay=10).enqueue(queue.task_of("fail")),
            await queue.options(**options, delay=15).enqueue(work, "b", 4.75),
            await queue.options(**options, delay=20).enqueue(work, "c"),
        ]
        one = await held(queue, handles, delay=12)
        two = await held(queue, handles[1:], "strict", after_failure="cancel")
        three = await held(queue, [two, one], "three", delay=40)
        ids = [one.id, two.id, three.id]
        await clock.advance(at)
        if crash:
            disk.crash()
    await clock.advance(1)
    async with program(disk.store(), clock, ran) as queue:
        if at < 20:
            again = await queue.handle(ids[0])
            assert again is not None
            assert again.state is State.HELD
            assert queue.stats().held == 3
            assert {job.id async for job in queue.jobs(state="held")} == set(ids)
        await clock.advance(50)
        assert queue.stats().held == 0
        check_conservation(queue)
    wanted = [
        ("last", "failed", "succeeded", "succeeded"),
        ("strict", "succeeded", "succeeded"),
        ("three", "succeeded", "succeeded"),
    ]
    assert sorted(line for line in ran if isinstance(line, tuple)) == wanted


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("delay", [30, 5 * HOUR])
async def test_one_that_is_replaced(
    disk: Any, clock: VirtualClock, delay: float, crash: bool
) -> None:
    """The next process finds the newer call, near or far, and waits for that."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        work = queue.task_of("work")
        one = await queue.enqueue(work, "old", key="k", delay=10)
        await held(queue, [one])
        await queue.enqueue(work, "new", key="k", delay=delay)
        if crash:
            disk.crash()
    async with program(disk.store(), clock, ran) as queue:
        await clock.advance(delay - 1)
        await queue.enqueue(queue.task_of("work"), "newest", key="k", delay=10)
        await clock.advance(9)
        assert (ran, queue.stats().held) == ([], 1)
        await clock.advance(1)
        assert ran == ["newest", ("last", "succeeded")]
        check_conservation(queue)


@pytest.mark.parametrize("which", ["last", "work", "work last", "work fail last"])
@pytest.mark.parametrize("late", [0, 30, 3 * HOUR])
@pytest.mark.parametrize("ttl", [0, HOUR])
async def test_tasks_that_are_registered_late(
    disk: Any, clock: VirtualClock, which: str, late: float, ttl: float
) -> None:
    """An unknown task has not ended, and what ends before the held one is known is told to it."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        call = queue.options(result_ttl=ttl, delay=10)
        first = await call.enqueue(queue.task_of("work"), "first")
        second = await call.enqueue(queue.task_of("fail"))
        one = await held(queue, [first, second])
        await held(queue, [one, first], "two", after_failure="cancel")
        disk.crash()
    async with program(disk.store(), clock, ran, without=which) as queue:
        await clock.advance(late)
        assert ("last", "succeeded", "failed") not in ran
        check_conservation(queue)
        for name in which.split():
            register_late(queue, name)
            await clock.advance(1)
            check_conservation(queue)
        await clock.advance(20)
        assert ran == ["first", ("last", "succeeded", "failed"), ("two", "succeeded", "succeeded")]
        assert queue.stats().held == 0


@pytest.mark.parametrize("ttl", [0, HOUR])
async def test_ends_without_it_and_a_restart(disk: Any, clock: VirtualClock, ttl: float) -> None:
    """A deploy that does not know the held task writes down for it how the others ended."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        call = queue.options(result_ttl=ttl, delay=10)
        one = await call.enqueue(queue.task_of("work"), "first")
        await held(queue, [one], after_failure="cancel")
    async with program(disk.store(), clock, ran, without="last") as queue:
        await clock.advance(10)
        disk.crash()
    await clock.advance(2 * HOUR)
    async with program(disk.store(), clock, ran, without="last") as queue:
        await clock.advance(2 * HOUR)
        register_late(queue, "last")
        await clock.advance(0)
        assert ran == ["first", ("last", "succeeded")]
        check_conservation(queue)


async def test_a_row_that_nobody_knows_is_discarded(disk: Any, clock: VirtualClock) -> None:
    """Then it was dropped, and who waits for it is told; a held one that is discarded is gone."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        one = await queue.enqueue(queue.task_of("work"), "first", delay=10)
        two = await queue.options(after=[one]).enqueue(queue.task_of("work"), "second")
        await held(queue, [one])
        await held(queue, [two], "too")
        ids = one.id, two.id
    async with program(disk.store(), clock, ran, without="work") as queue:
        await clock.advance(20)
        assert queue.stats().held == 4
        for id in reversed(ids):
            assert await queue.discard(id)
        await clock.advance(0)
        assert sorted(ran) == [("last", "dropped"), ("too", "dropped")]
        assert queue.stats().held == 0
        check_conservation(queue)
    async with program(disk.store(), clock, ran) as queue:
        await clock.advance(20)
        assert len(ran) == 2


@pytest.mark.parametrize("crashes", [1, 3])
async def test_the_process_dies_while_one_runs(
    disk: Any, clock: VirtualClock, crashes: int
) -> None:
    """It runs again, and at the third time has failed; what waits for it waits for that."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        one = await queue.options(result_ttl=0).enqueue(queue.task_of("work"), "w", 50)
        await held(queue, [one])
        await clock.advance(1)
        disk.crash()
    for _ in range(crashes - 1):
        async with program(disk.store(), clock, ran) as queue:
            await clock.advance(1)
            assert queue.stats().held == 1
            disk.crash()
    async with program(disk.store(), clock, ran) as queue:
        await clock.advance(50)
        check_conservation(queue)
    assert ran[-1] == ("last", "succeeded" if crashes < 3 else "failed")


async def test_a_cancel_during_the_run_and_a_crash(disk: Any, clock: VirtualClock) -> None:
    """The run was cancelled, though its process died before it had stopped."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:

        @queue.task("stubborn")
        async def stubborn() -> None:
            try:
                await sleep(50)
            finally:
                await sleep(50)

        one = await queue.options(result_ttl=0).enqueue(stubborn)
        two = await held(queue, [one], "strict", after_failure="cancel")
        await held(queue, [one, two])
        await clock.advance(1)
        await one.cancel()
        disk.crash()
    queue = program(disk.store(), clock, ran)
    queue.task("stubborn")(stubborn.fn)
    async with queue:
        await clock.advance(1)
        check_conservation(queue)
    assert ran == [("last", "cancelled", "cancelled")]


async def test_what_is_changed_while_it_is_held(disk: Any, clock: VirtualClock) -> None:
    """Another eta, a cancel and a discard survive a crash; the options of the call do too."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        one = await queue.enqueue(queue.task_of("work"), "one", delay=10)
        moved = await held(queue, [one], "moved")
        strict = await held(queue, [moved], "never", key="k", expires=5, after_failure="cancel")
        gone = [await held(queue, [one], "gone") for _ in range(2)]
        assert await moved.reschedule(delay=100)
        assert await gone[0].cancel()
        assert await queue.discard(gone[1].id)
        disk.crash()
        ids = moved.id, strict.id
    async with program(disk.store(), clock, ran) as queue:
        handles = [await queue.handle(id) for id in ids]
        await clock.advance(99)
        assert ran == ["one"]
        assert handles[0] is not None
        assert handles[1] is not None
        assert await handles[0].cancel()
        assert handles[1].key == "k"
        with pytest.raises(JobCancelled, match="cancelled"):
            await handles[1]
        check_conservation(queue)


async def test_a_close_keeps_it(disk: Any, clock: VirtualClock) -> None:
    """Its waiters get `QueueClosed`; what the close ends has not ended for it."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        one = await queue.enqueue(queue.task_of("work"), "one", 50)
        strict = await held(queue, [one], after_failure="cancel")
        await clock.advance(1)
        waiter = asyncio.ensure_future(strict.result())
        await asyncio.sleep(0)
        await queue.close()
        with pytest.raises(QueueClosed, match="journal"):
            await waiter
        check_conservation(queue)
    async with program(disk.store(), clock, ran) as queue:
        await clock.advance(50)
    assert ran == ["one", "one", ("last", "succeeded")]


async def test_what_it_was_told_survives_its_own_crash(disk: Any, clock: VirtualClock) -> None:
    """`current().after` is the same at each attempt, and after a redrive in another process."""
    told: list[Any] = []

    def after() -> Queue:
        queue = program(disk.store(), clock, [])

        @queue.task("told", retry=2)
        async def tells() -> None:
            told.append([str(state) for state in current().after.values()])
            await sleep(50)
            raise OSError("again")

        return queue

    async with after() as queue:
        one = await queue.enqueue(queue.task_of("fail"))
        last = await queue.options(after=[one]).enqueue(queue.task_of("told"))
        await clock.advance(1)
        id = last.id
        disk.crash()
    async with after() as queue:
        await clock.advance(200)
        assert [job.id async for job in queue.jobs(state="failed", task="told")] == [id]
    async with after() as queue:
        await queue.redrive(id)
        await clock.advance(200)
        check_conservation(queue)
    assert told == [["failed"]] * 5


async def test_a_discard_of_what_is_only_a_row(disk: Any, clock: VirtualClock) -> None:
    """After a restart too it was dropped."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        one = await queue.enqueue(queue.task_of("work"), "one", delay=5 * HOUR)
        await held(queue, [one])
        id = one.id
    async with program(disk.store(), clock, ran) as queue:
        handle = await queue.handle(id)
        assert handle is not None
        assert await queue.discard(id)
        with pytest.raises(JobDropped):
            await handle
        await clock.advance(0)
        assert ran == [("last", "dropped")]
        check_conservation(queue)


async def test_a_row_that_cannot_be_read_is_replaced(disk: Any, clock: VirtualClock) -> None:
    """What waited for it waits for the newer call of its key, as it would have for any."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as queue:
        one = await queue.enqueue(queue.task_of("work"), "a text", key="k", delay=10)
        await held(queue, [one])
    queue = program(disk.store(), clock, ran, without="work")

    @queue.task("work")
    async def work(n: int) -> None:
        ran.append(n)

    async with queue:
        await clock.advance(20)
        assert (ran, queue.stats().held) == ([], 2)
        await queue.enqueue(work, 7, key="k", delay=10)
        await clock.advance(9)
        assert queue.stats().held == 1
        await clock.advance(1)
        assert ran == [7, ("last", "succeeded")]
        check_conservation(queue)
