"""What the tests of the stores share: rows in few words, and an owner at its store."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from shutil import copyfile
from typing import Any, Final

from asyncdefer._core.instant import SECOND
from asyncdefer._core.lifecycle import State
from asyncdefer.stores._base import (
    START,
    Change,
    Opened,
    Owner,
    Place,
    Row,
    Store,
    Written,
)  # fmt: skip

NOW: Final = 1_700_000_000 * SECOND
LEASE: Final = 30 * SECOND
SOON: Final = NOW + 600 * SECOND
FAR: Final = NOW + 10**9 * SECOND
AFTER_THE_LEASE: Final = NOW + 2 * LEASE

LIVE: Final = tuple(state.value for state in State if not state.ended)
ENDED: Final = tuple(state.value for state in State if state.ended)
STATES: Final = (*LIVE, *ENDED)

_numbers = count(1)


def row(
    id: int,
    key: str | None = None,
    state: str = "scheduled",
    *,
    task: str = "task",
    at: int = NOW,
    until: int | None = None,
    pinned: bool = False,
    arguments: str = "[]",
    body: str = "",
) -> Row:
    return Row(id, task, key, state, at, until, pinned, arguments, body)


def new_owner() -> Owner:
    """An owner that no other ever was."""
    number = next(_numbers)
    return Owner(number, 1000 + number, "host", NOW)


async def rows_of(store: Store, **filters: Any) -> list[Row]:
    """What `scan` finds, however much it is."""
    return [found async for found in store.scan(**{"limit": 1 << 30, **filters})]


async def ids_of(store: Store, **filters: Any) -> list[int]:
    return [found.id for found in await rows_of(store, **filters)]


@dataclass(frozen=True)
class Desk:
    """An owner and the store that it has open, and the time that it tells."""

    store: Store
    owner: Owner
    opened: Opened
    now: int

    async def write(self, *changes: Change) -> Written:
        """The changes as one command."""
        return await self.store.write(self.owner, [changes])

    async def claim(
        self,
        *,
        now: int | None = None,
        until: int = FAR,
        limit: int = 100,
        after: Place = START,
        keys: Sequence[tuple[str, str]] = (),
        ids: Sequence[int] = (),
    ) -> list[Row]:
        now = self.now if now is None else now
        return await self.store.claim(
            self.owner, now=now, until=until, limit=limit, after=after, keys=keys, ids=ids
        )

    async def claimed(self, **values: Any) -> list[int]:
        """The ids that a claim gives."""
        return [found.id for found in await self.claim(**values)]

    async def renew(self, now: int | None = None) -> None:
        now = self.now if now is None else now
        await self.store.renew(self.owner, now=now, until=now + LEASE)

    async def rows(self) -> list[Row]:
        return await rows_of(self.store)

    async def ids(self) -> list[int]:
        return sorted(await ids_of(self.store))

    async def states(self) -> dict[int, str]:
        return {found.id: found.state for found in await self.rows()}


@asynccontextmanager
async def opened_desk(store: Store, now: int = NOW) -> AsyncIterator[Desk]:
    """A new owner opens the store, with a lease from `now`."""
    owner = new_owner()
    async with store.open(owner, now=now, until=now + LEASE) as opened:
        yield Desk(store, owner, opened, now)


async def leave(store: Store, *changes: Change) -> None:
    """An owner opens the store, writes this and closes it."""
    async with opened_desk(store) as desk:
        await desk.write(*changes)


Survived = Callable[..., AbstractAsyncContextManager[Desk]]
Grouping = Callable[..., Any]


async def together(desk: Desk, *changes: Change) -> Written:
    """One command of one write."""
    return await desk.write(*changes)


async def apart(desk: Desk, *changes: Change) -> Written:
    """A command each, in one write."""
    return await desk.store.write(desk.owner, [(change,) for change in changes])


async def in_turn(desk: Desk, *changes: Change) -> Written:
    """A write each."""
    written = [await desk.write(change) for change in changes]
    lost = tuple(id for each in written for id in each.lost)
    return Written(lost, tuple(id for each in written for id in each.replaced))


GROUPINGS: Final = (together, apart, in_turn)


def told(written: Written) -> tuple[set[int], set[int]]:
    """The lost and the replaced: which ids, not in what order."""
    return set(written.lost), set(written.replaced)


class Memory:
    """The kind of store that lives as long as its object."""

    several = True  # owners at once

    def make(self, folder: Path) -> Store:
        from asyncdefer.stores.memory import MemoryStore

        return MemoryStore()

    def again(self, store: Store, folder: Path) -> Store:
        """What the program finds when it starts again."""
        return store

    def crashed(self, store: Store, folder: Path, there: Path) -> Store:
        """What the program would find if it died now, without a close; `there`: room for it."""
        return store


class SQLite:
    """The kind that lives in a file."""

    several = False

    def make(self, folder: Path) -> Store:
        from asyncdefer.stores.sqlite import SQLiteStore

        return SQLiteStore(folder / "journal.db")

    def again(self, store: Store, folder: Path) -> Store:
        return self.make(folder)

    def crashed(self, store: Store, folder: Path, there: Path) -> Store:
        there.mkdir()
        for name in ("journal.db", "journal.db-wal"):
            if (folder / name).exists():
                copyfile(folder / name, there / name)
        return self.make(there)


Kind = Memory | SQLite
KINDS: Final = (Memory(), SQLite())
