"""J9: the error of a refused call is its caller's, and nobody else's."""

from collections.abc import Sequence
from typing import Any

import pytest

from asyncdefer import JournalFull, Queue
from asyncdefer.stores._base import Add, Command, Owner, Set, Written
from asyncdefer.testing import VirtualClock


class Trouble:
    """A real store that fails to write changes of some types."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.types: tuple[type, ...] = ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        if any(isinstance(change, self.types) for command in commands for change in command):
            raise JournalFull("no room")
        written: Written = await self._store.write(owner, commands, within=within)
        return written


async def test_who_asks_after_a_refused_call(disk: Any, clock: VirtualClock) -> None:
    """The listing and the others do not hear of it; they do of what is still to be written."""
    store: Any = Trouble(disk.store())
    queue = Queue(store, clock=clock)

    @queue.task("note")
    async def note(n: int) -> int:
        return n

    async with queue:
        handle = await queue.enqueue(note, 1, delay=60)
        store.types = (Add,)
        with pytest.raises(JournalFull):
            await queue.enqueue(note, 2, delay=60)
        assert len([job async for job in queue.jobs()]) == 1
        assert await queue.discard("123") is False
        store.types = (Add, Set)
        with pytest.raises(JournalFull):
            await handle.cancel()
        with pytest.raises(JournalFull):
            await queue.enqueue(note, 3, delay=60)
        with pytest.raises(JournalFull):
            _ = [job async for job in queue.jobs()]
        store.types = ()
        await queue.enqueue(note, 4, delay=60)
        assert len([job async for job in queue.jobs(state="scheduled")]) == 1
