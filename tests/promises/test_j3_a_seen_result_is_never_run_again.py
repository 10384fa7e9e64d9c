"""J3. A result that a waiter saw is never run again: waiters are woken when the outcome is recorded."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from asyncdefer import Queue, State
from asyncdefer.stores._base import Command, Owner, Set, Written
from asyncdefer.testing import VirtualClock


class Slow:
    """A real store whose writes of outcomes wait for `go`."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.go = asyncio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        ends = (c for command in commands for c in command if isinstance(c, Set))
        if any(change.row.until is not None for change in ends):
            await self.go.wait()
        written: Written = await self._store.write(owner, commands, within=within)
        return written


@pytest.mark.parametrize("fails", [False, True])
async def test_nobody_sees_it_before(disk: Any, clock: VirtualClock, fails: bool) -> None:
    """While the outcome is on its way the job shows as running, and nobody is woken."""
    ran: list[int] = []
    started = asyncio.Event()

    def program(store: Any) -> Queue:
        queue = Queue(store, clock=clock, drain_timeout=0)

        @queue.task("work")
        async def work() -> str:
            ran.append(1)
            started.set()
            if fails:
                raise ValueError("bad")
            return "done"

        return queue

    store = Slow(disk.store())
    async with program(store) as queue:
        handle = await queue.enqueue(queue.task_of("work"))
        waiter = asyncio.ensure_future(handle.result())
        await asyncio.wait_for(started.wait(), 20)
        for _ in range(100):
            await asyncio.sleep(0)
        assert (len(ran), waiter.done(), handle.done()) == (1, False, False)
        assert handle.state is State.RUNNING
        disk.crash()  # so it runs again, and nobody has seen anything
        store.go.set()
        await asyncio.wait([waiter])
        assert (handle.done(), waiter.exception() is not None) == (True, fails)
    async with program(disk.store()):
        await clock.advance(1)
    assert len(ran) == 2


async def test_what_was_seen_is_recorded(disk: Any, clock: VirtualClock) -> None:
    """A crash in the moment after the waiter was woken changes nothing."""
    ran: list[int] = []

    def program() -> Queue:
        queue = Queue(disk.store(), clock=clock)

        @queue.task("work")
        async def work(number: int) -> int:
            ran.append(number)
            return number

        return queue

    async with program() as queue:
        for number in range(50):
            assert await (await queue.enqueue(queue.task_of("work"), number)) == number
        disk.crash()
    async with program():
        await clock.advance(1)
    assert ran == list(range(50))
