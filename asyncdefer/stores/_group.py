"""A group of commands as SQL: one statement for each kind of change, with many rows in it."""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Final, TypeVar

from asyncdefer.errors import JournalError
from asyncdefer.stores._base import (
    LIVE,
    SCHEDULED,
    Add,
    Change,
    Drop,
    Note,
    Row,
    Set,
    Written,
    check,
)  # fmt: skip
from asyncdefer.stores._fold import Fold, Found, Key, Surprise, arrivals

T = TypeVar("T")

_Shape = tuple[bool, bool]
_GREATEST: Final = (1 << 63) - 1


def write(db: sqlite3.Connection, changes: Sequence[Change]) -> tuple[Written, list[Row]] | None:
    """Write in the open transaction, and say what; None: roll back, and call `write_surely`."""
    if not changes:
        return Written(), []
    try:
        plain = _plain(changes)
        if plain is not None:
            return _write_plain(db, plain)
        fold = Fold(_last_id(db), complete=False)
        _read_waiting(db, arrivals(changes), fold)
        return _write_fold(db, changes, fold)
    except (Surprise, sqlite3.IntegrityError):
        return None


def write_surely(db: sqlite3.Connection, changes: Sequence[Change]) -> tuple[Written, list[Row]]:
    """Write in the open transaction, with every row read before."""
    fold = Fold(_last_id(db), complete=True)
    _read_rows(db, changes, fold)
    _read_waiting(db, arrivals(changes), fold)
    try:
        return _write_fold(db, changes, fold)
    except Surprise:
        raise JournalError(
            "a row of the journal was there, and then it was not, in one transaction: its indexes "
            "are damaged; look at the file with PRAGMA integrity_check"
        ) from None


class _Plain:
    """A group of simple changes: each id comes once, or is added and set; keys come with adds only."""

    def __init__(self) -> None:
        self.adds: dict[int, Row] = {}
        self.keyed: dict[Key, int] = {}
        """The newest of each key."""
        self.replaced: list[int] = []
        """Adds of which another add of the group has taken the place."""
        self.updates: list[tuple[Row, str]] = []
        self.drops: list[tuple[int, str]] = []
        self.notes: dict[str, str | None] = {}

    def add(self, row: Row) -> bool:
        if row.id in self.adds:
            return False
        if row.key is not None:
            if row.state != SCHEDULED:
                return False
            name = row.task, row.key
            older = self.keyed.get(name)
            if older is not None:
                if older > row.id:
                    return False
                check(Add(self.adds.pop(older)))  # SQLite will not see it
                self.replaced.append(older)
            self.keyed[name] = row.id
        self.adds[row.id] = row
        return True


def _plain(changes: Sequence[Change]) -> _Plain | None:
    plain = _Plain()
    adds = plain.adds
    changed: list[int] = []
    for change in changes:
        if isinstance(change, Add):
            row = change.row
            if row.key is None and row.id not in adds:
                adds[row.id] = row
            elif not plain.add(row):
                return None
        elif isinstance(change, Set):
            row = change.row
            if row.key is not None:
                return None
            if (added := adds.get(row.id)) is None:
                changed.append(row.id)
                plain.updates.append((row, change.was))
            elif added.state == change.was and added.key is None and _is_short(added):
                adds[row.id] = Row(
                    row.id, row.task, None, row.state, row.at, row.until, row.pinned,
                    added.arguments, row.body,
                )  # fmt: skip
            else:
                return None
        elif isinstance(change, Drop):
            changed.append(change.id)
            plain.drops.append((change.id, change.was))
        elif change.name in plain.notes:
            return None
        else:
            plain.notes[change.name] = change.value
    once = set(changed)
    return plain if len(once) == len(changed) and once.isdisjoint(adds) else None


def _is_short(added: Row) -> bool:
    """All that an add says beside what a change keeps: nothing that SQLite would have to look at."""
    return not added.body and added.until is None and abs(added.at) < _GREATEST


def _write_plain(db: sqlite3.Connection, plain: _Plain) -> tuple[Written, list[Row]]:
    """The shortest way for what is most frequent; an error if an id was there, or was not."""
    adds = list(plain.adds.values())
    rows = adds + [row for row, _ in plain.updates]
    after = [row.state for row in rows]
    drops, replaced = plain.drops, list[int]()
    if plain.keyed:  # a change or a drop of what is replaced here will find no row
        if min(chain(plain.adds, plain.replaced)) <= _last_id(db):
            raise Surprise  # a row that is there may be the newer one, or have the id
        replaced = [id for id, _, _ in _waiting(db, plain.keyed)]
        drops = drops + [(id, SCHEDULED) for id in replaced]
    before = [was for _, was in plain.updates] + [was for _, was in drops]
    _delete(db, drops)
    _update(db, plain.updates)
    if adds:
        _insert(db, adds)
        db.execute(_RAISE_LAST_ID, {"id": max(plain.adds)})
    _count(db, {state: after.count(state) - before.count(state) for state in LIVE})
    if plain.notes:
        _note(db, plain.notes)
    return Written(replaced=(*plain.replaced, *replaced)), rows


