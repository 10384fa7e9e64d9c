"""W1, C1: the close settles those who wait for a call that a refused one had replaced."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import pytest

from asyncdefer import JournalError, JournalFull, MemoryStore, Queue, QueueClosed
from asyncdefer.stores._base import Add, Command, Owner, Written


class Broken(MemoryStore):
    gone = full = False

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        if self.gone or (
            self.full and any(isinstance(change, Add) for one in commands for change in one)
        ):
            raise JournalFull("no")
        return await super().write(owner, commands, within=within)

    async def claim(self, *args: Any, **options: Any) -> Any:
        if self.gone:
            raise JournalError("gone")
        return await super().claim(*args, **options)


@pytest.mark.parametrize("how", ["gone", "full"])
async def test_the_older_call_s_waiters(how: str) -> None:
    store = Broken()
    queue = Queue(store, drain_timeout=0)

    @queue.task("note", defer=True, delay=100)
    async def note() -> None: ...

    await queue.start()
    handle = await note.enqueue()
    waiter = asyncio.create_task(handle.result())
    await asyncio.sleep(0)
    setattr(store, how, True)
    with contextlib.suppress(JournalError):
        await note.enqueue()
    await asyncio.wait_for(queue.close(), 20)
    done, _ = await asyncio.wait([waiter], timeout=2)
    assert done, "the waiter hangs"
    with pytest.raises(QueueClosed):
        waiter.result()
