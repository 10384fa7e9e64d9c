"""No statement reads more of the journal than it has to: ten million rows cost what ten do."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncdefer.stores import _lock
from asyncdefer.stores._base import Add, Drop, Note, Set
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import FAR, NOW, STATES, Desk, leave, opened_desk, row, rows_of

# A partial index of the pinned rows is read from its beginning to its end: they are what is wanted.
WHOLE = "SCAN asyncdefer_jobs USING INDEX asyncdefer_jobs_pinned"


class Watched(sqlite3.Connection):
    """A connection that tells what it executes, and how much work that was."""

    statements: set[str] = set()  # noqa: RUF012 - one list for all connections is meant
    steps = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.set_trace_callback(Watched.statements.add)
        self.set_progress_handler(self._count, 1)

    @staticmethod
    def _count() -> int:
        Watched.steps += 1
        return 0


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Watched]]:
    connect = _lock.connect
    monkeypatch.setattr(
        _lock, "connect", lambda path, **kwargs: connect(path, **{**kwargs, "factory": Watched})
    )
    yield Watched
    Watched.statements = set()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def use(desk: Desk, first: int) -> None:
    """Every verb in every way."""
    ids = range(first, first + 300)
    rows = [row(id, f"k:{id}" if id % 2 else None, at=NOW + id) for id in ids]
    await desk.claim(limit=10)
    await desk.claim(limit=10, after=(NOW + 5, 5))
    await desk.claim(keys=[("task", f"k:{id}") for id in (1, 3)], ids=[1, 2, 3])
    await desk.write(*map(Add, rows), Note("n", "v"))
    await desk.write(*[Add(row(id + 1000, f"k:{id}")) for id in ids])
    await desk.write(*[Set(row(each.id, each.key, "running"), "scheduled") for each in rows])
    await desk.write(*[Add(each) for each in rows])  # all lost
    kept = [Set(row(id, None, "succeeded", until=NOW - 1), "running") for id in ids[::4]]
    dropped = [Drop(id, "running") for id in ids[1::4]]
    retried = [Set(row(id, None), "running") for id in ids[2::4]]
    await desk.write(*kept, *dropped, *retried, Note("n", None))
    await desk.renew()
    for filters in (
        {}, {"state": "scheduled"}, {"state": "running"}, {"task": "task"}, {"key_prefix": "k:1"},
        {"ids": [1, 2, 3]}, {"after": (NOW + 3, 3)}, {"after": (NOW + 3, 3), "state": "held"},
    ):  # fmt: skip
        await rows_of(desk.store, limit=20, **filters)


def plans(path: Path, statements: set[str], *, analyzed: bool) -> dict[str, list[str]]:
    """What SQLite would do for each statement."""
    found: dict[str, list[str]] = {}
    with closing(sqlite3.connect(path)) as db:
        if analyzed:
            db.execute("ANALYZE")
        for sql in statements:
            if sql.lstrip().startswith(("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")):
                plan = db.execute(f"EXPLAIN QUERY PLAN {sql}").fetchall()
                found[sql] = [detail for *_, detail in plan]
    return found


@pytest.mark.parametrize("analyzed", [False, True])
async def test_nothing_is_scanned(path: Path, watched: type[Watched], analyzed: bool) -> None:
    """In open, write, claim, renew and scan, whatever ANALYZE has told the planner; nor sorted."""
    async with opened_desk(SQLiteStore(path)) as desk:
        await use(desk, 1)
    async with opened_desk(SQLiteStore(path)) as desk:
        await use(desk, 5_000)
    found = plans(path, watched.statements, analyzed=analyzed)
    assert len(found) > 500
    for sql, plan in found.items():
        for detail in plan:
            if "asyncdefer_jobs" in detail or "jobs" in detail.split():
                assert detail.startswith("SEARCH") or detail == WHOLE, (sql, plan)
            assert "TEMP B-TREE" not in detail, (sql, plan)


def test_a_scan_would_be_seen(path: Path) -> None:
    """The test above can fail."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE asyncdefer_jobs (id, at)")
        db.commit()
    (plan,) = plans(path, {"SELECT * FROM asyncdefer_jobs WHERE at = 1"}, analyzed=False).values()
    assert plan == ["SCAN asyncdefer_jobs"]


async def cost(path: Path, watched: type[Watched], number: int) -> dict[str, int]:
    """The steps of SQLite's machine for each verb in a journal of so many rows of each kind."""
    states = [state for state in STATES if state != "running"]
    for first in range(1, number, 5_000):
        ids = range(first, min(first + 5_000, number))
        rows = [row(id, f"k:{id}", states[id % 8], at=NOW + id // 7, until=FAR) for id in ids]
        await leave(SQLiteStore(path), *map(Add, rows))
    steps: dict[str, int] = {}

    async def measure(name: str, verb: Any) -> None:
        watched.steps = 0
        await verb
        steps[name] = watched.steps

    watched.steps = 0
    async with opened_desk(SQLiteStore(path)) as desk:
        steps["open"] = watched.steps
        await measure("first claim", desk.claim(limit=10))
        await measure("claim", desk.claim(limit=10, after=(NOW + 3, 25)))
        await measure("claim by key", desk.claim(keys=[("task", "k:16")]))
        await measure("add", desk.write(Add(row(10**9, "k:8"))))
        await measure("start", desk.write(Set(row(10**9, "k:8", "running"), "scheduled")))
        await measure("end", desk.write(Drop(10**9, "running")))
        await measure("renew", desk.renew())
        await measure("page", rows_of(desk.store, limit=10, after=(NOW + 3, 25)))
        await measure("failed", rows_of(desk.store, limit=10, state="failed"))
    return steps


async def test_the_work_does_not_grow_with_the_journal(
    tmp_path: Path, watched: type[Watched]
) -> None:
    """Each verb takes as many steps among twenty thousand rows as among a hundred."""
    few = await cost(tmp_path / "few.db", watched, 200)
    many = await cost(tmp_path / "many.db", watched, 20_000)
    for verb, steps in few.items():
        assert many[verb] <= steps * 1.2 + 50, (verb, steps, many[verb])


async def test_rows_of_one_instant_are_paged_through(path: Path, watched: type[Watched]) -> None:
    """The last page of many equal etas costs what the first did."""
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(*[Add(row(id)) for id in range(1, 10_001)])
        steps: list[int] = []
        for after in range(0, 10_000, 500):
            watched.steps = 0
            assert len(await desk.claim(limit=500, after=(NOW, after))) == 500
            assert len(await rows_of(desk.store, limit=500, after=(NOW, after))) == 500
            steps.append(watched.steps)
        assert max(steps) <= min(steps) * 1.2
