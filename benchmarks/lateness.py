"""How late timers are that lie evenly over some seconds, and what it costs to serve them.

Lateness is the first moment inside the call minus the instant that was meant, by the clock that the timer follows. The unit of time is a
microsecond, so a call is early when it runs more than that before its instant.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from stage import Figures, Job, Window, main, percentile, resident

LEAD = 2.0
"""Seconds for the set-up, before the first timer is due."""
TICK = 1e-6


class Course:
    """The instants, and how late each of them was met."""

    def __init__(self, job: Job, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._window = job.window
        self.start = clock() + LEAD
        self.instants = [self.start + i * job.window / job.n for i in range(job.n)]
        self.late: list[float] = []

    async def run(self, instant: float) -> None:
        self.late.append(self._clock() - instant)

    def call(self, instant: float) -> None:
        self.late.append(self._clock() - instant)

    async def finish(self) -> Figures:
        """Called when everything is set up: waits until it is over."""
        resident()
        await asyncio.sleep(self.start - self._clock() - 0.05)
        if self._clock() > self.start:
            raise AssertionError("the set-up took longer than its lead")
        window = Window()
        await asyncio.sleep(self.start + self._window - self._clock() + 0.1)
        cpu = window.cpu()
        overdue = time.monotonic() + 20
        while len(self.late) < len(self.instants):
            if time.monotonic() > overdue:
                raise AssertionError(f"{len(self.instants) - len(self.late)} timers never ran")
            await asyncio.sleep(0.1)
        return {
            "p50": percentile(self.late, 50) * 1e3,
            "p99": percentile(self.late, 99) * 1e3,
            "max": max(self.late) * 1e3,
            "early": float(sum(late < -TICK for late in self.late)),
            "cpu": cpu,
        }


async def floor(job: Job) -> Figures:
    loop = asyncio.get_running_loop()
    course = Course(job, time.monotonic)
    skew = loop.time() - time.monotonic()
    for instant in course.instants:
        loop.call_at(instant + skew, course.call, instant)
    return await course.finish()


async def ours(job: Job) -> Figures:
    """By `delay`, which follows the monotonic clock."""
    from asyncdefer import Queue

    async with Queue() as queue:
        course = Course(job, time.monotonic)
        for instant in course.instants:
            await queue.enqueue(course.run, instant, delay=instant - time.monotonic())
        return await course.finish()


async def ours_eta(job: Job) -> Figures:
    """By `eta`, which follows the wall clock."""
    from asyncdefer import Queue

    async with Queue() as queue:
        course = Course(job, time.time)
        for instant in course.instants:
            await queue.enqueue(course.run, instant, eta=datetime.fromtimestamp(instant, UTC))
        return await course.finish()


async def apscheduler(job: Job) -> Figures:
    from apscheduler.schedulers.asyncio import AsyncIOScheduler

    scheduler: Any = AsyncIOScheduler(timezone=UTC, job_defaults={"misfire_grace_time": None})
    scheduler.start()
    course = Course(job, time.time)
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for instant in course.instants:
        scheduler.add_job(
            course.run, "date", run_date=epoch + timedelta(seconds=instant), args=(instant,)
        )
    return await course.finish()


if __name__ == "__main__":
    main({"floor": floor, "ours": ours, "ours_eta": ours_eta, "apscheduler": apscheduler})
