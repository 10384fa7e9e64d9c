"""W4, with a journal: a run that is cancelled between its start and its first step leaves nothing to look after.

It stayed among those whose first step is waited for, and the event loop turned without rest until the close.
"""

import asyncio
from typing import Any

from asyncdefer import Queue
from asyncdefer.testing import VirtualClock


async def test_it_is_looked_after_no_longer(disk: Any, clock: VirtualClock) -> None:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("work")
    async def work() -> None: ...

    async with queue:
        scheduler: Any = queue._scheduler
        for turns in range(30):
            handle = queue.enqueue_nowait(work)
            for _ in range(turns):
                await asyncio.sleep(0)
            await handle.cancel()
        for _ in range(50):
            handle = queue.enqueue_nowait(work)
            for _ in range(10_000):  # a journal on a disk takes as many turns as it takes
                if scheduler._launched or handle.done():
                    break
                await asyncio.sleep(0)
            await handle.cancel()
        await clock.advance(1)
        assert scheduler._launched == []
