"""Calls that are accepted when they are on the disk, by a thousand callers at once and in bulk.

The floor is plain SQLite that writes groups of a thousand, into a table with an index on the eta: one
without could not say what is due.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import disk
from stage import Figures, Job, Stopwatch, main

CALLERS = 1_000
FAR = 86_400


def make(path: Path) -> tuple[Any, Any]:
    from asyncdefer import Queue

    queue = Queue(path / "timers.db")

    @queue.task("fn")
    async def fn(i: int) -> int:
        return i

    return queue, fn


async def floor(job: Job) -> Figures:
    with disk.folder() as path:
        file = disk.connect(path / "floor.db")
        file.execute("CREATE INDEX at ON jobs (at)")
        rows = disk.rows(1, job.n)
        with Stopwatch() as watch:
            disk.insert(file, rows)
        return watch.rates(job.n)


async def ours(job: Job) -> Figures:
    with disk.folder() as path:
        queue, fn = make(path)

        async def caller(first: int) -> None:
            for i in range(first, job.n, CALLERS):
                await queue.enqueue(fn, i, delay=FAR)

        async with queue:
            with Stopwatch() as watch:
                await asyncio.gather(*map(caller, range(CALLERS)))
            return watch.rates(job.n)


async def ours_bulk(job: Job) -> Figures:
    with disk.folder() as path:
        queue, fn = make(path)
        async with queue:
            with Stopwatch() as watch:
                handles = [queue.enqueue_nowait(fn, i, delay=FAR) for i in range(job.n)]
                for handle in handles:
                    await handle.accepted()
            return watch.rates(job.n)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours, "ours_bulk": ours_bulk})
