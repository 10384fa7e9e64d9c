"""Several owners at once: a row belongs to who wrote or claimed it last, while the lease runs."""

from collections.abc import AsyncIterator

import pytest

from asyncdefer._core.instant import LAST
from asyncdefer.stores._base import Add, Change, Drop, Note, Set, Store
from tests.stores.desk import (
    AFTER_THE_LEASE,
    LEASE,
    NOW,
    Desk,
    leave,
    opened_desk,
    row,
    told,
)  # fmt: skip

JUST_BEFORE = NOW + LEASE - 1


@pytest.fixture
async def one(shared: Store) -> AsyncIterator[Desk]:
    async with opened_desk(shared) as desk:
        yield desk


@pytest.fixture
async def two(shared: Store, one: Desk) -> AsyncIterator[Desk]:
    """Opened the store after `one`, while it was there."""
    async with opened_desk(shared) as desk:
        yield desk


def changes_of(id: int) -> list[Change]:
    """What might be done to a waiting row."""
    return [
        Set(row(id, state="running"), "scheduled"),
        Set(row(id), "scheduled"),
        Drop(id, "scheduled"),
    ]


# -- while both live


async def test_both_see_all_rows(one: Desk, two: Desk) -> None:
    """A scan does not ask whose they are."""
    await one.write(Add(row(1)))
    await two.write(Add(row(2)))
    assert await one.rows() == await two.rows() == [row(1), row(2)]


async def test_nobody_claims_what_another_has(one: Desk, two: Desk) -> None:
    """Neither by place nor by key nor by id, whatever its state, until the last instant."""
    await one.write(
        Add(row(1)), Add(row(2, "k")), Add(row(3, "r", "running")), Add(row(4, "p", pinned=True)),
        Add(row(5, "h", "held")),
    )  # fmt: skip
    await two.write(Add(row(6)), Add(row(7, "t", "running")))
    keys = [("task", key) for key in ("k", "r", "p", "t")]
    for now in (NOW, JUST_BEFORE):
        assert await two.claimed(now=now) == [6]
        assert await two.claimed(now=now, keys=keys) == [7]
        assert await two.claimed(now=now, ids=range(9)) == [6, 7]
        assert await one.claimed(now=now) == [1, 2]
    assert await one.claimed(ids=range(9)) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("change", changes_of(1))
async def test_nobody_changes_what_another_has(one: Desk, two: Desk, change: Change) -> None:
    """The id is lost, and the row stays its owner's."""
    await one.write(Add(row(1)))
    assert told(await two.write(change, Add(row(2)))) == ({1}, set())
    assert await one.rows() == [row(1), row(2)]
    assert told(await one.write(change)) == (set(), set())


async def test_what_was_claimed_is_taken(shared: Store, one: Desk, two: Desk) -> None:
    """Of what a gone owner left, each row comes to one of two only."""
    await leave(shared, *[Add(row(id, f"k:{id}", at=NOW + id)) for id in range(1, 7)])
    assert await one.claimed(limit=2) == [1, 2]
    assert await two.claimed(limit=2) == [3, 4]
    assert await two.claimed(keys=[("task", f"k:{id}") for id in (1, 3, 5)]) == [3, 5]
    assert await one.claimed(ids=range(9)) == [1, 2, 6]
    for id in range(1, 7):
        mine, others = (one, two) if id in (1, 2, 6) else (two, one)
        assert told(await others.write(Drop(id, "scheduled"))) == ({id}, set())
        assert told(await mine.write(Drop(id, "scheduled"))) == (set(), set())


async def test_an_id_is_one_for_all(one: Desk, two: Desk) -> None:
    """An add of another's id is lost."""
    await one.write(Add(row(1, "k")))
    assert told(await two.write(Add(row(1, "l")))) == ({1}, set())
    assert await one.rows() == [row(1, "k")]


async def test_the_newest_call_wins_across_owners(one: Desk, two: Desk) -> None:
    """A newer call of another owner replaces the one that waits, whose start is lost then."""
    await one.write(Add(row(1, "k")))
    assert told(await two.write(Add(row(3, "k")))) == (set(), {1})
    start = Set(row(1, "k", "running"), "scheduled")
    assert told(await one.write(start)) == ({1}, set())
    assert told(await one.write(Add(row(2, "k")))) == (set(), {2})
    assert await two.claim(keys=[("task", "k")]) == [row(3, "k")]
    assert await one.claim(keys=[("task", "k")]) == []


