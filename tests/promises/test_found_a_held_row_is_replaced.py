"""J7: a held row gives way to a newer call of its key, and a schedule that is registered late goes on."""

from typing import Any

from asyncdefer import Every, Queue
from asyncdefer.testing import VirtualClock, check_conservation

HOUR = 3600


async def test_the_books(disk: Any, clock: VirtualClock) -> None:
    old = Queue(disk.store(), clock=clock)

    @old.task("note")
    async def note(n: str) -> None: ...

    async with old:
        await old.enqueue(note, "a text", key="k", delay=60)
    new = Queue(disk.store(), clock=clock)

    @new.task("note")
    async def number(n: int) -> None: ...

    async with new:
        assert new.stats().held == 1
        await new.enqueue(number, 5, key="k")
        await clock.advance(1)
        stats = new.stats()
        assert (stats.waiting, stats.held, stats.replaced) == (0, 0, 1)
        check_conservation(new)


async def test_a_schedule_that_is_registered_late(disk: Any, clock: VirtualClock) -> None:
    ran, begun = list[Any](), clock.monotonic()

    async def tick() -> None:
        ran.append(clock.monotonic() - begun)

    old = Queue(disk.store(), clock=clock)
    old.task("tick", repeat=Every(HOUR))(tick)
    async with old:
        await clock.advance(1800)
    new = Queue(disk.store(), clock=clock)
    async with new:
        new.task("tick", repeat=Every(HOUR))(tick)
        await clock.advance(2 * HOUR)
        assert ran == [HOUR, 2 * HOUR]
        assert new.stats().held == 0
        check_conservation(new)
