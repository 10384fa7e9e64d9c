"""One job at a time: enqueue, await the result, and only then the next. What a request that waits for its job feels.

The floor awaits a task of its own for each call.
"""

from __future__ import annotations

import asyncio

from stage import Figures, Job, Stopwatch, main


async def fn(i: int) -> int:
    return i


async def floor(job: Job) -> Figures:
    with Stopwatch() as watch:
        for i in range(job.n):
            await asyncio.create_task(fn(i))
    return watch.rates(job.n)


async def ours(job: Job) -> Figures:
    from asyncdefer import Queue

    async with Queue() as queue:
        with Stopwatch() as watch:
            for i in range(job.n):
                await (await queue.enqueue(fn, i))
        return watch.rates(job.n)


async def ours_task(job: Job) -> Figures:
    from asyncdefer import Queue

    queue = Queue()
    task = queue.task(fn)
    async with queue:
        with Stopwatch() as watch:
            for i in range(job.n):
                await (await task.enqueue(i))
        return watch.rates(job.n)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours, "ours_task": ours_task})
