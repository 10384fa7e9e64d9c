"""J1. `enqueue` returns after the commit, and what it acknowledged is never lost."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncdefer import Queue, State
from asyncdefer.testing import VirtualClock, check_conservation


def program(disk: Any, clock: VirtualClock, ran: list[Any]) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("note")
    async def note(text: str) -> str:
        ran.append(text)
        return text

    @queue.task("latest", defer=["name"], delay=60)
    async def latest(name: str, text: str) -> str:
        ran.append(text)
        return text

    return queue


@pytest.mark.parametrize("delay", [0, 1, 3600, 400 * 86_400])
async def test_what_was_acknowledged_runs_after_a_crash(
    disk: Any, clock: VirtualClock, delay: float
) -> None:
    """However far its eta is."""
    ran: list[str] = []
    async with program(disk, clock, []) as first:
        first.pause()
        await first.enqueue(first.task_of("note"), "kept", delay=delay)
        disk.crash()
    async with program(disk, clock, ran) as queue:
        await clock.advance(delay)
        assert ran == ["kept"]
        check_conservation(queue)


async def test_a_thousand_callers_at_once(disk: Any, clock: VirtualClock) -> None:
    """Each of them is acknowledged by the commit that has its call."""
    ran: list[str] = []
    async with program(disk, clock, []) as first:
        note = first.task_of("note")
        calls = [first.enqueue(note, str(n), delay=60) for n in range(1_000)]
        await asyncio.gather(*calls)
        disk.crash()
    async with program(disk, clock, ran):
        await clock.advance(60)
    assert ran == [str(n) for n in range(1_000)]


async def test_bulk_is_acknowledged_by_accepted(disk: Any, clock: VirtualClock) -> None:
    """`enqueue_nowait` does not wait; `accepted()` does."""
    ran: list[str] = []
    async with program(disk, clock, []) as first:
        note = first.task_of("note")
        handles = [first.enqueue_nowait(note, str(n), delay=60) for n in range(100)]
        for handle in handles:
            assert await handle.accepted() is handle
        disk.crash()
    async with program(disk, clock, ran):
        await clock.advance(60)
    assert len(ran) == 100


async def test_a_close_leaves_what_waits_for_the_next_start(disk: Any, clock: VirtualClock) -> None:
    """Its waiters are told that the job is in the journal."""
    ran: list[str] = []
    async with program(disk, clock, ran) as first:
        handle = await first.enqueue(first.task_of("note"), "later", delay=60)
        waiter = asyncio.ensure_future(handle.result())
        await asyncio.sleep(0)
    with pytest.raises(Exception, match="in the journal"):
        await waiter
    async with program(disk, clock, ran) as queue:
        again = await queue.handle(handle.id)
        assert again is not None
        assert again.state is State.SCHEDULED
        await clock.advance(60)
        assert await again == "later"
    assert ran == ["later"]


async def test_the_latest_call_of_a_key_survives(disk: Any, clock: VirtualClock) -> None:
    """Of a burst the newest call is there after a crash, and no other."""
    ran: list[str] = []
    async with program(disk, clock, []) as first:
        for text in "abc":
            await first.enqueue(first.task_of("latest"), "k", text)
        disk.crash()
    async with program(disk, clock, ran) as queue:
        assert [job.arguments["text"] async for job in queue.jobs()] == ["c"]
        await queue.enqueue(queue.task_of("latest"), "k", "d")
        disk.crash()
        await clock.advance(60)
    assert ran == ["d"]
    async with program(disk, clock, ran):
        await clock.advance(60)
    assert ran == ["d", "d"]


async def test_the_eta_is_kept_to_the_microsecond(disk: Any, clock: VirtualClock) -> None:
    """An eta is an instant, and a delay becomes the one it had."""
    async with program(disk, clock, []) as first:
        note = first.task_of("note")
        eta = datetime(2027, 3, 28, 1, 2, 3, 456789, tzinfo=UTC)
        by_eta = await first.enqueue(note, "a", eta=eta)
        by_delay = await first.enqueue(note, "b", delay=timedelta(days=3, microseconds=1))
        wanted = by_delay.eta
        disk.crash()
    async with program(disk, clock, []) as queue:
        found = [await queue.handle(handle.id) for handle in (by_eta, by_delay)]
        assert [handle.eta for handle in found if handle is not None] == [eta, wanted]


async def test_ids_grow_though_the_clock_went_back(disk: Any, clock: VirtualClock) -> None:
    """No id comes twice, also not in the next process."""
    async with program(disk, clock, []) as first:
        before = await first.enqueue(first.task_of("note"), "a", delay=60)
        disk.crash()
    clock.step(-86_400)
    async with program(disk, clock, []) as queue:
        after = await queue.enqueue(queue.task_of("note"), "b", delay=60)
        assert int(after.id) > int(before.id)
