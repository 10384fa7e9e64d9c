"""J5. The function gets the same arguments with and without a restart."""

import functools
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest

from asyncdefer import LogEvent, Queue, ResultUnavailable, Retry, State
from asyncdefer.testing import VirtualClock, check_conservation


class Colour(Enum):
    RED = "red"


@dataclass
class Order:
    number: int
    colour: Colour
    due: date | None = None


CASES: list[tuple[Any, Any]] = [
    (int, 7), (str, "naïve \0 text"), (float, 1.5), (bool, True), (type(None), None),
    (bytes, b"\x00\xff"), (tuple[int, str], (1, "a")), (set[int], {1, 2}), (list[int], [1, 2]),
    (dict[str, int], {"a": 1}), (datetime, datetime(2027, 1, 2, tzinfo=UTC)),
    (timedelta, timedelta(days=3)), (UUID, UUID(int=7)), (Decimal, Decimal("1.10")),
    (Colour, Colour.RED), (Order, Order(1, Colour.RED, date(2027, 1, 1))),
    (list[Order], [Order(1, Colour.RED)]), (int | None, None), (Order | None, Order(2, Colour.RED)),
]  # fmt: skip


def program(disk: Any, clock: VirtualClock, ran: list[Any], kind: Any) -> Queue:
    queue = Queue(disk.store(), clock=clock)

    async def work(value: Any, *, flag: bool = False) -> Any:
        ran.append((value, flag))
        return value

    work.__annotations__ = {"value": kind, "flag": bool, "return": kind}
    queue.task("work")(work)
    return queue


@pytest.mark.parametrize(("kind", "value"), CASES, ids=lambda case: getattr(case, "__name__", ""))
async def test_arguments_and_results_make_the_trip(
    disk: Any, clock: VirtualClock, kind: Any, value: Any
) -> None:
    """Equal and of the same type, here, after a restart, and as a result."""
    ran: list[Any] = []
    async with program(disk, clock, ran, kind) as first:
        work = first.task_of("work")
        here = await first.enqueue(work, value, flag=True)
        assert await here == value
        there = await first.enqueue(work, value, flag=True, delay=60)
        disk.crash()
    async with program(disk, clock, ran, kind) as queue:
        await clock.advance(60)
        for handle in (here, there):
            again = await queue.handle(handle.id)
            assert again is not None
            assert await again == value
    assert ran == [(value, True)] * 2
    assert {type(seen) for seen, _ in ran} == {type(value)}


async def test_the_function_gets_a_copy(disk: Any, clock: VirtualClock) -> None:
    """What the caller does to its list afterwards changes nothing."""
    ran: list[Any] = []
    async with program(disk, clock, ran, list[int]) as queue:
        mine = [1]
        handle = await queue.enqueue(queue.task_of("work"), mine)
        mine.append(2)
        assert await handle == [1]


async def test_what_contradicts_its_annotation(disk: Any, clock: VirtualClock) -> None:
    """It is a TypeError at the call that names the parameter, and changes nothing."""
    async with program(disk, clock, [], int) as queue:
        with pytest.raises(TypeError, match="value"):
            await queue.enqueue(queue.task_of("work"), "seven")
        with pytest.raises(TypeError, match="value"):
            await queue.enqueue(queue.task_of("work"), object())
        assert queue.stats().accepted == 0
        check_conservation(queue)


def module_level() -> None: ...


@pytest.mark.parametrize(
    "function", [lambda: None, module_level, functools.partial(module_level), print], ids=repr
)
async def test_a_bare_function(disk: Any, clock: VirtualClock, function: Any) -> None:
    """With a journal a function is found by its name: one that is not registered is a TypeError."""
    async with program(disk, clock, [], int) as queue:
        for call in (
            queue.enqueue(function),
            queue.options(delay=1).enqueue(function),
        ):
            with pytest.raises(TypeError, match="register"):
                await call


@pytest.mark.parametrize(
    "options",
    [
        {"retry": Retry(2, on=OSError)},
        {"retry": Retry(2, delay=lambda n, error: 1.0)},
        {"defer": lambda value: "k"},
    ],
    ids=["on", "delay", "defer"],
)
async def test_code_in_the_options_of_a_call(disk: Any, clock: VirtualClock, options: Any) -> None:
    """A row carries data only: code is given on the decorator."""
    async with program(disk, clock, [], int) as queue:
        with pytest.raises(TypeError, match="decorator"):
            await queue.options(**options).enqueue(queue.task_of("work"), 1)
        assert queue.stats().accepted == 0


async def test_options_of_a_call_survive(disk: Any, clock: VirtualClock) -> None:
    """Those given to a call are in its row; the others are read from the task at the run."""
    ran: list[int] = []

    def failing(**declared: Any) -> Queue:
        queue = Queue(disk.store(), clock=clock)

        @queue.task("bad", **declared)
        async def bad() -> None:
            ran.append(1)
            raise ValueError

        return queue

    async with failing() as first:
        bad = first.task_of("bad")
        call = first.options(retry=Retry(3, delay=1, jitter=False), delay=60, timeout=5)
        await call.enqueue(bad)
        await first.enqueue(bad, delay=60)
        disk.crash()
    async with failing(retry=Retry(2, delay=1, jitter=False)):
        await clock.advance(100)
    assert len(ran) == 3 + 2


async def test_a_result_that_cannot_be_recorded(disk: Any, clock: VirtualClock) -> None:
    """The job succeeded; its result is there in this process, and `ResultUnavailable` afterwards."""
    events: list[LogEvent] = []

    def odd() -> Queue:
        queue = Queue(disk.store(), clock=clock)
        queue.subscribe(events.append)

        @queue.task("odd")
        async def odd() -> Any:
            return object()

        return queue

    async with odd() as first:
        handle = await first.enqueue(first.task_of("odd"))
        assert type(await handle) is object
        assert "result_not_recorded" in [event.name for event in events]
    async with odd() as queue:
        again = await queue.handle(handle.id)
        assert again is not None
        assert again.state is State.SUCCEEDED
        with pytest.raises(ResultUnavailable):
            await again
