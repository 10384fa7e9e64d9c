"""W1, C1: nobody waits for a journal that has been closed."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest

from asyncdefer import DeferError, JournalError, Queue, QueueClosed
from asyncdefer.stores._base import Row, Unknown
from asyncdefer.testing import VirtualClock

SOON = 5  # real seconds


class Gone:
    """A real store, until its disk goes away."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.gone = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, *args: Any, **options: Any) -> Any:
        if self.gone:
            raise Unknown("nobody knows")
        return await self._store.write(*args, **options)

    async def scan(self, **options: Any) -> AsyncIterator[Row]:
        if self.gone:
            raise JournalError("gone")
        async for row in self._store.scan(**options):
            yield row


def program(store: Any, clock: VirtualClock) -> Queue:
    queue = Queue(store, clock=clock, drain_timeout=0)

    @queue.task("note")
    async def note(n: int) -> int:
        return n

    return queue


async def test_callers_in_a_full_line(
    disk: Any, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who wait for room are told, though the line was not written."""
    monkeypatch.setattr("asyncdefer._journal.BACKLOG", 10)
    monkeypatch.setattr("asyncdefer._queue.CANCEL_GRACE", 0)
    store = Gone(disk.store())
    queue = program(store, clock)
    await queue.start()
    note = queue.task_of("note")
    handle = await queue.enqueue(note, 0, delay=50)
    store.gone = True
    with suppress(JournalError):
        await handle.cancel()
    callers: list[asyncio.Task[Any]] = []
    for n in range(30):
        callers.append(asyncio.create_task(queue.enqueue(note, n, delay=50)))
        await asyncio.sleep(0)
    await queue.close()
    async with asyncio.timeout(SOON):
        told = await asyncio.gather(*callers, return_exceptions=True)
    assert {type(error) for error in told} == {JournalError, QueueClosed}


@pytest.mark.parametrize("what", ["handle", "pending", "redrive", "discard"])
async def test_look_ups(disk: Any, clock: VirtualClock, what: str) -> None:
    """They are told at once that it is closed."""
    queue = program(disk.store(), clock)
    async with queue:
        await (await queue.enqueue(queue.task_of("note"), 1))
    async with asyncio.timeout(SOON):
        with pytest.raises(DeferError, match="closed"):
            await getattr(queue, what)(*(("note", "k") if what == "pending" else ("123",)))


async def test_an_ended_job_is_forgotten(disk: Any, clock: VirtualClock) -> None:
    """What can be recorded no more is an error too."""
    queue = program(disk.store(), clock)
    async with queue:
        handle = await queue.enqueue(queue.task_of("note"), 1)
        await handle
    async with asyncio.timeout(SOON):
        with pytest.raises(DeferError, match="closed"):
            await queue.discard(handle.id)
