"""Jobs that are accepted, run and recorded, by a thousand callers of whom each awaits its results.

The floor does three executemany for a thousand rows: accepted, started, ended.
"""

from __future__ import annotations

import asyncio

import disk
from durable_calls import CALLERS, make
from stage import Figures, Job, Stopwatch, main


async def floor(job: Job) -> Figures:
    with disk.folder() as path:
        file = disk.connect(path / "floor.db")
        rows = disk.rows(1, job.n)
        with Stopwatch() as watch:
            disk.run(file, rows)
        return watch.rates(job.n)


async def ours(job: Job, concurrency: int = 100) -> Figures:
    with disk.folder() as path:
        queue, fn = make(path)
        queue.configure(concurrency=concurrency)

        async def caller(first: int) -> None:
            for i in range(first, job.n, CALLERS):
                handle = await queue.enqueue(fn, i)
                await handle

        async with queue:
            with Stopwatch() as watch:
                await asyncio.gather(*map(caller, range(CALLERS)))
            return watch.rates(job.n)


async def ours_1000(job: Job) -> Figures:
    return await ours(job, 1_000)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours, "ours_1000": ours_1000})
