"""W1, C1: the journal's writer is cancelled, and nothing that stood in its line is lost or waited for long.

`asyncio.run` cancels every task at its end, the writer too, while a task that owns the queue closes it.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import pytest

from asyncdefer import JournalError, Queue
from asyncdefer.stores._base import Command, Owner, Written
from asyncdefer.testing import VirtualClock

SOON = 5  # real seconds; without the promise it is ten, or for ever


class Gated:
    """A real store whose next write waits at the gate, `before` or after it is done.

    `apart`: a group is refused, so that it is written one by one.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.gate = asyncio.Event()
        self.reached = asyncio.Event()
        self.before = self.apart = False
        self.gate.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def shut(self, *, before: bool, apart: bool) -> None:
        self.before, self.apart = before, apart
        self.gate.clear()

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        if self.apart and len(commands) > 1:
            raise JournalError("one by one")
        self.reached.set()
        if self.before:
            await self.gate.wait()
        written: Written = await self._store.write(owner, commands, within=within)
        await self.gate.wait()
        return written


def program(store: Any, ran: list[int], **options: Any) -> Queue:
    queue = Queue(store, **options)

    @queue.task("note")
    async def note(n: int) -> None:
        ran.append(n)

    return queue


def cancel_writer() -> None:
    [writer] = [task for task in asyncio.all_tasks() if task.get_name() == "asyncdefer journal"]
    writer.cancel()


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("apart", [True, False])
async def test_another_goes_on(disk: Any, clock: VirtualClock, before: bool, apart: bool) -> None:
    """In the middle of a write, or of a group one by one: each call is accepted, and runs once."""
    store, ran = Gated(disk.store()), list[int]()
    async with program(store, ran, clock=clock) as queue:
        note = queue.task_of("note")
        store.reached.clear()
        store.shut(before=before, apart=apart)
        handles = [queue.enqueue_nowait(note, n, delay=60) for n in range(3)]
        handles += [queue.enqueue_nowait(note, n, delay=60, key="k") for n in (3, 4)]
        await store.reached.wait()
        cancel_writer()
        store.apart = False
        store.gate.set()
        async with asyncio.timeout(SOON):
            for handle in handles:
                await handle.accepted()
        await clock.advance(61)
        assert sorted(ran) == [0, 1, 2, 4]
    async with program(disk.store(), ran, clock=clock):
        await clock.advance(61)
        assert len(ran) == 4


async def test_one_that_has_not_begun(disk: Any, clock: VirtualClock) -> None:
    """It never had a turn, and another takes its place."""
    ran: list[int] = []
    async with program(disk.store(), ran, clock=clock) as queue:
        cancel_writer()
        await asyncio.sleep(0.01)
        handle = queue.enqueue_nowait(queue.task_of("note"), 1)
        cancel_writer()
        async with asyncio.timeout(SOON):
            await handle


async def test_during_the_close(disk: Any, clock: VirtualClock) -> None:
    """What was accepted is written before it returns, though both are cancelled."""
    store, ran = Gated(disk.store()), list[int]()
    queue = program(store, ran, clock=clock, drain_timeout=0)
    others = asyncio.all_tasks()
    await queue.start()
    store.reached.clear()
    store.shut(before=True, apart=False)
    handle = queue.enqueue_nowait(queue.task_of("note"), 1, delay=60)
    await store.reached.wait()
    closed = asyncio.create_task(queue.close())
    await turns()
    for _ in range(3):
        for task in asyncio.all_tasks() - others:
            task.cancel()
        await asyncio.sleep(0.01)
    store.gate.set()
    async with asyncio.timeout(SOON):
        await asyncio.wait([closed])
        await handle.accepted()
    async with program(disk.store(), ran, clock=clock):
        await clock.advance(61)
        assert ran == [1]


@pytest.mark.parametrize("closes", [True, False])
def test_a_program_that_ends(tmp_path: Path, anyio_backend: Any, closes: bool) -> None:
    """The queue is closed at once, by a task that has begun to, or does so when it is cancelled."""
    path, accepted = tmp_path / "timers.db", list[int]()

    async def own(queue: Queue, enough: asyncio.Event) -> None:
        async with queue:
            while not (closes and enough.is_set()):
                await queue.enqueue(queue.task_of("note"), 1, delay=600)
                accepted.append(1)
                if len(accepted) == 100:
                    enough.set()

    async def main() -> None:
        enough = asyncio.Event()
        owner = asyncio.create_task(own(program(path, []), enough))
        await enough.wait()
        await turns()
        assert not owner.done()

    backend, options = anyio_backend
    began = monotonic()
    anyio.run(main, backend=backend, backend_options=options)  # by asyncio.Runner
    assert monotonic() - began < SOON
    with closing(sqlite3.connect(path)) as db:
        [rows] = db.execute("SELECT count(*) FROM asyncdefer_jobs").fetchone()
        assert rows >= len(accepted)
        clean = db.execute("SELECT value FROM asyncdefer_meta WHERE name = 'clean'")
        assert clean.fetchone() == (1,)
