"""Every promise of the contract is tried with every kind of store."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from asyncdefer.stores._base import Change, Store
from tests.stores.desk import (
    AFTER_THE_LEASE,
    GROUPINGS,
    KINDS,
    Desk,
    Grouping,
    Kind,
    Survived,
    opened_desk,
)


def _name(kind: object) -> str:
    return type(kind).__name__.lower()


@pytest.fixture(params=KINDS, ids=_name)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def store(kind: Kind, tmp_path: Path) -> Store:
    """A new store, which nobody has opened."""
    return kind.make(tmp_path)


@pytest.fixture
async def desk(store: Store) -> AsyncIterator[Desk]:
    """The store, opened by an owner."""
    async with opened_desk(store) as desk:
        yield desk


@pytest.fixture
def again(kind: Kind, store: Store, tmp_path: Path) -> Callable[[], Store]:
    """`again()` is the store as the program finds it when it starts again."""
    return partial(kind.again, store, tmp_path)


@pytest.fixture
def crashed(kind: Kind, store: Store, tmp_path: Path) -> Callable[[], Store]:
    """`crashed()` is the store as the program would find it had it died now."""
    return partial(kind.crashed, store, tmp_path, tmp_path / "crashed")


@pytest.fixture
def survived(store: Store, crashed: Callable[[], Store]) -> Survived:
    """The desk of who comes after an owner that wrote this and died; its lease has run out."""

    @asynccontextmanager
    async def survived(*changes: Change) -> AsyncIterator[Desk]:
        async with opened_desk(store) as before:
            await before.write(*changes)
            async with opened_desk(crashed(), AFTER_THE_LEASE) as desk:
                yield desk

    return survived


@pytest.fixture(params=[kind for kind in KINDS if kind.several], ids=_name)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A new store of a kind that may have several owners at once."""
    return request.param.make(tmp_path)


@pytest.fixture(params=[kind for kind in KINDS if not kind.several], ids=_name)
def sole(request: pytest.FixtureRequest) -> Kind:
    """A kind of store that has one owner at a time."""
    return request.param


@pytest.fixture(params=GROUPINGS, ids=lambda grouping: grouping.__name__)
def grouped(request: pytest.FixtureRequest) -> Grouping:
    """How changes are written at a desk: as one command, as several, or in turn.

    It makes no difference to what becomes of them.
    """
    return request.param
