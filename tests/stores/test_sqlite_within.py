"""Rows written in a transaction of the caller's: there with its commit, gone with its rollback."""

import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from asyncdefer.stores._base import Add, Drop, Note, Set, Written
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import FAR, NOW, SECOND, Desk, opened_desk, row
from tests.stores.program import KINDS, Program, program


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def desk(path: Path) -> AsyncIterator[Desk]:
    async with opened_desk(SQLiteStore(path)) as desk:
        yield desk


@pytest.fixture(params=KINDS)
async def beside(request: pytest.FixtureRequest, desk: Desk, path: Path) -> AsyncIterator[Program]:
    """A program with a table of its own in the file."""
    async with program(desk, request.param, path) as beside:
        await beside.run("CREATE TABLE users (name)")
        yield beside


async def after(path: Path) -> tuple[int, dict[str, int], dict[int, str]]:
    """The greatest id, the counts and the states, as the next owner finds them."""
    async with opened_desk(SQLiteStore(path)) as desk:
        opened = desk.opened
        return opened.last_id, opened.counts, await desk.states()


# -- commit and rollback


async def test_rows_come_with_the_commit(beside: Program, desk: Desk) -> None:
    """Nobody sees them before; and the program's own rows come at the same instant."""
    await beside.run("BEGIN IMMEDIATE")
    await beside.run("INSERT INTO users VALUES ('ann')")
    assert await beside.write(Add(row(1, "k")), Add(row(2)), Note("n", "v")) == Written()
    assert await desk.ids() == []
    await beside.run("COMMIT")
    assert await desk.ids() == [1, 2]
    assert await desk.claimed(ids=[1]) == [1]


async def test_rows_go_with_the_rollback(beside: Program, desk: Desk) -> None:
    """And what they replaced, changed or dropped is as it was; their ids may be had again."""
    before = [row(1, "k"), row(2, "r", "running"), row(3)]
    await desk.write(*map(Add, before), Note("n", "old"))
    await beside.run("BEGIN IMMEDIATE")
    await beside.run("INSERT INTO users VALUES ('ann')")
    done = row(2, "r", "succeeded", until=FAR)
    changes = Add(row(9, "k")), Set(done, "running"), Drop(3, "scheduled"), Note("n", "new")
    assert await beside.write(*changes) == Written((), (1,))
    await beside.run("ROLLBACK")
    assert await desk.rows() == before
    assert await beside.run("SELECT * FROM users") == []
    assert await desk.write(Add(row(9))) == Written()


async def test_meta_holds_after_the_commit(beside: Program, desk: Desk) -> None:
    """The counts and the greatest id, for this owner's next write and for the next owner."""
    await desk.write(*[Add(row(id, f"k:{id}")) for id in (1, 2, 3)])
    await beside.run("BEGIN IMMEDIATE")
    await beside.write(Add(row(7, "k:1")), Add(row(6, state="held")), Drop(2, "scheduled"))
    await beside.write(Set(row(3, "k:3", "running"), "scheduled"))
    await beside.run("COMMIT")
    assert await desk.write(Add(row(7))) == Written((7,), ())
    assert await _meta(beside) == {"last_id": 7, "held": 1, "scheduled": 1, "running": 1}


async def test_meta_holds_after_the_rollback(beside: Program, desk: Desk) -> None:
    """All of it is as before."""
    await desk.write(Add(row(1)), Add(row(2, state="held")))
    before = await _meta(beside)
    await beside.run("BEGIN IMMEDIATE")
    await beside.write(Add(row(7)), Drop(1, "scheduled"), Set(row(2, state="running"), "held"))
    assert await _meta(beside) == {"last_id": 7, "held": 0, "scheduled": 1, "running": 1}
    await beside.run("ROLLBACK")
    assert await _meta(beside) == before


async def _meta(beside: Program) -> dict[str, Any]:
    names = "'last_id', 'held', 'scheduled', 'running'"
    rows = await beside.run(f"SELECT name, value FROM asyncdefer_meta WHERE name IN ({names})")
    return dict(map(tuple, rows))


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
async def test_the_next_owner_finds_what_was_committed(path: Path, end: str) -> None:
    """And no more, whatever the transaction did."""
    async with opened_desk(SQLiteStore(path)) as desk, program(desk, "aiosqlite", path) as beside:
        await desk.write(Add(row(1, "k")), Add(row(2)))
        await beside.run("BEGIN IMMEDIATE")
        await beside.write(Add(row(3, "k")), Drop(2, "scheduled"))
        await beside.run(end)
    states = {3: "scheduled"} if end == "COMMIT" else {1: "scheduled", 2: "scheduled"}
    counts = {"held": 0, "scheduled": len(states), "running": 0}
    assert await after(path) == (max(states), counts, states)


