"""Every promise holds on asyncio's own loop and on uvloop, on a clock that the test moves."""

import copy
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import Queue, Task
from asyncdefer._task import name_of, schedulable
from asyncdefer.pytest_plugin import started
from asyncdefer.stores._base import Store
from asyncdefer.stores.memory import MemoryStore
from asyncdefer.stores.sqlite import SQLiteStore
from asyncdefer.testing import VirtualClock

LOOPS = [pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")]
if sys.platform != "win32":
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


# Tests that take `queue` run in memory on both loops, and once more with a journal.
WORLDS = [
    *(pytest.param(loop.values[0], "memory", id=f"{loop.id}-memory") for loop in LOOPS),
    pytest.param(LOOPS[0].values[0], "sqlite", id="asyncio-sqlite"),
]


BUILT_UPON = ("test_iteration_", "test_after")
"""What is made of jobs, and has nothing to do with the loop: asyncio's own is enough."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    name = metafunc.module.__name__.rpartition(".")[2]
    every = slice(None, None, 2) if name.startswith(BUILT_UPON) else slice(None)
    if "queue" in metafunc.fixturenames:
        metafunc.parametrize(("anyio_backend", "queue"), WORLDS[every], indirect=True)
    elif "anyio_backend" in metafunc.fixturenames:
        metafunc.parametrize("anyio_backend", LOOPS[every], indirect=True)


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


class Disk:
    """Where a program keeps its journal, and what a crash leaves of it."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind = kind
        self.folder = folder
        self.crashes = 0
        self._memory = MemoryStore()

    @property
    def path(self) -> Path:
        return self.folder / f"timers-{self.crashes}.db"

    def store(self) -> Store:
        """The store as a program finds it when it starts."""
        return self._memory if self.kind == "memory" else SQLiteStore(self.path)

    def crash(self) -> None:
        """All that is not written by now is lost; who is still there writes to another disk."""
        before = self.path
        self.crashes += 1
        if self.kind == "memory":
            self._memory = copy.deepcopy(self._memory)
            for lease in self._memory._leases.values():  # whoever comes later finds it run out
                lease.until = -(1 << 62)
        else:
            for suffix in ("", "-wal"):
                if Path(f"{before}{suffix}").exists():
                    shutil.copy(f"{before}{suffix}", f"{self.path}{suffix}")


@pytest.fixture(params=["memory", "sqlite"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Disk:
    """A disk for a journal, real or not."""
    return Disk(request.param, tmp_path)
