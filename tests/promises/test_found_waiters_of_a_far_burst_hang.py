"""W1, D4: all who hold a call of a burst get its outcome, also when the newest is beyond the horizon."""

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import pytest

from asyncdefer import Queue, QueueClosed, State
from asyncdefer.stores._base import Command, Owner, Written
from asyncdefer.testing import VirtualClock

HOUR = 3600


def program(disk: Any, clock: VirtualClock, ran: list[int]) -> tuple[Queue, Any]:
    q = Queue(disk.store(), clock=clock)

    @q.task("note")
    async def note(n: int) -> int:
        ran.append(n)
        return n

    return q, note


async def others(q: Queue, note: Any) -> None:
    """Other calls come and go, so that no internal variable happens to hold the one in question."""
    for n in range(3):
        await q.enqueue(note, 90 + n, delay=50 * HOUR)
    gc.collect()


@pytest.mark.parametrize("first", [60, 2 * HOUR])
async def test_a_waiter_gets_the_outcome(disk: Any, clock: VirtualClock, first: float) -> None:
    ran: list[Any] = []
    q, note = program(disk, clock, ran)
    async with q:
        handle = await q.enqueue(note, 1, key="k", delay=first)
        await q.enqueue(note, 2, key="k", delay=2 * HOUR)  # nobody keeps this handle
        await others(q, note)
        waiter = asyncio.create_task(handle.result())
        await clock.advance(3 * HOUR)
        assert ran == [2]
        done, _ = await asyncio.wait([waiter], timeout=1)
        assert done and waiter.result() == 2


async def test_a_waiter_is_told_of_the_close(disk: Any, clock: VirtualClock) -> None:
    q, note = program(disk, clock, [])
    async with q:
        handle = await q.enqueue(note, 1, key="k", delay=60)
        waiter = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        await q.enqueue(note, 2, key="k", delay=2 * HOUR)
        await others(q, note)
    done, _ = await asyncio.wait([waiter], timeout=1)
    assert done
    with pytest.raises(QueueClosed):
        waiter.result()


async def test_a_replaced_handle_cancels_the_live_job(disk: Any, clock: VirtualClock) -> None:
    ran: list[Any] = []
    q, note = program(disk, clock, ran)
    async with q:
        handle = await q.enqueue(note, 1, key="k", delay=2 * HOUR)
        await q.enqueue(note, 2, key="k", delay=2 * HOUR)
        await others(q, note)
        assert handle.state is State.SCHEDULED
        assert await handle.cancel()
        await clock.advance(3 * HOUR)
        assert ran == []


async def test_rescheduled_by_an_older_handle(disk: Any, clock: VirtualClock) -> None:
    ran: list[Any] = []
    q, note = program(disk, clock, ran)
    async with q:
        handle = await q.enqueue(note, 1, key="k", delay=60)
        await q.enqueue(note, 2, key="k", delay=60)
        assert await handle.reschedule(delay=2 * HOUR)
        await others(q, note)
        waiter = asyncio.create_task(handle.result())
        await clock.advance(3 * HOUR)
        assert ran == [2]
        done, _ = await asyncio.wait([waiter], timeout=1)
        assert done and waiter.result() == 2


async def test_a_refused_far_call_over_a_far_one(clock: VirtualClock) -> None:
    """guarantees.md: "A call that was refused and had replaced an older one of its key leaves that one in its place."

    The row of the older comes in again by its key (`_adopt`), as a Call that nobody holds: the same hole.
    """
    from asyncdefer import JournalFull, MemoryStore
    from asyncdefer.stores._base import Add

    class Full(MemoryStore):
        full = False

        async def write(
            self, owner: Owner, commands: Sequence[Command], *, within: Any = None
        ) -> Written:
            if self.full and any(isinstance(change, Add) for one in commands for change in one):
                raise JournalFull("full")
            return await super().write(owner, commands, within=within)

    store, ran = Full(), list[int]()
    q = Queue(store, clock=clock)

    @q.task("note")
    async def note(n: int) -> int:
        ran.append(n)
        return n

    async with q:
        handle = await q.enqueue(note, 1, key="k", delay=2 * HOUR)
        waiter = asyncio.create_task(handle.result())
        await asyncio.sleep(0)
        store.full = True
        with pytest.raises(JournalFull):
            await q.enqueue(note, 2, key="k", delay=3 * HOUR)
        store.full = False
        await clock.advance(1)
        assert handle.state is State.SCHEDULED
        await clock.advance(3 * HOUR)
        assert ran == [1]
        done, _ = await asyncio.wait([waiter], timeout=1)
        assert done and waiter.result() == 1
