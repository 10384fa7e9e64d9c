"""How a group of commands becomes SQL: what happens to each row in all, in the fewest statements.

The changes are played through in Python, in their order and by the rules of the contract, with
what is known of the rows before; what is left to do for each row is written once. A group of a
thousand changes would spend its time reading if everything had to be known, so there are two
rounds. The first knows only the waiting rows of the keys that get a new one; of any other row it
takes for granted what its first change says. Each statement names what was taken for granted, and
if one finds fewer rows than it should, all is rolled back and the group played through once more,
with every row read before. Both rounds are the same code.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

from msgspec import structs

from asyncdefer.errors import JournalError
from asyncdefer.stores._base import Add, Change, Drop, Note, Row, Set, Written

SCHEDULED: Final = "scheduled"
LIVE: Final[tuple[str, ...]] = ("held", SCHEDULED, "running")

_Key = tuple[str, str]
_Shape = tuple[bool, bool]


class _Found(NamedTuple):
    """A row that was there before the group."""

    state: str
    key: _Key | None


class _Surprise(Exception):
    """A row is not what the group takes it for."""


def write(db: sqlite3.Connection, changes: Sequence[Change]) -> Written | None:
    """Write in the open transaction; None: roll back, and call `write_surely`."""
    if not changes:
        return Written()
    if all(type(change) is Add for change in changes):
        rows = [change.row for change in changes if type(change) is Add]
        if all(row.key is None for row in rows):
            return _write_keyless(db, rows)
    fold = _Fold(complete=False)
    _read_waiting(db, _arrivals(changes), fold)
    try:
        fold.play(changes)
        fold.execute(db)
    except (_Surprise, sqlite3.IntegrityError):
        return None
    return fold.written()


def write_surely(db: sqlite3.Connection, changes: Sequence[Change]) -> Written:
    """Write in the open transaction, with every row read before."""
    fold = _Fold(complete=True)
    _read_rows(db, changes, fold)
    _read_waiting(db, _arrivals(changes, returns=True), fold)
    fold.play(changes)
    try:
        fold.execute(db)
    except _Surprise:
        raise JournalError(
            "a row of the journal changed between two statements of one transaction: "
            "its index is damaged; check the file with PRAGMA integrity_check"
        ) from None
    return fold.written()


def _write_keyless(db: sqlite3.Connection, rows: list[Row]) -> Written | None:
    """The shortest way for what is most frequent: nothing but calls that replace nobody."""
    try:
        _insert(db, rows)
    except sqlite3.IntegrityError:
        return None  # an id twice, or there before
    states = [row.state for row in rows]
    count(db, {state: states.count(state) for state in LIVE})
    _raise_last_id(db, max(row.id for row in rows))
    return Written()


class _Fold:
    """Plays changes through, and knows then what becomes of each row."""

    def __init__(self, *, complete: bool) -> None:
        self.complete = complete
        """What is not in `found` is not there; else it is as its first change says."""
        self.found: dict[int, _Found] = {}
        self.waiting: dict[_Key, int | None] = {}
        """The waiting row of each key that was read; by now, as the others."""
        self._before: dict[int, str | None] = {}
        """Of each id that changed: its state before the group, None if it was not there."""
        self._now: dict[int, Row | None] = {}
        self._added: set[int] = set()
        self._notes: dict[str, str | None] = {}
        self._last_id = 0
        self._folded = False
        """Something of a change is not to be written."""
        # dicts for their order: an id is reported once
        self._lost: dict[int, None] = {}
        self._replaced: dict[int, None] = {}

    def play(self, changes: Sequence[Change]) -> None:
        for change in changes:
            match change:
                case Add(row):
                    self._add(row)
                case Set(row, was):
                    self._set(row, was)
                case Drop(id, was):
                    if self._take(id, was, None):
                        self._now[id] = None
                case Note(name, value):
                    self._folded |= name in self._notes
                    self._notes[name] = value
                case _:
                    raise TypeError(f"a {type(change).__name__} is no change")
        if self._folded:
            # What is never bound to a statement is not looked at by SQLite.
            for change in changes:
                _check(change)

    def written(self) -> Written:
        return Written(tuple(self._lost), tuple(self._replaced))

    def _add(self, row: Row) -> None:
        id = row.id  # noqa: A001 - the word for an id
        if self._now[id] is not None if id in self._now else id in self.found:
            self._lose(id)
            return
        self._folded |= id in self._before
        self._before.setdefault(id, None)
        self._added.add(id)
        self._last_id = max(self._last_id, id)
        self._now[id] = row if self._arrives(row) else None

    def _set(self, row: Row, was: str) -> None:
        id = row.id  # noqa: A001 - the word for an id
        if not self._take(id, was, row):
            return
        if id in self._added and (added := self._now[id]) is not None:
            row = structs.replace(row, arguments=added.arguments)
        self._now[id] = row if self._arrives(row) else None

    def _lose(self, id: int) -> None:  # noqa: A002 - the field's name
        self._lost[id] = None
        self._folded = True

    def _take(self, id: int, was: str, row: Row | None) -> bool:  # noqa: A002 - the field's name
        """Whether the row is there in the state `was`; if so, its key is free now."""
        if id in self._now:
            now = self._now[id]
            state = None if now is None else now.state
            key = None if now is None else _key(now)
        elif (found := self.found.get(id)) is not None:
            state, key = found
        elif self.complete:
            state = key = None
        else:
            state = was
            key = None if row is None else _key(row)
            if was == SCHEDULED and key in self.waiting:
                raise _Surprise  # another row waits with this key, or none
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
        key = _key(row)
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

    def execute(self, db: sqlite3.Connection) -> None:
        """Drops and give-ways, starts and ends, returns, adds: so no two rows of a key ever wait."""
        drops: list[tuple[int, str]] = []
        leaving: list[tuple[Row, str]] = []
        waiting: list[tuple[Row, str]] = []
        inserts: list[Row] = []
        live: dict[str, int] = dict.fromkeys(LIVE, 0)
        for id, before in self._before.items():  # noqa: A001 - the word for an id
            now = self._now[id]
            if before in live:
                live[before] -= 1
            if now is not None and now.state in live:
                live[now.state] += 1
            added = id in self._added
            if before is not None and (now is None or added):
                drops.append((id, before))
            if now is not None:
                if added:
                    inserts.append(now)
                elif before is not None:
                    (waiting if now.state == SCHEDULED else leaving).append((now, before))
        if drops:
            _exactly(db.executemany(_DELETE, drops), len(drops))
        if self.complete:
            # A key may have changed hands among rows that wait.
            db.executemany(_VACATE, [(row.id,) for row, _ in waiting])
            db.executemany(_REWRITE, map(_rewritten, leaving + waiting))
        else:
            _update(db, leaving)
            _update(db, waiting)
        _insert(db, inserts)
        count(db, live)
        if self._last_id:
            _raise_last_id(db, self._last_id)
        if self._notes:
            _note(db, self._notes)


def _check(change: Change) -> None:
    """An error if it is nothing that can be kept: numbers of 64 bits, and texts with a UTF-8."""
    numbers: list[int] = []
    texts: list[str | None] = []
    match change:
        case Add(row) | Set(row):
            numbers += [row.id, row.at, row.until or 0]
            texts += [row.task, row.key, row.state, row.arguments, row.body]
        case Drop(id, was):
            numbers.append(id)
            texts.append(was)
        case Note(name, value):
            texts += [name, value]
    for number in numbers:
        number.to_bytes(8, signed=True)
    for text in texts:
        (text or "").encode()


def _key(row: Row) -> _Key | None:
    return None if row.key is None else (row.task, row.key)


def _arrivals(changes: Sequence[Change], *, returns: bool = False) -> set[_Key]:
    """The keys that get a waiting row; with `returns` also those where it may be the same."""
    keys: set[_Key] = set()
    for change in changes:
        match change:
            case Add(row):
                pass
            case Set(row, was) if returns or was != SCHEDULED:
                pass
            case _:
                continue
        if row.state == SCHEDULED and row.key is not None:
            keys.add((row.task, row.key))
    return keys


def _read_waiting(db: sqlite3.Connection, keys: Iterable[_Key], fold: _Fold) -> None:
    for key in keys:
        row = db.execute(_WAITING, key).fetchone()
        if row is None:
            fold.waiting[key] = None
        else:
            fold.waiting[key] = row[0]
            fold.found[row[0]] = _Found(SCHEDULED, key)


def _read_rows(db: sqlite3.Connection, changes: Sequence[Change], fold: _Fold) -> None:
    for change in changes:
        match change:
            case Note():
                continue
            case Drop(id):
                pass
            case _:
                id = change.row.id  # noqa: A001 - the word for an id
        row = db.execute(_STATE, (id,)).fetchone()
        if row is not None:
            state, task, key = row
            fold.found[id] = _Found(state, None if key is None else (task, key))


# ---- statements ----
#
# To bind a None costs as much as to bind five texts, so each shape of a row has its own statement.

_WAITING: Final = (
    "SELECT id FROM asyncdefer_jobs INDEXED BY asyncdefer_jobs_key "
    "WHERE task = ? AND key = ? AND state = 'scheduled'"
)
_STATE: Final = "SELECT state, task, key FROM asyncdefer_jobs WHERE id = ?"
_DELETE: Final = "DELETE FROM asyncdefer_jobs WHERE id = ? AND state = ?"
_VACATE: Final = "UPDATE asyncdefer_jobs SET key = NULL WHERE id = ?"
_REWRITE: Final = (
    "UPDATE asyncdefer_jobs SET task = ?, key = ?, state = ?, at = ?, until = ?, pinned = ?, "
    "body = ? WHERE id = ?"
)
_COUNT: Final = "UPDATE asyncdefer_meta SET value = value + ? WHERE name = ?"
_LAST_ID: Final = "UPDATE asyncdefer_meta SET value = ?1 WHERE name = 'last_id' AND value < ?1"


def _insertion(shape: _Shape) -> str:
    keyed, timed = shape
    return (
        "INSERT INTO asyncdefer_jobs (id, task, state, at, pinned, arguments, body, key, until) "
        f"VALUES (?, ?, ?, ?, ?, ?, ?, {'?' if keyed else 'NULL'}, {'?' if timed else 'NULL'})"
    )


def _updating(shape: _Shape) -> str:
    keyed, timed = shape
    return (
        f"UPDATE asyncdefer_jobs SET state = ?, at = ?, pinned = ?, body = ?, "
        f"until = {'?' if timed else 'NULL'} "
        f"WHERE id = ? AND state = ? AND task = ? AND key {'= ?' if keyed else 'IS NULL'}"
    )


_SHAPES: Final = [(keyed, timed) for keyed in (False, True) for timed in (False, True)]
_INSERTIONS: Final = {shape: _insertion(shape) for shape in _SHAPES}
_UPDATES: Final = {shape: _updating(shape) for shape in _SHAPES}


def _shape(row: Row) -> _Shape:
    return row.key is not None, row.until is not None


def _insert(db: sqlite3.Connection, rows: list[Row]) -> None:
    for shape, some in _by_shape(rows):
        keyed, timed = shape
        values: Iterator[tuple[object, ...]] = (
            (r.id, r.task, r.state, r.at, 1 if r.pinned else 0, r.arguments, r.body) for r in some
        )
        if keyed or timed:
            more = (_more(row) for row in some)
            values = (value + extra for value, extra in zip(values, more, strict=True))
        db.executemany(_INSERTIONS[shape], values)


def _more(row: Row) -> tuple[object, ...]:
    return tuple(value for value in (row.key, row.until) if value is not None)


def _by_shape(rows: list[Row]) -> Iterator[tuple[_Shape, list[Row]]]:
    shapes: dict[_Shape, list[Row]] = {}
    for shape, some in groupby(rows, _shape):
        shapes.setdefault(shape, []).extend(some)
    return iter(shapes.items())


def _update(db: sqlite3.Connection, updates: list[tuple[Row, str]]) -> None:
    shapes: dict[_Shape, list[tuple[object, ...]]] = {}
    for row, was in updates:
        values: tuple[object, ...] = (row.state, row.at, 1 if row.pinned else 0, row.body)
        if row.until is not None:
            values += (row.until,)
        values += (row.id, was, row.task)
        if row.key is not None:
            values += (row.key,)
        shapes.setdefault(_shape(row), []).append(values)
    for shape, some in shapes.items():
        _exactly(db.executemany(_UPDATES[shape], some), len(some))


def _rewritten(update: tuple[Row, str]) -> tuple[object, ...]:
    row, _ = update
    return row.task, row.key, row.state, row.at, row.until, int(row.pinned), row.body, row.id


def _exactly(cursor: sqlite3.Cursor, rows: int) -> None:
    if cursor.rowcount != rows:
        raise _Surprise


def count(db: sqlite3.Connection, live: dict[str, int]) -> None:
    """Keep the numbers of live rows: counting ten million at a start would take seconds."""
    db.executemany(_COUNT, [(more, state) for state, more in live.items() if more])


def _raise_last_id(db: sqlite3.Connection, id: int) -> None:  # noqa: A002 - the field's name
    db.execute(_LAST_ID, (id,))


def _note(db: sqlite3.Connection, notes: dict[str, str | None]) -> None:
    db.executemany(
        "DELETE FROM asyncdefer_notes WHERE name = ?",
        [(name,) for name, value in notes.items() if value is None],
    )
    db.executemany(
        "INSERT INTO asyncdefer_notes (name, value) VALUES (?, ?) "
        "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
        [(name, value) for name, value in notes.items() if value is not None],
    )