def write_one(db: sqlite3.Connection, row: Row) -> Written:
    """The same for a call that comes alone and waits; an error if its id was there."""
    if row.key is not None or row.state != SCHEDULED:
        written = write(db, (Add(row),)) or write_surely(db, (Add(row),))
        return written[0]
    values = row.id, row.task, row.state, row.at, int(row.pinned), row.arguments, row.body
    db.execute(_INSERTIONS[False, False][-1], values)
    db.execute(_ONE_MORE, {"id": row.id})
    return Written()


def _write_fold(
    db: sqlite3.Connection, changes: Sequence[Change], fold: Fold
) -> tuple[Written, list[Row]]:
    last_id = fold.last_id
    fold.play(changes)
    todo = fold.todo()
    _delete(db, todo.drops)
    if fold.complete:
        # A key may change hands among rows that wait.
        db.executemany(_VACATE, [(row.id,) for row, _ in todo.returns])
        db.executemany(_REWRITE, map(_rewritten, todo.starts + todo.returns))
    else:
        _update(db, todo.starts)
        _update(db, todo.returns)
    _insert(db, todo.adds)
    _count(db, todo.live)
    if fold.last_id > last_id:
        db.execute(_RAISE_LAST_ID, {"id": fold.last_id})
    if fold.notes:
        _note(db, fold.notes)
    return fold.written()


# ---- what there is ----


def _last_id(db: sqlite3.Connection) -> int:
    number: int = db.execute(_LAST_ID).fetchone()[0]
    return number


def _read_waiting(db: sqlite3.Connection, keys: Iterable[Key], fold: Fold) -> None:
    fold.waiting = dict.fromkeys(keys)
    for id, task, key in _waiting(db, fold.waiting):
        fold.waiting[task, key] = id
        fold.found[id] = Found(SCHEDULED, (task, key))


def _waiting(db: sqlite3.Connection, names: Iterable[Key]) -> Iterator[tuple[int, str, str]]:
    """The waiting rows of these keys: ids, tasks and keys."""
    of_task: dict[str, list[str]] = {}
    for task, key in names:
        of_task.setdefault(task, []).append(key)
    for task, keys in of_task.items():
        for statement, some in _batches(_WAITING, keys):
            for id, key in db.execute(statement, [task, *some]):
                yield id, task, key


def _read_rows(db: sqlite3.Connection, changes: Sequence[Change], fold: Fold) -> None:
    for change in changes:
        if isinstance(change, Note):
            continue
        id = change.id if isinstance(change, Drop) else change.row.id
        row = db.execute(_STATE, (id,)).fetchone()
        if row is not None:
            state, task, key = row
            fold.found[id] = Found(state, None if key is None else (task, key))


# ---- statements ----
#
# To bind a None costs as much as to bind five texts, so each shape of a row has its own statement.
# On a connection of the caller's nothing of the program's may have a part in it: no function that
# it has put in the place of one of SQLite's, and no converter, from which a `+` hides a column.

_STATE: Final = "SELECT +state, +task, +key FROM asyncdefer_jobs WHERE id = ?"
_VACATE: Final = "UPDATE asyncdefer_jobs SET key = NULL WHERE id = ?"
_REWRITE: Final = (
    "UPDATE asyncdefer_jobs SET task = ?, key = ?, state = ?, at = ?, until = ?, pinned = ?, "
    "body = ? WHERE id = ?"
)
_LAST_ID: Final = "SELECT +value FROM asyncdefer_meta WHERE name = 'last_id'"
_COUNT: Final = "UPDATE asyncdefer_meta SET value = value + ? WHERE name = ?"
_ONE_MORE: Final = (
    "UPDATE asyncdefer_meta SET value = CASE WHEN name = 'scheduled' THEN value + 1 "
    "WHEN value < :id THEN :id ELSE value END WHERE name IN ('last_id', 'scheduled')"
)
_RAISE_LAST_ID: Final = (
    "UPDATE asyncdefer_meta SET value = :id WHERE name = 'last_id' AND value < :id"
)


