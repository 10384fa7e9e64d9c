"""D4: who waits for a far call gets the outcome of the schedule that takes its key."""

import asyncio
from typing import Any

from asyncdefer import Every, Queue
from asyncdefer.testing import VirtualClock, check_conservation

HOUR = 3600


async def test_waiters_follow(disk: Any, clock: VirtualClock) -> None:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("note")
    async def note(n: int) -> int:
        return n

    async with queue:
        handle = await queue.enqueue(note, 2, key="k", delay=2 * HOUR)
        waiter = asyncio.create_task(handle.result())
        await note.options(repeat=Every(200), key="k").enqueue(1)
        await clock.advance(300)
        done, _ = await asyncio.wait([waiter], timeout=1)
        assert done and waiter.result() == 1
        check_conservation(queue)
