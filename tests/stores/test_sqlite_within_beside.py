"""The store and a program's transactions in one file: neither takes the other for damage."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent

import pytest

from asyncdefer.stores import _faults, _file, _sound
from asyncdefer.stores._base import Add, Busy, Drop, Set, Written
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import Desk, opened_desk, row
from tests.stores.program import KINDS, Program, program

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
async def desk(path: Path) -> AsyncIterator[Desk]:
    async with opened_desk(SQLiteStore(path)) as desk:
        yield desk


@pytest.fixture(params=KINDS)
async def beside(request: pytest.FixtureRequest, desk: Desk, path: Path) -> AsyncIterator[Program]:
    async with program(desk, request.param, path) as beside:
        await beside.run("CREATE TABLE users (name)")
        yield beside


@pytest.mark.parametrize("mode", [None, "PASSIVE", "RESTART", "TRUNCATE"])
async def test_many_transactions_between_ours(
    beside: Program, desk: Desk, path: Path, mode: str | None
) -> None:
    """With checkpoints by the program, which make the files longer and shorter; all is there."""
    there: set[int] = set()
    for number in range(1, 400, 4):
        await beside.run("BEGIN IMMEDIATE")
        await beside.run("INSERT INTO users VALUES (?)", ("x" * 2_000,))
        await beside.write(Add(row(number, f"k:{number}")), Add(row(number + 1)))
        await beside.run("COMMIT" if number % 3 else "ROLLBACK")
        if number % 3:
            there |= {number, number + 1}
        if mode is not None and number % 5 == 0:
            (found,) = await beside.run(f"PRAGMA wal_checkpoint({mode})")
            assert found[0] == 0
        written = await desk.write(
            Add(row(number + 2, f"s:{number}")), Drop(number + 1, "scheduled")
        )
        assert written == (Written() if number % 3 else Written((number + 1,)))
        there = there - {number + 1} | {number + 2}
        if number % 7 == 0:
            await desk.renew()
            assert await desk.claimed(ids=[number + 2]) == [number + 2]
    assert await desk.ids() == sorted(there)
    async with opened_desk(_copied(path)) as copy:
        assert await copy.ids() == sorted(there)
        assert copy.opened.counts["scheduled"] == len(there)


def _copied(path: Path) -> SQLiteStore:
    copy = path.with_name("copy.db")
    with closing(sqlite3.connect(path)) as db:
        db.execute("VACUUM INTO ?", (str(copy),))
    return SQLiteStore(copy)


async def test_a_file_that_the_program_makes_shorter(beside: Program, desk: Desk) -> None:
    """By a VACUUM between its transactions."""
    for turn in range(3):
        first = 1_000 * turn
        await beside.run("BEGIN IMMEDIATE")
        await beside.run("INSERT INTO users VALUES (?)", ("x" * 500_000,))
        await beside.write(*[Add(row(first + id)) for id in range(1, 101)])
        await beside.run("COMMIT")
        await beside.run("DELETE FROM users")
        await beside.run("VACUUM")
        await beside.run("PRAGMA wal_checkpoint(TRUNCATE)")
        await desk.write(Add(row(first + 500)), Drop(first + 1, "scheduled"))
    assert len(await desk.ids()) == 300


async def test_the_store_is_the_one_that_checkpoints(
    beside: Program, desk: Desk, path: Path
) -> None:
    """With `wal_autocheckpoint` at 0, the -wal does not grow without end all the same."""
    await beside.run("PRAGMA wal_autocheckpoint = 0")
    for number in range(1, 61):
        await beside.run("BEGIN IMMEDIATE")
        await beside.run("INSERT INTO users VALUES (?)", ("x" * 100_000,))
        await beside.write(Add(row(number)))
        await beside.run("COMMIT")
        await desk.write(Set(row(number, state="running"), "scheduled"))
    assert path.with_name("journal.db-wal").stat().st_size < 3_000_000


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement waits for a hundredth of what it would."""
    for module in (_faults, _file, _sound):
        monkeypatch.setattr(module, "BUSY_WAIT", 0.01)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