def _insertion(shape: _Shape, rows: int) -> str:
    keyed, timed = shape
    row = f"(?, ?, ?, ?, ?, ?, ?, {'?' if keyed else 'NULL'}, {'?' if timed else 'NULL'})"
    return (
        "INSERT INTO asyncdefer_jobs (id, task, state, at, pinned, arguments, body, key, until) "
        f"VALUES {', '.join([row] * rows)}"
    )


def _updating(shape: _Shape, rows: int) -> str:
    keyed, timed = shape
    given = 7 + keyed + timed
    if rows == 1:
        values, source = iter("?" * given), ""
    else:
        values = iter([f"new.column{number}" for number in range(1, given + 1)])
        row = f"({', '.join('?' * given)})"
        source = f"FROM (VALUES {', '.join([row] * rows)}) AS new "
    return (
        "UPDATE asyncdefer_jobs NOT INDEXED "
        f"SET state = {next(values)}, at = {next(values)}, pinned = {next(values)}, "
        f"body = {next(values)}, until = {next(values) if timed else 'NULL'} {source}"
        f"WHERE id = {next(values)} AND state = {next(values)} AND task = {next(values)} "
        f"AND key {f'= {next(values)}' if keyed else 'IS NULL'}"
    )


_SHAPES: Final = [(keyed, timed) for keyed in (False, True) for timed in (False, True)]
_BATCHES: Final = (500, 50, 1)
"""Rows of one statement. While SQLite is at work on one, the event loop has the interpreter."""
_WAITING: Final = [
    "SELECT +id, +key FROM asyncdefer_jobs INDEXED BY asyncdefer_jobs_key "
    f"WHERE state = 'scheduled' AND key IS NOT NULL AND task = ? AND key IN ({', '.join('?' * n)})"
    for n in _BATCHES
]
_DELETIONS: Final = [
    f"DELETE FROM asyncdefer_jobs WHERE state = ? AND id IN ({', '.join('?' * n)})"
    for n in _BATCHES
]
_INSERTIONS: Final = {shape: [_insertion(shape, n) for n in _BATCHES] for shape in _SHAPES}
_UPDATES: Final = {shape: [_updating(shape, n) for n in _BATCHES] for shape in _SHAPES}


def _shape(row: Row) -> _Shape:
    return row.key is not None, row.until is not None


def _run(db: sqlite3.Connection, statements: list[str], rows: list[tuple[object, ...]]) -> int:
    """Run for all rows, as many at once as there is a statement for; how many rows it changed."""
    changed = done = 0
    for statement, batch in zip(statements, _BATCHES, strict=True):
        if batch == 1:
            left = rows[done:] if done else rows
            return changed + (db.executemany(statement, left).rowcount if left else 0)
        while len(rows) - done >= batch:
            some = list(chain.from_iterable(rows[done : done + batch]))
            changed += db.execute(statement, some).rowcount
            done += batch
    return changed


def _insert(db: sqlite3.Connection, rows: list[Row]) -> None:
    shapes: dict[_Shape, list[tuple[object, ...]]] = {shape: [] for shape in _SHAPES}
    plain = shapes[False, False]
    for row in rows:
        values: tuple[object, ...] = (
            row.id, row.task, row.state, row.at, 1 if row.pinned else 0, row.arguments, row.body
        )  # fmt: skip
        if row.key is None and row.until is None:
            plain.append(values)
        else:
            more = tuple(value for value in (row.key, row.until) if value is not None)
            shapes[_shape(row)].append(values + more)
    for shape, some in shapes.items():
        if some:
            _run(db, _INSERTIONS[shape], some)


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
        if _run(db, _UPDATES[shape], some) != len(some):
            raise Surprise


def _delete(db: sqlite3.Connection, drops: list[tuple[int, str]]) -> None:
    of_state: dict[str, list[int]] = {}
    for id, was in drops:
        of_state.setdefault(was, []).append(id)
    for was, ids in of_state.items():
        statements = ((sql, (was, *some)) for sql, some in _batches(_DELETIONS, ids))
        if sum(db.execute(sql, values).rowcount for sql, values in statements) != len(ids):
            raise Surprise


def _batches(statements: list[str], values: list[T]) -> Iterator[tuple[str, list[T]]]:
    done = 0
    for statement, batch in zip(statements, _BATCHES, strict=True):
        while len(values) - done >= batch:
            yield statement, values[done : done + batch]
            done += batch


def _rewritten(update: tuple[Row, str]) -> tuple[object, ...]:
    row, _ = update
    return row.task, row.key, row.state, row.at, row.until, int(row.pinned), row.body, row.id


def _count(db: sqlite3.Connection, live: dict[str, int]) -> None:
    """Keep the numbers of live rows: counting ten million at a start would take seconds."""
    db.executemany(_COUNT, [(more, state) for state, more in live.items() if more])


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
