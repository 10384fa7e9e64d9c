"""The journal by the caller's door: rows written in a transaction of the program's own.

What is done on a connection of sqlite3 is in `_lent`. Here is the same by aiosqlite, one hop for
each step, and what kind a connection is of.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, TypeVar, cast

import aiosqlite

from asyncdefer.stores._base import Change, Row, Written
from asyncdefer.stores._hop import Hop, to_the_end
from asyncdefer.stores._lent import Home, Lent

T = TypeVar("T")

_FIXED: Final = ((3, 44, 6), (3, 50, 7), (3, 51, 3))
"""The releases without the WAL-reset bug: each of its series, and the last and all after it."""


def has_wal_reset_bug(version: tuple[int, int, int] = sqlite3.sqlite_version_info) -> bool:
    """Whether this SQLite may corrupt a file in WAL mode that two connections write to."""
    return version < _FIXED[-1] and not any(
        version[:2] == fixed[:2] and version >= fixed for fixed in _FIXED
    )


def lend(connection: object) -> "Lent | AsyncLent":
    """What can be done on a connection of the caller's; `TypeError` if it is none of these kinds."""
    if isinstance(connection, aiosqlite.Connection):
        return AsyncLent(connection)
    if isinstance(connection, sqlite3.Connection):
        return Lent(connection)
    raise TypeError(
        "a transaction is one of an aiosqlite.Connection or a sqlite3.Connection to the file of "
        f"the journal, not of a {type(connection).__name__}"
    )


class AsyncLent:
    """The same for a connection of aiosqlite: each call is one hop to its thread.

    Whoever is cancelled meanwhile leaves nothing half-done: it happens, or it has.
    """

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._connection = connection
        self._lent: Lent | None = None

    def is_open(self) -> bool:
        """As `Lent.is_open`; without a hop."""
        try:
            return self._connection.in_transaction
        except (ValueError, sqlite3.ProgrammingError):
            return False

    async def prepare(self) -> None:
        """As `Lent.prepare`."""
        await self._hop(Lent.prepare)

    async def enter(self, home: Home) -> bool:
        """As `Lent.enter`."""
        return await self._hop(lambda lent: lent.enter(home))

    async def begin(self) -> None:
        """As `Lent.begin`."""
        await self._hop(Lent.begin)

    async def commit(self) -> None:
        """As `Lent.commit`."""
        await self._hop(Lent.commit)

    async def roll_back(self) -> None:
        """As `Lent.roll_back`."""
        await self._hop(Lent.roll_back)

    async def write(self, home: Home, changes: Sequence[Change]) -> Written:
        """As `Lent.write`."""
        return await self._hop(lambda lent: lent.write(home, changes))

    async def add(self, home: Home, row: Row, added: Callable[[Written], object]) -> None:
        """As `Lent.add`; who is cancelled hears of what has happened all the same, and before."""
        hop = self._hop_of(lambda lent: lent.add(home, row))
        connection: Any = self._connection
        try:
            await connection._execute(hop)  # noqa: SLF001 - as below
        except asyncio.CancelledError:
            await to_the_end(connection._execute(_nothing))  # noqa: SLF001 - which comes after it
            if hop.held:
                added(hop.held.pop())
            raise
        added(hop.held.pop())

    async def _hop(self, step: Callable[[Lent], T]) -> T:
        hop, connection = self._hop_of(step), cast("Any", self._connection)
        # Nothing public of aiosqlite calls what it is given in the connection's thread.
        await connection._execute(hop)  # noqa: SLF001
        return cast("T", hop.held.pop())

    def _hop_of(self, step: Callable[[Lent], object]) -> Hop:
        connection: Any = self._connection
        try:
            db: sqlite3.Connection = connection._conn  # noqa: SLF001 - the one that Lent works on
        except ValueError:
            raise ValueError(
                "this connection of aiosqlite is not open: it was closed, or never awaited"
            ) from None
        if self._lent is None:
            self._lent = Lent(db)
        return Hop(partial(step, self._lent))


def _nothing() -> None:
    """To wait for what comes before."""
