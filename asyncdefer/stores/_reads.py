"""Rows that are read from the journal in SQLite: claims and pages.

Every statement names its index, so that no statistics that somebody gathers (ANALYZE) make one of
them read ten million rows. Where rows come in eta order, those at the very instant of the place
are asked for apart from those after it: ten million of one instant are found as fast as one.
"""

import heapq
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, TypeVar

from msgspec import Struct

from asyncdefer.stores._base import LAST_ID, LIVE, SCHEDULED, START, Place, Row

T = TypeVar("T")

_ROW: Final = "SELECT id, task, key, state, at, until, pinned, arguments, body FROM asyncdefer_jobs"
_BY_IDS: Final = {n: f"{_ROW} WHERE id IN ({', '.join('?' * n)})" for n in (100, 10, 1)}
_BY_KEY: Final = (
    f"{_ROW} INDEXED BY asyncdefer_jobs_key WHERE task = ? AND key = ? AND state = 'scheduled'"
)
_RUNNING: Final = (
    f"{_ROW} INDEXED BY asyncdefer_jobs_other "
    "WHERE state = 'running' AND state <> 'scheduled' ORDER BY at, id"
)
_PINNED: Final = (
    f"{_ROW} INDEXED BY asyncdefer_jobs_pinned "
    "WHERE state = 'scheduled' AND pinned = 1 ORDER BY at, id"
)
_WAITING: Final = f"{_ROW} INDEXED BY asyncdefer_jobs_waiting WHERE state = 'scheduled'"
_OTHER: Final = f"{_ROW} INDEXED BY asyncdefer_jobs_other WHERE state <> 'scheduled' AND state = ?"
_COMING_NOW: Final = f"{_WAITING} AND pinned = 0 AND at = ? AND id > ? ORDER BY id"
_COMING: Final = f"{_WAITING} AND pinned = 0 AND at > ? AND at <= ? ORDER BY at, id"
_NEXT_STATE: Final = (
    "SELECT state FROM asyncdefer_jobs INDEXED BY asyncdefer_jobs_other "
    "WHERE state <> 'scheduled' AND state > ? ORDER BY state LIMIT 1"
)
_AT: Final = "AND at = ? AND id > ? ORDER BY id"
_AFTER: Final = "AND at > ? ORDER BY at, id"


def reading(db: sqlite3.Connection, read: Callable[[sqlite3.Connection], T]) -> T:
    """Read; and if a text is not UTF-8, read once more with replacement characters in it.

    Such a row is damaged, and its reader will say so; the others are not.
    """
    try:
        return read(db)
    except sqlite3.OperationalError as error:
        if hasattr(error, "sqlite_errorcode"):
            raise  # SQLite's own; a text is Python's business
    db.text_factory = _decode
    try:
        return read(db)
    finally:
        db.text_factory = str


def _decode(text: bytes) -> str:
    return text.decode("utf-8", "replace")


def _rows(found: Iterable[Any]) -> Iterator[Row]:
    for id, task, key, state, at, until, pinned, arguments, body in found:
        yield Row(id, task, key, state, at, until, pinned != 0, arguments, body)


