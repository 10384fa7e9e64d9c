"""Calls that are accepted when they are on the disk, with etas at random over a day, beside 100,000 rows that are there.

The floor has an index on the eta: what bounds both is that each group touches pages all over that index.
"""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta

import disk
from durable_calls import CALLERS, make
from stage import Figures, Job, Stopwatch, main

BEFORE = 100_000


async def floor(job: Job) -> Figures:
    with disk.folder() as path:
        file = disk.connect(path / "floor.db")
        file.execute("CREATE INDEX at ON jobs (at)")
        disk.insert(file, disk.rows(1, BEFORE, scattered=True))
        with Stopwatch() as watch:
            disk.insert(file, disk.rows(BEFORE + 1, job.n, scattered=True))
        return watch.rates(job.n)


async def ours(job: Job) -> Figures:
    source = random.Random(1)
    with disk.folder() as path:
        queue, fn = make(path)

        async def caller(count: int) -> None:
            for i in range(count):
                delay = timedelta(microseconds=source.randrange(600_000_000, disk.DAY))
                await queue.enqueue(fn, i, delay=delay)

        async with queue:
            await asyncio.gather(*(caller(BEFORE // CALLERS) for _ in range(CALLERS)))
            with Stopwatch() as watch:
                await asyncio.gather(*(caller(job.n // CALLERS) for _ in range(CALLERS)))
            return watch.rates(job.n)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours})
