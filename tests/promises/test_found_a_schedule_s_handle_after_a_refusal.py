"""J9: a call that was refused has not ended the schedule whose key it has."""

from collections.abc import Sequence
from typing import Any

import pytest

from asyncdefer import Every, JournalFull, MemoryStore, Queue
from asyncdefer.stores._base import Add, Command, Owner, Written
from asyncdefer.testing import VirtualClock


class Full(MemoryStore):
    full = False

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        if self.full and any(isinstance(change, Add) for one in commands for change in one):
            raise JournalFull("full")
        return await super().write(owner, commands, within=within)


async def test_it_still_stands_for_the_schedule(clock: VirtualClock) -> None:
    store, ran = Full(), list[int]()
    queue = Queue(store, clock=clock)

    @queue.task("note")
    async def note(n: int) -> None:
        ran.append(n)

    async with queue:
        handle = await note.options(repeat=Every(60), key="k").enqueue(1)
        await clock.advance(61)
        store.full = True
        with pytest.raises(JournalFull):
            await queue.enqueue(note, 2, key="k", delay=30)
        store.full = False
        await clock.advance(120)
        assert ran == [1, 1, 1]
        assert not handle.done()
        assert await handle.cancel()
        await clock.advance(120)
        assert ran == [1, 1, 1]
