"""Rows in dicts: the store in its plainest words, which the others are compared with.

It serves tests and two queues in one process, and what it keeps lasts as long as the object does:
a queue that starts again on the same one finds its rows. It knows no files and no transactions.
Every verb does its work without an `await`, so changes follow one another and nobody sees half.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from itertools import islice
from typing import Any, Final, NamedTuple

from msgspec import structs

from asyncdefer.errors import JournalError
from asyncdefer.stores._base import (
    HELD,
    LIVE,
    PAGE,
    RUNNING,
    SCHEDULED,
    START,
    Add,
    Command,
    Drop,
    Note,
    Opened,
    Owner,
    Place,
    Row,
    Set,
    Written,
    check,
)  # fmt: skip

_PURGE: Final = 1_000  # rows that go in one renewal at most


class _Lease:
    """An owner's time at the store, from its `open` to the end of that."""

    __slots__ = ("over", "until")

    def __init__(self, until: int) -> None:
        self.until = until
        self.over = False

    def runs(self, now: int) -> bool:
        return not self.over and now < self.until


class _Kept(NamedTuple):
    row: Row
    lease: _Lease  # of who wrote or claimed it last


class _Opening(AbstractAsyncContextManager[Opened]):
    """What `open` gives. Not a generator: an owner that is collected half-way has not closed."""

    def __init__(self, begin: Callable[[], Opened], end: Callable[[], None]) -> None:
        self._begin = begin
        self._end = end

    async def __aenter__(self) -> Opened:
        return self._begin()

    async def __aexit__(self, *exc_info: object) -> None:
        self._end()


