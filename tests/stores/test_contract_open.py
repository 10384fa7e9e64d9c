"""Who opens a store finds what was written, and when it closes that is known to be there."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from asyncdefer.errors import JournalError, JournalLocked
from asyncdefer.stores._base import Add, Drop, Note, Opened, Row, Set, Store
from tests.stores.desk import (
    FAR,
    LEASE,
    LIVE,
    NOW,
    STATES,
    Desk,
    Kind,
    Survived,
    ids_of,
    leave,
    new_owner,
    opened_desk,
    row,
    rows_of,
)  # fmt: skip

Again = Callable[[], Store]


def live(opened: Opened) -> dict[str, int]:
    """How many rows there are in each live state."""
    return {state: number for state, number in opened.counts.items() if state in LIVE and number}


# -- what is found


async def test_a_new_store_is_empty(desk: Desk) -> None:
    """Nothing was ever written, and nobody before left without a close."""
    assert (desk.opened.last_id, desk.opened.clean, desk.opened.notes) == (0, True, {})
    assert live(desk.opened) == {}
    assert await desk.rows() == []


async def test_all_that_was_written_is_there(store: Store, again: Again) -> None:
    """In the same object, and in one that the program makes when it starts again."""
    rows = [Row(id, "t", f"k:{id}", s, id, id, True, "[1]", "b") for id, s in enumerate(STATES, 1)]
    await leave(store, *map(Add, rows), Note("n", "v"))
    for _ in range(2):
        async with opened_desk(store) as desk:
            assert await desk.rows() == rows
            assert desk.opened.notes == {"n": "v"}
    async with opened_desk(again()) as desk:
        assert await desk.rows() == rows
        assert desk.opened.notes == {"n": "v"}
        assert (desk.opened.last_id, desk.opened.clean) == (9, True)


async def test_the_key_rule_outlives_an_owner(store: Store, again: Again) -> None:
    """Rows of those before give way, and are given way to."""
    await leave(store, Add(row(1, "old")), Add(row(9, "new")))
    async with opened_desk(again()) as desk:
        written = await desk.write(Add(row(5, "old")), Add(row(6, "new")))
        assert (written.lost, set(written.replaced)) == ((), {1, 6})
        assert await desk.rows() == [row(5, "old"), row(9, "new")]


async def test_rows_are_counted_by_state(store: Store, again: Again) -> None:
    """Those of live states at least, as they are now."""
    async with opened_desk(store) as desk:
        await desk.write(*[Add(row(id, f"k:{id}", STATES[id % 9])) for id in range(1, 40)])
        await desk.write(Drop(1, "scheduled"), Set(row(10, "x", "running"), "scheduled"))
        await desk.write(Set(row(19, "x", "failed"), "scheduled"), Add(row(50, "k:28")))
        states = [found.state for found in await desk.rows()]
    async with opened_desk(again()) as desk:
        assert live(desk.opened) == {state: states.count(state) for state in LIVE}
        for state, number in desk.opened.counts.items():
            assert number == states.count(state)


# -- the greatest id


async def test_the_greatest_id_is_remembered(store: Store, again: Again) -> None:
    """Also when its row has gone: dropped, replaced, given way, purged; lesser ones change nothing."""
    async with opened_desk(store) as desk:
        await desk.write(Add(row(2**40)), Drop(2**40, "scheduled"), Add(row(7)))
    async with opened_desk(again()) as desk:
        assert desk.opened.last_id == 2**40
        await desk.write(Add(row(2**41, "k", "running")), Add(row(2**42, "k", "failed", until=NOW)))
        await desk.write(Drop(2**41, "running"))
        await desk.renew()
        assert await desk.ids() == [7]
    async with opened_desk(again()) as desk:
        assert desk.opened.last_id == 2**42
        await desk.write(Add(row(2**42 - 1)))
    async with opened_desk(again()) as desk:
        assert desk.opened.last_id == 2**42
        await desk.write(Add(row(2**63 - 1)))
        await desk.write(Drop(2**63 - 1, "scheduled"))
    async with opened_desk(again()) as desk:
        assert desk.opened.last_id == 2**63 - 1


async def test_an_id_that_was_there_for_one_write_is_remembered(store: Store, again: Again) -> None:
    """It was written."""
    async with opened_desk(store) as desk:
        await desk.write(
            Add(row(5, "k")), Set(row(5, "k", "running"), "scheduled"), Drop(5, "running")
        )
        assert await desk.rows() == []
    async with opened_desk(again()) as desk:
        assert desk.opened.last_id == 5


async def test_changes_of_unknown_ids_are_no_ids_that_were_written(
    store: Store, again: Again
) -> None:
    """What was lost is not there."""
    async with opened_desk(store) as desk:
        await desk.write(Add(row(5)), Set(row(6), "scheduled"), Drop(7, "scheduled"))
    async with opened_desk(again()) as desk:
        assert desk.opened.last_id == 5


# -- notes


async def test_notes_are_kept_by_name(store: Store, again: Again) -> None:
    """The last value counts; None takes it away, also one that is not there."""
    async with opened_desk(store) as desk:
        await desk.write(Note("a", "1"), Note("b", "1"), Note("c", "1"), Note("none", None))
        await desk.write(Note("a", "2"), Note("b", None), Note("c", None), Note("c", ""))
        await desk.write(Note("d", "1"), Note("d", None), Note("e", None), Note("e", "x" * 100_000))
    async with opened_desk(again()) as desk:
        assert desk.opened.notes == {"a": "2", "c": "", "e": "x" * 100_000}
        await desk.write(Note("a", None), Note("e", None))
    async with opened_desk(again()) as desk:
        assert desk.opened.notes == {"c": ""}


# -- closed or not


async def test_a_close_is_a_clean_end(store: Store, again: Again) -> None:
    """However often."""
    for _ in range(3):
        async with opened_desk(store) as desk:
            assert desk.opened.clean
    async with opened_desk(again()) as desk:
        assert desk.opened.clean


async def test_a_death_is_not_clean(survived: Survived) -> None:
    """What was written is there all the same, and the next owner is told."""
    async with survived(Add(row(7, "k", "running")), Note("n", "v")) as desk:
        assert not desk.opened.clean
        assert (desk.opened.last_id, desk.opened.notes) == (7, {"n": "v"})
        assert live(desk.opened) == {"running": 1}
        assert await desk.rows() == [row(7, "k", "running")]


async def test_one_close_after_a_death_is_clean_again(survived: Survived) -> None:
    """Who comes after one that has closed finds nothing amiss."""
    async with survived(Add(row(7))) as desk:
        store = desk.store
    async with opened_desk(store) as desk:
        assert desk.opened.clean


async def test_an_error_of_the_program_is_a_close(store: Store, again: Again) -> None:
    """It goes its way, and the lease is over."""
    with pytest.raises(ZeroDivisionError):
        async with opened_desk(store) as desk:
            await desk.write(Add(row(1)))
            raise ZeroDivisionError
    async with opened_desk(again()) as desk:
        assert desk.opened.clean
        assert await desk.claimed() == [1]


def test_a_store_may_be_opened_in_another_loop(store: Store) -> None:
    """After it was closed in the first."""

    async def one_run(number: int) -> list[int]:
        async with opened_desk(store) as desk:
            await desk.write(Add(row(number)))
            return await desk.ids()

    assert [asyncio.run(one_run(number)) for number in (1, 2, 3)] == [[1], [1, 2], [1, 2, 3]]


# -- who may write


async def use(desk: Desk) -> None:
    """Every verb of an owner is an error, and changes nothing."""
    before = await rows_of(desk.store)
    for _ in range(2):
        with pytest.raises(JournalError):
            await desk.write(Add(row(99)))
        with pytest.raises(JournalError):
            await desk.write(Drop(1, "scheduled"), Note("n", "v"))
        with pytest.raises(JournalError):
            await desk.store.write(desk.owner, [])
        with pytest.raises(JournalError):
            await desk.claim(now=FAR)
        with pytest.raises(JournalError):
            await desk.claim(ids=[1])
        with pytest.raises(JournalError):
            await desk.renew(now=FAR)
    assert await rows_of(desk.store) == before


async def test_who_has_closed_is_nobody(store: Store) -> None:
    """Its writes, claims and renewals are errors, while another owner has the store too."""
    async with opened_desk(store) as gone:
        await gone.write(Add(row(1)), Add(row(2, state="failed", until=NOW)))
    async with opened_desk(store) as desk:
        await use(gone)
        assert await desk.claimed() == [1]
        await desk.write(Add(row(3)))
        await use(gone)
    async with opened_desk(store) as desk:
        assert desk.opened.notes == {}
        assert await desk.ids() == [1, 2, 3]


async def test_who_has_closed_is_nobody_while_nobody_is_there(store: Store, again: Again) -> None:
    """An error, and not a store that opens itself."""
    async with opened_desk(store) as gone:
        await gone.write(Add(row(1)))
    for verb in (gone.write(Add(row(2))), gone.claim(), gone.renew()):
        with pytest.raises(JournalError):
            await verb
    async with opened_desk(again()) as desk:
        assert await desk.ids() == [1]


async def test_who_never_opened_is_nobody(desk: Desk) -> None:
    """To have the store is not enough."""
    await desk.write(Add(row(1)))
    await use(Desk(desk.store, new_owner(), desk.opened, NOW))
    assert await desk.claimed() == [1]


async def test_what_was_left_may_be_changed_at_once(store: Store, again: Again) -> None:
    """A row of an owner that is gone is nobody's: to redrive it or to discard it needs no claim."""
    await leave(store, *[Add(row(id, f"k:{id}", "failed")) for id in (1, 2)], Add(row(3)))
    async with opened_desk(again()) as desk:
        changes = Set(row(1, "k:1"), "failed"), Drop(2, "failed"), Drop(3, "scheduled")
        assert (await desk.write(*changes)).lost == ()
        assert await desk.rows() == [row(1, "k:1")]
        assert await desk.claimed(after=(NOW, 1)) == []


# -- one at a time


async def test_a_second_owner_is_locked_out(sole: Kind, tmp_path: Path) -> None:
    """It is told who has the store, which goes on undisturbed; after the close it gets in."""
    store = sole.make(tmp_path)
    async with opened_desk(store) as first:
        await first.write(Add(row(1)))
        for second in (store, sole.make(tmp_path), sole.make(tmp_path)):
            with pytest.raises(JournalLocked) as caught:
                async with opened_desk(second, NOW + 3 * LEASE):
                    pass
            assert (caught.value.pid, caught.value.host) == (first.owner.pid, first.owner.host)
            await first.write(Set(row(1, at=NOW + 1), "scheduled"))
        assert await first.claim() == [row(1, at=NOW + 1)]
    async with opened_desk(sole.make(tmp_path)) as second:
        assert second.opened.clean
        assert await second.claimed() == [1]
        with pytest.raises(JournalLocked):
            async with opened_desk(store):
                pass
        assert await ids_of(second.store) == [1]
