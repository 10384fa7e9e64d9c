"""Calls in a transaction of the program's own, on its aiosqlite connection, a hundred in each.

The floor is the same insert by hand: BEGIN IMMEDIATE, one `execute` for each row into a table with the same columns and an index on the eta, COMMIT; on a connection that leaves checkpoints to others, as ours does.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import disk
from stage import Figures, Job, Stopwatch, main

FAR = 86_400
_INSERT = (
    "INSERT INTO jobs (id, task, key, state, at, until, pinned, arguments, body) "
    "VALUES (?, 'fn', NULL, 'scheduled', ?, NULL, 0, '[[1]]', '')"
)


async def connect(path: Path) -> Any:
    import aiosqlite

    db = await aiosqlite.connect(path, isolation_level=None)
    await db.execute("PRAGMA synchronous = FULL")
    await db.execute("PRAGMA wal_autocheckpoint = 0")  # as the queue has it
    return db


async def by_hand(job: Job, each: int) -> Figures:
    with disk.folder() as path:
        db = await connect(path / "floor.db")
        await db.execute("PRAGMA journal_mode = WAL")
        await db.execute(
            "CREATE TABLE jobs (id INTEGER PRIMARY KEY, task TEXT, key TEXT, state TEXT, at INTEGER, "
            "until INTEGER, pinned INTEGER, arguments TEXT, body TEXT) STRICT"
        )
        await db.execute("CREATE INDEX at ON jobs (at, id) WHERE state = 'scheduled'")
        number = 0
        with Stopwatch() as watch:
            while number < job.n:
                await db.execute("BEGIN IMMEDIATE")
                for _ in range(each):
                    number += 1
                    await db.execute(_INSERT, (number, number))
                await db.execute("COMMIT")
        return watch.rates(job.n)


async def by_queue(job: Job, each: int) -> Figures:
    from asyncdefer import Queue

    warnings.simplefilter("ignore", RuntimeWarning)
    with disk.folder() as path:
        queue = Queue(path / "timers.db")

        @queue.task("fn")
        async def fn(i: int) -> int:
            return i

        async with queue:
            db = await connect(path / "timers.db")
            done = 0
            with Stopwatch() as watch:
                while done < job.n:
                    async with queue.transaction(db) as tx:
                        for _ in range(each):
                            done += 1
                            await tx.enqueue(fn, done, delay=FAR)
            return watch.rates(job.n)


async def floor(job: Job) -> Figures:
    return await by_hand(job, 100)


async def ours(job: Job) -> Figures:
    return await by_queue(job, 100)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours})