@pytest.mark.parametrize("kind", KINDS)
async def test_the_stores_write_waits(path: Path, kind: str, end: str) -> None:
    """While the program's transaction is open; then it sees what was committed there."""
    async with opened_desk(SQLiteStore(path)) as desk, program(desk, kind, path) as beside:
        await desk.write(Add(row(1, "k")))
        await beside.run("BEGIN IMMEDIATE")
        assert await beside.write(Add(row(2, "k"))) == Written((), (1,))
        start = asyncio.create_task(desk.write(Set(row(1, "k", "running"), "scheduled")))
        for _ in range(5):
            assert await desk.claimed(ids=[1, 2]) == [1]
        assert not start.done()
        assert await beside.write(Add(row(3))) == Written()
        await beside.run(end)
        assert await start == Written((1,) if end == "COMMIT" else ())
        states = {2: "scheduled", 3: "scheduled"} if end == "COMMIT" else {1: "running"}
        assert await desk.states() == states


@pytest.mark.usefixtures("impatient")
async def test_the_stores_write_does_not_wait_for_ever(path: Path) -> None:
    """It is `Busy`, and nothing of it comes later; the program's transaction is none the worse."""
    async with opened_desk(SQLiteStore(path)) as desk, program(desk, "sqlite3", path) as beside:
        await beside.run("BEGIN IMMEDIATE")
        await beside.write(Add(row(1)))
        with pytest.raises(Busy, match="commit or roll back"):
            await desk.write(Add(row(2)))
        await beside.run("COMMIT")
        assert await desk.ids() == [1]


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_a_cancelled_write_is_there_or_it_is_not(desk: Desk, path: Path, turns: int) -> None:
    """As a whole, in a transaction that goes on."""
    async with program(desk, "aiosqlite", path) as beside:
        for number in range(0, 100, 2):
            await beside.run("BEGIN IMMEDIATE")
            write = asyncio.create_task(beside.write(Add(row(number + 1)), Add(row(number + 2))))
            for _ in range(turns):
                await asyncio.sleep(0)
            write.cancel()
            await asyncio.wait([write])
            assert beside.connection.in_transaction
            await beside.write(Add(row(1_000 + number)))
            await beside.run("COMMIT")
    ids = set(await desk.ids())
    assert {id for id in ids if id >= 1_000} == set(range(1_000, 1_100, 2))
    assert {id + 1 for id in ids if id % 2} == {id for id in ids if not id % 2 and id < 1_000}


PROGRAM = """
    import asyncio, os, signal, sqlite3, sys
    from asyncdefer.stores._base import Add
    from asyncdefer.stores.sqlite import SQLiteStore
    from tests.stores.desk import opened_desk, row
    from tests.stores.program import program

    path, kind, when = sys.argv[1:]

    async def main():
        async with opened_desk(SQLiteStore(path)) as desk, program(desk, kind, path) as beside:
            await beside.run("CREATE TABLE users (name)")
            await desk.write(Add(row(1, "k")))
            await beside.run("BEGIN IMMEDIATE")
            await beside.run("INSERT INTO users VALUES ('ann')")
            await beside.write(Add(row(2, "k")), Add(row(3)))
            if when == "after":
                await beside.run("COMMIT")
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="a kill that nobody can catch")
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
async def test_a_kill(path: Path, kind: str, when: str) -> None:
    """Right after the program's COMMIT its rows are there; right before, none of them is."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", dedent(PROGRAM), str(path), kind, when],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL, done.stderr
    async with opened_desk(SQLiteStore(path)) as desk:
        assert not desk.opened.clean
        ids = [2, 3] if when == "after" else [1]
        assert await desk.ids() == ids
        assert desk.opened.last_id == ids[-1]
        assert desk.opened.counts["scheduled"] == len(ids)
        async with program(desk, kind, path) as beside:
            assert len(await beside.run("SELECT * FROM users")) == (when == "after")
