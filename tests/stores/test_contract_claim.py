"""Rows that become an owner's: what comes, in what order, and what is no news."""

from itertools import product

import pytest

from asyncdefer._core.instant import FIRST, LAST
from asyncdefer.stores._base import START, Add, Drop, Place, Set, Store
from tests.stores.desk import (
    ENDED,
    FAR,
    NOW,
    SOON,
    STATES,
    Desk,
    Survived,
    leave,
    opened_desk,
    row,
)  # fmt: skip


async def pages(desk: Desk, limit: int, until: int = FAR) -> list[list[int]]:
    """All claims until one has fewer rows than it might have."""
    found: list[list[int]] = []
    after = START
    while not found or len(found[-1]) == limit:
        rows = await desk.claim(until=until, limit=limit, after=after)
        found.append([each.id for each in rows])
        if rows:
            assert after < (rows[-1].at, rows[-1].id)
            after = (rows[-1].at, rows[-1].id)
    return found


# -- what comes by itself


async def test_a_store_without_rows_has_nothing_to_claim(desk: Desk) -> None:
    """However it is asked."""
    assert await desk.claim() == []
    assert await desk.claim(keys=[("task", "k")]) == []
    assert await desk.claim(ids=[1]) == []


async def test_waiting_rows_come_in_eta_order(store: Store) -> None:
    """And by id among equals."""
    places = [(5, 2), (1, 9), (5, 1), (0, 4), (-3, 7), (5, 3), (FIRST, 8)]
    await leave(store, *[Add(row(id, at=at)) for at, id in places])
    async with opened_desk(store) as desk:
        assert await desk.claimed() == [8, 7, 4, 9, 1, 2, 3]


async def test_what_comes_is_the_whole_row(survived: Survived) -> None:
    """As it was written, in the state it had."""
    rows = [
        row(1, "k", "running", until=5, arguments="[1]", body="one"),
        row(2, "k", pinned=True, arguments="[2]", body="two"),
        row(3, None, arguments="[3]", body="three"),
    ]
    async with survived(*map(Add, rows)) as desk:
        assert await desk.claim() == rows
        assert await desk.rows() == rows


async def test_the_horizon_includes_its_last_instant(store: Store) -> None:
    """`at` <= `until` comes, and no later row."""
    await leave(store, *[Add(row(id, at=SOON + id - 2)) for id in (1, 2, 3)])
    async with opened_desk(store) as desk:
        assert await desk.claimed(until=SOON) == [1, 2]
        assert await desk.claimed(until=SOON - 1) == [1]


async def test_other_states_do_not_come(store: Store) -> None:
    """What is held or over stays where it is, pinned or not."""
    states = [state for state in STATES if state not in ("scheduled", "running")]
    rows = [
        row(id, state=s, pinned=p) for id, (s, p) in enumerate(product(states, (False, True)), 1)
    ]
    await leave(store, *map(Add, rows))
    async with opened_desk(store) as desk:
        assert await desk.claim() == []


async def test_running_rows_come_all_and_first(survived: Survived) -> None:
    """Beyond every horizon, limit and place; pinned rows that wait follow, and then the others."""
    rows = [
        row(1, at=NOW - 9), row(2, at=NOW + 9),
        row(3, "k", "running", at=LAST), row(4, None, "running", at=NOW + 5), row(5, "k", at=NOW),
        row(6, "p", pinned=True, at=LAST), row(7, "q", pinned=True, at=NOW - 99),
        row(8, "p", "running", at=FIRST, pinned=True), row(9, at=LAST),
    ]  # fmt: skip
    async with survived(*map(Add, rows)) as desk:
        found = await desk.claimed(until=SOON, limit=2, after=(NOW - 10, 0))
    assert set(found[:3]) == {3, 4, 8}
    assert set(found[3:5]) == {6, 7}
    assert found[5:] == [1, 5]


async def test_many_running_rows_come_at_once(survived: Survived) -> None:
    """More than any limit."""
    running = [Add(row(id, state="running", at=LAST)) for id in range(1, 2001)]
    pinned = [Add(row(id, pinned=True, at=LAST)) for id in range(2001, 4001)]
    async with survived(*running, *pinned) as desk:
        found = await desk.claimed(until=NOW, limit=1)
        assert (set(found[:2000]), set(found[2000:])) == (
            set(range(1, 2001)),
            set(range(2001, 4001)),
        )
        assert await desk.claimed(until=NOW, limit=1) == []


