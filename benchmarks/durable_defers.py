"""Deferred calls over 1,000 keys at random, by a thousand callers, each accepted when it is on the disk.

The floor is our own plain enqueue, without a key.
"""

from __future__ import annotations

import asyncio
import random
from typing import Any

import disk
from durable_calls import CALLERS, FAR, make
from stage import Figures, Job, Stopwatch, main

KEYS = 1_000


async def measured(job: Job, fn: Any, queue: Any) -> Figures:
    source = random.Random(1)
    keys = [source.randrange(KEYS) for _ in range(job.n)]

    async def caller(first: int) -> None:
        for i in range(first, job.n, CALLERS):
            await fn.enqueue(keys[i], i)

    async with queue:
        with Stopwatch() as watch:
            await asyncio.gather(*map(caller, range(CALLERS)))
        return watch.rates(job.n)


async def floor(job: Job) -> Figures:
    with disk.folder() as path:
        queue, _ = make(path)

        @queue.task("note", delay=FAR)
        async def note(key: int, i: int) -> None: ...

        return await measured(job, note, queue)


async def ours(job: Job) -> Figures:
    with disk.folder() as path:
        queue, _ = make(path)

        @queue.task("note", delay=FAR, defer=["key"])
        async def note(key: int, i: int) -> None: ...

        return await measured(job, note, queue)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours})
