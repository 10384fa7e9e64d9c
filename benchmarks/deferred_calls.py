"""Debounce: many calls over a thousand keys, each of which replaces the one that waits, while the loop turns.

The floor is what one writes by hand: a dict of timer handles, cancelled and armed anew.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from stage import Figures, Job, Stopwatch, main, resident

FAR = 3600
KEYS = 1000
TURN = 100
"""Calls between two turns of the loop."""


async def fn(key: int, value: int) -> int:
    return value


async def floor(job: Job) -> Figures:
    loop = asyncio.get_running_loop()
    waiting: dict[int, asyncio.TimerHandle] = {}
    before = resident()
    with Stopwatch() as watch:
        for i in range(job.n):
            key = i % KEYS
            older = waiting.get(key)
            if older is not None:
                older.cancel()
            waiting[key] = loop.call_later(FAR, fn, key, i)
            if not i % TURN:
                await asyncio.sleep(0)
    scheduled: list[object] = getattr(loop, "_scheduled", [])  # uvloop has none
    return watch.rates(job.n) | {
        "bytes": (resident() - before) / KEYS,
        "lines_per_key": len(scheduled) / KEYS,
    }


async def ours(job: Job) -> Figures:
    from asyncdefer import Queue

    queue = Queue()
    task = queue.task(delay=FAR, defer=["key"])(fn)
    async with queue:
        before = resident()
        with Stopwatch() as watch:
            for i in range(job.n):
                await task.enqueue(i % KEYS, i)
                if not i % TURN:
                    await asyncio.sleep(0)
        stats = queue.stats()
        if stats.waiting != KEYS or stats.replaced != job.n - KEYS:
            raise AssertionError(f"{KEYS} keys, but {stats}")
        return watch.rates(job.n) | {
            "bytes": (resident() - before) / KEYS,
            "lines_per_key": heap_lines(queue) / KEYS,
        }


def heap_lines(queue: Any) -> int:
    """The lines on both timelines: a call that replaces moves the job and leaves the line. Private, and only counted here."""
    lines: int = queue._scheduler.agenda.lines()
    return lines


async def apscheduler(job: Job) -> Figures:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    scheduler: Any = AsyncIOScheduler(timezone=UTC)
    scheduler.start()
    with Stopwatch() as watch:
        for i in range(job.n):
            key = i % KEYS
            when = datetime.now(UTC) + timedelta(seconds=FAR)
            scheduler.add_job(
                fn, "date", run_date=when, args=(key, i), id=str(key), replace_existing=True
            )
            if not i % TURN:
                await asyncio.sleep(0)
    return watch.rates(job.n)


async def docket(job: Job) -> Figures:
    from docket import Docket

    async with Docket(name="bench", url="memory://") as queue:
        queue.register(fn)
        with Stopwatch() as watch:
            for i in range(job.n):
                key = i % KEYS
                when = datetime.now(UTC) + timedelta(seconds=FAR)
                await queue.replace(fn, when, str(key))(key, i)
                if not i % TURN:
                    await asyncio.sleep(0)
        return watch.rates(job.n)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours, "apscheduler": apscheduler, "docket": docket})
