"""What stands in line before the journal's writer: entries to be written, and claims to be asked."""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from msgspec import Struct

from asyncdefer._core.job import Call
from asyncdefer.errors import JournalError
from asyncdefer.stores._base import (
    SCHEDULED,
    START,
    Add,
    Change,
    Command,
    Drop,
    Note,
    Place,
    Row,
    Set,
)  # fmt: skip


class Line(Struct, eq=False):
    """What stands in the journal's line. `error`: why it has not come through, at the last try."""

    through: bool = False
    error: JournalError | None = None
    waiters: "list[asyncio.Future[None]] | None" = None

    def wake(self) -> None:
        waiters, self.waiters = self.waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)


class Entry(Line, eq=False, kw_only=True):
    """The changes of one breath on their way to the store.

    `call`: the call that they take in; the journal may refuse it. `done`: called when they are
    written, with the ids that left the store in the same group without having been told to, or
    with None when they never will be.
    """

    command: Command
    call: Call | None = None
    done: Callable[[frozenset[int] | None], object] | None = None


class Claim(Line, eq=False, kw_only=True):
    """A question to the store; what it finds becomes ours. `arrived` gets the rows.

    `behind`: the entry that was the last one when it was asked. `beyond`: the first row after those
    of a horizon. `found`: what became of the rows.
    """

    arrived: "Callable[[Claim, list[Row]], object]"
    until: int = 0
    limit: int = 0
    after: Place = START
    keys: Sequence[tuple[str, str]] = ()
    ids: Sequence[int] = ()
    behind: Entry | None = None
    beyond: Row | None = None
    found: Sequence[Call | None] = ()


def visible(entries: Iterable[Entry]) -> dict[int, Change]:
    """By id, what shows of changes that were one transaction: of a job the last, of a key the newest."""
    last: dict[int, Change] = {}
    newest: dict[tuple[str, str], int] = {}
    for entry in entries:
        for change in entry.command:
            if isinstance(change, Drop):
                last[change.id] = change
            elif not isinstance(change, Note):
                row = change.row
                last[row.id] = change
                if row.key is not None and row.state == SCHEDULED:
                    name = row.task, row.key
                    other = newest.setdefault(name, row.id)
                    if other != row.id:
                        newest[name] = max(other, row.id)
                        last.pop(min(other, row.id), None)
    return last


def is_there(change: Change, found: dict[int, Row]) -> bool:
    """Among these rows a change shows; a note shows nowhere, and does not matter."""
    match change:
        case Add(row):
            return row.id in found
        case Set(row):
            now = found.get(row.id)
            written = row.state, row.at, row.body
            return now is not None and (now.state, now.at, now.body) == written
        case Drop(id):
            return id not in found
        case _:
            return True


def as_journal_error(error: Exception, what: str = "the store failed") -> JournalError:
    """The error as those who wait get it."""
    if isinstance(error, JournalError):
        return error
    told = JournalError(f"{what}: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told
