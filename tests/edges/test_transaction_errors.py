"""What goes wrong around a transaction: it says so, and leaves the transaction and the books as they were."""

import asyncio
import sqlite3
import threading
import warnings
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

import asyncdefer._lodging as lodging
from asyncdefer import (
    Every,
    JobCancelled,
    JobDropped,
    JournalError,
    JournalLocked,
    MemoryStore,
    NotStarted,
    Queue,
    QueueClosed,
    State,
    Tasks,
    UnknownTask,
    WrongLoop,
)
from asyncdefer.stores import _lent
from asyncdefer.stores._base import Unknown
from tests.edges.tills import KINDS, Shop, Till, alchemy, open_till, until


@pytest.fixture(params=KINDS)
async def till(request: pytest.FixtureRequest, shop: Shop) -> AsyncIterator[Till]:
    async with open_till(shop, request.param) as till:
        yield till


# A call that is refused


async def test_a_bad_call_changes_nothing(till: Till, shop: Shop) -> None:
    """It is an error at the call; the transaction goes on, and nothing was counted."""
    stranger = Tasks()
    queue = shop.queue

    @queue.task("colliding")
    async def colliding(delay: int) -> None: ...

    @stranger.task("stranger")
    async def unknown() -> None: ...

    async with till.transaction() as tx:
        for error, fn, args, options in (
            (ValueError, shop.ship, (1,), {"eta": datetime(2030, 1, 1)}),  # noqa: DTZ001 - naive
            (ValueError, shop.ship, (1,), {"delay": -1}),
            (TypeError, shop.ship, (1,), {"delay": 1, "eta": datetime.now(UTC)}),
            (TypeError, shop.ship, (), {}),
            (TypeError, shop.ship, ("one",), {}),
            (ValueError, shop.ship, (1,), {"key": ""}),
            (TypeError, colliding, (), {"delay": 1}),
            (UnknownTask, unknown, (), {}),
            (UnknownTask, "nobody", (), {}),
            (TypeError, lambda: None, (), {}),
        ):
            with pytest.raises(error):
                await till.enqueue(tx, fn, *args, **options)
        for given in ({"repeat": Every(60), "key": "k"},):
            with pytest.raises(ValueError, match="neither after nor repeat"):
                tx.options(**given).enqueue(shop.ship, 1) if isinstance(
                    till.connection, sqlite3.Connection
                ) else await tx.options(**given).enqueue(shop.ship, 1)
        assert queue.stats().accepted == queue.stats().held == 0
        handle = await till.buy(tx, 1)
    assert await handle == 1
    assert queue.stats().accepted == 1


async def test_after_is_refused(shop: Shop) -> None:
    """A call that waits for others is made after the commit."""
    first = await shop.queue.enqueue(shop.ship, 1)
    async with open_till(shop) as till, till.transaction() as tx:
        with pytest.raises(ValueError, match="neither after nor repeat"):
            await tx.options(after=[first]).enqueue(shop.ship, 2)


async def test_options(shop: Shop) -> None:
    """All others are taken, and kept with the call."""
    async with open_till(shop) as till, till.transaction() as tx:
        handle = await tx.options(
            priority=5, expires=60, timeout=10, retry=2, result_ttl=None, key="k", delay=0.1
        ).enqueue(shop.ship, 1)
        assert handle.key == "k"
    assert await handle == 1


# Connections and queues that will not do


async def test_the_wrong_file(shop: Shop, tmp_path: Path) -> None:
    """A connection to another file is left as it was, and that file too."""
    for path in (tmp_path / "other.db", ":memory:"):
        async with aiosqlite.connect(path, isolation_level=None) as db:
            with pytest.raises(ValueError, match="very file"):
                async with shop.queue.transaction(db):
                    pass
            assert not db.in_transaction
            assert list(await db.execute_fetchall("PRAGMA wal_autocheckpoint")) == [(1000,)]


async def test_connections_that_cannot_be_used(shop: Shop) -> None:
    """Closed ones, those of another thread, and things that are no connection at all."""
    async with aiosqlite.connect(shop.path) as db:
        pass
    with pytest.raises(ValueError, match="not open"):
        async with shop.queue.transaction(db):
            pass
    sync = sqlite3.connect(shop.path)
    with pytest.raises(ValueError, match="thread"):
        await asyncio.to_thread(shop.queue.transaction(sync).__enter__)
    sync.close()
    with pytest.raises(ValueError, match="closed"), shop.queue.transaction(sync):
        pass
    for thing in (None, shop.path, object()):
        with pytest.raises(TypeError, match="aiosqlite"):
            shop.queue.transaction(thing)  # type: ignore[call-overload]
    async with alchemy(shop) as engine, AsyncSession(engine) as session:
        with pytest.raises(TypeError, match=r"await session\.connection\(\)"):
            shop.queue.transaction(session)  # type: ignore[call-overload]


