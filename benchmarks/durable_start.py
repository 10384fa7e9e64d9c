"""From the start of a queue to its first job, with so many waiting timers in the journal, and what they take in memory.

The etas lie over a day, the first ones are overdue. The floor is the same with one timer. The file was closed well, and its pages are in the
system's cache.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import disk
from durable_calls import make
from stage import Figures, Job, main, resident


async def fill(path: Path, count: int) -> None:
    queue, fn = make(path)
    queue.pause()
    async with queue:
        for i in range(count):
            handle = queue.enqueue_nowait(fn, i, delay=i * 86_400 / count)
            if i % 10_000 == 9_999:
                await handle.accepted()
        await handle.accepted()


async def measured(count: int) -> Figures:
    with disk.folder() as path:
        await fill(path, count)
        queue, _ = make(path)
        before = resident()
        ran: asyncio.Future[float] = asyncio.get_running_loop().create_future()

        def first(event: object) -> None:
            if getattr(event, "name", "") == "job_succeeded" and not ran.done():
                ran.set_result(time.perf_counter())

        queue.subscribe(first)
        begun = time.perf_counter()
        await queue.start()
        at = await ran
        await asyncio.sleep(1)
        return {"ms": (at - begun) * 1e3, "mb": (resident() - before) / 1e6}


async def floor(job: Job) -> Figures:
    return await measured(1)


async def ours(job: Job) -> Figures:
    return await measured(job.n)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours})
