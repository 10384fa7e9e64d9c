"""Iteration: a source is read by its keys, page by page, and none of its items is missed or repeated."""

import dataclasses
import sqlite3
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import msgspec
import pytest

from asyncdefer import GiveUp, IterationFailed, Queue, Report, Retry, current
from asyncdefer.testing import VirtualClock, check_conservation


@dataclasses.dataclass
class Rows:
    """The rows of a table that are not done, by their ids."""

    path: str

    async def split(self, shards: int) -> list[tuple[int, int]]:
        with sqlite3.connect(self.path) as db:
            low, high = db.execute("SELECT min(id), max(id) FROM rows WHERE NOT done").fetchone()
        db.close()
        if low is None:
            return []
        cuts = [low - 1 + (high - low + 1) * at // shards for at in range(shards + 1)]
        return list(pairwise(cuts))

    async def page(self, after: int, upto: int, limit: int) -> list[tuple[int, str]]:
        with sqlite3.connect(self.path) as db:
            found = db.execute(
                "SELECT id, text FROM rows WHERE NOT done AND id > ? AND id <= ? ORDER BY id LIMIT ?",
                (after, upto, limit),
            ).fetchall()
        db.close()
        return found


def table(path: Path, rows: int) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE rows (id INTEGER PRIMARY KEY, text TEXT, done BOOL DEFAULT FALSE)")
        db.executemany("INSERT INTO rows (text) VALUES (?)", [(f"t{n}",) for n in range(rows)])
    db.close()


async def test_rows_that_leave_the_table_make_none_be_missed(
    queue: Queue, clock: VirtualClock, tmp_path: Path
) -> None:
    """Where the callback changes what is looked for, all 5,000 rows come all the same, once each."""
    path = tmp_path / "rows.db"
    table(path, 5_000)
    queue.source(Rows)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("PRAGMA synchronous=OFF")
    db.execute("PRAGMA journal_mode=WAL")
    seen: list[str] = []
    opened = [db]

    async def callback(text: str) -> None:
        seen.append(text)
        opened[0].execute("UPDATE rows SET done = TRUE WHERE text = ?", (text,))

    db.execute("CREATE INDEX by_text ON rows (text)")
    handle = await queue.iterate(Rows(str(path)), callback, shards=4)
    await clock.run_until_idle()
    assert (await handle).items == 5_000
    assert sorted(seen) == sorted(f"t{n}" for n in range(5_000))
    again = await queue.iterate(Rows(str(path)), callback)
    await clock.run_until_idle()
    assert (await again).items == 0
    db.close()
    opened.clear()  # pytest keeps the queue, and that the callback


START = datetime(2027, 1, 1, tzinfo=UTC)
KEYS: dict[str, list[Any]] = {
    "int": list(range(-3, 7)),
    "str": [f"é{n}" for n in range(10)],
    "tuple": [(n // 3, f"b{n}") for n in range(10)],
    "datetime": [START + timedelta(hours=n) for n in range(10)],
    "uuid": [UUID(int=n << 80) for n in range(10)],
    "mixed": [(START + timedelta(days=n), UUID(int=n)) for n in range(10)],
}


class Keys(msgspec.Struct):
    """Some keys, in pages of three; the bounds of the first and the last shard are open."""

    kind: str
    pages: ClassVar[list[tuple[Any, int]]] = []

    async def split(self, shards: int) -> list[tuple[Any, Any]]:
        keys = KEYS[self.kind]
        return [(None, keys[3]), (keys[3], keys[4]), (keys[4], keys[4]), (keys[4], None)]

    async def page(self, after: Any, upto: Any, limit: int) -> list[tuple[Any, str]]:
        keys = KEYS[self.kind]
        inside = [
            key
            for key in keys
            if (after is None or after < key) and (upto is None or not upto < key)
        ]
        return [(key, str(key)) for key in inside[:3]]


def keyed(disk: Any, clock: VirtualClock, seen: list[str], bad: list[Any]) -> Queue:
    queue = Queue(disk.store(), clock=clock)
    queue.source(Keys)

    @queue.task("callback", retry=Retry(3, delay=100, jitter=False))
    async def callback(text: str) -> None:
        if text in bad:
            raise ValueError(text)
        seen.append(text)

    return queue


@pytest.mark.parametrize("kind", KEYS)
async def test_keys_of_many_types(disk: Any, clock: VirtualClock, kind: str) -> None:
    """A shard goes on behind its key after a restart, whatever type that has, and bounds may be open.

    The key of an item that failed is in the report as its page gave it.
    """
    seen: list[str] = []
    keys = KEYS[kind]
    async with keyed(disk, clock, seen, [str(keys[7])]) as queue:
        handle = await queue.iterate(
            Keys(kind), queue.task_of("callback"), max_failures=1, result_ttl=None
        )
        await clock.advance(50)
        disk.crash()
    assert sorted(seen) == sorted(str(key) for key in keys[:7])
    async with keyed(disk, clock, seen, [str(keys[7])]) as queue:
        await clock.run_until_idle()
        check_conservation(queue)
    assert sorted(seen) == sorted(str(key) for key in keys if key != keys[7])
    async with keyed(disk, clock, seen, []) as queue:
        found = await queue.handle(handle.id)
        assert found is not None
        report: Report = await found
        assert [one.items for one in report.shards] == [4, 1, 0, 4]
        assert [one.key for one in report.failed] == [keys[7]]


@dataclasses.dataclass
class Odd:
    """A source that does what its name says."""

    what: str
    asked: ClassVar[list[str]] = []

    async def split(self, shards: int) -> Any:
        match self.what:
            case "few":
                return [(0, 100)]
            case "many":
                return [(n * 10, n * 10 + 10) for n in range(10)]
            case "gaps":
                return [[0, 10], [50, 60]]
            case "split raises":
                raise ZeroDivisionError("no split")
            case "split none":
                return None
            case "split numbers":
                return [1, 2]
            case "overlap":
                return [(0, 60), (50, 100)]
            case "unordered":
                return [(50, 100), (0, 50)]
            case "open inside":
                return [(0, None), (50, 100)]
            case "backwards":
                return [(10, 0)]
            case _:
                return [(0, 50), (50, 100)]

    async def page(self, after: int, upto: int, limit: int) -> Any:
        Odd.asked.append(self.what)
        found = [(n, n) for n in range(after + 1, upto + 1)][:limit]
        match self.what:
            case "unsorted":
                return found[::-1]
            case "repeats":
                return [(after, after), *found] if after else found
            case "twice":
                return [(n, item) for n, item in found for _ in range(2)]
            case "beyond":
                return [(n, n) for n in range(after + 1, after + 1 + limit)] if after < 200 else []
            case "nothing":
                return None
            case "generator":
                return iter(found)
            case "bare":
                return [n for n, _ in found]
            case "triples":
                return [(n, n, n) for n, _ in found]
            case "incomparable":
                return [(1, 1), ("a", 1)]
            case "page raises":
                raise ZeroDivisionError("no page")
            case "page gives up":
                raise GiveUp("no page")
            case _:
                return found


@pytest.mark.parametrize(("what", "shards"), [("few", 1), ("many", 10), ("gaps", 2), ("", 2)])
async def test_a_split_may_give_other_shards_than_asked(
    queue: Queue, clock: VirtualClock, what: str, shards: int
) -> None:
    """There are as many shards as ranges; what lies between them has no items."""
    seen: list[tuple[int | None, int]] = []

    async def callback(n: int) -> None:
        seen.append((current().shard, n))

    queue.source(Odd)
    handle = await queue.iterate(Odd(what), callback, shards=3)
    await clock.run_until_idle()
    assert len((await handle).shards) == shards
    numbers = sorted(n for _, n in seen)
    assert numbers == ([*range(1, 11), *range(51, 61)] if what == "gaps" else [*range(1, 101)])


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("split raises", ZeroDivisionError),
        ("split none", TypeError),
        ("split numbers", TypeError),
        ("overlap", ValueError),
        ("unordered", ValueError),
        ("open inside", ValueError),
        ("backwards", ValueError),
    ],
)
async def test_a_split_that_fails_changes_nothing(
    queue: Queue, what: str, error: type[Exception]
) -> None:
    """What `split` raises, or gives and should not, is an error at the call."""

    async def callback(n: int) -> None: ...

    queue.source(Odd)
    with pytest.raises(error):
        await queue.iterate(Odd(what), callback)
    assert queue.stats().accepted == 0
    assert [job async for job in queue.jobs()] == []


@pytest.mark.parametrize(
    ("what", "error", "text"),
    [
        ("unsorted", "ValueError", "not in order"),
        ("repeats", "ValueError", "not in order"),
        ("twice", "ValueError", "not in order"),
        ("beyond", "ValueError", "was to end at 50"),
        ("nothing", "TypeError", "not NoneType"),
        ("generator", "TypeError", "list of"),
        ("bare", "TypeError", "pairs"),
        ("triples", "TypeError", "pairs"),
        ("incomparable", "TypeError", "compare"),
        ("page raises", "ZeroDivisionError", "no page"),
    ],
)
async def test_a_page_that_is_wrong_is_an_error(
    queue: Queue, clock: VirtualClock, what: str, error: str, text: str
) -> None:
    """It is tried again as the callback's `Retry` says, and then its shard has failed: nothing hangs."""
    Odd.asked.clear()
    queue.source(Odd)

    @queue.task("callback", retry=Retry(3, delay=10, jitter=False))
    async def callback(n: int) -> None: ...

    handle = await queue.iterate(Odd(what), callback, max_failures=9)
    await clock.advance(29)
    assert not handle.done()
    await clock.advance(2)
    with pytest.raises(IterationFailed) as failed:
        await handle
    first = failed.value.report.failed[0]
    assert (first.key, first.error.type) == (None, error)
    assert text in first.error.message
    assert len(Odd.asked) >= 3


async def test_a_page_may_give_up(queue: Queue, clock: VirtualClock) -> None:
    """`GiveUp` in a page is not tried again; the other shards go on to their end."""
    Odd.asked.clear()
    queue.source(Odd)

    @queue.task("callback", retry=Retry(3, delay=10, jitter=False))
    async def callback(n: int) -> None: ...

    handle = await queue.iterate(Odd("page gives up"), callback)
    await clock.advance(0)
    with pytest.raises(IterationFailed, match="GiveUp: no page"):
        await handle
    assert len(Odd.asked) == 2


async def test_a_key_that_no_journal_can_hold(disk: Any, clock: VirtualClock) -> None:
    """It is found with its page, before anything is done that could not be recorded."""

    @dataclasses.dataclass
    class Strange:
        async def split(self, shards: int) -> list[tuple[None, None]]:
            return [(None, None)]

        async def page(self, after: Any, upto: Any, limit: int) -> list[tuple[Any, int]]:
            return [] if after is not None else [(memoryview(b"a"), 1)]

    ran: list[int] = []
    async with Queue(disk.store(), clock=clock) as queue:
        queue.source(Strange)

        @queue.task("callback")
        async def callback(n: int) -> None:
            ran.append(n)

        handle = await queue.iterate(Strange(), callback)
        await clock.run_until_idle()
        with pytest.raises(IterationFailed, match="memoryview"):
            await handle
    assert ran == []
