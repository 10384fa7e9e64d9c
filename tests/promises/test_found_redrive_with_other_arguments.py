"""J5, J7: what this program cannot read or does not know is not run by a redrive."""

import contextlib
from typing import Any

import pytest

from asyncdefer import Queue
from asyncdefer.testing import VirtualClock


async def test_arguments_that_cannot_be_read(disk: Any, clock: VirtualClock) -> None:
    ran: list[Any] = []
    old = Queue(disk.store(), clock=clock)

    @old.task("pay")
    async def pay(cents: str = "0") -> None:
        raise KeyError(cents)

    async with old:
        failed = await old.enqueue(pay, "two hundred")
        with pytest.raises(KeyError):
            await failed
    new = Queue(disk.store(), clock=clock)

    @new.task("pay")
    async def pay_cents(cents: int = 0) -> None:  # a deploy has another type
        ran.append(cents)

    async with new:
        with contextlib.suppress(ValueError):
            await new.redrive(failed.id)
        await clock.advance(1)
    assert ran == [], "it ran with arguments that nobody gave"


async def test_an_unknown_task(disk: Any, clock: VirtualClock) -> None:
    old = Queue(disk.store(), clock=clock)

    @old.task("pay")
    async def pay() -> None:
        raise KeyError("why")

    async with old:
        failed = await old.enqueue(pay)
        with pytest.raises(KeyError):
            await failed
    new = Queue(disk.store(), clock=clock)
    async with new:
        with contextlib.suppress(LookupError, ValueError):
            await new.redrive(failed.id)
        await clock.advance(1)
        [job] = [job async for job in new.jobs()]
        assert job.error.type == "KeyError"
