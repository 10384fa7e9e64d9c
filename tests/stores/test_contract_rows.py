"""Add, Set, Drop, Note: what becomes of a row, and what is said of it."""

from itertools import pairwise, product

import pytest
from msgspec import structs

from asyncdefer._core.instant import FIRST, LAST
from asyncdefer.stores._base import Add, Drop, Note, Row, Set, Written
from tests.stores.desk import (
    FAR,
    NOW,
    STATES,
    Desk,
    Grouping,
    apart,
    row,
    rows_of,
    together,
    told,
)  # fmt: skip

NOTHING: tuple[set[int], set[int]] = (set(), set())


# -- Add


@pytest.mark.parametrize("state", STATES)
async def test_a_row_comes_back_as_it_was_written(desk: Desk, state: str) -> None:
    """All of its fields, in every state."""
    full = Row(7, "shop.bill", "k", state, NOW + 1, NOW + 2, True, '{"x":[1]}', '{"calls":3}')
    bare = Row(8, "shop.bill", None, state, NOW + 2)
    assert await desk.write(Add(full), Add(bare)) == Written()
    assert await desk.rows() == [full, bare]


async def test_an_add_of_an_id_that_is_there_is_lost(desk: Desk, grouped: Grouping) -> None:
    """Whatever the state and key of the two; the row that was there stays as it is."""
    for id, (before, after) in enumerate(product(STATES, STATES), 1):
        old = row(id, f"old:{id}", before)
        assert told(await grouped(desk, Add(old), Add(row(id, f"new:{id}", after)))) == (
            {id},
            set(),
        )
        assert await rows_of(desk.store, ids=[id]) == [old]


async def test_a_lost_add_replaces_nobody(desk: Desk, grouped: Grouping) -> None:
    """It is not there, so the older row of its key stays."""
    await desk.write(Add(row(1, "k")), Add(row(2, "other")))
    assert told(await grouped(desk, Add(row(2, "k")))) == ({2}, set())
    assert await desk.rows() == [row(1, "k"), row(2, "other")]


async def test_a_lost_add_is_replaced_by_nobody(desk: Desk, grouped: Grouping) -> None:
    """It is not there for the newer row of its key either."""
    before = [row(1, "a"), row(2, "b", "running"), row(3)]
    await desk.write(*map(Add, before))
    adds = [Add(row(id, "k")) for id in (1, 2, 3, 4)]
    assert told(await grouped(desk, *adds)) == ({1, 2, 3}, set())
    assert await desk.rows() == [*before, row(4, "k")]


async def test_an_id_that_has_gone_is_free(desk: Desk, grouped: Grouping) -> None:
    """A row may be added, dropped and added again."""
    changes = Add(row(1, "a")), Drop(1, "scheduled"), Add(row(1, "b", arguments="[2]"))
    assert told(await grouped(desk, *changes)) == NOTHING
    assert await desk.rows() == [row(1, "b", arguments="[2]")]


async def test_rows_without_a_key_never_meet(desk: Desk, grouped: Grouping) -> None:
    """Any number of them may wait."""
    assert told(await grouped(desk, *[Add(row(id)) for id in (3, 1, 2)])) == NOTHING
    assert await desk.ids() == [1, 2, 3]


# -- Set


async def test_a_set_changes_all_but_the_arguments(desk: Desk, grouped: Grouping) -> None:
    """From any state to any other, or to the same: the store knows no lifecycle."""
    for id, (was, state) in enumerate(product(STATES, STATES), 1):
        old = Row(id, "old", f"old:{id}", was, NOW, None, False, "kept", "old")
        new = Row(id, "new", f"new:{id}", state, NOW + 5, NOW + 9, True, "ignored", "new")
        assert told(await grouped(desk, Add(old), Set(new, was))) == NOTHING
        assert await rows_of(desk.store, ids=[id]) == [structs.replace(new, arguments="kept")]


async def test_a_set_takes_away_what_it_does_not_say(desk: Desk, grouped: Grouping) -> None:
    """Key, `until`, `pinned` and body go as they came."""
    full = Row(1, "task", "k", "failed", NOW, FAR, True, "kept", "body")
    await grouped(desk, Add(full), Set(Row(1, "task", None, "failed", NOW), "failed"))
    assert await desk.rows() == [Row(1, "task", None, "failed", NOW, None, False, "kept", "")]


