"""Rows of any owner in eta order, and nothing is changed."""

from itertools import product
from typing import Any

import pytest

from asyncdefer._core.instant import FIRST, LAST
from asyncdefer.stores._base import PAGE, START, Add, Drop, Place, Row, Set, Store
from tests.stores.desk import (
    NOW,
    STATES,
    Desk,
    ids_of,
    leave,
    opened_desk,
    row,
    rows_of,
)  # fmt: skip


async def test_an_empty_store_has_no_rows(desk: Desk) -> None:
    """Whatever is asked for."""
    assert await desk.rows() == []
    assert await rows_of(desk.store, ids=[1], state="failed", task="t", key_prefix="k") == []


async def test_rows_come_in_eta_order(desk: Desk) -> None:
    """In every state, and by id among equals."""
    places = [(5, 2), (1, 9), (5, 1), (LAST, 4), (-3, 7), (5, 3), (FIRST, 8)]
    states = dict(zip((id for _, id in places), STATES, strict=False))
    await desk.write(*[Add(row(id, state=states[id], at=at)) for at, id in places])
    assert await ids_of(desk.store) == [8, 7, 9, 1, 2, 3, 4]


async def test_rows_of_an_owner_that_is_gone_are_there(store: Store) -> None:
    """Nobody needs to claim them, and to look at them claims nothing."""
    rows = [row(1), row(2, state="held"), row(3, state="failed")]
    await leave(store, *map(Add, rows))
    async with opened_desk(store) as desk:
        assert await desk.rows() == rows
        assert await desk.claim(after=(LAST, 9)) == rows[:1]


# -- filters


ROWS = [
    row(id, key, state, task=task, at=NOW - id)
    for id, (key, state, task) in enumerate(
        product((None, "a", "ab", "b"), ("scheduled", "running", "failed"), ("t", "u")), 1
    )
]
FILTERS = [
    {"ids": ids, "state": state, "task": task, "key_prefix": prefix}
    for ids, state, task, prefix in product(
        (None, [], [3], [24, 1, 99, 8, 8, 15, 2]),
        (None, "scheduled", "failed", "expired"),
        (None, "t", "v"),
        (None, "a", "ab", "c"),
    )
]


def wanted(found: Row, ids: Any, state: str | None, task: str | None, prefix: str | None) -> bool:
    return (
        (ids is None or found.id in ids)
        and (state is None or found.state == state)
        and (task is None or found.task == task)
        and (prefix is None or (found.key is not None and found.key.startswith(prefix)))
    )


async def test_filters_are_taken_together(desk: Desk) -> None:
    """A row must satisfy them all; no ids at all are satisfied by none."""
    await desk.write(*map(Add, ROWS))
    for filters in FILTERS:
        expected = [each for each in reversed(ROWS) if wanted(each, *filters.values())]
        assert await rows_of(desk.store, **filters) == expected, filters
        if len(expected) > 1:
            after = (expected[0].at, expected[0].id)
            assert await rows_of(desk.store, after=after, limit=1, **filters) == [expected[1]]


KEYS = [
    "a", "A", "ab", "aB", "a%", "a%b", "a_", "a_b", "axb", "a*", "a*b", "a?", "a?b", "a[", "a[b]",
    "a[b]c", "a]", "a\\", "a\\b", "a'", "a''", 'a"', "a^", "a-", "a\n", "a\nb", "a ", "é", "ée", "e",
    "e\u0301", "É", "中", "中文", "\ud7ff", "\ue000", "\uffff", "\uffffz", "\U00010000", "\U0010ffff",
    "\U0010ffff\U0010ffff", "a\U0010ffff", "a\U0010ffffb", "[1,", '[1,"x"]', "[1.0", "[10", "1", "01",
]  # fmt: skip


@pytest.mark.parametrize(
    "prefix", [*KEYS, "x", "a%%", "[", "[]", "%", "_", "*", "?", "\\", "\U0010fffe"]
)
async def test_a_prefix_is_taken_literally(desk: Desk, prefix: str) -> None:
    """No wildcards, no folding, no end of the alphabet."""
    await desk.write(*[Add(row(id, key)) for id, key in enumerate(KEYS, 1)], Add(row(999)))
    found = [each.key for each in await rows_of(desk.store, key_prefix=prefix)]
    assert found == [key for key in KEYS if key.startswith(prefix)]