async def test_a_retry_gives_way_across_owners(one: Desk, two: Desk) -> None:
    """The newer call is another owner's, and stays it."""
    await one.write(Add(row(1, "k", "running")))
    await two.write(Add(row(2, "k")))
    assert told(await one.write(Set(row(1, "k"), "running"))) == (set(), {1})
    assert await two.claim(ids=[2]) == [row(2, "k")]


async def test_notes_are_for_all(shared: Store, one: Desk, two: Desk) -> None:
    """Whoever wrote last."""
    await one.write(Note("a", "1"), Note("b", "1"))
    await two.write(Note("a", "2"))
    async with opened_desk(shared) as three:
        assert three.opened.notes == {"a": "2", "b": "1"}


# -- one goes


async def test_what_one_leaves_another_claims(shared: Store, two: Desk) -> None:
    """At once, if it has closed."""
    async with opened_desk(shared) as gone:
        await gone.write(Add(row(1)), Add(row(2, pinned=True)), Add(row(3, at=LAST)))
        assert await two.claimed() == []
    assert await two.claimed(after=(LAST, 0)) == [2, 1]
    assert await two.claimed(after=(LAST, 0), until=LAST) == [3]


async def test_one_that_goes_takes_nobody_with_it(shared: Store, one: Desk) -> None:
    """The lease of the other runs on."""
    async with opened_desk(shared) as gone:
        await gone.write(Add(row(1)))
    await one.write(Add(row(2)))
    async with opened_desk(shared) as three:
        assert await three.claimed() == [1]
        assert await one.claimed() == [2]


async def test_who_is_still_there_has_not_closed(shared: Store, one: Desk, two: Desk) -> None:
    """Its rows may be running: nobody calls that clean."""
    assert one.opened.clean
    assert not two.opened.clean


# -- one is late


async def test_a_lease_that_ran_out_protects_nothing(one: Desk, two: Desk) -> None:
    """Everything of that owner comes, running rows first, as from one that died."""
    await one.write(
        Add(row(1)), Add(row(2, "k")), Add(row(3, "r", "running")), Add(row(4, "p", pinned=True))
    )
    assert await two.claimed(now=AFTER_THE_LEASE) == [3, 4, 1, 2]


@pytest.mark.parametrize("change", changes_of(1))
async def test_a_late_write_loses_what_was_taken(one: Desk, two: Desk, change: Change) -> None:
    """And nothing else: rows that nobody took are still its own."""
    await one.write(Add(row(1)), Add(row(2)), Add(row(3, state="running")))
    await two.renew(now=AFTER_THE_LEASE - LEASE)
    assert await two.claimed(now=AFTER_THE_LEASE - LEASE, ids=[1]) == [1]
    end = Set(row(3, state="succeeded"), "running")
    assert told(await one.write(change, end, Drop(2, "scheduled"), Add(row(4)))) == ({1}, set())
    assert await two.rows() == [row(1), row(3, state="succeeded"), row(4)]


async def test_who_comes_back_in_time_keeps_everything(one: Desk, two: Desk) -> None:
    """A lease that was renewed late runs again, over all rows that nobody took."""
    await one.write(Add(row(1)), Add(row(2)))
    await two.renew(now=AFTER_THE_LEASE - LEASE)
    assert await two.claimed(now=AFTER_THE_LEASE - LEASE, ids=[2]) == [2]
    await one.renew(now=AFTER_THE_LEASE - LEASE)
    await two.renew(now=AFTER_THE_LEASE - 1)
    assert await two.claimed(now=AFTER_THE_LEASE - 1) == [2]
    assert await one.claimed(now=AFTER_THE_LEASE - 1) == [1]


async def test_a_renewed_lease_runs_on(one: Desk, two: Desk) -> None:
    """From one renewal to the next, for as long as its owner likes."""
    await one.write(Add(row(1)))
    for step in range(1, 20):
        await one.renew(now=NOW + step * LEASE - 1)
        await two.renew(now=NOW + step * LEASE)
        assert await two.claimed(now=NOW + step * LEASE) == []
    assert await two.claimed(now=NOW + 21 * LEASE) == [1]


async def test_a_claim_does_not_renew(one: Desk, two: Desk) -> None:
    """Nor does a write: only a renewal says that its owner will be there."""
    await one.write(Add(row(1)))
    assert await one.claimed(now=JUST_BEFORE) == [1]
    await one.write(Set(row(1), "scheduled"))
    assert await two.claimed(now=AFTER_THE_LEASE) == [1]


async def test_what_is_over_is_purged_whoever_has_it(one: Desk, two: Desk) -> None:
    """No lease protects it."""
    await one.write(Add(row(1, state="failed", until=NOW)), Add(row(2)))
    await two.renew()
    assert await one.rows() == [row(2)]