async def test_a_set_from_another_state_is_lost(desk: Desk, grouped: Grouping) -> None:
    """The row stays as it is."""
    for id, (state, was) in enumerate(product(STATES, STATES), 1):
        if state != was:
            old = row(id, f"k:{id}", state)
            changed = Set(row(id, f"k:{id}", "dropped", at=FAR, body="new"), was)
            assert told(await grouped(desk, Add(old), changed)) == ({id}, set())
            assert await rows_of(desk.store, ids=[id]) == [old]


async def test_a_set_of_no_row_is_lost(desk: Desk, grouped: Grouping) -> None:
    """It makes none, and replaces nobody."""
    await desk.write(Add(row(1, "k")))
    assert told(await grouped(desk, Set(row(2, "k"), "scheduled"))) == ({2}, set())
    assert await desk.rows() == [row(1, "k")]


async def test_sets_of_one_row_follow_one_another(desk: Desk, grouped: Grouping) -> None:
    """Each finds the row as the one before it left it: a whole life in one write."""
    states = "scheduled", "running", "scheduled", "running", "failed", "scheduled", "running"
    changes = [Set(row(1, "k", to, body=to), was) for was, to in pairwise(states)]
    changes.append(Set(row(1, "k", "succeeded", body="end"), "running"))
    assert told(await grouped(desk, Add(row(1, "k")), *changes)) == NOTHING
    assert await desk.rows() == [row(1, "k", "succeeded", body="end")]


async def test_the_first_of_two_ends_counts(desk: Desk, grouped: Grouping) -> None:
    """The second finds another state than it names."""
    ends = Set(row(1, state="succeeded"), "running"), Set(row(1, state="failed"), "running")
    assert told(await grouped(desk, Add(row(1, state="running")), *ends)) == ({1}, set())
    assert await desk.states() == {1: "succeeded"}


async def test_a_changed_eta_changes_the_place(desk: Desk, grouped: Grouping) -> None:
    """Scans and claims go by the new one."""
    await desk.write(*[Add(row(id, at=NOW + id)) for id in (1, 2, 3)])
    await grouped(desk, Set(row(1, at=NOW + 10), "scheduled"), Set(row(3, at=NOW), "scheduled"))
    assert [found.id for found in await desk.rows()] == [3, 2, 1]
    assert await desk.claimed() == [3, 2, 1]
    assert await desk.claimed(until=NOW + 9) == [3, 2]


# -- Drop


@pytest.mark.parametrize("state", STATES)
async def test_a_dropped_row_is_gone(desk: Desk, grouped: Grouping, state: str) -> None:
    """From any state, if it is the one it names."""
    await desk.write(Add(row(2, "other")))
    assert told(await grouped(desk, Add(row(1, "k", state)), Drop(1, state))) == NOTHING
    assert await desk.ids() == [2]


@pytest.mark.parametrize("state", STATES)
async def test_a_drop_that_finds_no_such_row_is_lost(
    desk: Desk, grouped: Grouping, state: str
) -> None:
    """Another state, no row at all, or gone in the same write: nothing goes."""
    other = "held" if state != "held" else "failed"
    await desk.write(Add(row(1, "k", state)), Add(row(3, "l", state)))
    drops = Drop(1, other), Drop(2, state), Drop(3, state), Drop(3, state)
    assert told(await grouped(desk, *drops)) == ({1, 2, 3}, set())
    assert await desk.rows() == [row(1, "k", state)]


async def test_nothing_is_left_to_set_after_a_drop(desk: Desk, grouped: Grouping) -> None:
    """A dropped row does not come back by a change that knew it."""
    changes = Drop(1, "running"), Set(row(1, "k"), "running")
    assert told(await grouped(desk, Add(row(1, "k", "running")), *changes)) == ({1}, set())
    assert await desk.rows() == []


async def test_what_is_lost_takes_nothing_else_with_it(desk: Desk, grouped: Grouping) -> None:
    """To lose an id is no error: all other changes happen."""
    await desk.write(Add(row(1)))
    changes = (
        Add(row(1)), Add(row(2)), Set(row(9), "running"), Note("n", "v"), Drop(8, "held"),
        Set(row(1, state="running"), "scheduled"), Add(row(3)),
    )  # fmt: skip
    assert told(await grouped(desk, *changes)) == ({1, 9, 8}, set())
    assert await desk.states() == {1: "running", 2: "scheduled", 3: "scheduled"}