async def test_every_row_has_the_empty_prefix(desk: Desk) -> None:
    """With a key or without, as in `jobs(key_prefix="")` of a queue without a journal."""
    await desk.write(Add(row(1, "k")), Add(row(2)), Add(row(3, None, "failed")))
    assert await ids_of(desk.store, key_prefix="") == [1, 2, 3]
    assert await ids_of(desk.store, key_prefix="k") == [1]


# -- pages


async def test_a_page_has_five_hundred_rows(desk: Desk) -> None:
    """Unless it is said how many."""
    await desk.write(*[Add(row(id)) for id in range(1, PAGE + 3)])
    assert [found.id async for found in desk.store.scan()] == list(range(1, PAGE + 1))
    assert [found.id async for found in desk.store.scan(after=(NOW, PAGE))] == [PAGE + 1, PAGE + 2]


@pytest.mark.parametrize("limit", [1, 2, 500])
async def test_pages_go_to_the_end(desk: Desk, limit: int) -> None:
    """Every row once, with many at one instant, and then nothing."""
    await desk.write(*[Add(row(id, state=STATES[id % 9], at=NOW + id // 7)) for id in range(1, 41)])
    found: list[Row] = []
    after: Place | None = None
    while page := await rows_of(desk.store, after=after, limit=limit):
        assert len(page) <= limit
        found += page
        assert len(found) <= 40
        after = (page[-1].at, page[-1].id)
    assert [each.id for each in found] == list(range(1, 41))
    assert await rows_of(desk.store, after=after) == []


async def test_pages_have_every_row_that_stays(desk: Desk) -> None:
    """Whoever comes or goes meanwhile, also the row of the place."""
    await desk.write(*[Add(row(id)) for id in range(10, 16)])
    assert await ids_of(desk.store, limit=2) == [10, 11]
    await desk.write(Drop(11, "scheduled"), Add(row(1)), Add(row(20)), Drop(13, "scheduled"))
    assert await ids_of(desk.store, limit=2, after=(NOW, 11)) == [12, 14]


@pytest.mark.parametrize("after", [None, START, (FIRST, 0)])
async def test_pages_begin_before_every_row(desk: Desk, after: Place | None) -> None:
    """Year 1 too."""
    await desk.write(Add(row(1, at=FIRST)), Add(row(2, at=LAST)))
    assert await ids_of(desk.store, after=after) == [1, 2]
    assert await ids_of(desk.store, after=(FIRST, 1)) == [2]
    assert await ids_of(desk.store, after=(FIRST, 0), limit=0) == []


async def test_a_scan_may_name_many_ids(desk: Desk) -> None:
    """Tens of thousands of them."""
    await desk.write(*[Add(row(id)) for id in range(2, 40_002, 2)])
    assert await ids_of(desk.store, ids=range(1, 40_001)) == list(range(2, 40_001, 2))


# -- meanwhile


async def test_a_scan_may_be_left(desk: Desk) -> None:
    """Who has seen enough stops, and the store goes on."""
    await desk.write(*[Add(row(id)) for id in range(1, 1001)])
    for _ in range(3):
        scan = desk.store.scan(limit=1000)
        assert (await anext(scan)).id == 1
        await scan.aclose()  # type: ignore[attr-defined]
    assert await desk.claimed(limit=2) == [1, 2]


async def test_a_store_changes_while_somebody_reads(desk: Desk) -> None:
    """Rows that stay as they are come once and in order; writes do not wait for the reader."""
    await desk.write(*[Add(row(id)) for id in range(1, 1001)])
    found: list[int] = []
    async for each in desk.store.scan(limit=2000):
        found.append(each.id)
        if each.id % 100 == 50:
            changed = row(each.id, state="running", at=NOW - 1)
            await desk.write(Set(changed, "scheduled"), Drop(each.id + 7, "scheduled"))
            await desk.write(Add(row(1000 + each.id)))
            assert await desk.claimed(ids=[each.id]) == [each.id]
    stayed = [id for id in range(1, 1001) if id % 100 not in (50, 57)]
    assert [id for id in found if id <= 1000 and id % 100 not in (50, 57)] == stayed
    assert len(found) == len(set(found))


async def test_two_read_at_once(desk: Desk) -> None:
    """Each gets all rows."""
    await desk.write(*[Add(row(id)) for id in range(1, 101)])
    one, other = desk.store.scan(), desk.store.scan(state="scheduled")
    for id in range(1, 101):
        assert ((await anext(one)).id, (await anext(other)).id) == (id, id)
    assert await anext(one, None) is await anext(other, None) is None
