"""Whatever is asked of them, in whatever order, every store does what the store in memory does.

The planted bugs at the end show that a difference would be seen.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import Phase, given, settings

from asyncdefer.stores._base import Store
from asyncdefer.stores.memory import MemoryStore
from tests.stores.agree import Step, drive, play, steps
from tests.stores.desk import Kind, Memory, SQLite
from tests.stores.planted import PLANTED


class Quick(SQLite):
    """Rows in a file, without waiting for the disk."""

    def make(self, folder: Path) -> Store:
        from asyncdefer.stores.sqlite import SQLiteStore

        return SQLiteStore(folder / "journal.db", synchronous="NORMAL")


@dataclass(frozen=True)
class Broken(Memory):
    """Rows in memory, with a bug."""

    store: type[MemoryStore]

    def make(self, folder: Path) -> Store:
        return self.store()


def compare(kind: Kind, steps: Sequence[Step]) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(play(kind, Path(folder), steps))


def compare_at_random(kind: Kind, seed: int, length: int) -> None:
    with TemporaryDirectory() as folder:
        asyncio.run(drive(kind, Path(folder), seed, length))


@given(steps=steps)
def test_any_steps_give_the_same(steps: list[Step]) -> None:
    """Reports, claims, scans and all rows, after every step."""
    compare(Quick(), steps)


@pytest.mark.parametrize("seed", range(10))
def test_a_short_drive(seed: int) -> None:
    """Random steps of a driver that knows what is there."""
    compare_at_random(Quick(), seed, 150)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 110))
def test_a_long_drive(seed: int) -> None:
    """The same, further."""
    compare_at_random(Quick(), seed, 3_000)


# -- the comparison notices


def try_every_way(kind: Kind, examples: int) -> None:
    """As hypothesis does it above, without looking for the smallest example."""
    check: Any = given(steps=steps)(lambda steps: compare(kind, steps))
    settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        report_multiple_bugs=False,
    )(check)()


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found_by_hypothesis(planted: type[MemoryStore]) -> None:
    """A broken store does not get through."""
    with pytest.raises(AssertionError):
        try_every_way(Broken(planted), 1_000)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found_by_the_driver(planted: type[MemoryStore]) -> None:
    """In most of the drives."""
    found = 0
    for seed in range(10):
        try:
            compare_at_random(Broken(planted), seed, 150)
        except AssertionError:
            found += 1
    assert found >= 5


def test_a_sound_store_gets_through() -> None:
    """What the planted bugs are tried against lets one pass that has none."""

    class Sound(MemoryStore):
        pass

    try_every_way(Broken(Sound), 200)
    for seed in range(10):
        compare_at_random(Broken(Sound), seed, 150)
