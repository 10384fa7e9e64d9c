"""W1: rows come in and something fails about them that nobody foresaw: who asked is told, and the journal lives."""

import asyncio
from typing import Any

import pytest

from asyncdefer import JournalError, Queue
from asyncdefer._claims import Claims
from asyncdefer.testing import VirtualClock

HOUR = 3_600
SOON = 5  # real seconds


def program(store: Any, clock: VirtualClock, ran: list[int]) -> Queue:
    queue = Queue(store, clock=clock)

    @queue.task("note")
    async def note(n: int) -> None:
        ran.append(n)

    return queue


def fails(*_: Any) -> None:
    raise LookupError("what is this")


async def test_a_look_up(disk: Any, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []
    async with program(disk.store(), clock, ran) as queue:
        number = (await queue.enqueue(queue.task_of("note"), 1, delay=10 * HOUR)).id
    told: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, about: told.append(about))
    async with program(disk.store(), clock, ran) as queue:
        with monkeypatch.context() as patch:
            patch.setattr(Claims, "_fetched", fails)
            async with asyncio.timeout(SOON):
                with pytest.raises(JournalError, match="what is this"):
                    await queue.handle(number)
        assert [type(about["exception"]) for about in told] == [LookupError]
        await (await queue.enqueue(queue.task_of("note"), 2))
        assert await queue.handle(number) is not None
        await clock.advance(11 * HOUR)
        assert ran == [2, 1]


async def test_a_start(disk: Any, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not begin without them; the next may."""
    ran: list[int] = []
    async with program(disk.store(), clock, ran) as queue:
        await queue.enqueue(queue.task_of("note"), 1, delay=60)
    asyncio.get_running_loop().set_exception_handler(lambda _, __: None)
    queue = program(disk.store(), clock, ran)
    with monkeypatch.context() as patch:
        patch.setattr(Claims, "_arrive", fails)
        async with asyncio.timeout(SOON):
            with pytest.raises(JournalError, match="what is this"):
                await queue.start()
    async with queue:
        await clock.advance(61)
        assert ran == [1]
