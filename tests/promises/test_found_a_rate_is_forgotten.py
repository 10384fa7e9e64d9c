"""A restart is no way around a rate limit, however long it is and however late its task is registered."""

from datetime import timedelta
from typing import Any

import pytest

from asyncdefer import Queue, RateLimit
from asyncdefer.testing import VirtualClock

HOUR = 3600


@pytest.mark.parametrize(
    ("late", "per"), [(True, timedelta(hours=1)), (False, timedelta(days=400))]
)
async def test_a_restart_is_no_way_around(
    disk: Any, clock: VirtualClock, late: bool, per: timedelta
) -> None:
    ran, begun = list[Any](), clock.monotonic()

    async def call(n: int) -> None:
        ran.append((n, clock.monotonic() - begun))

    def register(queue: Queue) -> Any:
        return queue.task("call", rate_limit=RateLimit(1, per=per))(call)

    first = Queue(disk.store(), clock=clock)
    task = register(first)
    async with first:
        await task.enqueue(1)
        await clock.advance(1)
    second = Queue(disk.store(), clock=clock)
    if not late:
        task = register(second)
    async with second:
        if late:
            task = register(second)
        await task.enqueue(2)
        await clock.advance(2 * HOUR)
    assert ran[1:] == ([(2, HOUR)] if late else [])
