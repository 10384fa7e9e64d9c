"""A bug that a kill at a random moment has found, by its smallest program."""

import asyncio
from typing import Any

from asyncdefer import Queue
from asyncdefer.stores._base import Owner, Row
from asyncdefer.stores.memory import MemoryStore
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


async def test_a_call_that_is_replaced_during_a_look_up(defer_clock: VirtualClock) -> None:
    """D2, J4: a handle that was looked up cancels the call that waits, or says that it did not.

    Rows whose ids are still to be written are thrown away when a claim arrives. The row of a far
    call that a newer one replaces meanwhile is none of these: only the newer id is. So `_adopt`
    takes the replaced row in, in place of the newer call, and what is done to it then (cancel,
    flush, reschedule) returns True and has no effect.
    """
    store = SlowStore()
    queue = Queue(store, clock=defer_clock)
    ran: list[int] = []

    @queue.task("job")
    async def job(n: int) -> None:
        ran.append(n)

    async with queue:
        number = (await queue.enqueue(job, 1, key="k", delay=10 * HOUR)).id
    async with queue:  # the next day
        store.gate, store.answered = asyncio.Event(), asyncio.Event()
        looking = asyncio.create_task(queue.handle(number))
        await store.answered.wait()
        newer = queue.enqueue_nowait(job, 2, key="k", delay=10 * HOUR)
        store.gate.set()
        found = await looking
        store.gate = None
        await newer.accepted()
        cancelled = found is not None and await found.cancel()
        await defer_clock.advance(11 * HOUR)
        assert ran == ([] if cancelled else [2]), f"cancel() said {cancelled}, and {ran} ran"
