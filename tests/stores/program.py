"""A program beside the store: a connection of its own to the same file, of either kind."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiosqlite

from asyncdefer.stores._base import Change, Written
from tests.stores.desk import Desk

KINDS: Final = ("aiosqlite", "sqlite3")


@dataclass(frozen=True)
class Program:
    """A connection of the program's, in the desk's journal."""

    desk: Desk
    connection: Any

    async def run(self, sql: str, parameters: tuple[Any, ...] = ()) -> list[Any]:
        """A statement of the program's own."""
        if isinstance(self.connection, sqlite3.Connection):
            return self.connection.execute(sql, parameters).fetchall()
        return list(await self.connection.execute_fetchall(sql, parameters))

    async def write(self, *changes: Change) -> Written:
        """The changes as one command, in the program's transaction."""
        return await self.desk.store.write(self.desk.owner, [changes], within=self.connection)

    async def close(self) -> None:
        if isinstance(self.connection, sqlite3.Connection):
            self.connection.close()
        else:
            await self.connection.close()


async def connected(desk: Desk, kind: str, path: Path | str, **options: Any) -> Program:
    options = {"isolation_level": None, "timeout": 0, **options}
    if kind == "sqlite3":
        return Program(desk, sqlite3.connect(path, **options))
    return Program(desk, await aiosqlite.connect(path, **options))


@asynccontextmanager
async def program(
    desk: Desk, kind: str, path: Path | str, **options: Any
) -> AsyncIterator[Program]:
    """A program that has its connection open."""
    beside = await connected(desk, kind, path, **options)
    try:
        yield beside
    finally:
        await beside.close()
