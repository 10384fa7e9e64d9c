"""W1 and C1, where rows come in late: nobody hangs on what a look-up brings in while the queue closes."""

import asyncio
from typing import Any

import pytest

from asyncdefer import MemoryStore, Queue, QueueClosed
from asyncdefer.stores._base import Owner, Row
from asyncdefer.testing import VirtualClock

HOUR = 3_600


class SlowStore(MemoryStore):
    """A claim has been answered, and the answer is still on its way."""

    gate: asyncio.Event | None = None
    answered: asyncio.Event

    async def claim(self, owner: Owner, **asked: Any) -> list[Row]:
        rows = await super().claim(owner, **asked)
        if self.gate is not None and asked.get("ids"):
            self.answered.set()
            await self.gate.wait()
        return rows


async def test_a_look_up_during_the_close(clock: VirtualClock) -> None:
    """It is told that the queue is closed."""
    store = SlowStore()
    queue = Queue(store, clock=clock)

    @queue.task("job")
    async def job() -> None: ...

    async with queue:
        number = (await queue.enqueue(job, delay=10 * HOUR)).id
    await queue.start()  # the next day
    store.gate, store.answered = asyncio.Event(), asyncio.Event()
    looking = asyncio.create_task(queue.handle(number))
    await store.answered.wait()
    closing = asyncio.create_task(queue.close())
    for _ in range(20):
        await asyncio.sleep(0)
    store.gate.set()
    with pytest.raises(QueueClosed):
        await looking
    await closing
    store.gate = None
    async with queue:
        found = await queue.handle(number)
        assert found is not None
        assert await found.cancel()