class Greeting:
    """What an owner has of the rows that were there when it came.

    There is nobody else who could have them; but a row is news until the owner has heard of it,
    by a claim or by writing it. A first claim brings the running and pinned ones, and every claim
    others in eta order: so all up to `upto` came, and of the later ones those in `ours`.
    """

    def __init__(self, last_id: int) -> None:
        self._last_id = last_id  # later ids are of this owner
        self._upto = START
        self._ours: dict[int, Place] = {}
        self._greeted = False
        self._prune = 1_000

    def coming(
        self, db: sqlite3.Connection, until: int, limit: int, after: Place
    ) -> tuple[list[Row], list[Row]]:
        """What a claim brings: what nobody had, and up to `limit` waiting rows in eta order."""
        at, number = min(after, self._upto)
        now = db.execute(_COMING_NOW, (at, number)) if at <= until else ()
        waiting = _rows(chain(now, db.execute(_COMING, (at, until))))
        if self._upto < after:
            waiting = (row for row in waiting if _place(row) > after or not self._has(row))
        rows = list(islice(waiting, limit))
        if self._greeted:
            return [], rows
        left = chain(_rows(db.execute(_RUNNING)), _rows(db.execute(_PINNED)))
        return [row for row in left if not self._has(row)], rows

    def _has(self, row: Row) -> bool:
        return row.id > self._last_id or row.id in self._ours

    def came(self, rows: list[Row], until: int, limit: int) -> None:
        """The waiting rows that a claim brought are the owner's, and what nobody had."""
        if len(rows) < limit:
            self._upto = max(self._upto, (until, LAST_ID))
        elif rows:
            self._upto = max(self._upto, _place(rows[-1]))
        if not self._greeted or len(self._ours) > self._prune:
            ours = ((number, at) for number, at in self._ours.items() if at > self._upto)
            self._ours = dict(ours)
            self._prune = max(1_000, 2 * len(self._ours))
        self._greeted = True

    def has(self, rows: Iterable[Row]) -> None:
        """The owner has these, having written or named them."""
        for row in rows:
            if row.id <= self._last_id:
                place = _place(row) if row.state == SCHEDULED else START
                if not self._greeted or place > self._upto:
                    self._ours[row.id] = place


def named(db: sqlite3.Connection, keys: Sequence[tuple[str, str]], ids: Sequence[int]) -> list[Row]:
    """Waiting and running rows of these keys, and live rows of these ids, in eta order."""
    found: dict[int, Row] = {}
    if keys:
        wanted = set(keys)
        for key in wanted:
            found.update((row.id, row) for row in _rows(db.execute(_BY_KEY, key)))
        running = _rows(db.execute(_RUNNING))
        found.update((row.id, row) for row in running if (row.task, row.key) in wanted)
    found.update((row.id, row) for row in _by_ids(db, ids) if row.state in LIVE)
    return sorted(found.values(), key=_place)


def _by_ids(db: sqlite3.Connection, ids: Iterable[int]) -> Iterator[Row]:
    wanted, done = [id for id in set(ids) if abs(id) <= LAST_ID], 0
    for batch, statement in _BY_IDS.items():
        while len(wanted) - done >= batch:
            yield from _rows(db.execute(statement, wanted[done : done + batch]))
            done += batch


def _place(row: Row) -> Place:
    return row.at, row.id


class Wanted(Struct, frozen=True):
    """Which rows somebody wants to see."""

    ids: Sequence[int] | None
    state: str | None
    task: str | None
    key_prefix: str | None

    def has(self, row: Row) -> bool:
        return (
            (self.state is None or row.state == self.state)
            and (self.task is None or row.task == self.task)
            and (self.key_prefix is None or (row.key or "").startswith(self.key_prefix))
        )


def page(
    db: sqlite3.Connection, after: Place, look: int, wanted: Wanted
) -> tuple[list[Row], Place | None]:
    """The wanted ones of the next `look` rows after a place, and the place to go on, if any."""
    if wanted.ids is not None:
        named = (row for row in _by_ids(db, wanted.ids) if _place(row) > after and wanted.has(row))
        return sorted(named, key=_place), None
    states = _states(db) if wanted.state is None else [wanted.state]
    ordered = heapq.merge(*(_of_state(db, state, after) for state in states), key=_place)
    rows = list(islice(ordered, look))
    on = _place(rows[-1]) if len(rows) == look else None
    return [row for row in rows if wanted.has(row)], on


def _states(db: sqlite3.Connection) -> list[str]:
    """The states that there are, by one look at the index for each."""
    states = [SCHEDULED]
    state = ""
    while (found := db.execute(_NEXT_STATE, (state,)).fetchone()) is not None:
        state = found[0]
        states.append(state)
    return states


def _of_state(db: sqlite3.Connection, state: str, after: Place) -> Iterator[Row]:
    rows = f"{_WAITING} AND state = ?" if state == SCHEDULED else _OTHER
    at, number = after
    found = chain(
        db.execute(f"{rows} {_AT}", (state, at, number)),
        db.execute(f"{rows} {_AFTER}", (state, at)),
    )
    return _rows(found)
