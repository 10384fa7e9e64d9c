"""Fixtures for pytest: a queue on a virtual clock.

The queue starts inside the test's own task, just before the test's first line, and closes just
after its last. So it is always in the loop of the test, whichever plugin runs that, and needs
no async fixture.
"""

import functools
import inspect
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from asyncdefer._queue import Queue
from asyncdefer.errors import NotStarted
from asyncdefer.testing import VirtualClock, check_conservation


@pytest.fixture
def defer_clock() -> VirtualClock:
    """A virtual clock that begins on 2027-01-01."""
    return VirtualClock()


@pytest.fixture
def defer_queue(request: pytest.FixtureRequest, defer_clock: VirtualClock) -> Iterator[Queue]:
    """A queue in memory on `defer_clock`, started for the time of an async test.

    A plain test starts it itself. After the test the conservation law is checked.
    """
    yield from started(request.node, Queue(clock=defer_clock))


@pytest.fixture
def defer_journal(
    request: pytest.FixtureRequest, defer_clock: VirtualClock, tmp_path: Path
) -> Iterator[Queue]:
    """The same with a journal: a SQLite file `timers.db` in `tmp_path`."""
    yield from started(request.node, Queue(tmp_path / "timers.db", clock=defer_clock))


def started(item: Any, queue: Queue) -> Iterator[Queue]:
    """The queue, started for the time of an async test, and its books checked after it."""
    test = item.obj
    wraps = inspect.iscoroutinefunction(test)
    if wraps:
        item.obj = _started_around(test, queue)
    yield queue
    if wraps:
        item.obj = test  # pytest keeps its items, and this one would keep the queue
    with suppress(NotStarted):
        check_conservation(queue)


def _started_around(test: Any, queue: Queue) -> Any:
    """The test function, which starts and closes the queue around its own body."""

    @functools.wraps(test)
    async def within(*args: Any, **kwargs: Any) -> None:
        async with queue:
            await test(*args, **kwargs)

    return within
