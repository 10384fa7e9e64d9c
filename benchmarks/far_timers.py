"""Calls far in the future, accepted one after another, and what each of them weighs while it waits.

The handles are dropped at once, as most programs do. Closing is not part of it.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from stage import Figures, Job, Stopwatch, main, resident

FAR = 3600


async def fn(i: int) -> int:
    return i


async def weight(job: Job, before: float) -> float:
    """Bytes of memory for each waiting call, once the loop has had a turn."""
    await asyncio.sleep(0.01)
    return (resident() - before) / job.n


async def floor(job: Job) -> Figures:
    loop = asyncio.get_running_loop()
    before = resident()
    with Stopwatch() as watch:
        for i in range(job.n):
            loop.call_later(FAR, fn, i)
    return watch.rates(job.n) | {"bytes": await weight(job, before)}


async def sleeping(job: Job) -> Figures:
    """A task asleep for each call: what many programs have today."""

    async def sleeper(i: int) -> int:
        await asyncio.sleep(FAR)
        return await fn(i)

    tasks: set[asyncio.Task[int]] = set()
    before = resident()
    with Stopwatch() as watch:
        for i in range(job.n):
            tasks.add(asyncio.create_task(sleeper(i)))
        await asyncio.sleep(0)  # each goes to sleep in its first step
    return watch.rates(job.n) | {"bytes": await weight(job, before)}


async def ours(job: Job) -> Figures:
    from asyncdefer import Queue

    async with Queue() as queue:
        before = resident()
        with Stopwatch() as watch:
            for i in range(job.n):
                await queue.enqueue(fn, i, delay=FAR)
        return watch.rates(job.n) | {"bytes": await weight(job, before)}


async def ours_task(job: Job) -> Figures:
    """The same with a registered task, whose arguments are typed."""
    from asyncdefer import Queue

    queue = Queue()
    task = queue.task(delay=FAR)(fn)
    async with queue:
        before = resident()
        with Stopwatch() as watch:
            for i in range(job.n):
                await task.enqueue(i)
        return watch.rates(job.n) | {"bytes": await weight(job, before)}


async def ours_nowait(job: Job) -> Figures:
    """The same without waiting for the acceptance, for bulk loading."""
    from asyncdefer import Queue

    async with Queue() as queue:
        before = resident()
        with Stopwatch() as watch:
            for i in range(job.n):
                queue.enqueue_nowait(fn, i, delay=FAR)
        return watch.rates(job.n) | {"bytes": await weight(job, before)}


async def apscheduler(job: Job) -> Figures:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    scheduler: Any = AsyncIOScheduler(timezone=UTC)
    scheduler.start()
    before = resident()
    with Stopwatch() as watch:
        for i in range(job.n):
            scheduler.add_job(
                fn, "date", run_date=datetime.now(UTC) + timedelta(seconds=FAR), args=(i,)
            )
            if not i % 100:
                await asyncio.sleep(
                    0
                )  # each call leaves a wake-up with the loop, which would count as weight
    return watch.rates(job.n) | {"bytes": await weight(job, before)}


async def huey(job: Job) -> Figures:
    """Its enqueue only: moving the call to the schedule is the consumer's work and comes on top."""
    from huey import MemoryHuey

    def plain(i: int) -> int:  # it takes no coroutine functions
        return i

    task: Any = MemoryHuey().task()(plain)
    before = resident()
    with Stopwatch() as watch:
        for i in range(job.n):
            task.schedule(args=(i,), delay=FAR)
    return watch.rates(job.n) | {"bytes": await weight(job, before)}


async def docket(job: Job) -> Figures:
    from docket import Docket

    async with Docket(name="bench", url="memory://") as queue:
        queue.register(fn)
        before = resident()
        with Stopwatch() as watch:
            for i in range(job.n):
                await queue.add(fn, when=datetime.now(UTC) + timedelta(seconds=FAR))(i)
        return watch.rates(job.n) | {"bytes": await weight(job, before)}


if __name__ == "__main__":
    main(
        {
            "floor": floor,
            "sleeping": sleeping,
            "ours": ours,
            "ours_task": ours_task,
            "ours_nowait": ours_nowait,
            "apscheduler": apscheduler,
            "huey": huey,
            "docket": docket,
        }
    )
