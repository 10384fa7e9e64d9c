"""J6. No pickle and no import by name: only registered names are looked up."""

import ast
from pathlib import Path
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Queue, State
from asyncdefer.stores._base import Add, Owner, Row
from asyncdefer.testing import VirtualClock

LIBRARY = Path(asyncdefer.__file__).parent
EVIL = {"pickle", "marshal", "shelve", "importlib", "runpy", "dill", "cloudpickle"}


def imported(source: str) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=found):
                names |= {name.name.split(".")[0] for name in found}
            case ast.ImportFrom(module=str(module)):
                names.add(module.split(".")[0])
            case ast.Name(id="__import__" | "eval"):
                names.add("importlib")
            case _:
                pass
    return names


@pytest.mark.parametrize("file", sorted(LIBRARY.rglob("*.py")), ids=lambda file: file.name)
def test_nothing_that_could_load_code(file: Path) -> None:
    """The library has no use for what turns data into code."""
    assert not imported(file.read_text("utf-8")) & EVIL


def test_it_would_be_seen() -> None:
    """The check above can fail."""
    assert imported("import pickle\nfrom importlib import x\neval('1')") & EVIL == {
        "pickle",
        "importlib",
    }


@pytest.mark.parametrize(
    "name", ["os.system", "builtins.print", "asyncdefer._queue.Queue", "work.__call__", "Work"]
)
async def test_a_planted_row_runs_nothing(disk: Any, clock: VirtualClock, name: str) -> None:
    """A row that names a function which is no task is held."""
    store: Any = disk.store()
    planter = Owner(1, 1, "somewhere", 0)
    async with store.open(planter, now=clock.wall(), until=clock.wall() + 1):
        row = Row(1, name, None, "scheduled", 0, arguments='{"command":"exit 1"}')
        await store.write(planter, [(Add(row),)])
    queue = Queue(disk.store(), clock=clock)

    @queue.task("work")
    async def work(command: str = "") -> None:
        raise AssertionError

    async with queue:
        await clock.advance(1)
        assert [job.state async for job in queue.jobs()] == [State.HELD]


TAGS = [
    '{"value":{"$":"os.system","v":"exit 1"}}',
    '{"value":{"$":"asyncdefer._queue.Queue","v":[]}}',
    '{"value":{"$":"type","v":["A"]}}',
]


@pytest.mark.parametrize("arguments", TAGS)
async def test_a_planted_value_makes_nothing(
    disk: Any, clock: VirtualClock, arguments: str
) -> None:
    """Values that name their type name one of a closed list; a row with another one is held."""
    store: Any = disk.store()
    planter = Owner(1, 1, "somewhere", 0)
    async with store.open(planter, now=clock.wall(), until=clock.wall() + 1):
        row = Row(1, "work", None, "scheduled", 0, arguments=arguments)
        await store.write(planter, [(Add(row),)])
    queue = Queue(disk.store(), clock=clock)

    @queue.task("work")
    async def work(value: Any) -> None:
        raise AssertionError

    async with queue:
        await clock.advance(1)
        assert [job.state async for job in queue.jobs()] == [State.HELD]
