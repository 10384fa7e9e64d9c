"""The contract of a store: five verbs over rows. Nothing above the journal knows which store it is.

A store keeps rows and knows nothing of tasks, handles or clocks: times come in as arguments, in
microseconds of the wall clock. Who opens it becomes an *owner*, which no other ever was; each row
belongs to the owner that wrote or claimed it last, as long as that one's lease runs.

One rule for waiting rows: **of the rows in state `scheduled` with one (task, key), only that with
the greatest id survives**. The other goes out in the same write and is reported.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Final, Protocol

from msgspec import Struct

from asyncdefer._core.lifecycle import State
from asyncdefer.errors import JournalError

Place = tuple[int, int]
"""Where a row stands in eta order: (`at`, id)."""

START: Final[Place] = (-(1 << 62), 0)
"""Before every row."""

LAST_ID: Final = (1 << 63) - 1
"""The greatest id that there can be."""

PAGE: Final = 500

HELD: Final = State.HELD.value
SCHEDULED: Final = State.SCHEDULED.value
RUNNING: Final = State.RUNNING.value
LIVE: Final = (HELD, SCHEDULED, RUNNING)


class Row(Struct, frozen=True, gc=False):
    """A job as a store keeps it.

    `state`: a value of `State` as a plain str. `at`: the eta. `until`: of an ended job, when it is
    to be purged; None: never. `pinned`: to be claimed however far its eta is. `arguments` and
    `body`: JSON text that the store does not read; `arguments` never changes.
    """

    id: int
    task: str
    key: str | None
    state: str
    at: int
    until: int | None = None
    pinned: bool = False
    arguments: str = ""
    body: str = ""


class Add(Struct, frozen=True, gc=False):
    """A row that was not there."""

    row: Row


class Set(Struct, frozen=True, gc=False):
    """All of a row but its arguments, if it is there, ours, and in the state `was`."""

    row: Row
    was: str


class Drop(Struct, frozen=True, gc=False):
    """A row goes, if it is there, ours, and in the state `was`."""

    id: int
    was: str


class Note(Struct, frozen=True, gc=False):
    """A small value by its name; None takes it away."""

    name: str
    value: str | None


Change = Add | Set | Drop | Note
Command = tuple[Change, ...]
"""The changes of one breath: all of them happen, or none."""


def check(change: Change) -> None:
    """An error if it is nothing that every store can keep: numbers of 64 bits, texts in UTF-8."""
    numbers: list[int] = []
    texts: list[str] = []
    match change:
        case Add(row) | Set(row):
            numbers += [row.id, row.at, row.until or 0]
            texts += [row.task, row.key or "", row.state, row.arguments, row.body]
        case Drop(id, was):
            numbers.append(id)
            texts.append(was)
        case Note(name, value):
            texts += [name, value or ""]
        case _:
            raise TypeError("no such change")
    for number in numbers:
        number.to_bytes(8, signed=True)
    for text in texts:
        text.encode()


class Written(Struct, frozen=True):
    """What became of the ids of a write.

    `lost`: those of a `Set` or `Drop` that found no row of theirs in that state, and of an `Add`
    that found one. `replaced`: rows, old or of this write, that gave way to a newer one of their key.
    """

    lost: tuple[int, ...] = ()
    replaced: tuple[int, ...] = ()


class Owner(Struct, frozen=True):
    """Who opens a store: a number that no other owner of the store has, and what people are told.

    `started` is in microseconds of the wall clock.
    """

    number: int
    pid: int
    host: str
    started: int


class Opened(Struct, frozen=True):
    """What an owner finds.

    `last_id`: the greatest id that was ever written, 0 in a new store. `clean`: the owner before
    closed it, and so left no row running. `counts`: rows by state, those of live states at least.
    `notes`: all of them.
    """

    last_id: int
    clean: bool
    counts: dict[str, int]
    notes: dict[str, str]


class Unknown(JournalError):
    """A commit that failed may have happened or not: read before going on."""


class Busy(JournalError):
    """Somebody else holds the store: nothing was written, and that was the fault of no command."""


class Store(Protocol):
    """Five verbs. Every error of theirs is a `JournalError`, and then nothing was changed, except
    after `Unknown`. A store that has lost its connection, after that or otherwise, makes a new one
    at the next call.
    """

    def open(self, owner: Owner, *, now: int, until: int) -> AbstractAsyncContextManager[Opened]:
        """Become the owner, with a lease `until`; `JournalLocked` if there may be only one.

        At the end the lease is over, and all that was written is known to be there.
        """
        ...

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        """Apply all changes in their order, or none.

        `within`: a transaction of the caller's, on a connection to the store. All of it is there
        with its commit, and gone with its rollback; what is told is so inside that transaction.
        """
        ...

    async def claim(
        self,
        owner: Owner,
        *,
        now: int,
        until: int,
        limit: int,
        after: Place = START,
        keys: Sequence[tuple[str, str]] = (),
        ids: Sequence[int] = (),
    ) -> list[Row]:
        """Rows that become, or are, this owner's.

        Without `keys` and `ids`, in this order: every `running` row, and every pinned `scheduled`
        one, that no live owner has (the owner's own are no news); then up to `limit` other
        `scheduled` rows by (`at`, id), with `at` <= `until`: those after the place `after` that are
        its own, and those anywhere that no live owner has. Fewer than `limit` of them: there are no
        more. With `keys` or `ids`: the `scheduled` and `running` rows of these (task, key), and the
        live rows of these ids, as far as no other live owner has them.
        """
        ...

    async def renew(self, owner: Owner, *, now: int, until: int) -> None:
        """Extend the lease; and take the time to purge rows that are over, a bounded number."""
        ...

    def scan(
        self,
        *,
        ids: Sequence[int] | None = None,
        state: str | None = None,
        task: str | None = None,
        key_prefix: str | None = None,
        after: Place | None = None,
        limit: int = PAGE,
    ) -> AsyncIterator[Row]:
        """Rows of any owner in eta order, up to `limit` of them, after a place; nothing is changed."""
        ...
