"""Of the rows in state `scheduled` with one (task, key), only that with the greatest id survives."""

from itertools import permutations

import pytest

from asyncdefer.stores._base import Add, Change, Drop, Set
from tests.stores.desk import FAR, NOW, STATES, Desk, Grouping, row, told

ORDERS = list(permutations((1, 2, 3)))
OTHERS = [state for state in STATES if state != "scheduled"]
NOTHING: tuple[set[int], set[int]] = (set(), set())


def to(state: str, id: int, key: str | None = "k", *, was: str = "scheduled") -> Set:
    return Set(row(id, key, state), was)


# -- added


@pytest.mark.parametrize("order", ORDERS)
async def test_the_greatest_id_survives(
    desk: Desk, grouped: Grouping, order: tuple[int, ...]
) -> None:
    """In whatever order rows of a key come in; the others go out, and are told."""
    assert told(await grouped(desk, *[Add(row(id, "k")) for id in order])) == (set(), {1, 2})
    assert await desk.rows() == [row(3, "k")]


@pytest.mark.parametrize("order", ORDERS)
async def test_an_eta_says_nothing_about_who_is_newer(
    desk: Desk, grouped: Grouping, order: tuple[int, ...]
) -> None:
    """The newest id survives with an earlier eta, and with a later one."""
    early = [Add(row(id, "early", at=FAR - id)) for id in order]
    late = [Add(row(10 + id, "late", at=NOW + id)) for id in order]
    assert told(await grouped(desk, *early, *late)) == (set(), {1, 2, 11, 12})
    assert await desk.ids() == [3, 13]


async def test_a_row_that_was_there_is_told_as_one_of_this_write(desk: Desk) -> None:
    """Rows of writes before, old and new to the store alike."""
    await desk.write(Add(row(5, "k")))
    assert told(await desk.write(Add(row(4, "k")), Add(row(7, "k")), Add(row(6, "k")))) == (
        set(),
        {4, 5, 6},
    )
    assert await desk.ids() == [7]


async def test_keys_meet_within_their_task_only(desk: Desk, grouped: Grouping) -> None:
    """Neither another task's key nor one that looks alike is touched."""
    rows = [
        row(1, "k"), row(2, "k", task="other"), row(3, "K"), row(4, "k "), row(5, "é"),
        row(6, "e\u0301"), row(7, "%"), row(8, ""), row(9), row(10), row(11, "k", task="Task"),
        row(12, "sk", task="ta"), row(13, "1"), row(14, "1.0"), row(15, "01"),
    ]  # fmt: skip
    assert told(await grouped(desk, *map(Add, rows))) == NOTHING
    assert await desk.rows() == rows
    assert told(await grouped(desk, Add(row(20, "k")))) == (set(), {1})
    assert await desk.ids() == [*range(2, 16), 20]


@pytest.mark.parametrize("state", OTHERS)
async def test_only_waiting_rows_meet(desk: Desk, grouped: Grouping, state: str) -> None:
    """Any number of rows of a key may be in any other state beside the one that waits."""
    beside = [Add(row(id, "k", state)) for id in (1, 2, 4, 5)]
    assert told(await grouped(desk, *beside[:2], Add(row(3, "k")), *beside[2:])) == NOTHING
    assert await desk.ids() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("pinned", [False, True])
async def test_a_pinned_row_gives_way_as_any(desk: Desk, grouped: Grouping, pinned: bool) -> None:
    """The rule knows states, keys and ids, and nothing else."""
    changes = Add(row(1, "k", pinned=pinned)), Add(row(2, "k", pinned=not pinned))
    assert told(await grouped(desk, *changes)) == (set(), {1})
    assert await desk.rows() == [row(2, "k", pinned=not pinned)]


# -- set back


@pytest.mark.parametrize("state", OTHERS)
async def test_a_row_that_waits_again_gives_way_to_a_newer_one(
    desk: Desk, grouped: Grouping, state: str
) -> None:
    """A retry, a snooze, a redrive: the row is removed and told."""
    changes = Add(row(1, "k", state)), Add(row(2, "k")), to("scheduled", 1, was=state)
    assert told(await grouped(desk, *changes)) == (set(), {1})
    assert await desk.rows() == [row(2, "k")]


