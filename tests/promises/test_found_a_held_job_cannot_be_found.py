"""J7: a held job can be discarded."""

from typing import Any

import pytest

from asyncdefer import Queue, State
from asyncdefer.testing import VirtualClock


@pytest.mark.parametrize("kind", ["unknown", "unreadable"])
async def test_it_can_be_discarded(disk: Any, clock: VirtualClock, kind: str) -> None:
    old = Queue(disk.store(), clock=clock)

    @old.task("note")
    async def note(n: str) -> None: ...

    async with old:
        await old.enqueue(note, "a text", delay=60)
    new = Queue(disk.store(), clock=clock)
    if kind == "unreadable":

        @new.task("note")
        async def number(n: int) -> None: ...

    async with new:
        [job] = [job async for job in new.jobs()]
        assert job.state is State.HELD
        assert await new.discard(job.id)
        assert [job async for job in new.jobs()] == []
