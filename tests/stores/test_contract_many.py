"""A write of many changes does what as many writes do: every column of every row, and each lost id."""

import pytest

from asyncdefer.errors import JournalError
from asyncdefer.stores._base import Add, Change, Drop, Row, Set, Store
from tests.stores.desk import NOW, Desk, opened_desk, row

MANY = [49, 50, 51, 499, 500, 501, 1_051]
"""Around the numbers of rows that a store may write at once."""


def added(id: int, *, keyed: bool) -> Row:
    """A row of which no two columns are alike, nor those of two rows."""
    key = f"key {id}" if keyed else None
    return row(
        id, key, task=f"task {id % 3}", at=NOW + id, pinned=id % 2 == 0,
        arguments=f"[{id}]", body=f'{{"attempt":{id}}}',
    )  # fmt: skip


def changed(id: int, *, keyed: bool, timed: bool) -> Row:
    key = f"key {id}" if keyed else None
    return row(
        id, key, "succeeded" if timed else "running", task=f"task {id % 3}", at=NOW + 2 * id,
        until=NOW + 10**12 + id if timed else None, arguments=f"[{id}]", body=f'{{"result":{id}}}',
    )  # fmt: skip


async def found(desk: Desk) -> dict[int, Row]:
    return {one.id: one for one in await desk.rows()}


@pytest.mark.parametrize("many", MANY)
@pytest.mark.parametrize("keyed", [False, True])
@pytest.mark.parametrize("timed", [False, True])
async def test_every_column_of_every_row(desk: Desk, many: int, keyed: bool, timed: bool) -> None:
    """Of those that are added, and of those that are changed."""
    before = {id: added(id, keyed=keyed) for id in range(1, many + 1)}
    after = {id: changed(id, keyed=keyed, timed=timed) for id in before}
    await desk.write(*map(Add, before.values()))
    assert await found(desk) == before
    written = await desk.write(*(Set(one, "scheduled") for one in after.values()))
    assert (written.lost, written.replaced) == ((), ())
    assert await found(desk) == after


@pytest.mark.parametrize("many", MANY)
@pytest.mark.parametrize("keyed", [False, True])
async def test_one_of_many_is_lost(desk: Desk, many: int, keyed: bool) -> None:
    """It is not there, or in another state; the others are changed."""
    before = {id: added(id, keyed=keyed) for id in range(1, many + 1)}
    after = {id: changed(id, keyed=keyed, timed=False) for id in before}
    missing, other = many // 2, many
    del before[missing]
    await desk.write(*map(Add, before.values()))
    await desk.write(Set(after[other], "scheduled"))
    written = await desk.write(*(Set(one, "scheduled") for one in after.values()))
    assert set(written.lost) == {missing, other}
    del after[missing]
    assert await found(desk) == after


@pytest.mark.parametrize("many", MANY)
async def test_a_row_that_is_added_and_changed_at_once(desk: Desk, many: int) -> None:
    """It keeps the arguments with which it was added, and all else is as it was changed."""
    changes: list[Change] = []
    for id in range(1, many + 1):
        start = row(id, None, "running", at=NOW + 2 * id, body=f'{{"attempt":{id}}}')
        changes += [Add(row(id, at=NOW + id, arguments=f"[{id}]")), Set(start, "scheduled")]
    written = await desk.write(*changes)
    assert (written.lost, written.replaced) == ((), ())
    rows = await found(desk)
    assert len(rows) == many
    for id, one in rows.items():
        wanted = row(
            id, None, "running", at=NOW + 2 * id, arguments=f"[{id}]", body=f'{{"attempt":{id}}}'
        )
        assert one == wanted


@pytest.mark.parametrize("many", MANY)
async def test_an_id_that_is_taken_among_many(desk: Desk, many: int) -> None:
    """Its add is lost, and the row that is there stays as it is."""
    there = row(many, at=NOW - 5)
    await desk.write(Add(there))
    adds = [Add(added(id, keyed=False)) for id in range(1, many + 1)]
    written = await desk.write(*adds)
    assert written.lost == (many,)
    rows = await found(desk)
    assert len(rows) == many
    assert rows[many] == there


@pytest.mark.parametrize("many", MANY)
@pytest.mark.parametrize("before", [0, 1, 60, 600])
async def test_keys_that_come_again_among_many(store: Store, many: int, before: int) -> None:
    """The newest call of each key is left; whatever gave way is told, and the counts are right."""
    keys = 400
    olds = [row(id, f"key {id}") for id in range(1, before + 1)]
    news = [row(before + n, f"key {n % keys}", arguments=f"[{n}]") for n in range(1, many + 1)]
    newest = {one.key: one for one in [*olds, *news]}
    left = {one.id: one for one in newest.values()}
    async with opened_desk(store) as desk:
        await desk.write(*map(Add, olds))
        written = await desk.write(*map(Add, news))
        assert await found(desk) == left
    assert written.lost == ()
    assert sorted(written.replaced) == [id for id in range(1, before + many + 1) if id not in left]
    async with opened_desk(store) as desk:
        assert desk.opened.counts["scheduled"] == len(left)


async def test_an_older_call_comes_after_a_newer_one(desk: Desk) -> None:
    """The newer one stays, in the store or in the same write."""
    await desk.write(Add(row(9, "key")))
    written = await desk.write(Add(row(5, "key")), Add(row(6, "other")))
    assert written.replaced == (5,)
    written = await desk.write(Add(row(11, "both")), Add(row(10, "both")))
    assert written.replaced == (10,)
    assert sorted(await found(desk)) == [6, 9, 11]


async def test_a_waiting_row_goes_in_the_write_that_replaces_it(desk: Desk) -> None:
    """In that order it is lost, in the other it is gone already."""
    await desk.write(Add(row(1, "key")), Add(row(2, "other")))
    written = await desk.write(
        Add(row(3, "key")), Drop(1, "scheduled"), Drop(2, "scheduled"), Add(row(4, "other"))
    )
    assert (written.lost, written.replaced) == ((1,), (1,))
    assert sorted(await found(desk)) == [3, 4]


async def test_a_replaced_add_is_changed_in_the_same_write(desk: Desk) -> None:
    """The change is lost: another has taken the place of the row."""
    start = Set(row(1, None, "running"), "scheduled")
    written = await desk.write(Add(row(1, "key")), Add(row(2, "key")), start)
    assert (written.lost, written.replaced) == ((1,), (1,))
    assert sorted(await found(desk)) == [2]


async def test_a_replaced_add_that_cannot_be_written(desk: Desk) -> None:
    """A write with it fails as a whole, though nothing of it would be seen."""
    bad = Add(row(1, "key", at=1 << 80))
    with pytest.raises(JournalError):
        await desk.write(bad, Add(row(2, "key")))
    assert await found(desk) == {}


async def test_an_add_that_is_lost_replaces_nothing(desk: Desk) -> None:
    """Nor is it replaced itself."""
    await desk.write(Add(row(5)))
    written = await desk.write(Add(row(5, "key")), Add(row(6, "key")))
    assert (written.lost, written.replaced) == ((5,), ())
    assert sorted(await found(desk)) == [5, 6]


async def test_an_add_that_starts_before_the_next_of_its_key(desk: Desk) -> None:
    """It is not replaced: it waits no more."""
    started = row(1, None, "running", body="{}")
    written = await desk.write(Add(row(1, "key")), Set(started, "scheduled"), Add(row(2, "key")))
    assert (written.lost, written.replaced) == ((), ())
    assert sorted(await found(desk)) == [1, 2]
