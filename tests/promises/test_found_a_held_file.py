"""J9, C1: while another connection holds the file, a minute is all that callers and the close wait.

The group is refused as a whole: to write it one by one would take a minute for each.
"""

import asyncio
import sqlite3
from collections.abc import Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import JournalError, Queue
from asyncdefer.stores.sqlite import SQLiteStore
from asyncdefer.testing import VirtualClock


class Counting:
    """A real store, and how many writes have failed: each after what is a minute otherwise."""

    def __init__(self, path: Path) -> None:
        self._store: Any = SQLiteStore(path)
        self.minutes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, *args: Any, **options: Any) -> Any:
        try:
            return await self._store.write(*args, **options)
        except JournalError:
            self.minutes += 1
            raise


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("asyncdefer.stores._file.BUSY_WAIT", 0.001)
    return tmp_path / "timers.db"


@contextmanager
def held(path: Path) -> Generator[None, None, None]:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def program(store: Any, clock: VirtualClock, ran: list[int]) -> Queue:
    queue = Queue(store, clock=clock, drain_timeout=0)

    @queue.task("note")
    async def note(n: int) -> int:
        ran.append(n)
        return n

    return queue


async def test_all_callers_are_told(path: Path, clock: VirtualClock) -> None:
    """After the minute of their group; later calls are accepted."""
    store, ran = Counting(path), list[int]()
    async with program(store, clock, ran) as queue:
        note = queue.task_of("note")
        with held(path):
            calls = (queue.enqueue(note, n, delay=60) for n in range(20))
            told = await asyncio.gather(*calls, return_exceptions=True)
            assert all(isinstance(error, JournalError) for error in told)
            assert store.minutes <= 2
        await queue.enqueue(note, 20, delay=60)
        await clock.advance(61)
        assert ran == [20]


async def test_the_close(path: Path, clock: VirtualClock) -> None:
    """What has begun cannot be recorded, so it does not run; it does at the next start."""
    store, ran = Counting(path), list[int]()
    queue = program(store, clock, ran)
    await queue.start()
    for n in range(20):
        await queue.enqueue(queue.task_of("note"), n, delay=60)
    with held(path):
        await clock.advance(61, patience=0)
        await queue.close()
        assert store.minutes <= 2
    async with program(SQLiteStore(path), clock, ran):
        await clock.advance(61)
        assert sorted(ran) == list(range(20))