async def test_the_file_is_taken(shop: Shop) -> None:
    """Another connection has a transaction open: an error after the timeout of the connection."""
    async with (
        open_till(shop) as till,
        till.transaction(),
        aiosqlite.connect(shop.path, timeout=0.05) as db,
    ):
        with pytest.raises(JournalError, match="another connection holds"):
            async with shop.queue.transaction(db):
                pass
        assert not db.in_transaction


async def test_queues_that_cannot(shop: Shop, tmp_path: Path) -> None:
    """In memory, not started, closed, standing by: each says what it is."""
    async with aiosqlite.connect(shop.path, isolation_level=None) as db:

        async def enter(queue: Queue) -> None:
            async with queue.transaction(db):
                pass

        with pytest.raises(NotStarted):
            await enter(Queue(tmp_path / "x.db"))
        for memory in (Queue(), Queue(MemoryStore())):
            async with memory:
                with pytest.raises(JournalError, match=r"queue\.after_commit"):
                    await enter(memory)
        async with Queue(shop.path, on_locked="standby") as second:
            with pytest.raises(JournalLocked):
                await enter(second)
        await shop.queue.close()
        with pytest.raises(QueueClosed):
            await enter(shop.queue)
        assert not db.in_transaction


async def test_another_loop(shop: Shop) -> None:
    """The async kind belongs to the loop of its queue."""

    async def elsewhere() -> None:
        async with aiosqlite.connect(shop.path) as db:
            with pytest.raises(WrongLoop):
                async with shop.queue.transaction(db):
                    pass

    await asyncio.to_thread(asyncio.run, elsewhere())


# How a block is used


async def test_once_and_inside(till: Till, shop: Shop) -> None:
    """A transaction is entered once, and calls are made inside of it."""
    tx: Any
    async with till.transaction() as tx:
        pass
    with pytest.raises(RuntimeError, match="inside of"):
        await till.enqueue(tx, shop.ship, 1)
    with pytest.raises(RuntimeError, match="entered once"):
        if isinstance(till.connection, sqlite3.Connection):
            tx.__enter__()
        else:
            await tx.__aenter__()
    assert shop.queue.stats().accepted == 0


async def test_ones_own_other_calls_are_refused(shop: Shop) -> None:
    """They would wait for the commit that their own task is about to make: an error, at once."""
    waiting = await shop.queue.enqueue(shop.ship, 5, delay=60)
    async with open_till(shop) as till, till.transaction() as tx:
        handle = await till.buy(tx, 1)
        with pytest.raises(RuntimeError, match=r"tx\.enqueue"):
            await shop.queue.enqueue(shop.ship, 2)
        with pytest.raises(RuntimeError, match=r"tx\.enqueue"):
            await shop.ship.enqueue(2)
        assert shop.queue.stats().accepted == 2
        nowait = shop.queue.enqueue_nowait(shop.ship, 3)
        with pytest.raises(RuntimeError, match=r"tx\.enqueue"):
            await nowait.accepted()
        with pytest.raises(RuntimeError, match=r"tx\.enqueue"):
            await waiting.cancel()
        assert await shop.queue.handle(handle.id)
    assert (await handle, await nowait) == (1, 3)
    with pytest.raises(JobCancelled):
        await waiting


async def test_other_tasks_wait(shop: Shop) -> None:
    """Theirs are recorded after the commit; also those of tasks that were begun inside the block."""
    async with open_till(shop) as till:
        async with till.transaction() as tx:
            inside = asyncio.create_task(shop.queue.enqueue(shop.ship, 2))
            await till.buy(tx, 1)
            await asyncio.sleep(0.05)
            assert not inside.done()
            also = asyncio.create_task(tx.enqueue(shop.ship, 3))
            await asyncio.sleep(0)
        assert await (await inside) == 2
        assert await (await also) == 3
        assert await (await shop.queue.enqueue(shop.ship, 4)) == 4


async def test_a_thread_s_own_other_calls_are_refused(shop: Shop) -> None:
    """As those of a task; other threads wait."""
    told: list[BaseException] = []

    def work() -> None:
        db = sqlite3.connect(shop.path, isolation_level=None)
        with shop.queue.transaction(db) as tx:
            tx.enqueue(shop.ship, 1)
            try:
                shop.queue.enqueue_from_thread(shop.ship, 2)
            except RuntimeError as error:
                told.append(error)
        shop.queue.enqueue_from_thread(shop.ship, 3)
        db.close()

    await asyncio.to_thread(work)
    await until(lambda: sorted(shop.runs) == [1, 3])
    assert len(told) == 1


