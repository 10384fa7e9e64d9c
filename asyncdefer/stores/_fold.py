"""What a group of commands does to each row in all: arithmetic, without a database.

The changes are played through in their order, by the rules of the contract, with what is known of
the rows before. A group of a thousand changes would spend its time reading if everything had to be
known, so there are two rounds. The first knows only the waiting rows of the keys that get one; of
any other row it takes for granted what its first change says. Each statement names what was taken
for granted, and if one finds fewer rows than it should, all is rolled back and the group played
through once more, with every row read before. Both rounds are this same code.
"""

from collections.abc import Sequence
from typing import NamedTuple

from msgspec import structs

from asyncdefer.stores._base import (
    LIVE,
    SCHEDULED,
    Add,
    Change,
    Drop,
    Row,
    Set,
    Written,
    check,
)  # fmt: skip

Key = tuple[str, str]


class Found(NamedTuple):
    """A row that was there before the group."""

    state: str
    key: Key | None


class Surprise(Exception):
    """A row is not what the group takes it for: it has to be played with all rows known."""


class Todo(NamedTuple):
    """What is left to do, in the order in which no two rows of a key ever wait."""

    drops: list[tuple[int, str]]
    """Ids and the states they are in: rows that go, replaced ones among them."""
    starts: list[tuple[Row, str]]
    """Rows that change and do not wait then, and the states they are in."""
    returns: list[tuple[Row, str]]
    """Rows that change and wait then."""
    adds: list[Row]
    live: dict[str, int]
    """How many more rows there will be of each live state."""


class Fold:
    """Plays changes through, and knows then what becomes of each row."""

    def __init__(self, last_id: int, *, complete: bool) -> None:
        self.last_id = last_id
        """The greatest id that was ever added."""
        self.complete = complete
        """What is not in `found` is not there; else it is as its first change says."""
        self.found: dict[int, Found] = {}
        self.waiting: dict[Key, int | None] = {}
        """The waiting row of each key that was read; by now, as the others."""
        self.notes: dict[str, str | None] = {}
        self._new = last_id  # ids above it were never there
        self._before: dict[int, str | None] = {}
        """Of each id that changed: its state before the group, None if it was not there."""
        self._now: dict[int, Row | None] = {}
        self._added: set[int] = set()
        self._folded = False
        """Something of a change is not to be written."""
        # dicts for their order: an id is reported once
        self._lost: dict[int, None] = {}
        self._replaced: dict[int, None] = {}

    def play(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if isinstance(change, Add):
                self._add(change.row)
            elif isinstance(change, Set):
                self._set(change.row, change.was)
            elif isinstance(change, Drop):
                if self._take(change.id, change.was, None):
                    self._now[change.id] = None
            else:
                self._folded |= change.name in self.notes
                self.notes[change.name] = change.value
        if self._folded:
            # What is never bound to a statement is not looked at by SQLite.
            for change in changes:
                check(change)

    def written(self) -> tuple[Written, list[Row]]:
        """What became of the ids, and the rows as they are now."""
        rows = [row for row in self._now.values() if row is not None]
        return Written(tuple(self._lost), tuple(self._replaced)), rows

    def _add(self, row: Row) -> None:
        id = row.id
        if self._now[id] is not None if id in self._now else id in self.found:
            self._lose(id)
            return
        self._folded |= id in self._before
        self._before.setdefault(id, None)
        self._added.add(id)
        self.last_id = max(self.last_id, id)
        self._now[id] = row if self._arrives(row) else None

    def _set(self, row: Row, was: str) -> None:
        id = row.id
        if not self._take(id, was, row):
            return
        if id in self._added and (added := self._now[id]) is not None:
            row = structs.replace(row, arguments=added.arguments)
        self._now[id] = row if self._arrives(row) else None

    def _lose(self, id: int) -> None:
        self._lost[id] = None
        self._folded = True

    def _take(self, id: int, was: str, row: Row | None) -> bool:
        """Whether the row is there in the state `was`; if so, its key is free now."""
        if id in self._now:
            now = self._now[id]
            state = None if now is None else now.state
            key = None if now is None else key_of(now)
        elif (found := self.found.get(id)) is not None:
            state, key = found
        elif self.complete:
            state = key = None
        else:
            state = was
            key = None if row is None else key_of(row)
            if was == SCHEDULED and key in self.waiting:
                raise Surprise  # another row waits with this key, or none
        if state != was:
            self._lose(id)
            return False
        self._folded |= id in self._before
        self._before.setdefault(id, was)
        if was == SCHEDULED and key is not None and self.waiting.get(key) == id:
            self.waiting[key] = None
        return True

    def _arrives(self, row: Row) -> bool:
        """The row is not one that waits, or it is the newest of its key; an older one goes out."""
        key = key_of(row)
        if row.state != SCHEDULED or key is None:
            return True
        other = self.waiting.get(key)
        if other is not None:
            older = min(other, row.id)
            self._replaced[older] = None
            self._folded |= older == row.id or other in self._before
            if older == row.id:
                return False
            self._before.setdefault(other, SCHEDULED)
            self._now[other] = None
        self.waiting[key] = row.id
        return True

    def todo(self) -> Todo:
        live: dict[str, int] = dict.fromkeys(LIVE, 0)
        todo = Todo([], [], [], [], live)
        for id, before in self._before.items():
            now = self._now[id]
            added = id in self._added
            if before is not None:
                if before in live:
                    live[before] -= 1
                if now is None or added:
                    todo.drops.append((id, before))
            if now is not None:
                if now.state in live:
                    live[now.state] += 1
                if added:
                    todo.adds.append(now)
                elif before is not None:
                    (todo.returns if now.state == SCHEDULED else todo.starts).append((now, before))
            elif before is None and id <= self._new and not self.complete:
                raise Surprise  # it may be there, and then its Add was lost
        return todo


def key_of(row: Row) -> Key | None:
    return None if row.key is None else (row.task, row.key)


def arrivals(changes: Sequence[Change]) -> set[Key]:
    """The keys of rows that are to wait."""
    keys: set[Key] = set()
    for change in changes:
        if isinstance(change, Add | Set):
            row = change.row
            if row.state == SCHEDULED and row.key is not None:
                keys.add((row.task, row.key))
    return keys
