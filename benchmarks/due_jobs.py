"""Calls that are due at once, from the enqueue to the awaited result.

The floor starts a task for each and gathers them all. It has no limit on how many run at once, no timers and no keys.
"""

from __future__ import annotations

import asyncio
from typing import Any

from stage import Figures, Job, Stopwatch, main


async def fn(i: int) -> int:
    return i


def check(results: list[int], n: int) -> None:
    if results != list(range(n)):
        raise AssertionError("a result is missing or in another one's place")


async def floor(job: Job) -> Figures:
    with Stopwatch() as watch:
        tasks = [asyncio.create_task(fn(i)) for i in range(job.n)]
        results = await asyncio.gather(*tasks)
    check(results, job.n)
    return watch.rates(job.n)


async def _ours(job: Job, concurrency: int) -> Figures:
    from asyncdefer import Queue

    async with Queue(concurrency=concurrency) as queue:
        with Stopwatch() as watch:
            handles = [await queue.enqueue(fn, i) for i in range(job.n)]
            results = [await handle for handle in handles]
        check(results, job.n)
        return watch.rates(job.n)


async def ours(job: Job) -> Figures:
    return await _ours(job, 100)


async def ours_1000(job: Job) -> Figures:
    return await _ours(job, 1000)


async def ours_task(job: Job) -> Figures:
    """The same with a registered task, concurrency as by default."""
    from asyncdefer import Queue

    queue = Queue()
    task = queue.task(fn)
    async with queue:
        with Stopwatch() as watch:
            handles = [await task.enqueue(i) for i in range(job.n)]
            results = [await handle for handle in handles]
        check(results, job.n)
        return watch.rates(job.n)


async def apscheduler(job: Job) -> Figures:
    """It hands out no results: the last run ends the measurement."""
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    results: list[int] = []
    done = asyncio.Event()

    async def collecting(i: int) -> None:
        results.append(await fn(i))
        if len(results) == job.n:
            done.set()

    scheduler: Any = AsyncIOScheduler(job_defaults={"misfire_grace_time": None})
    scheduler.start()
    with Stopwatch() as watch:
        for i in range(job.n):
            scheduler.add_job(collecting, args=(i,))
        await done.wait()
    check(sorted(results), job.n)
    return watch.rates(job.n)


async def aiojobs(job: Job) -> Figures:
    from aiojobs import Scheduler

    scheduler: Any = Scheduler(limit=100, pending_limit=0)
    with Stopwatch() as watch:
        spawned = [await scheduler.spawn(fn(i)) for i in range(job.n)]
        results = [await each.wait() for each in spawned]
    check(results, job.n)
    return watch.rates(job.n)


async def huey(job: Job) -> Figures:
    """Its consumer's loop without the consumer's threads, which is faster than with them."""
    from huey import MemoryHuey

    queue: Any = MemoryHuey()

    @queue.task()
    def task(i: int) -> int:
        return i

    with Stopwatch() as watch:
        handles = [task(i) for i in range(job.n)]
        while (message := queue.dequeue()) is not None:
            queue.execute(message)
        results = [handle.get() for handle in handles]
    check(results, job.n)
    return watch.rates(job.n)


async def docket(job: Job) -> Figures:
    from docket import Docket, Worker

    async with (
        Docket(name="bench", url="memory://") as queue,
        Worker(queue, concurrency=100) as worker,
    ):
        queue.register(fn)
        running = asyncio.create_task(worker.run_forever())
        with Stopwatch() as watch:
            executions = [await queue.add(fn)(i) for i in range(job.n)]
            results = [await execution.get_result() for execution in executions]
        check(results, job.n)
        running.cancel()
        return watch.rates(job.n)


if __name__ == "__main__":
    main(
        {
            "floor": floor,
            "ours": ours,
            "ours_1000": ours_1000,
            "ours_task": ours_task,
            "apscheduler": apscheduler,
            "aiojobs": aiojobs,
            "huey": huey,
            "docket": docket,
        }
    )
