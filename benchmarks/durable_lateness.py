"""How late journaled timers are that lie evenly over some seconds, against the same in memory.

A start is written before the job runs, so a commit lies in between.
"""

from __future__ import annotations

import time
from typing import Any

import disk
from lateness import Course
from stage import Figures, Job, main


async def measured(job: Job, queue: Any) -> Figures:
    course = Course(job, time.monotonic)

    @queue.task("timer")
    async def timer(i: int) -> None:
        await course.run(course.instants[i])

    async with queue:
        for i, instant in enumerate(course.instants):
            handle = queue.enqueue_nowait(timer, i, delay=instant - time.monotonic())
        await handle.accepted()
        return await course.finish()


async def floor(job: Job) -> Figures:
    from asyncdefer import Queue

    return await measured(job, Queue())


async def ours(job: Job) -> Figures:
    from asyncdefer import Queue

    with disk.folder() as path:
        return await measured(job, Queue(path / "timers.db"))


if __name__ == "__main__":
    main({"floor": floor, "ours": ours})
