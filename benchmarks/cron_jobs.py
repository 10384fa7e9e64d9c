"""Jobs that repeat by cron, each in a schedule of its own: to begin them, and to run each of them ten times.

Time is virtual for both, so that nothing waits. The floor keeps an iterator of the same cron library for each, a heap of the next times, and starts a
task for each run: no keys, no zones (it goes by UTC), no limit, no results.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from heapq import heapify, heapreplace
from typing import Any

from cronsim import CronSim
from stage import Figures, Job, Stopwatch, main

START = datetime(2027, 1, 1, tzinfo=UTC)
TIMES = 10


def figures(begun: Stopwatch, ran: Stopwatch, job: Job) -> Figures:
    return {
        "begin_rate": job.n / begun.cpu,
        "cpu_rate": job.n * TIMES / ran.cpu,
    }


async def floor(job: Job) -> Figures:
    ran = 0

    async def fn() -> None:
        nonlocal ran
        ran += 1

    with Stopwatch() as begun:
        heap = []
        for i in range(job.n):
            times = CronSim("* * * * *", START)
            heap.append((next(times), i, times))
        heapify(heap)
    with Stopwatch() as running:
        tasks: list[Any] = []
        while heap[0][0] <= START + timedelta(minutes=TIMES):
            _, i, times = heap[0]
            tasks.append(asyncio.create_task(fn()))
            heapreplace(heap, (next(times), i, times))
            if len(tasks) == 100:
                await asyncio.gather(*tasks)
                tasks.clear()
        await asyncio.gather(*tasks)
    check(ran, job)
    return figures(begun, running, job)


async def ours(job: Job) -> Figures:
    return await _ours(job, "UTC")


async def ours_paris(job: Job) -> Figures:
    """The same by the clocks of a place that changes them."""
    return await _ours(job, "Europe/Paris")


async def _ours(job: Job, tz: str) -> Figures:
    from asyncdefer import Cron, Queue
    from asyncdefer.testing import virtual

    ran = 0
    queue = Queue()

    @queue.task
    async def fn() -> None:
        nonlocal ran
        ran += 1

    async with virtual(queue, start=START) as clock:
        with Stopwatch() as begun:
            for i in range(job.n):
                await fn.options(repeat=Cron("* * * * *", tz=tz), key=str(i)).enqueue()
        with Stopwatch() as running:
            await clock.advance(timedelta(minutes=TIMES))
        check(ran, job)
        return figures(begun, running, job)


async def apscheduler(job: Job) -> Figures:
    """Only to begin them: its clock cannot be moved."""
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    def fn() -> None: ...

    scheduler: Any = AsyncIOScheduler(timezone=UTC)
    scheduler.start()
    with Stopwatch() as begun:
        for i in range(job.n):
            scheduler.add_job(fn, "cron", minute="*", id=str(i))
    return {"begin_rate": job.n / begun.cpu}


def check(ran: int, job: Job) -> None:
    if ran != job.n * TIMES:
        raise AssertionError(f"{ran} runs, not {job.n * TIMES}")


if __name__ == "__main__":
    main({"floor": floor, "ours": ours, "ours_paris": ours_paris, "apscheduler": apscheduler})
