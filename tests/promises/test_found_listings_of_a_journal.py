"""J10, listings: a journal is read page by page, and only as much of it as the question needs."""

from collections.abc import AsyncIterator
from typing import Any

import asyncdefer
from asyncdefer import MemoryStore, Queue
from asyncdefer.stores._base import Row
from asyncdefer.testing import VirtualClock


async def test_who_stays_is_shown_once(disk: Any, clock: VirtualClock) -> None:
    """However many others get another eta between the pages, in eta order."""
    queue = Queue(disk.store(), clock=clock)

    @queue.task("note")
    async def note(number: int) -> None: ...

    async with queue:
        handles = [queue.enqueue_nowait(note, n, delay=10 + n / 1000) for n in range(1_500)]
        await handles[-1].accepted()
        shown: list[int] = []
        async for job in queue.jobs():
            shown.append(job.arguments["number"])
            if len(shown) % 100 == 1:
                await handles[shown[-1]].reschedule(delay=100)
                await handles[1_499 - len(shown) // 100].reschedule(delay=1)
        moved = {number for number in range(1_500) if number % 100 == 0} | set(range(1_480, 1_500))
        stayed = [number for number in shown if number not in moved]
        assert stayed == [number for number in range(1_500) if number not in moved]


class Counted(MemoryStore):
    """It counts the rows that are read from it."""

    read = 0

    async def scan(self, **asked: Any) -> AsyncIterator[Row]:  # type: ignore[override]
        async for row in super().scan(**asked):
            self.read += 1
            yield row


async def test_running_jobs_are_found_among_many(clock: VirtualClock) -> None:
    """Those that wait or have ended are not read for it."""
    store = Counted()
    queue = Queue(store, clock=clock)

    @queue.task("note")
    async def note(seconds: float) -> None:
        await asyncdefer.sleep(seconds)

    async with queue:
        for number in range(1_000):
            queue.enqueue_nowait(note, 0, delay=3600 * number)
        for number in range(3):
            queue.enqueue_nowait(note, 60 + number)
        await clock.advance(10)
        store.read = 0
        running = [job async for job in queue.jobs(state="running")]
        assert [job.arguments["seconds"] for job in running] == [60, 61, 62]
        assert store.read == 3
        assert len([job async for job in queue.jobs(state="scheduled")]) == 999
        assert len([job async for job in queue.jobs(state="succeeded")]) == 1
        assert store.read == 3 + 999 + 1
