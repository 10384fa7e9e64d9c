"""`renew` takes the time to purge rows that are over, a bounded number."""

import pytest

from asyncdefer._core.instant import FIRST, LAST
from asyncdefer.stores._base import Add, Drop, Set, Store
from tests.stores.desk import ENDED, LEASE, LIVE, NOW, Desk, leave, opened_desk, row, told

MANY = 25_000


@pytest.mark.parametrize("state", ENDED)
async def test_a_row_is_purged_at_its_time(desk: Desk, state: str) -> None:
    """Not before; whatever its eta was, and with or without a key."""
    rows = [
        row(1, None, state, until=NOW - 1), row(2, "k", state, until=NOW),
        row(3, "k", state, until=NOW + 1), row(4, "l", state, at=LAST, until=FIRST),
        row(5, None, state, at=FIRST, until=LAST),
    ]  # fmt: skip
    await desk.write(*map(Add, rows))
    assert await desk.ids() == [1, 2, 3, 4, 5]
    await desk.renew(NOW - 1)
    assert await desk.ids() == [2, 3, 5]
    await desk.renew(NOW)
    assert await desk.ids() == [3, 5]
    await desk.renew(NOW + 1)
    assert await desk.rows() == [rows[4]]


@pytest.mark.parametrize("state", ENDED)
async def test_a_row_without_a_time_stays_for_ever(desk: Desk, state: str) -> None:
    """`until=None` is never."""
    await desk.write(Add(row(1, "k", state, at=FIRST)))
    await desk.renew(LAST)
    assert await desk.ids() == [1]


@pytest.mark.parametrize("state", LIVE)
async def test_a_live_row_is_never_purged(desk: Desk, state: str) -> None:
    """It is not over, whatever it says."""
    await desk.write(Add(row(1, "k", state, at=FIRST, until=FIRST)))
    await desk.renew(LAST)
    assert await desk.rows() == [row(1, "k", state, at=FIRST, until=FIRST)]


async def test_a_row_that_was_taken_back_is_not_purged(desk: Desk) -> None:
    """What counts is what it says now: a redrive, a longer time, no time at all."""
    await desk.write(*[Add(row(id, state="failed", until=NOW)) for id in (1, 2, 3, 4)])
    changes = row(1), row(2, state="failed", until=NOW + 1), row(3, state="failed")
    await desk.write(*[Set(changed, "failed") for changed in changes])
    await desk.renew()
    assert await desk.rows() == list(changes)


async def test_a_purged_row_is_gone(desk: Desk) -> None:
    """A change of it is lost."""
    await desk.write(Add(row(1, state="failed", until=NOW)), Add(row(2, state="failed", until=NOW)))
    await desk.renew()
    assert told(await desk.write(Set(row(1), "failed"), Drop(2, "failed"))) == ({1, 2}, set())
    assert await desk.rows() == []


async def test_rows_of_those_who_have_gone_are_purged(store: Store) -> None:
    """Nobody needs to claim them."""
    await leave(store, Add(row(1, state="failed", until=NOW + 1)), Add(row(2, state="failed")))
    async with opened_desk(store, NOW + LEASE) as desk:
        await desk.renew()
        assert await desk.ids() == [2]


async def test_a_renewal_does_not_take_long(desk: Desk) -> None:
    """Many rows go in several of them, and at last all have gone."""
    over = [Add(row(id, state="succeeded", until=NOW - id)) for id in range(1, MANY + 1)]
    await desk.write(*over, Add(row(MANY + 1)))
    left = [MANY + 1]
    while left[-1] > 1:
        await desk.renew()
        left.append(len(await desk.rows()))
        assert left[-1] < left[-2]
    assert len(left) > 2
    assert await desk.ids() == [MANY + 1]
