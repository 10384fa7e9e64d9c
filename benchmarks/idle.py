"""What it costs to wait: processor time and wake-ups while nothing is due for an hour."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from stage import Figures, Job, Window, main, resident

FAR = 3600


async def fn(i: int) -> int:
    return i


async def idle(job: Job) -> Figures:
    await asyncio.sleep(0.5)
    resident()
    window = Window()
    await asyncio.sleep(job.window)
    return {
        "cpu_per_s": window.cpu() * 1e3 / job.window,
        "wakes_per_s": window.wakes() / job.window,
    }


async def floor(job: Job) -> Figures:
    loop = asyncio.get_running_loop()
    for i in range(job.n):
        loop.call_later(FAR, fn, i)
    return await idle(job)


async def ours(job: Job) -> Figures:
    """Half of them by `delay` and half by `eta`: only the latter have to notice when the wall clock is set."""
    from asyncdefer import Queue

    async with Queue() as queue:
        for i in range(job.n):
            if i % 2:
                await queue.enqueue(fn, i, delay=FAR)
            else:
                await queue.enqueue(fn, i, eta=datetime.now(UTC) + timedelta(seconds=FAR))
        return await idle(job)


async def ours_delay(job: Job) -> Figures:
    from asyncdefer import Queue

    async with Queue() as queue:
        for i in range(job.n):
            await queue.enqueue(fn, i, delay=FAR)
        return await idle(job)


async def apscheduler(job: Job) -> Figures:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    scheduler: Any = AsyncIOScheduler(timezone=UTC)
    scheduler.start()
    for i in range(job.n):
        scheduler.add_job(
            fn, "date", run_date=datetime.now(UTC) + timedelta(seconds=FAR), args=(i,)
        )
    return await idle(job)


async def docket(job: Job) -> Figures:
    from docket import Docket, Worker

    async with Docket(name="bench", url="memory://") as queue, Worker(queue) as worker:
        queue.register(fn)
        for i in range(job.n):
            await queue.add(fn, when=datetime.now(UTC) + timedelta(seconds=FAR))(i)
        running = asyncio.create_task(worker.run_forever())
        figures = await idle(job)
        running.cancel()
        return figures


if __name__ == "__main__":
    main(
        {
            "floor": floor,
            "ours": ours,
            "ours_delay": ours_delay,
            "apscheduler": apscheduler,
            "docket": docket,
        }
    )