async def test_a_transaction_may_be_of_many_writes(beside: Program, desk: Desk) -> None:
    """Each sees those before it; large ones too."""
    await beside.run("BEGIN IMMEDIATE")
    await beside.write(*[Add(row(id, f"k:{id % 700}")) for id in range(1, 2_001)])
    replaced = await beside.write(*[Add(row(id, f"k:{id % 700}")) for id in range(2_001, 2_701)])
    assert len(replaced.replaced) == 700
    assert await beside.write(Drop(1_999, "scheduled")) == Written((1_999,), ())
    await beside.run("COMMIT")
    assert await desk.ids() == list(range(2_001, 2_701))


async def test_what_is_lost_is_told_and_the_rest_is_written(beside: Program, desk: Desk) -> None:
    """Of changes of which some find no row; once, though they are tried in two ways."""
    await desk.write(Add(row(1)), Add(row(2)))
    await beside.run("BEGIN IMMEDIATE")
    changes = Drop(1, "scheduled"), Set(row(2, state="running"), "held"), Add(row(5)), Add(row(2))
    assert await beside.write(*changes) == Written((2,), ())
    gone = Drop(2, "scheduled"), Set(row(98), "scheduled"), Add(row(6))
    assert await beside.write(*gone) == Written((98,), ())
    await beside.run("COMMIT")
    assert await desk.ids() == [5, 6]
    assert await _meta(beside) == {"last_id": 6, "held": 0, "scheduled": 2, "running": 0}


# -- savepoints


async def test_a_savepoint_takes_its_rows_with_it(beside: Program, desk: Desk) -> None:
    """Released ones come with the commit; rolled back ones do not, nor what is nested in them."""
    await desk.write(Add(row(1, "a")), Add(row(2, "b")))
    await beside.run("BEGIN IMMEDIATE")
    await beside.run("SAVEPOINT one")
    await beside.write(Add(row(11, "a")))
    await beside.run("SAVEPOINT two")
    assert await beside.write(Add(row(12, "a")), Add(row(13, "b"))) == Written((), (11, 2))
    await beside.run("ROLLBACK TO two")
    assert await beside.write(Add(row(14, "a"))) == Written((), (11,))
    await beside.run("RELEASE two")
    await beside.run("SAVEPOINT three")
    await beside.write(Add(row(15)))
    await beside.run("RELEASE three")
    await beside.run("RELEASE one")
    await beside.run("SAVEPOINT four")
    await beside.run("SAVEPOINT five")
    await beside.write(Add(row(20)))
    await beside.run("RELEASE five")
    await beside.run("ROLLBACK TO four")
    await beside.run("COMMIT")
    assert await desk.ids() == [2, 14, 15]
    assert await _meta(beside) == {"last_id": 15, "held": 0, "scheduled": 3, "running": 0}


async def test_savepoints_of_our_name_are_the_callers(beside: Program, desk: Desk) -> None:
    """A savepoint is a transaction, too, and one named as ours is found again."""
    await beside.run("SAVEPOINT asyncdefer_write")
    await beside.write(Add(row(1)))
    await beside.run("SAVEPOINT asyncdefer_write")
    await beside.write(Add(row(2)))
    await beside.run("ROLLBACK TO asyncdefer_write")
    await beside.run("RELEASE asyncdefer_write")
    await beside.run("RELEASE asyncdefer_write")
    assert await desk.ids() == [1]


# -- the rule of keys


async def test_the_callers_row_replaces_the_stores(beside: Program, desk: Desk) -> None:
    """Of the waiting rows of a key the newest survives, whichever door it came by."""
    await desk.write(Add(row(1, "k")), Add(row(2, "k", task="other")))
    await beside.run("BEGIN IMMEDIATE")
    assert await beside.write(Add(row(5, "k"))) == Written((), (1,))
    await beside.run("COMMIT")
    assert await desk.ids() == [2, 5]
    assert await desk.write(Set(row(1, "k", "running"), "scheduled")) == Written((1,), ())


async def test_the_stores_row_replaces_the_callers(beside: Program, desk: Desk) -> None:
    """After the commit; and of an older one nothing is left."""
    await beside.run("BEGIN IMMEDIATE")
    await beside.write(Add(row(5, "k")))
    await beside.run("COMMIT")
    assert await desk.write(Add(row(4, "k"))) == Written((), (4,))
    assert await desk.write(Add(row(6, "k"))) == Written((), (5,))
    assert await desk.ids() == [6]


async def test_the_callers_row_gives_way_to_a_newer_one(beside: Program, desk: Desk) -> None:
    """Its id was given earlier than that of the store's row."""
    await desk.write(Add(row(5, "k")))
    await beside.run("BEGIN IMMEDIATE")
    assert await beside.write(Add(row(4, "k"))) == Written((), (4,))
    await beside.run("COMMIT")
    assert await desk.ids() == [5]