@pytest.mark.parametrize("state", OTHERS)
async def test_a_row_that_waits_again_replaces_an_older_one(
    desk: Desk, grouped: Grouping, state: str
) -> None:
    """As a new one does."""
    changes = Add(row(2, "k", state)), Add(row(1, "k")), to("scheduled", 2, was=state)
    assert told(await grouped(desk, *changes)) == (set(), {1})
    assert await desk.rows() == [row(2, "k")]


async def test_rows_that_wait_again_meet_each_other(desk: Desk, grouped: Grouping) -> None:
    """In whatever order they come back, the greatest id survives."""
    for at, order in enumerate(ORDERS):
        ids, key = [10 * at + id for id in order], f"k{at}"
        await desk.write(*[Add(row(id, key, "running")) for id in ids])
        back = [to("scheduled", id, key, was="running") for id in ids]
        assert told(await grouped(desk, *back)) == (set(), {10 * at + 1, 10 * at + 2})
        assert await desk.ids() == [10 * each + 3 for each in range(at + 1)]


async def test_a_row_does_not_meet_itself(desk: Desk, grouped: Grouping) -> None:
    """A row that waits may be moved; that replaces nobody."""
    changes = Add(row(1, "k")), Set(row(1, "k", at=FAR), "scheduled"), to("scheduled", 1)
    assert told(await grouped(desk, *changes)) == NOTHING
    assert await desk.rows() == [row(1, "k")]


@pytest.mark.parametrize(("mover", "there"), [(3, 2), (2, 3)])
async def test_a_row_that_changes_its_key_meets_whom_it_finds_there(
    desk: Desk, grouped: Grouping, mover: int, there: int
) -> None:
    """The rule holds for where it comes to, and where it was there is room."""
    await desk.write(Add(row(mover, "from")), Add(row(there, "to")))
    moved = to("scheduled", mover, "to")
    assert told(await grouped(desk, moved, Add(row(1, "from")))) == (set(), {2})
    assert await desk.rows() == [row(1, "from"), row(3, "to")]


async def test_a_row_may_lose_its_key_and_get_one(desk: Desk, grouped: Grouping) -> None:
    """Without a key it meets nobody."""
    await desk.write(Add(row(1, "k")))
    without = to("scheduled", 1, None)
    assert told(await grouped(desk, without, Add(row(2, "k")))) == NOTHING
    assert await desk.ids() == [1, 2]
    assert told(await grouped(desk, to("scheduled", 1, "k"))) == (set(), {1})
    assert await desk.rows() == [row(2, "k")]


async def test_a_row_may_change_its_task(desk: Desk, grouped: Grouping) -> None:
    """It leaves the key of one task and meets that of the other."""
    await desk.write(Add(row(1, "k")), Add(row(2, "k", task="other")))
    moved = Set(row(2, "k"), "scheduled")
    assert told(await grouped(desk, moved, Add(row(3, "k", task="other")))) == (set(), {1})
    assert await desk.rows() == [row(2, "k"), row(3, "k", task="other")]


# -- who leaves


@pytest.mark.parametrize("state", OTHERS)
async def test_a_row_that_no_longer_waits_frees_its_key(
    desk: Desk, grouped: Grouping, state: str
) -> None:
    """A newer one comes in and touches nobody; an older one too."""
    changes = Add(row(5, "k")), to(state, 5), Add(row(3, "k"))
    assert told(await grouped(desk, *changes)) == NOTHING
    assert await desk.states() == {5: state, 3: "scheduled"}
    assert told(await grouped(desk, Add(row(9, "k")))) == (set(), {3})
    assert await desk.states() == {5: state, 9: "scheduled"}


async def test_a_row_that_was_dropped_frees_its_key(desk: Desk, grouped: Grouping) -> None:
    """An older one may come in after it."""
    changes = Add(row(5, "k")), Drop(5, "scheduled"), Add(row(3, "k"))
    assert told(await grouped(desk, *changes)) == NOTHING
    assert await desk.rows() == [row(3, "k")]


async def test_a_lost_change_frees_nothing(desk: Desk, grouped: Grouping) -> None:
    """A set or a drop that names another state leaves the row in its place."""
    changes = Add(row(5, "k")), Drop(5, "running"), to("held", 5, was="running"), Add(row(3, "k"))
    assert told(await grouped(desk, *changes)) == ({5}, {3})
    assert await desk.rows() == [row(5, "k")]


