"""A job that is held waits for others also where this program cannot run them."""

from typing import Any

import pytest

from asyncdefer import Queue, State
from asyncdefer.testing import VirtualClock, check_conservation


def program(disk: Any, clock: VirtualClock, ran: list[str], *, known: bool) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    async def first() -> None:
        ran.append("first")

    async def second() -> None:
        ran.append("second")

    if known:
        queue.task("first")(first)
    queue.task("second")(second)
    return queue


@pytest.mark.parametrize("delay", [60, 100_000])
@pytest.mark.parametrize("discarded", [False, True])
async def test_it_waits_for_a_task_of_another_deploy(
    disk: Any, clock: VirtualClock, delay: float, *, discarded: bool
) -> None:
    """Until that task is registered and has run, or its job is discarded."""
    ran: list[str] = []
    async with program(disk, clock, ran, known=True) as queue:
        handle = await queue.enqueue(queue.task_of("first"), delay=delay)
        other = await queue.options(after=[handle]).enqueue(queue.task_of("second"))
    async with program(disk, clock, ran, known=False) as queue:
        await clock.advance(50)
        found = await queue.handle(other.id)
        assert found is not None
        assert (ran, found.state) == ([], State.HELD)
        if discarded:
            await queue.discard(handle.id)
        else:

            @queue.task("first")
            async def first() -> None:
                ran.append("first")

        await clock.advance(delay)
        assert found.state is State.SUCCEEDED
        check_conservation(queue)
    assert ran == (["second"] if discarded else ["first", "second"])
