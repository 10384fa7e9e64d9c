"""J1: a far call under the key of a schedule, made while a run of that is under way, is not lost."""

import asyncio
from typing import Any

from asyncdefer import Every, Queue, sleep
from asyncdefer.testing import VirtualClock

HOUR = 3600


async def test_a_far_call_during_a_run_of_a_schedule(disk: Any, clock: VirtualClock) -> None:
    ran: list[Any] = []
    queue = Queue(disk.store(), clock=clock)

    @queue.task("slow")
    async def slow(n: int) -> int:
        ran.append(n)
        await sleep(100)
        return n

    async with queue:
        await slow.options(repeat=Every(200), key="k").enqueue(1)
        await clock.advance(210)  # its first run is under way
        handle = await queue.enqueue(slow, 2, key="k", delay=2 * HOUR)
        waiter = asyncio.create_task(handle.result())
        await clock.advance(3 * HOUR)
        assert 2 in ran
        done, _ = await asyncio.wait([waiter], timeout=1)
        assert done and waiter.result() == 2