async def test_what_an_owner_has_already_is_no_news(survived: Survived) -> None:
    """Its own running and pinned rows do not come again, and those before the place neither."""
    rows = [row(1, "a", "running"), row(2, "b", pinned=True), row(3), row(4)]
    async with survived(*map(Add, rows)) as desk:
        assert await desk.claimed() == [1, 2, 3, 4]
        assert await desk.claimed(after=(NOW, 4)) == []
        await desk.write(
            Set(row(3, state="running"), "scheduled"),
            Add(row(5, state="running")), Add(row(6, "c", pinned=True)), Add(row(7, at=NOW - 1)),
            Set(row(1, "a", pinned=True), "running"),
        )  # fmt: skip
        assert await desk.claimed(after=(NOW, 4)) == []


async def test_an_owner_hears_of_its_own_rows_behind_the_place(desk: Desk) -> None:
    """What it has written far away comes when the horizon comes near."""
    await desk.write(*[Add(row(id, at=NOW + id)) for id in range(1, 6)])
    assert await desk.claimed(after=(NOW + 2, 2), until=NOW + 4) == [3, 4]
    await desk.write(Set(row(1, at=NOW + 5), "scheduled"), Drop(5, "scheduled"))
    assert await desk.claimed(after=(NOW + 4, 4)) == [1]


async def test_what_a_gone_owner_left_comes_from_anywhere(store: Store) -> None:
    """The place is for the owner's own rows only; those are what it has written, claimed or named."""
    await leave(store, *[Add(row(id, f"k:{id}", at=NOW + id)) for id in range(1, 6)])
    async with opened_desk(store) as desk:
        await desk.write(Set(row(1, "k:1", at=NOW), "scheduled"))
        await desk.claim(ids=[2], keys=[("task", "k:5")])
        assert await desk.claimed(after=(NOW + 4, 4)) == [3, 4, 5]
        assert await desk.claimed(after=(NOW + 4, 4)) == [5]


async def test_a_claim_changes_nothing_that_is_seen(survived: Survived) -> None:
    """A running row stays running, with the attempt it had: the queue decides."""
    rows = [
        row(1, "k", "running", body="one"),
        row(2, "k", pinned=True),
        row(3),
        row(4, state="held"),
    ]
    async with survived(*map(Add, rows)) as desk:
        await desk.claim()
        await desk.claim(ids=[1, 2, 3, 4])
        assert await desk.rows() == rows


async def test_what_was_claimed_is_ours_to_change(survived: Survived) -> None:
    """Nothing of it is lost."""
    async with survived(
        Add(row(1, "a", "running")), Add(row(2, "b", pinned=True)), Add(row(3))
    ) as desk:
        for found in await desk.claim():
            assert (await desk.write(Set(row(found.id, state="failed"), found.state))).lost == ()
        assert await desk.states() == dict.fromkeys((1, 2, 3), "failed")


