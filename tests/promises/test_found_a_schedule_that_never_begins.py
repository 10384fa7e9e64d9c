"""J9: a schedule that cannot be recorded when the queue starts is an error of the start."""

from typing import Any

import pytest

from asyncdefer import Every, JournalFull, MemoryStore, Queue, QueueClosed
from asyncdefer.stores._base import Add, Command, Owner, Written
from asyncdefer.testing import VirtualClock


class Full(MemoryStore):
    """It takes no calls while it is full."""

    full = True

    async def write(self, owner: Owner, commands: Any, *, within: Any = None) -> Written:
        changes: list[Command] = list(commands)
        if self.full and any(isinstance(change, Add) for one in changes for change in one):
            raise JournalFull("full")
        return await super().write(owner, commands, within=within)


async def test_the_queue_is_not_started(clock: VirtualClock) -> None:
    """It lets go of its journal; started again when there is room, it has the schedule."""
    store, ran = Full(), list[int]()
    queue = Queue(store, clock=clock)

    @queue.task("tick", repeat=Every(60))
    async def tick() -> None:
        ran.append(1)

    with pytest.raises(JournalFull):
        await queue.start()
    assert not store._leases
    with pytest.raises(QueueClosed):
        await tick.enqueue()
    store.full = False
    async with queue:
        await clock.advance(130)
    assert len(ran) == 2


async def test_a_schedule_that_is_there_needs_no_room(clock: VirtualClock) -> None:
    """A journal that is full holds up no start of a program that has nothing new in it."""
    store, ran = Full(), list[int]()
    queue = Queue(store, clock=clock)

    @queue.task("tick", repeat=Every(60))
    async def tick() -> None:
        ran.append(1)

    store.full = False
    async with queue:
        await clock.advance(70)
    store.full = True
    async with queue:
        store.full = False
        await clock.advance(60)
    assert len(ran) == 2
