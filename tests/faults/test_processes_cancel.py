"""Cancelled after any number of steps: what was told stays true, and nothing is left half-done.

Real time: the steps are those of the loop, and between them works the thread that has the file.
"""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import Handle, Queue, QueueClosed
from asyncdefer.stores.sqlite import SQLiteStore
from asyncdefer.testing import check_conservation
from tests.faults.kill_planted import a_forgotten_group

STEPS = 200
FINE = 150
EACH = 25  # in one test


async def steps(number: int) -> None:
    """One more each time, and at last so many that the thread has come to its end meanwhile."""
    for _ in range(number if number < FINE else int(FINE * 1.1 ** (number - FINE))):
        await asyncio.sleep(0)


def program(path: Path, ran: list[int], **options: Any) -> Queue:
    queue = Queue(path, drain_timeout=0.01, **options)

    @queue.task("note")
    async def note(n: int) -> int:
        ran.append(n)
        return n

    @queue.task("long")
    async def long(n: int) -> int:
        ran.append(n)
        await asyncio.sleep(3_600)
        return n

    return queue


async def waiting(path: Path) -> set[int]:
    """What the journal holds, as the next program finds it."""
    queue = program(path, [])
    queue.pause()
    async with queue:
        found = {job.arguments["n"] async for job in queue.jobs("scheduled")}
        check_conservation(queue)
    return found


async def cancelled_callers(path: Path, key: str | None) -> tuple[set[int], set[int], set[int]]:
    """The calls whose callers were told that they are accepted, those of the others, and those that
    are there in the end.
    """
    queue = program(path, [])
    kept: set[int] = set()
    maybe: set[int] = set()
    async with queue:
        note = queue.task_of("note")
        for number in range(STEPS):
            call = queue.options(delay=3_600, key=key and f"{key}{number}").enqueue(note, number)
            caller = asyncio.create_task(call)
            await steps(number)
            caller.cancel()
            await asyncio.wait([caller])
            if caller.cancelled():
                maybe.add(number)
            else:
                assert isinstance(caller.result(), Handle)
                kept.add(number)
            if number % 20 == 0:
                await queue.enqueue(note, 1_000 + number, delay=3_600)
                kept.add(1_000 + number)
        check_conservation(queue)
    return kept, maybe, await waiting(path)


@pytest.mark.parametrize("key", [None, "k"])
async def test_a_caller_is_cancelled_after_any_number_of_steps(
    key: str | None, tmp_path: Path
) -> None:
    """A call whose caller was cancelled may be there or not; the others are, and all go on."""
    kept, maybe, found = await cancelled_callers(tmp_path / "timers.db", key)
    assert kept <= found <= kept | maybe
    assert maybe
    assert len(kept) > STEPS / 20


async def test_a_group_that_is_not_written_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: of a store that forgets some of what it is given calls are missing."""
    monkeypatch.setattr(SQLiteStore, "write", SQLiteStore.write)  # put back afterwards
    a_forgotten_group()
    kept, _, found = await cancelled_callers(tmp_path / "timers.db", None)
    assert not kept <= found


@pytest.mark.parametrize("first", range(0, STEPS, EACH))
async def test_a_close_is_cancelled_after_any_number_of_steps(first: int, tmp_path: Path) -> None:
    """It ends all the same: the file is free, the thread is gone, and every call is in the journal."""
    threads = threading.active_count()
    for number in range(first, first + EACH):
        path = tmp_path / f"timers-{number}.db"
        ran: list[int] = []
        queue = program(path, ran)
        await queue.start()
        waiter = asyncio.create_task((await queue.enqueue(queue.task_of("long"), 0)).result())
        await queue.enqueue(queue.task_of("note"), 1, delay=3_600)
        for n in range(2, 10):
            queue.enqueue_nowait(queue.task_of("note"), n, delay=3_600)
        closing = asyncio.create_task(queue.close())
        await steps(number)
        closing.cancel()
        await asyncio.wait([closing], timeout=20)
        assert closing.done()
        await queue.close()  # of one that was cancelled before its first step nothing has happened
        with pytest.raises(QueueClosed, match="in the journal"):
            await asyncio.wait_for(waiter, 20)
        check_conservation(queue)
        assert threading.active_count() == threads
        assert await waiting(path) == set(range(10))


@pytest.mark.parametrize("first", range(0, STEPS, EACH))
async def test_a_start_is_cancelled_after_any_number_of_steps(first: int, tmp_path: Path) -> None:
    """The file is free at once, also where the journal was about to be made."""
    threads = threading.active_count()
    for number in range(first, first + EACH):
        path = tmp_path / f"timers-{number}.db"
        queue = program(path, [])
        starting = asyncio.create_task(queue.start())
        await steps(number)
        starting.cancel()
        await asyncio.wait([starting], timeout=20)
        assert starting.done()
        await queue.close()
        assert threading.active_count() == threads
        assert await waiting(path) == set()
        async with queue:
            await queue.enqueue(queue.task_of("note"), 1, delay=3_600)
        assert await waiting(path) == {1}
