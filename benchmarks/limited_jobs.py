"""Due jobs through a rate limit of 1,000 keys, each of which may start one every 10 ms.

The floor is a dict from key to the time of its next start, and a timer and a task for each job. It reserves: a job that were cancelled would leave
a hole. Nothing limits how many run at once, and nobody gets a result.
"""

from __future__ import annotations

import asyncio

from stage import Figures, Job, Stopwatch, main

KEYS = 1_000
GAP = 0.01


def check(ran: list[tuple[int, float]], n: int) -> None:
    """Every job ran, and none of a key sooner than it may after the first one of it."""
    if len(ran) != n:
        raise AssertionError(f"{len(ran)} of {n} ran")
    times: dict[int, list[float]] = {}
    for key, at in ran:
        times.setdefault(key, []).append(at)
    for key, found in times.items():  # the first one may be late, which is no fault
        if found[-1] - found[0] < (len(found) - 1) * GAP * 0.5:
            raise AssertionError(f"key {key} started too often")


async def floor(job: Job) -> Figures:
    loop = asyncio.get_running_loop()
    ran: list[tuple[int, float]] = []
    done = loop.create_future()
    free: dict[int, float] = {}
    tasks: set[asyncio.Task[None]] = set()

    async def fn(key: int) -> None:
        ran.append((key, loop.time()))
        if len(ran) == job.n:
            done.set_result(None)

    def start(key: int) -> None:
        task = loop.create_task(fn(key))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    with Stopwatch() as watch:
        for i in range(job.n):
            key = i % KEYS
            at = max(loop.time(), free.get(key, 0.0))
            free[key] = at + GAP
            loop.call_at(at, start, key)
        await done
    check(ran, job.n)
    return watch.rates(job.n)


async def ours(job: Job) -> Figures:
    from asyncdefer import Queue, RateLimit

    loop = asyncio.get_running_loop()
    ran: list[tuple[int, float]] = []
    done = loop.create_future()
    queue = Queue(concurrency=1_000)

    @queue.task(rate_limit=RateLimit(1, per=GAP, key=["key"]))
    async def fn(key: int) -> None:
        ran.append((key, loop.time()))
        if len(ran) == job.n:
            done.set_result(None)

    async with queue:
        with Stopwatch() as watch:
            for i in range(job.n):
                await fn.enqueue(i % KEYS)
            await done
        check(ran, job.n)
        return watch.rates(job.n)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours})