# -- pages


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 500])
@pytest.mark.parametrize("own", [False, True])
async def test_pages_have_every_row_once(store: Store, limit: int, own: bool) -> None:
    """By place, with many rows at one instant; a page that is not full is the last."""
    rows = [row(id, at=NOW + id // 5) for id in range(1, 21)]
    if not own:
        await leave(store, *map(Add, rows))
    async with opened_desk(store) as desk:
        if own:
            await desk.write(*map(Add, rows))
        found = await pages(desk, limit)
        assert [id for page in found for id in page] == list(range(1, 21))
        assert [len(page) for page in found[:-1]] == [limit] * (20 // limit)
        near = await pages(desk, limit, until=NOW + 1)
        assert [id for page in near for id in page] == list(range(1, 10))


async def test_a_limit_counts_waiting_rows_only(survived: Survived) -> None:
    """Running and pinned ones come on top, once."""
    rows = [row(1, "a", "running"), row(2, "b", pinned=True), *[row(id) for id in range(3, 8)]]
    async with survived(*map(Add, rows)) as desk:
        assert await desk.claimed(limit=2) == [1, 2, 3, 4]
        assert await desk.claimed(limit=2, after=(NOW, 4)) == [5, 6]
        assert await desk.claimed(limit=2, after=(NOW, 6)) == [7]


async def test_pages_begin_before_every_row(store: Store) -> None:
    """`START` is before year 1."""
    await leave(store, Add(row(1, at=FIRST)))
    async with opened_desk(store) as desk:
        assert await desk.claimed(after=START) == [1]
        assert await desk.claimed(after=START) == [1]
        assert await desk.claimed(after=(FIRST, 1)) == []


@pytest.mark.parametrize("after", [(NOW, 1), (NOW, 0), (NOW - 1, 1 << 62)])
async def test_a_place_may_be_one_where_nobody_stands(desk: Desk, after: Place) -> None:
    """It is a place, not a row."""
    await desk.write(Add(row(2)), Add(row(9, at=NOW - 1)), Add(row(1, at=NOW + 1)))
    assert await desk.claimed(after=after) == [2, 1]


# -- by key


async def test_by_key_come_the_one_that_waits_and_those_that_run(survived: Survived) -> None:
    """Beyond every horizon, limit and place; nothing else comes with them."""
    rows = [
        row(1, "k", "running", at=LAST), row(2, "k", at=LAST), row(3, "k", "held"),
        *[row(10 + at, "k", state) for at, state in enumerate(ENDED)],
        row(4, "k", task="other"), row(5, "l"), row(6), row(7, "m", "running"), row(8, "n", pinned=True),
    ]  # fmt: skip
    async with survived(*map(Add, rows)) as desk:
        found = await desk.claimed(keys=[("task", "k")], until=NOW, limit=1, after=(LAST, 9))
        assert sorted(found) == [1, 2]
        assert await desk.claimed(keys=[("other", "k")]) == [4]
        assert sorted(await desk.claimed(keys=[("task", "l"), ("task", "m")])) == [5, 7]
        assert await desk.claimed(keys=[("task", "n")]) == [8]
        assert await desk.claimed(keys=[("other", "l"), ("no", "k"), ("task", "K")]) == []
        assert await desk.claimed(after=(NOW, 5)) == [6]


async def test_by_key_an_owner_finds_its_own(desk: Desk) -> None:
    """Again and again, and each row once."""
    await desk.write(Add(row(1, "k", "running")), Add(row(2, "k")), Add(row(3, "l", pinned=True)))
    for _ in range(2):
        found = await desk.claimed(keys=[("task", "k"), ("task", "k"), ("task", "l")])
        assert sorted(found) == [1, 2, 3]


async def test_by_key_comes_the_newest_call(desk: Desk) -> None:
    """The one that is in the store, whichever were written in between."""
    await desk.write(Add(row(1, "k")), Add(row(3, "k")), Add(row(2, "k")))
    assert await desk.claim(keys=[("task", "k")]) == [row(3, "k")]
    await desk.write(Drop(3, "scheduled"))
    assert await desk.claim(keys=[("task", "k")]) == []


# -- by id


@pytest.mark.parametrize("state", STATES)
async def test_by_id_comes_every_live_row(survived: Survived, state: str) -> None:
    """Held ones too; nothing that is over, and nothing that is not asked for."""
    rows = [row(1, "k", state, at=LAST), row(2, "l", state), row(3, "m"), row(4, "n", "running")]
    async with survived(*map(Add, rows)) as desk:
        for _ in range(2):
            found = await desk.claim(ids=[99, 1, 1], until=NOW, limit=0, after=(LAST, 9))
            assert found == ([] if state in ENDED else rows[:1])


async def test_by_key_and_id_each_row_comes_once(desk: Desk) -> None:
    """However often it is named."""
    await desk.write(Add(row(1, "k")), Add(row(2, "k", "held")), Add(row(3)), Add(row(4)))
    found = await desk.claimed(keys=[("task", "k")], ids=[2, 1, 3])
    assert sorted(found) == [1, 2, 3]


async def test_a_claim_may_name_many(desk: Desk) -> None:
    """Tens of thousands of keys or ids."""
    await desk.write(*[Add(row(id, f"k:{id}")) for id in range(1, 40_002)])
    ids = range(1, 40_001)
    assert sorted(await desk.claimed(ids=ids)) == list(ids)
    assert sorted(await desk.claimed(keys=[("task", f"k:{id}") for id in ids])) == list(ids)
