"""Every promise holds on asyncio's own loop and on uvloop, on a clock that the test moves."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import Queue, Task
from asyncdefer._task import name_of, schedulable
from asyncdefer.pytest_plugin import started
from asyncdefer.testing import VirtualClock

LOOPS = [pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")]
if sys.platform != "win32":
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


# Tests that take `queue` run in memory on both loops, and once more with a journal.
WORLDS = [
    *(pytest.param(loop.values[0], "memory", id=f"{loop.id}-memory") for loop in LOOPS),
    pytest.param(LOOPS[0].values[0], "sqlite", id="asyncio-sqlite"),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "queue" in metafunc.fixturenames:
        metafunc.parametrize(("anyio_backend", "queue"), WORLDS, indirect=True)
    elif "anyio_backend" in metafunc.fixturenames:
        metafunc.parametrize("anyio_backend", LOOPS, indirect=True)


@pytest.fixture
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


class Registering(Queue):
    """A queue with a journal, which makes a task of each bare function that a test gives it."""

    def task_of(self, fn: Callable[..., Any] | str) -> Task[..., Any]:
        if isinstance(fn, str | Task):
            return super().task_of(fn)
        for task in self._registry:
            if task.fn is fn or task.fn == fn:
                return task
        return self.task(f"{name_of(schedulable(fn))} {len(self._registry)}")(fn)


@pytest.fixture
def queue(
    request: pytest.FixtureRequest,
    defer_clock: VirtualClock,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Queue]:
    """A started queue; after the test its books must balance.

    The laws of time are about jobs in memory, so the horizon of the journal is far away here.
    """
    monkeypatch.setattr("asyncdefer._claims.HORIZON", 10 * 366 * 86_400 * 1_000_000)
    if request.param == "memory":
        queue = Queue(clock=defer_clock)
    else:
        queue = Registering(tmp_path / "timers.db", clock=defer_clock)
    yield from started(request.node, queue)


@pytest.fixture
def clock(defer_clock: VirtualClock) -> VirtualClock:
    """The clock of `queue`."""
    return defer_clock