@pytest.mark.parametrize(("first", "second"), [(3, 4), (4, 3)])
async def test_two_transactions_for_one_key(
    beside: Program, desk: Desk, path: Path, first: int, second: int
) -> None:
    """In either order the greatest id survives."""
    async with program(desk, "sqlite3", path) as other:
        for each, id in ((beside, first), (other, second)):
            await each.run("BEGIN IMMEDIATE")
            written = await each.write(Add(row(id, "k")))
            await each.run("COMMIT")
    assert written == Written((), (3,))
    assert await desk.ids() == [4]


async def test_a_retry_gives_way_to_the_callers_row(beside: Program, desk: Desk) -> None:
    """As to any newer call that came during the run."""
    running = row(1, "k", "running")
    await desk.write(Add(running))
    await beside.run("BEGIN IMMEDIATE")
    await beside.write(Add(row(2, "k")))
    await beside.run("COMMIT")
    assert await desk.write(Set(row(1, "k"), "running")) == Written((), (1,))
    assert await desk.states() == {2: "scheduled"}


async def test_changes_in_the_writers_line_cope_with_it(beside: Program, desk: Desk) -> None:
    """They were made when the older row still waited: what is theirs happens, the rest is lost."""
    await desk.write(*[Add(row(id, f"k:{id}")) for id in range(1, 6)])
    await beside.run("BEGIN IMMEDIATE")
    await beside.write(*[Add(row(10 + id, f"k:{id}")) for id in range(1, 6)])
    await beside.run("COMMIT")
    written = await desk.write(
        Set(row(1, "k:1", "running"), "scheduled"),  # its start
        Set(row(2, "k:2", at=FAR), "scheduled"),  # moved
        Drop(3, "scheduled"),  # cancelled
        Add(row(20, "k:4")),  # replaced once more
        Add(row(9, "k:5")),  # by a call before the transaction's
    )
    assert set(written.lost) == {1, 2, 3}
    assert set(written.replaced) == {14, 9}
    assert await desk.ids() == [11, 12, 13, 15, 20]


# -- who hears of the rows


async def test_a_claim_finds_the_callers_rows(beside: Program, desk: Desk) -> None:
    """By id, by key, and by the horizon that comes to them later; once greeted, or before."""
    minute = 60 * SECOND
    for first in (10, 20):  # the second time, the owner has had its first claims
        rows = [row(first + n, f"k:{first + n}", at=NOW + n * minute) for n in range(1, 5)]
        await beside.run("BEGIN IMMEDIATE")
        await beside.write(*map(Add, rows), Add(row(first + 5, at=FAR, pinned=True)))
        await beside.run("COMMIT")
        assert await desk.claimed(ids=[first + 1, first + 5]) == [first + 1, first + 5]
        assert await desk.claimed(keys=[("task", f"k:{first + 2}")]) == [first + 2]
        seen = (NOW + 2 * minute, first + 2)
        assert await desk.claimed(until=FAR - 1, after=seen) == [first + 3, first + 4]
        await desk.write(*[Drop(id, "scheduled") for id in range(first + 1, first + 6)])


async def test_a_horizon_that_has_passed_brings_no_row_of_the_callers(
    beside: Program, desk: Desk
) -> None:
    """It is the owner's own, which it claims by its id: a claim brings what is after its place."""
    assert await desk.claimed(until=NOW + 10) == []
    await beside.run("BEGIN IMMEDIATE")
    await beside.write(Add(row(1, at=NOW + 5)), Add(row(2, at=NOW + 15)))
    await beside.run("COMMIT")
    assert await desk.claimed(until=NOW + 20, after=(NOW + 10, 0)) == [2]
    assert await desk.claimed(ids=[1]) == [1]


# -- another thread


async def test_a_thread_without_a_loop_may_write(desk: Desk, path: Path) -> None:
    """On its own connection, while the loop writes as well; all of it is there."""
    store = desk.store
    assert isinstance(store, SQLiteStore)
    told: list[Any] = []

    def work() -> None:
        with closing(sqlite3.connect(path, timeout=30)) as db:
            for id in range(1, 101):
                db.execute("BEGIN IMMEDIATE")
                told.append(store.write_within(desk.owner, [(Add(row(id, f"t:{id}")),)], db))
                db.commit()

    thread = threading.Thread(target=work)
    thread.start()
    number = 1_000
    while thread.is_alive():
        number += 1
        await desk.write(Add(row(number, "k")))
    thread.join()
    assert told == [Written()] * 100
    assert await desk.ids() == [*range(1, 101), number]
    async with program(desk, "sqlite3", path) as beside:
        found = await _meta(beside)
    assert found == {"last_id": number, "held": 0, "scheduled": 101, "running": 0}
