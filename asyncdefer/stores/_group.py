"""A group of commands as SQL: one statement for each kind of change, run for many rows."""

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from typing import Final, cast

from asyncdefer.errors import JournalError
from asyncdefer.stores._base import Add, Change, Drop, Note, Row, Written
from asyncdefer.stores._fold import LIVE, SCHEDULED, Fold, Found, Key, Surprise, arrivals

_Shape = tuple[bool, bool]


def write(db: sqlite3.Connection, changes: Sequence[Change]) -> tuple[Written, list[Row]] | None:
    """Write in the open transaction, and say what; None: roll back, and call `write_surely`."""
    if not changes:
        return Written(), []
    try:
        if set(map(type, changes)) == {Add}:
            rows = [change.row for change in cast("Sequence[Add]", changes)]
            if all([row.key is None for row in rows]):  # noqa: C419 - a list is faster here
                return _write_keyless(db, rows)
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


def _write_keyless(db: sqlite3.Connection, rows: list[Row]) -> tuple[Written, list[Row]]:
    """The shortest way for what is most frequent: nothing but calls that replace nobody."""
    _insert(db, rows)  # an error if an id comes twice, or was there
    states = [row.state for row in rows]
    _count(db, {state: states.count(state) for state in LIVE})
    db.execute(_RAISE_LAST_ID, (max([row.id for row in rows]),))
    return Written(), rows


def _write_fold(
    db: sqlite3.Connection, changes: Sequence[Change], fold: Fold
) -> tuple[Written, list[Row]]:
    last_id = fold.last_id
    fold.play(changes)
    todo = fold.todo()
    if todo.drops:
        _exactly(db.executemany(_DELETE, todo.drops), len(todo.drops))
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
        db.execute(_RAISE_LAST_ID, (fold.last_id,))
    if fold.notes:
        _note(db, fold.notes)
    return fold.written()


# ---- what there is ----


def _last_id(db: sqlite3.Connection) -> int:
    number: int = db.execute(_LAST_ID).fetchone()[0]
    return number


def _read_waiting(db: sqlite3.Connection, keys: Iterable[Key], fold: Fold) -> None:
    fold.waiting = dict.fromkeys(keys)
    left = iter(fold.waiting)
    while some := list(islice(left, _MANY)):
        # A statement costs as much as three look-ups.
        if len(some) == _MANY:
            found = db.execute(_WAITING_OF_MANY, list(chain.from_iterable(some))).fetchall()
        else:
            found = [db.execute(_WAITING_OF_ONE, key + key).fetchone() for key in some]
        for id, task, key in found:  # noqa: A001 - the field's name
            if id is not None:
                fold.waiting[task, key] = id
                fold.found[id] = Found(SCHEDULED, (task, key))


def _read_rows(db: sqlite3.Connection, changes: Sequence[Change], fold: Fold) -> None:
    for change in changes:
        if isinstance(change, Note):
            continue
        id = change.id if isinstance(change, Drop) else change.row.id  # noqa: A001 - the word for an id
        row = db.execute(_STATE, (id,)).fetchone()
        if row is not None:
            state, task, key = row
            fold.found[id] = Found(state, None if key is None else (task, key))


# ---- statements ----
#
# To bind a None costs as much as to bind five texts, so each shape of a row has its own statement.

_WAITING: Final = (
    "SELECT id FROM asyncdefer_jobs INDEXED BY asyncdefer_jobs_key "
    "WHERE task = {task} AND key = {key} AND state = 'scheduled'"
)
_WAITING_OF_ONE: Final = f"SELECT ({_WAITING.format(task='?', key='?')}), ?, ?"
_MANY: Final = 100
# No join: after an ANALYZE, SQLite would build a Bloom filter for it, of all rows.
_WAITING_OF_MANY: Final = (
    f"WITH wanted (task, key) AS (VALUES {', '.join(['(?, ?)'] * _MANY)}) "
    f"SELECT ({_WAITING.format(task='wanted.task', key='wanted.key')}), task, key FROM wanted"
)
_STATE: Final = "SELECT state, task, key FROM asyncdefer_jobs WHERE id = ?"
_DELETE: Final = "DELETE FROM asyncdefer_jobs WHERE id = ? AND state = ?"
_VACATE: Final = "UPDATE asyncdefer_jobs SET key = NULL WHERE id = ?"
_REWRITE: Final = (
    "UPDATE asyncdefer_jobs SET task = ?, key = ?, state = ?, at = ?, until = ?, pinned = ?, "
    "body = ? WHERE id = ?"
)
_LAST_ID: Final = "SELECT value FROM asyncdefer_meta WHERE name = 'last_id'"
_COUNT: Final = "UPDATE asyncdefer_meta SET value = value + ? WHERE name = ?"
_RAISE_LAST_ID: Final = "UPDATE asyncdefer_meta SET value = max(value, ?) WHERE name = 'last_id'"


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
            db.executemany(_INSERTIONS[shape], some)


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
        raise Surprise


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
