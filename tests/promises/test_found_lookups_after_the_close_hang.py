"""W1: after the close a look-up is an error, at once."""

import asyncio
from typing import Any

import pytest

from asyncdefer import Queue
from asyncdefer.testing import VirtualClock


@pytest.mark.parametrize("what", ["handle", "pending", "redrive", "discard"])
async def test_after_the_close(disk: Any, clock: VirtualClock, what: Any) -> None:
    queue = Queue(disk.store(), clock=clock)

    @queue.task("note")
    async def note(n: int) -> int:
        return n

    async with queue:
        await (await queue.enqueue(note, 1))
    ask = {
        "handle": lambda: queue.handle("123"),
        "pending": lambda: queue.pending(note, "k"),
        "redrive": lambda: queue.redrive("123"),
        "discard": lambda: queue.discard("123"),
    }[what]
    asking = asyncio.ensure_future(ask())
    done, _ = await asyncio.wait([asking], timeout=2)
    asking.cancel()
    assert done, f"{what} hangs"
