"""Calls that are accepted when they are on the disk, one after another. The floor is aiosqlite with a transaction for each."""

from __future__ import annotations

from typing import Any

import disk
from durable_calls import FAR, make
from stage import Figures, Job, Stopwatch, main


async def floor(job: Job) -> Figures:
    import aiosqlite

    with disk.folder() as path:
        disk.connect(path / "floor.db").close()
        async with aiosqlite.connect(path / "floor.db", isolation_level=None) as file:
            await file.execute("PRAGMA synchronous=FULL")
            with Stopwatch() as watch:
                for row in disk.rows(1, job.n):
                    await file.execute("INSERT INTO jobs VALUES (?, ?, ?, ?)", row)
            return watch.rates(job.n)


async def ours(job: Job) -> Figures:
    with disk.folder() as path:
        queue, fn = make(path)
        async with queue:
            with Stopwatch() as watch:
                for i in range(job.n):
                    await queue.enqueue(fn, i, delay=FAR)
            return watch.rates(job.n)


async def huey(job: Job) -> Figures:
    """It blocks the loop for each."""
    from huey import SqliteHuey

    with disk.folder() as path:
        queue: Any = SqliteHuey(filename=str(path / "huey.db"), fsync=True)

        def fn(i: int) -> int:
            return i

        task: Any = queue.task()(fn)
        with Stopwatch() as watch:
            for i in range(job.n):
                task.schedule(args=(i,), delay=FAR)
        return watch.rates(job.n)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours, "huey": huey})