# -- writes


async def test_a_write_of_nothing_changes_nothing(desk: Desk) -> None:
    """No commands, or commands without changes."""
    await desk.write(Add(row(1)))
    assert await desk.store.write(desk.owner, []) == Written()
    assert await desk.store.write(desk.owner, [(), ()]) == Written()
    assert await desk.rows() == [row(1)]


@pytest.mark.parametrize("grouping", [together, apart])
async def test_a_write_may_be_large(desk: Desk, grouping: Grouping) -> None:
    """Tens of thousands of changes at once, and those that are lost are told."""
    count = 40_000
    rows = [row(id, f"key:{id}", at=NOW + id) for id in range(1, count + 1)]
    assert told(await grouping(desk, *map(Add, rows))) == NOTHING
    sets = [Set(row(id, f"key:{id}", "running", at=NOW + id), "scheduled") for id in range(1, 101)]
    drops = [Drop(id, "scheduled") for id in range(2, count + 101, 2)]
    lost = {*range(2, 101, 2), *range(count + 2, count + 101, 2)}
    assert told(await grouping(desk, *sets, *drops)) == (lost, set())
    assert len(await desk.rows()) == 100 + (count - 100) // 2


# -- values


EXTREMES = [
    row(1, at=FIRST),
    row(2, at=-1),
    row(3, at=0),
    row(4, at=LAST, until=LAST),
    row(2**31, "k", at=LAST),
    row(2**53 + 1, "l", at=LAST),
    row(2**63 - 1, "m", at=LAST, until=2**63 - 1),
]


async def test_numbers_keep_every_digit(desk: Desk) -> None:
    """Ids up to 2^63 - 1, etas from year 1 to year 9999, in their order."""
    await desk.write(*map(Add, reversed(EXTREMES)))
    assert await desk.rows() == EXTREMES
    assert await desk.claim() == EXTREMES[:3]
    assert await desk.claim(until=LAST, after=(NOW, 0)) == EXTREMES[3:]
    assert await desk.claim(ids=[2**63 - 1]) == [EXTREMES[-1]]
    await desk.write(Drop(2**53 + 1, "scheduled"), Set(row(2**63 - 1, "m", "held"), "scheduled"))
    assert await desk.ids() == [1, 2, 3, 4, 2**31, 2**63 - 1]


TEXTS = [
    "", " ", "'", '"', "`", "\\", "''; DROP TABLE x; --", "%", "_", "[a-z]", "*?", ":name", "?1",
    "\n\r\t", "\x7f", "é", "e\u0301", "ß", "ﬁ", "中文", "👩‍👩‍👧", "\u202e", "\ufeff", "\uffff",
    "\U0010ffff", "null", "1", "1.0", "0x10", "{}", "a" * 512, "ü" * 256,
]  # fmt: skip


async def test_texts_keep_every_character(desk: Desk) -> None:
    """Keys, names, arguments, bodies and notes are not read, folded, trimmed or normalised."""
    rows = [
        Row(id, text or "task", text or "key", "scheduled", NOW, None, False, text, text)
        for id, text in enumerate(TEXTS, 1)
    ]
    notes = [Note(text, text) for text in TEXTS]
    assert told(await desk.write(*map(Add, rows), *notes)) == NOTHING
    assert await desk.rows() == rows
    for each in rows:
        assert each.key is not None
        assert await desk.claim(keys=[(each.task, each.key)]) == [each]
        assert await rows_of(desk.store, task=each.task, key_prefix=each.key) == [each]


async def test_a_row_may_be_heavy(desk: Desk) -> None:
    """A mebibyte of arguments, and another of body."""
    heavy = row(1, "k" * 512, arguments="é" * (1 << 19), body="b" * (1 << 20))
    await desk.write(Add(heavy))
    assert await desk.claim() == [heavy]
    await desk.write(Set(row(1, "k" * 512, "succeeded", body="b"), "scheduled"))
    (found,) = await desk.rows()
    assert found == row(1, "k" * 512, "succeeded", arguments="é" * (1 << 19), body="b")