# -- in the order of the write


@pytest.mark.parametrize(
    "change", [to("running", 1), to("scheduled", 1), to("cancelled", 1, None), Drop(1, "scheduled")]
)
async def test_who_is_replaced_is_there_for_nobody(
    desk: Desk, grouped: Grouping, change: Change
) -> None:
    """A start, a move or an end of it is lost: its run is not started."""
    changes = Add(row(1, "k")), Add(row(2, "k")), change
    assert told(await grouped(desk, *changes)) == ({1}, {1})
    assert await desk.rows() == [row(2, "k")]


@pytest.mark.parametrize("change", [to("running", 1), Drop(1, "scheduled")])
async def test_who_was_there_and_is_replaced_is_there_for_nobody(
    desk: Desk, grouped: Grouping, change: Change
) -> None:
    """Also in a write of its own."""
    await desk.write(Add(row(1, "k")))
    assert told(await grouped(desk, Add(row(2, "k")), change)) == ({1}, {1})
    assert await desk.rows() == [row(2, "k")]


async def test_who_gave_way_at_once_is_there_for_nobody(desk: Desk, grouped: Grouping) -> None:
    """Also one that came when a newer one was there already."""
    await desk.write(Add(row(2, "k")))
    changes = Add(row(1, "k")), to("running", 1), Drop(1, "running")
    assert told(await grouped(desk, *changes)) == ({1}, {1})
    assert await desk.rows() == [row(2, "k")]


async def test_an_id_that_was_replaced_is_free(desk: Desk, grouped: Grouping) -> None:
    """And if it comes again while the newer one waits, it gives way again."""
    changes = Add(row(1, "k")), Add(row(2, "k")), Add(row(1, "k")), Add(row(1, "l"))
    assert told(await grouped(desk, *changes)) == (set(), {1})
    assert await desk.rows() == [row(1, "l"), row(2, "k")]


async def test_a_start_before_the_newer_call_is_not_touched(desk: Desk, grouped: Grouping) -> None:
    """D5: who runs, runs; the newer one waits, and the retry gives way to it."""
    await desk.write(Add(row(1, "k")))
    assert told(await grouped(desk, to("running", 1), Add(row(2, "k")))) == NOTHING
    assert await desk.states() == {1: "running", 2: "scheduled"}
    assert told(await grouped(desk, to("scheduled", 1, was="running"))) == (set(), {1})
    assert await desk.rows() == [row(2, "k")]


async def test_a_retry_before_the_newer_call_gives_way_all_the_same(
    desk: Desk, grouped: Grouping
) -> None:
    """It waited for a moment, and the newest call wins over a retry too."""
    await desk.write(Add(row(1, "k", "running")))
    changes = to("scheduled", 1, was="running"), Add(row(2, "k"))
    assert told(await grouped(desk, *changes)) == (set(), {1})
    assert await desk.rows() == [row(2, "k")]


async def test_a_burst_leaves_one_row(desk: Desk, grouped: Grouping) -> None:
    """A thousand calls of a key: the last one is there, all others are told."""
    burst = [Add(row(id, "k", at=NOW + id)) for id in range(1, 1001)]
    assert told(await grouped(desk, *burst)) == (set(), set(range(1, 1000)))
    assert await desk.rows() == [row(1000, "k", at=NOW + 1000)]


async def test_many_lives_of_a_key_in_one_write(desk: Desk, grouped: Grouping) -> None:
    """Calls that wait, start, end, come back and give way, each as if it were alone."""
    changes = (
        Add(row(1, "k")), to("running", 1), Add(row(2, "k")), Add(row(3, "k")),
        to("scheduled", 1, was="running"), to("running", 3), Add(row(4, "k")),
        to("succeeded", 3, was="running"), to("running", 4), to("running", 2),
        to("scheduled", 4, was="running"), to("scheduled", 3, was="succeeded"),
        Drop(4, "scheduled"), Add(row(2, "k")),
    )  # fmt: skip
    assert told(await grouped(desk, *changes)) == ({2}, {1, 2, 3})
    assert await desk.rows() == [row(2, "k")]