class MemoryStore:
    """Rows in the memory of this process; any number of owners may have it open, in one thread."""

    def __init__(self) -> None:
        self._rows: dict[int, _Kept] = {}
        self._order: list[Place] = []  # of every row, sorted
        self._waiting: dict[tuple[str, str], int] = {}  # the scheduled row of each (task, key)
        self._notes: dict[str, str] = {}
        self._last_id = 0
        self._now = 0  # as it was told last
        self._leases: dict[int, _Lease] = {}  # of the owners that have it open, by number
        self._unclosed: list[_Lease] = []  # those the next owner must hear of

    # -- owners

    def open(self, owner: Owner, *, now: int, until: int) -> AbstractAsyncContextManager[Opened]:
        """Become an owner, beside those there are. `clean`: all before have closed.

        One that never closes is told of until its lease has run out and somebody has heard of it.
        """
        return _Opening(partial(self._begin, owner, now, until), partial(self._end, owner))

    def _begin(self, owner: Owner, now: int, until: int) -> Opened:
        if owner.number in self._leases:
            raise JournalError(f"owner {owner.number} has the store open: take a number of its own")
        clean = not self._unclosed
        lease = self._leases[owner.number] = _Lease(until)
        self._now = now
        self._unclosed = [other for other in self._unclosed if other.runs(now)]
        self._unclosed.append(lease)
        counts: dict[str, int] = {}
        for row, _ in self._rows.values():
            counts[row.state] = counts.get(row.state, 0) + 1
        return Opened(self._last_id, clean, counts, dict(self._notes))

    def _end(self, owner: Owner) -> None:
        lease = self._leases.pop(owner.number)
        lease.over = True
        if lease in self._unclosed:
            self._unclosed.remove(lease)

    def _lease(self, owner: Owner) -> _Lease:
        try:
            return self._leases[owner.number]
        except KeyError:
            raise JournalError(
                f"owner {owner.number} does not have the store open, or no longer: open it first"
            ) from None

    def _has_another(self, kept: _Kept, lease: _Lease) -> bool:
        """Whether the row belongs to another owner, whose lease runs."""
        return kept.lease is not lease and kept.lease.runs(self._now)

    async def renew(self, owner: Owner, *, now: int, until: int) -> None:
        """As the contract says; up to a thousand rows go."""
        lease = self._lease(owner)
        lease.until = until
        self._now = now
        over = (
            row.id
            for row, _ in self._rows.values()
            if row.until is not None and row.until <= now and row.state not in LIVE
        )
        for id in list(islice(over, _PURGE)):
            self._take(id)

    # -- rows

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        """As the contract says; there is no transaction it could be `within`."""
        if within is not None:
            raise JournalError(
                "a MemoryStore has no transactions to write within: they need a journal in SQLite, "
                'as of Queue("timers.db")'
            )
        lease = self._lease(owner)
        changes = [change for command in commands for change in command]
        for change in changes:
            try:
                check(change)
            except (AttributeError, OverflowError, TypeError, UnicodeEncodeError) as error:
                kind = type(change).__name__
                raise JournalError(f"the store cannot keep this {kind}: {error}") from error
        # From here on nothing can fail.
        lost: dict[int, None] = {}  # a set that keeps its order
        replaced: dict[int, None] = {}
        for change in changes:
            match change:
                case Note(name, value):
                    if value is None:
                        self._notes.pop(name, None)
                    else:
                        self._notes[name] = value
                case Add(row) if row.id in self._rows:
                    lost[row.id] = None
                case Add(row):
                    self._last_id = max(self._last_id, row.id)
                    replaced.update(self._put(row, lease))
                case Set(row, was) if self._finds(row.id, was, lease):
                    arguments = self._take(row.id).arguments
                    row = structs.replace(row, arguments=arguments)
                    replaced.update(self._put(row, lease))
                case Drop(id, was) if self._finds(id, was, lease):
                    self._take(id)
                case Set(Row(id)) | Drop(id):
                    lost[id] = None
        return Written(tuple(lost), tuple(replaced))

    def _finds(self, id: int, was: str, lease: _Lease) -> bool:
        """Whether the row is there, in this state, and no other owner's."""
        kept = self._rows.get(id)
        return kept is not None and kept.row.state == was and not self._has_another(kept, lease)

    def _put(self, row: Row, lease: _Lease) -> dict[int, None]:
        """Keep a row that is not there, if the rule of its key lets it, and say who gives way."""
        gone: dict[int, None] = {}
        if row.state == SCHEDULED and row.key is not None:
            other = self._waiting.get((row.task, row.key))
            if other is not None:
                gone[min(other, row.id)] = None
                if other > row.id:
                    return gone
                self._take(other)
            self._waiting[row.task, row.key] = row.id
        self._rows[row.id] = _Kept(row, lease)
        insort(self._order, (row.at, row.id))
        return gone

    def _take(self, id: int) -> Row:
        """A row goes, wherever it stood."""
        row = self._rows.pop(id).row
        del self._order[bisect_left(self._order, (row.at, id))]
        if row.state == SCHEDULED and row.key is not None:
            del self._waiting[row.task, row.key]
        return row

    def _in_order(self, start: int = 0) -> Iterator[_Kept]:
        return (self._rows[number] for _, number in self._order[start:])

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
        """As the contract says. Of a pinned row of its own an owner hears by key or id only."""
        lease = self._lease(owner)
        self._now = now
        if keys or ids:
            rows = self._named(lease, set(keys), set(ids))
        else:
            rows = self._coming(lease, until, limit, after)
        for row in rows:
            self._rows[row.id] = _Kept(row, lease)
        return rows

    def _coming(self, lease: _Lease, until: int, limit: int, after: Place) -> list[Row]:
        running: list[Row] = []
        pinned: list[Row] = []
        others: list[Row] = []
        for kept in self._in_order():
            if self._has_another(kept, lease):
                continue
            row, ours = kept.row, kept.lease is lease
            if row.state == RUNNING:
                if not ours:
                    running.append(row)
            elif row.state == SCHEDULED:
                if row.pinned:
                    if not ours:
                        pinned.append(row)
                elif (
                    row.at <= until
                    and (not ours or (row.at, row.id) > after)
                    and len(others) < limit
                ):
                    others.append(row)
        return running + pinned + others

    def _named(self, lease: _Lease, keys: set[tuple[str, str]], ids: set[int]) -> list[Row]:
        return [
            kept.row
            for kept in self._in_order()
            if (row := kept.row).state in LIVE
            and (row.id in ids or (row.state != HELD and (row.task, row.key) in keys))
            and not self._has_another(kept, lease)
        ]

    async def scan(
        self,
        *,
        ids: Sequence[int] | None = None,
        state: str | None = None,
        task: str | None = None,
        key_prefix: str | None = None,
        after: Place | None = None,
        limit: int = PAGE,
    ) -> AsyncIterator[Row]:
        """As the contract says: the rows as they are when the first is asked for."""
        wanted = None if ids is None else set(ids)
        start = 0 if after is None else bisect_right(self._order, after)
        found = (
            row
            for row, _ in self._in_order(start)
            if (wanted is None or row.id in wanted)
            and (state is None or row.state == state)
            and (task is None or row.task == task)
            and (key_prefix is None or (row.key or "").startswith(key_prefix))
        )
        for row in list(islice(found, limit)):
            yield row