async def test_two_queues(shop: Shop, tmp_path: Path) -> None:
    """Who has a transaction on the file of one may enqueue in another."""
    other = Shop(tmp_path / "other.db")
    async with (
        other.queue,
        open_till(shop) as till,
        open_till(other) as beside,
        till.transaction() as tx,
    ):
        first = await till.buy(tx, 1)
        assert await (await other.queue.enqueue(other.ship, 2)) == 2
        async with other.queue.transaction(beside.connection) as both:
            second = await both.enqueue(other.ship, 3)
            for queue, ship in ((shop.queue, shop.ship), (other.queue, other.ship)):
                with pytest.raises(RuntimeError, match=r"tx\.enqueue"):
                    await queue.enqueue(ship, 4)
        assert await second == 3
    assert await first == 1


# Commits that fail


async def test_a_constraint_of_the_programs(till: Till, shop: Shop) -> None:
    """A deferred foreign key fails the commit: the program's own error, and nothing is left."""
    if hasattr(
        till.connection, "get_raw_connection"
    ):  # SQLAlchemy would begin a transaction for it
        raw = await till.connection.get_raw_connection()
        await raw.driver_connection.execute("PRAGMA foreign_keys = ON")
    else:
        await till.run("PRAGMA foreign_keys = ON")
    db = sqlite3.connect(shop.path)
    db.execute("CREATE TABLE lines (a REFERENCES orders (id) DEFERRABLE INITIALLY DEFERRED)")
    db.close()
    with pytest.raises(Exception, match="FOREIGN KEY"):
        async with till.transaction() as tx:
            handle = await till.buy(tx, 1)
            await till.run("INSERT INTO lines VALUES (404)")
    with pytest.raises(JobDropped):
        await asyncio.wait_for(handle, 1)
    async with till.transaction() as tx:
        assert await till.buy(tx, 1)
    await until(lambda: shop.runs == [1])


async def test_a_full_disk(shop: Shop) -> None:
    """A call that does not fit is an error, and the others are made."""
    async with open_till(shop) as till:
        ((pages,),) = await till.connection.execute_fetchall("PRAGMA page_count")
        await till.connection.execute_fetchall(f"PRAGMA max_page_count = {pages + 8}")

        @shop.queue.task("large")
        async def large(text: str) -> int:
            return len(text)

        async with till.transaction() as tx:
            handle = await till.enqueue(tx, large, "x")
            with pytest.raises(JournalError):
                await till.enqueue(tx, large, "x" * 100_000)
            if not till.connection.in_transaction:
                await till.run("BEGIN IMMEDIATE")
        assert handle.state in (State.SCHEDULED, State.HELD, State.RUNNING, State.SUCCEEDED) or (
            handle.state is State.DROPPED
        )
    assert shop.queue.stats().accepted == 1


@pytest.mark.parametrize("happened", [True, False])
async def test_a_commit_of_which_nobody_knows(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, happened: bool
) -> None:
    """The caller gets an error, and the file says what became of the calls."""

    def commit(lent: Any) -> None:
        lent._db.execute("COMMIT" if happened else "ROLLBACK")
        raise Unknown("it is not known")

    monkeypatch.setattr(_lent.Lent, "commit", commit)
    async with open_till(shop) as till:
        with pytest.raises(Unknown):
            async with till.transaction() as tx:
                handle = await till.buy(tx, 1)
    if happened:
        assert await handle == 1
    else:
        with pytest.raises(JobDropped):
            await handle
    assert shop.orders() == [1] * happened


async def test_the_warning_comes_once(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below SQLite 3.51.3, in each process; as an error it leaves no transaction open."""
    monkeypatch.setattr(lodging, "has_wal_reset_bug", lambda: True)
    monkeypatch.setattr(lodging, "_warned", [])
    async with open_till(shop) as till:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            with pytest.raises(RuntimeWarning, match=r"3\.51\.3"):
                async with till.transaction():
                    pass
            assert not till.connection.in_transaction
            async with till.transaction():
                pass


async def test_threads_of_a_crowd(shop: Shop) -> None:
    """Ten threads and ten tasks, each with its connection: one at a time, and none is lost."""

    def work(first: int) -> None:
        db = sqlite3.connect(shop.path, isolation_level=None, timeout=30)
        for n in range(5):
            with shop.queue.transaction(db) as tx:
                db.execute(f"INSERT INTO orders VALUES ({first + n})")
                tx.enqueue(shop.ship, first + n)
        db.close()

    async def beside(first: int) -> None:
        async with aiosqlite.connect(shop.path, isolation_level=None, timeout=30) as db:
            for n in range(5):
                async with shop.queue.transaction(db) as tx:
                    await db.execute(f"INSERT INTO orders VALUES ({first + n})")
                    await tx.enqueue(shop.ship, first + n)

    threads = [threading.Thread(target=work, args=(n * 10,)) for n in range(5)]
    for thread in threads:
        thread.start()
    await asyncio.gather(*(beside(100 + n * 10) for n in range(5)))
    await until(lambda: not any(thread.is_alive() for thread in threads))
    await until(lambda: sorted(shop.runs) == shop.orders())
    assert len(shop.runs) == 50
