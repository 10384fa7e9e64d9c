"""A write of many changes does what as many writes do: every column of every row, and each lost id."""

import pytest

from asyncdefer.stores._base import Add, Change, Row, Set
from tests.stores.desk import NOW, Desk, row

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
