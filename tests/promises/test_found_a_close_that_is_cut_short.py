"""C1: a close that the end of the program cancels before it has begun closes the file all the same."""

import asyncio
from pathlib import Path

import pytest

from asyncdefer import Queue


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_the_journal_is_free_afterwards(tmp_path: Path, turns: int) -> None:
    """`asyncio.run` cancels all that is left when its own task ends, so many turns after the call."""
    path = tmp_path / "timers.db"
    queue = Queue(path)

    async def cut_short() -> None:
        await queue.start()
        left.append(asyncio.create_task(queue.close()))
        for _ in range(turns):
            await asyncio.sleep(0)

    async def again() -> None:
        async with Queue(path):
            pass

    left: list[asyncio.Task[None]] = []
    asyncio.run(cut_short())
    asyncio.run(again())
