"""Far timers in no order: each at a random time of the next hours.

With one delay for all, every timer is due after those before it, which is kind to any queue. Here it is not.
"""

from __future__ import annotations

import asyncio
from random import Random

from far_timers import fn, weight
from stage import Figures, Job, Stopwatch, main, resident


def delays(job: Job) -> list[float]:
    random = Random(7)
    return [random.uniform(3600, 7200) for _ in range(job.n)]


async def floor(job: Job) -> Figures:
    loop = asyncio.get_running_loop()
    times = delays(job)
    before = resident()
    with Stopwatch() as watch:
        for i, delay in enumerate(times):
            loop.call_later(delay, fn, i)
    return watch.rates(job.n) | {"bytes": await weight(job, before)}


async def ours(job: Job) -> Figures:
    from asyncdefer import Queue

    times = delays(job)
    async with Queue() as queue:
        before = resident()
        with Stopwatch() as watch:
            for i, delay in enumerate(times):
                await queue.enqueue(fn, i, delay=delay)
        return watch.rates(job.n) | {"bytes": await weight(job, before)}


if __name__ == "__main__":
    main({"floor": floor, "ours": ours})
