"""`queue.after_commit(session)`: calls that are made when a transaction of another database has committed.

SQLAlchemy on real files; beside each call a row is written, so the database itself says which calls
are right.
"""

import asyncio
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, ForeignKey, create_engine, event, insert, select
from sqlalchemy.exc import IntegrityError, SQLAlchemyError
from sqlalchemy.ext.asyncio import (
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    Session,
    mapped_column,
    scoped_session,
    sessionmaker,
)

from asyncdefer import (
    AfterCommit,
    Defer,
    Every,
    JournalFull,
    JournalLocked,
    LogEvent,
    MemoryStore,
    NotStarted,
    Queue,
    QueueClosed,
    RateLimit,
    Retry,
    State,
    Task,
    Tasks,
)
from asyncdefer.stores._base import Command, Owner, Written
from asyncdefer.testing import VirtualClock


class Base(DeclarativeBase):
    pass


class Order(Base):
    __tablename__ = "orders"

    id: Mapped[int] = mapped_column(primary_key=True)
    after: Mapped[int | None] = mapped_column(
        ForeignKey("orders.id", deferrable=True, initially="DEFERRED")
    )


def speaks_sqlite(engine: Engine) -> None:
    """Savepoints as SQLite has them: the driver is not to begin transactions by itself."""

    @event.listens_for(engine, "connect")
    def connect(connection: Any, _: object) -> None:
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN")


@contextmanager
def shop(path: Path) -> Iterator[Engine]:
    engine = create_engine(f"sqlite:///{path}")
    speaks_sqlite(engine)
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    with shop(tmp_path / "shop.db") as engine:
        yield engine


@asynccontextmanager
async def async_shop(path: Path) -> AsyncGenerator[async_sessionmaker[AsyncSession], None]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{path}")
    speaks_sqlite(engine.sync_engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine)
    await engine.dispose()


@pytest.fixture(params=["memory", "journal"])
def queue(request: pytest.FixtureRequest) -> Queue:
    found: Queue = request.getfixturevalue(f"defer_{request.param}".replace("memory", "queue"))

    @found.task("ship", delay=60)
    async def ship(order: int) -> int:
        return order

    return found


def ship_of(queue: Queue) -> Task[..., Any]:
    return queue.task_of("ship")


def buys(session: Session, calls: AfterCommit, ship: Any, *orders: int) -> None:
    for order in orders:
        session.execute(insert(Order).values(id=order))
        calls.enqueue(ship, order)


async def shipped(queue: Queue) -> list[int]:
    """The orders of all calls that were made, in their order."""
    return [job.arguments["order"] async for job in queue.jobs(task="ship")]


def rows_of(engine: Engine) -> list[int]:
    with engine.connect() as connection:
        return list(connection.scalars(select(Order.id).order_by(Order.id)))


def failures_of(queue: Queue) -> list[LogEvent]:
    found: list[LogEvent] = []
    queue.subscribe(lambda told: told.name == "after_commit_failed" and found.append(told))
    return found


# The outermost transaction


async def test_a_commit_makes_the_calls(queue: Queue, engine: Engine) -> None:
    """Nothing before the commit; after it all calls, in the order in which they were collected."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        buys(session, calls, ship_of(queue), 3, 1, 2)
        assert queue.stats().accepted == 0
        session.commit()
        assert queue.stats().accepted == 3
    await calls.accepted()

    assert await shipped(queue) == [3, 1, 2]


async def test_they_run(queue: Queue, engine: Engine, defer_clock: VirtualClock) -> None:
    """A call made after the commit is one like any other."""
    with Session(engine) as session:
        buys(session, queue.after_commit(session), ship_of(queue), 7)
        session.commit()
    await defer_clock.advance(60)

    assert [job.state async for job in queue.jobs()] == [State.SUCCEEDED]


async def test_a_rollback_drops_them(queue: Queue, engine: Engine) -> None:
    """What is rolled back is never called, and not at the next commit either."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        buys(session, calls, ship_of(queue), 1)
        session.rollback()
        buys(session, calls, ship_of(queue), 2)
        session.commit()

    assert await shipped(queue) == [2] == rows_of(engine)


@pytest.mark.parametrize("ends", ["close", "reset", "invalidate"])
async def test_a_session_that_is_closed_drops_them(queue: Queue, engine: Engine, ends: str) -> None:
    """`close()` without a commit is a rollback; the session may be used again afterwards."""
    session = Session(engine)
    calls = queue.after_commit(session)
    buys(session, calls, ship_of(queue), 1)
    getattr(session, ends)()
    session.commit()
    buys(session, calls, ship_of(queue), 2)
    session.commit()
    session.close()

    assert await shipped(queue) == [2] == rows_of(engine)


async def test_an_exception_in_the_block_drops_them(queue: Queue, engine: Engine) -> None:
    """`with session.begin():` rolls back when it is left by an exception."""
    session = Session(engine)
    calls = queue.after_commit(session)
    with pytest.raises(ZeroDivisionError), session.begin():
        buys(session, calls, ship_of(queue), 1)
        raise ZeroDivisionError
    with session.begin():
        buys(session, calls, ship_of(queue), 2)
    session.close()

    assert await shipped(queue) == [2] == rows_of(engine)


async def test_a_flush_that_fails_drops_them(queue: Queue, engine: Engine) -> None:
    """A constraint that is checked at the flush ends the transaction before its commit."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        buys(session, calls, ship_of(queue), 1)
        session.add(Order(id=1))
        with pytest.raises(IntegrityError):
            session.commit()
        calls.enqueue(ship_of(queue), 9)  # in a transaction that cannot commit any more
        session.rollback()
        session.commit()

    assert await shipped(queue) == [] == rows_of(engine)


async def test_a_commit_that_fails_drops_them(queue: Queue, engine: Engine) -> None:
    """A deferred constraint is checked by COMMIT itself: no row, no call."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        session.add(Order(id=1, after=404))
        session.flush()
        calls.enqueue(ship_of(queue), 1)
        with pytest.raises(IntegrityError):
            session.commit()
        session.rollback()
        buys(session, calls, ship_of(queue), 2)
        session.commit()

    assert await shipped(queue) == [2] == rows_of(engine)


async def test_two_phases(queue: Queue, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepared is not committed: the calls are made by the second phase, and dropped without it."""
    dialect: Any = engine.dialect  # SQLite has no PREPARE, so its first phase does nothing
    for name, does in {
        "do_begin_twophase": lambda connection, _: connection.connection.execute("BEGIN").close(),
        "do_prepare_twophase": lambda *_: None,
        "do_commit_twophase": lambda connection, *_, **__: dialect.do_commit(connection.connection),
        "do_rollback_twophase": lambda connection, *_, **__: dialect.do_rollback(
            connection.connection
        ),
    }.items():
        monkeypatch.setattr(dialect, name, does)
    with Session(engine, twophase=True) as session:
        calls = queue.after_commit(session)
        buys(session, calls, ship_of(queue), 1)
        session.prepare()
        session.rollback()
        buys(session, calls, ship_of(queue), 2)
        session.prepare()
        assert queue.stats().accepted == 0
        session.commit()

    assert await shipped(queue) == [2] == rows_of(engine)


async def test_many_transactions(queue: Queue, engine: Engine) -> None:
    """A collector serves every transaction of its session, and none of them sees another's calls."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        for order in range(1, 21):
            buys(session, calls, ship_of(queue), order)
            session.commit() if order % 3 else session.rollback()

    assert await shipped(queue) == [n for n in range(1, 21) if n % 3] == rows_of(engine)


async def test_a_session_without_a_transaction(queue: Queue, engine: Engine) -> None:
    """A call begins one, as `session.add` does: so that a rollback finds it."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        calls.enqueue(ship_of(queue), 1)
        assert session.in_transaction()
        session.rollback()
        session.commit()
        calls.enqueue(ship_of(queue), 2)
        session.commit()

    assert await shipped(queue) == [2]


async def test_a_session_that_begins_nothing_by_itself(queue: Queue, engine: Engine) -> None:
    """With `autobegin=False` the program says when a transaction begins."""
    with Session(engine, autobegin=False) as session:
        calls = queue.after_commit(session)
        with pytest.raises(RuntimeError, match=r"session\.begin\(\)"):
            calls.enqueue(ship_of(queue), 1)
        with session.begin():
            calls.enqueue(ship_of(queue), 2)

    assert await shipped(queue) == [2]


async def test_it_may_come_late(queue: Queue, engine: Engine) -> None:
    """In the midst of a transaction, in a savepoint and in a flush it begins to collect."""
    with Session(engine) as session:
        session.add(Order(id=1))
        with session.begin_nested() as savepoint:
            calls = queue.after_commit(session)
            calls.enqueue(ship_of(queue), 1)
            with session.begin_nested():
                calls.enqueue(ship_of(queue), 2)
            savepoint.rollback()
        calls.enqueue(ship_of(queue), 3)
        session.commit()
    with Session(engine) as session:

        @event.listens_for(session, "after_flush")
        def flushed(flushing: Session, _: object) -> None:
            queue.after_commit(flushing).enqueue(ship_of(queue), 4)

        session.add(Order(id=4))
        session.commit()

    assert await shipped(queue) == [3, 4]


async def test_who_hears_of_the_commit_may_still_call(queue: Queue, engine: Engine) -> None:
    """A listener of the program's own, before ours or after it, enqueues what is committed."""
    session = Session(engine)
    event.listen(session, "after_commit", lambda its: queue.after_commit(its).enqueue(ship, 1))
    ship, calls = ship_of(queue), queue.after_commit(session)
    event.listen(session, "after_commit", lambda _: calls.enqueue(ship, 3))
    buys(session, calls, ship, 2)
    session.commit()
    event.listen(session, "before_commit", lambda _: calls.enqueue(ship, 0))
    session.rollback()
    session.close()

    assert sorted(await shipped(queue)) == [1, 2, 3]


# Savepoints


async def test_a_savepoint_that_is_rolled_back_drops_its_own(queue: Queue, engine: Engine) -> None:
    """Only what was collected inside it goes, with what was collected in savepoints inside it."""
    ship = ship_of(queue)
    with Session(engine) as session:
        calls = queue.after_commit(session)
        buys(session, calls, ship, 1)
        with suppress(ZeroDivisionError), session.begin_nested():
            buys(session, calls, ship, 2)
            with session.begin_nested():
                buys(session, calls, ship, 3)
            raise ZeroDivisionError
        buys(session, calls, ship, 4)
        with session.begin_nested():
            buys(session, calls, ship, 5)
            with suppress(ZeroDivisionError), session.begin_nested():
                buys(session, calls, ship, 6)
                raise ZeroDivisionError
            buys(session, calls, ship, 7)
        assert queue.stats().accepted == 0
        session.commit()

    assert await shipped(queue) == [1, 4, 5, 7] == rows_of(engine)


async def test_a_released_savepoint_makes_no_calls(queue: Queue, engine: Engine) -> None:
    """It hands them to its parent, which may still be rolled back."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        with session.begin_nested():
            buys(session, calls, ship_of(queue), 1)
        assert queue.stats().accepted == 0
        session.rollback()

    assert await shipped(queue) == [] == rows_of(engine)


async def test_a_commit_releases_open_savepoints(queue: Queue, engine: Engine) -> None:
    """`session.commit()` commits through all of them."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        session.begin_nested()
        buys(session, calls, ship_of(queue), 1)
        session.begin_nested()
        buys(session, calls, ship_of(queue), 2)
        session.commit()

    assert await shipped(queue) == [1, 2] == rows_of(engine)


async def test_a_flush_that_fails_in_a_savepoint(queue: Queue, engine: Engine) -> None:
    """The transaction goes on after it, with what it had before."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        buys(session, calls, ship_of(queue), 1)
        with pytest.raises(IntegrityError), session.begin_nested():
            calls.enqueue(ship_of(queue), 2)
            session.add(Order(id=1))
        buys(session, calls, ship_of(queue), 3)
        session.commit()

    assert await shipped(queue) == [1, 3] == rows_of(engine)


STEPS = st.sampled_from(
    [
        *("buy", "buy", "nest", "nest", "release", "undo", "outer_release", "outer_undo"),
        *("commit", "rollback", "close", "root_commit", "root_rollback"),
        *("failing_flush", "failing_commit"),
    ]
)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")  # of use after a failed flush
@given(steps=st.lists(STEPS, max_size=40))
async def test_the_database_agrees(
    steps: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever a session goes through, the calls that are made are those whose rows are there."""
    made: list[int] = []

    async def ship(order: int) -> None:
        made.append(order)

    with shop(tmp_path_factory.mktemp("shop") / "shop.db") as engine:
        async with Queue() as queue:
            with Session(engine) as session:
                calls = queue.after_commit(session)
                for order, step in enumerate(steps, 1):
                    with suppress(SQLAlchemyError):
                        _take_step(step, session, calls, ship, order)
            await queue.join()
        assert made == rows_of(engine)


def _take_step(step: str, session: Session, calls: AfterCommit, ship: Any, order: int) -> None:
    savepoint, root = session.get_nested_transaction(), session.get_transaction()
    outer = savepoint.parent if savepoint is not None else None
    match step:
        case "buy":
            calls.enqueue(ship, order)
            session.execute(insert(Order).values(id=order))
        case "nest":
            session.begin_nested()
            calls.enqueue(ship, order)
            session.execute(insert(Order).values(id=order))
        case "release" if savepoint is not None:
            savepoint.commit()
        case "undo" if savepoint is not None:
            savepoint.rollback()
        case "outer_release" if outer is not None and outer.nested:
            outer.commit()
        case "outer_undo" if outer is not None and outer.nested:
            outer.rollback()
        case "failing_flush":
            calls.enqueue(ship, order)
            session.add_all([Order(id=order), Order(id=order, after=order)])
            session.flush()
        case "failing_commit":
            calls.enqueue(ship, order)
            session.execute(insert(Order).values(id=order, after=-1))
            try:
                session.commit()
            except IntegrityError:
                session.rollback()
        case "commit" | "rollback" | "close":
            getattr(session, step)()
        case "root_commit" if root is not None:
            root.commit()
        case "root_rollback" if root is not None:
            root.rollback()
        case _:
            pass


# Sessions


async def test_the_same_session_the_same_collector(queue: Queue, engine: Engine) -> None:
    """Asked for again and again, it adds no listener, and makes no call twice."""
    with Session(engine) as session:
        calls = queue.after_commit(session)
        dispatch: Any = session.dispatch
        listeners = len(dispatch.after_commit), len(dispatch.after_transaction_end)
        for _ in range(3):
            assert queue.after_commit(session) is calls
            buys(session, queue.after_commit(session), ship_of(queue), len(rows_of(engine)) + 1)
            session.commit()
        assert listeners == (len(dispatch.after_commit), len(dispatch.after_transaction_end))

    assert await shipped(queue) == [1, 2, 3]


async def test_two_queues_of_one_session(engine: Engine) -> None:
    """Each has its own calls."""
    made: list[tuple[str, int]] = []

    async def ship(name: str, order: int) -> None:
        made.append((name, order))

    async with Queue() as one, Queue() as two:
        with Session(engine) as session:
            one.after_commit(session).enqueue(ship, "one", 1)
            two.after_commit(session).enqueue(ship, "two", 2)
            session.commit()
        assert (one.stats().accepted, two.stats().accepted) == (1, 1)
        await one.join()
        await two.join()

    assert sorted(made) == [("one", 1), ("two", 2)]


async def test_two_sessions_at_once(queue: Queue, engine: Engine) -> None:
    """One's commit does not make the calls of the other."""
    with Session(engine) as one, Session(engine) as two:
        queue.after_commit(one).enqueue(ship_of(queue), 1)
        queue.after_commit(two).enqueue(ship_of(queue), 2)
        two.commit()
        assert await shipped(queue) == [2]
        one.rollback()

    assert await shipped(queue) == [2]


class Big:
    """An argument whose life can be watched."""


@pytest.mark.parametrize("keeps", [True, False])
@pytest.mark.parametrize("ends", ["commit", "close", "nothing"])
async def test_a_session_that_is_gone_is_not_held(
    defer_queue: Queue, engine: Engine, keeps: bool, ends: str
) -> None:
    """Neither the queue nor a collector that somebody keeps holds a session."""

    def use() -> tuple[AfterCommit | None, weakref.ref[Session]]:
        session = Session(engine)
        calls = defer_queue.after_commit(session)
        calls.enqueue(print, 1, delay=60)
        if ends != "nothing":
            getattr(session, ends)()
        return calls if keeps else None, weakref.ref(session)

    calls, session = use()
    gc.collect()

    assert session() is None
    if calls is not None:
        with pytest.raises(RuntimeError, match="session is gone"):
            calls.enqueue(print, 2)


@pytest.mark.parametrize("ends", ["rollback", "close", "savepoint"])
async def test_what_is_gone_is_not_held(defer_queue: Queue, engine: Engine, ends: str) -> None:
    """A session that lives on does not hold the arguments of calls that will never be made."""
    with Session(engine) as session:
        calls = defer_queue.after_commit(session)
        session.begin()
        savepoint = session.begin_nested() if ends == "savepoint" else None
        big = Big()
        calls.enqueue(print, big)
        gone = weakref.ref(big)
        del big
        assert gone() is not None
        savepoint.rollback() if savepoint is not None else getattr(session, ends)()
        gc.collect()
        assert gone() is None


async def test_scoped_sessions(queue: Queue, engine: Engine, tmp_path: Path) -> None:
    """A scoped session stands for the one of this thread or task."""
    scoped = scoped_session(sessionmaker(engine))
    calls = queue.after_commit(scoped)
    assert calls is queue.after_commit(scoped())
    calls.enqueue(ship_of(queue), 1)
    scoped.commit()
    scoped.remove()
    async with async_shop(tmp_path / "async.db") as sessions:
        async_scoped = async_scoped_session(sessions, asyncio.current_task)
        queue.after_commit(async_scoped).enqueue(ship_of(queue), 2)
        await async_scoped.commit()
        await async_scoped.remove()

    assert await shipped(queue) == [1, 2]


@pytest.mark.parametrize(
    "wrong", [None, "sqlite://", object(), Session, sessionmaker(), Base], ids=repr
)
async def test_what_is_no_session(defer_queue: Queue, wrong: Any) -> None:
    """A TypeError says what is wanted."""
    with pytest.raises(TypeError, match=r"Session or AsyncSession.* not \w+$"):
        defer_queue.after_commit(wrong)


async def test_without_sqlalchemy_nothing_is_a_session(
    defer_queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same TypeError where SQLAlchemy is not installed."""
    monkeypatch.setitem(sys.modules, "sqlalchemy.orm", None)
    with pytest.raises(TypeError, match="Session or AsyncSession"):
        defer_queue.after_commit(object())  # type: ignore[arg-type]


def test_sqlalchemy_is_not_imported() -> None:
    """It is not needed, and who has it pays for it only with the first session."""
    program = "import sys, asyncdefer; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# AsyncSession


async def test_an_async_session(queue: Queue, tmp_path: Path) -> None:
    """Commit, rollback, savepoints and the end of the block, over aiosqlite."""
    ship = ship_of(queue)
    async with async_shop(tmp_path / "shop.db") as sessions:
        async with sessions() as session:
            calls = queue.after_commit(session)
            await session.execute(insert(Order).values(id=1))
            calls.enqueue(ship, 1)
            await session.rollback()
            await session.execute(insert(Order).values(id=2))
            calls.enqueue(ship, 2)
            with suppress(ZeroDivisionError):
                async with session.begin_nested():
                    calls.enqueue(ship, 3)
                    raise ZeroDivisionError
            async with session.begin_nested():
                calls.enqueue(ship, 4)
            await session.commit()
            assert queue.stats().accepted == 2
            await calls.accepted()
            assert await shipped(queue) == [2, 4]

            session.add(Order(id=5, after=404))
            await session.flush()
            calls.enqueue(ship, 5)
            with pytest.raises(IntegrityError):
                await session.commit()
            await session.rollback()
            session.add(Order(id=6))
            calls.enqueue(ship, 6)
        async with sessions.begin() as session:
            queue.after_commit(session).enqueue(ship, 7)

    assert await shipped(queue) == [2, 4, 7]


async def test_a_commit_whose_end_is_cancelled(queue: Queue, tmp_path: Path) -> None:
    """Once the database has committed the call is made, though the task that asked for it is gone."""
    async with async_shop(tmp_path / "shop.db") as sessions:
        session = sessions()
        buying = asyncio.current_task()
        assert buying is not None
        queue.after_commit(session).enqueue(ship_of(queue), 1)
        await session.execute(insert(Order).values(id=1))
        event.listen(session.sync_session, "after_commit", lambda _: buying.cancel())
        with pytest.raises(asyncio.CancelledError):
            await session.commit()
        buying.uncancel()
        assert queue.stats().accepted == 1
        await session.close()

        queue.after_commit(session).enqueue(ship_of(queue), 2)
        await session.close()
        queue.after_commit(session).enqueue(ship_of(queue), 3)
        await session.rollback()

    assert await shipped(queue) == [1]


async def test_accepted_waits_for_the_journal(tmp_path: Path, engine: Engine) -> None:
    """After `await calls.accepted()` the calls are on the disk; before the commit it waits for nothing."""
    store = Gate()
    async with Queue(store) as queue:
        ship = queue.task("ship")(_ship)
        with Session(engine) as session:
            calls = queue.after_commit(session)
            calls.enqueue(ship, 1)
            await calls.accepted()
            store.gate.clear()
            session.commit()
            waiting = asyncio.create_task(calls.accepted())
            await store.reached.wait()
            early = waiting.done()
            store.gate.set()
            await asyncio.wait_for(waiting, 5)
    assert not early


# Threads


async def test_a_commit_in_a_thread(queue: Queue, engine: Engine) -> None:
    """It returns when the calls are accepted, all of them in one go and in their order."""
    ship = ship_of(queue)

    def endpoint() -> int:
        with Session(engine) as session:
            buys(session, queue.after_commit(session), ship, 2, 1, 3)
            session.commit()
            return queue.stats().accepted

    assert await asyncio.to_thread(endpoint) == 3
    assert await shipped(queue) == [2, 1, 3]


async def test_a_commit_in_a_thread_waits_for_the_journal(engine: Engine) -> None:
    """A plain commit returns when its calls are on the disk."""
    store = Gate()
    async with Queue(store) as queue:
        ship = queue.task("ship")(_ship)
        committed = threading.Event()

        def endpoint() -> None:
            with Session(engine) as session:
                buys(session, queue.after_commit(session), ship, 1)
                session.commit()
            committed.set()

        store.gate.clear()
        endpoint_ = asyncio.create_task(asyncio.to_thread(endpoint))
        await store.reached.wait()
        rows, early = rows_of(engine), committed.is_set()
        store.gate.set()
        await asyncio.wait_for(endpoint_, 5)
    assert (rows, early) == ([1], False)


async def test_many_threads(queue: Queue, engine: Engine) -> None:
    """Each with its own session; nothing is lost, doubled or mixed up."""
    ship = ship_of(queue)
    lock = threading.Lock()  # SQLite has one writer

    def endpoint(thread: int) -> None:
        with Session(engine) as session:
            calls = queue.after_commit(session)
            for n in range(5):
                with lock:
                    buys(session, calls, ship, thread * 10 + n)
                    session.rollback() if n == 3 else session.commit()

    await asyncio.gather(*(asyncio.to_thread(endpoint, thread) for thread in range(6)))

    made = await shipped(queue)
    assert sorted(made) == rows_of(engine)
    assert len(made) == 24


# What a call is


async def test_delay_counts_from_the_commit(
    queue: Queue, engine: Engine, defer_clock: VirtualClock
) -> None:
    """`delay` counts from the commit, `eta` is an eta, and options are those of `queue.options`."""
    start, ship = defer_clock.now(), ship_of(queue)
    with Session(engine) as session:
        calls = queue.after_commit(session)
        calls.enqueue(ship, 1, delay=5, key="one")
        calls.enqueue(ship, order=2, eta=start + timedelta(seconds=7))
        calls.options(delay=timedelta(seconds=9), key="three").enqueue(ship, order=3)
        calls.options(repeat=Every(3600), key="four").enqueue(ship, 4)
        await defer_clock.advance(100)
        session.commit()

    jobs = {job.arguments["order"]: job async for job in queue.jobs()}
    assert {n: (job.eta - start).total_seconds() for n, job in jobs.items()} == {
        1: 105,
        2: 7,
        3: 109,
        4: 3700,
    }
    assert [jobs[n].key for n in (1, 2, 3, 4)] == ["one", None, "three", "four"]


async def test_calls_of_one_key_fold(
    defer_queue: Queue, engine: Engine, defer_clock: VirtualClock
) -> None:
    """The newest call of a key counts, whether it came by a commit or not."""

    @defer_queue.task(delay=10, defer=["order"])
    async def ship(order: int, text: str) -> str:
        return text

    handle = await ship.enqueue(1, "before")
    with Session(engine) as session:
        calls = defer_queue.after_commit(session)
        calls.enqueue(ship, 1, "first")
        calls.enqueue(ship, 1, "second")
        session.commit()
    await defer_clock.advance(10)

    assert await handle == "second"


name: ContextVar[str] = ContextVar("name", default="nobody")


async def test_context_variables_are_the_callers(
    defer_queue: Queue, engine: Engine, defer_clock: VirtualClock
) -> None:
    """A job has those of who called `enqueue`, not those of who committed."""
    seen: list[str] = []

    async def job() -> None:
        seen.append(name.get())

    with Session(engine) as session:
        calls = defer_queue.after_commit(session)
        for text in ("ada", "ben"):
            before = name.set(text)
            calls.enqueue(job)
            name.reset(before)
        await asyncio.to_thread(session.commit)
    await defer_clock.advance(0)

    assert seen == ["ada", "ben"]


async def test_arguments_are_those_of_the_call(
    defer_journal: Queue, engine: Engine, defer_clock: VirtualClock
) -> None:
    """With a journal a list that is changed before the commit arrives as it was, as with `enqueue`."""
    seen: list[list[int]] = []

    @defer_journal.task
    async def job(numbers: list[int]) -> None:
        seen.append(numbers)

    with Session(engine) as session:
        numbers = [1]
        defer_journal.after_commit(session).enqueue(job, numbers)
        numbers.append(2)
        session.commit()
    await defer_clock.advance(0)

    assert seen == [[1]]


async def _ship(order: int, note: str = "", /) -> None: ...


async def _eta(eta: int) -> None: ...


def _fails(order: int) -> str:
    raise LookupError("no key")


class Odd:
    pass


BAD: list[tuple[str, Callable[[Any, Any, Any], Any]]] = [
    ("too few arguments", lambda it, ship, _: it.enqueue(ship)),
    ("too many", lambda it, ship, _: it.enqueue(ship, 1, "", 3)),
    ("unknown argument", lambda it, ship, _: it.enqueue(ship, 1, colour="red")),
    ("eta without zone", lambda it, ship, _: it.enqueue(ship, 1, eta=datetime(2027, 1, 1))),  # noqa: DTZ001
    ("eta of another type", lambda it, ship, _: it.enqueue(ship, 1, eta=5)),
    ("both", lambda it, ship, _: it.enqueue(ship, 1, eta=datetime.now(UTC), delay=1)),
    ("negative delay", lambda it, ship, _: it.enqueue(ship, 1, delay=-1)),
    ("delay of another type", lambda it, ship, _: it.enqueue(ship, 1, delay="1")),
    ("delay too far", lambda it, ship, _: it.enqueue(ship, 1, delay=timedelta.max)),
    ("key of another type", lambda it, ship, _: it.enqueue(ship, 1, key=5)),
    ("empty key", lambda it, ship, _: it.enqueue(ship, 1, key="")),
    ("long key", lambda it, ship, _: it.enqueue(ship, 1, key="k" * 513)),
    ("not callable", lambda it, _, __: it.enqueue(5)),
    ("unknown name", lambda it, _, __: it.enqueue("no such task")),
    ("a call already made", lambda it, _, __: it.enqueue(_ship(1))),
    ("reserved name", lambda it, _, queue: it.enqueue(_task(queue, _eta), 1)),
    ("not registered here", lambda it, _, __: it.enqueue(_task(Tasks(), _ship), 1)),
    ("unknown option", lambda it, ship, _: it.options(colour="red").enqueue(ship, 1)),
    ("option of a task", lambda it, ship, _: it.options(concurrency=1).enqueue(ship, 1)),
    ("bad option", lambda it, ship, _: it.options(timeout=0).enqueue(ship, 1)),
    ("options: both", lambda it, ship, _: it.options(eta=datetime.now(UTC), delay=1)),
    ("options: too far", lambda it, ship, _: it.options(delay=timedelta.max).enqueue(ship, 1)),
    ("options: arguments", lambda it, ship, _: it.options(delay=1).enqueue(ship, 1, key="k")),
    ("unknown parameter", lambda it, ship, _: it.options(defer=["colour"]).enqueue(ship, 1)),
    ("no key function", lambda it, ship, _: it.options(defer=_fails).enqueue(ship, 1)),
    ("schedule without key", lambda it, ship, _: it.options(repeat=Every(5)).enqueue(ship, 1)),
    ("key of the task", lambda it, _, queue: it.enqueue(_task(queue, _ship, defer=_fails), 1)),
    (
        "rate key",
        lambda it, _, queue: it.enqueue(
            _task(queue, _ship, rate_limit=RateLimit(1, 1, key=_fails)), 1
        ),
    ),
    ("no lasting key", lambda it, _, queue: it.enqueue(_task(queue, _ship, defer=True), Odd())),
]

BAD_WITH_A_JOURNAL: list[tuple[str, Callable[[Any, Any, Any], Any]]] = [
    ("a lambda", lambda it, _, __: it.enqueue(lambda: None)),
    ("not registered", lambda it, _, __: it.enqueue(_ship, 1)),
    ("options: not registered", lambda it, _, __: it.options(delay=1).enqueue(_ship, 1)),
    ("against the annotation", lambda it, ship, _: it.enqueue(ship, "1")),
    ("no JSON", lambda it, _, queue: it.enqueue(_task(queue, _plain), Odd())),
    (
        "code as an option",
        lambda it, ship, _: it.options(retry=Retry(2, on=OSError)).enqueue(ship, 1),
    ),
    (
        "code in defer",
        lambda it, ship, _: it.options(defer=Defer(key=_fails)).enqueue(ship, 1),
    ),
]


async def _plain(value: Any) -> None: ...


def _task(tasks: Any, fn: Any, **options: Any) -> Any:
    """A task of its own for each call of a test that makes several."""
    home = tasks if isinstance(tasks, Queue) else Tasks()
    return home.task(f"{fn.__name__} {len(list(getattr(home, '_registry', ())))}", **options)(fn)


CASES = [
    *(pytest.param("memory", does, id=f"memory-{what}") for what, does in BAD),
    *(
        pytest.param("journal", does, id=f"journal-{what}")
        for what, does in BAD + BAD_WITH_A_JOURNAL
    ),
]


@pytest.mark.parametrize(("kind", "does"), CASES)
async def test_what_enqueue_refuses_is_refused_at_once(
    kind: str, does: Callable[[Any, Any, Any], Any], engine: Engine
) -> None:
    """The same error, in the same words, from the collector at the call as from `queue.enqueue`."""
    told: list[tuple[type[BaseException], str]] = []
    for way in ("queue", "collector"):  # each with a queue of its own, and so with equal names
        async with Queue(MemoryStore() if kind == "journal" else None) as queue:
            ship = queue.task("ship")(_ship)
            with Session(engine) as session:
                calls = queue.after_commit(session)
                with pytest.raises(Exception) as caught:
                    if way == "queue":
                        await does(queue, ship, queue)
                    else:
                        does(calls, ship, queue)
                told.append((caught.type, str(caught.value)))
                session.commit()
            assert queue.stats().accepted == 0

    assert told[0] == told[1]


async def test_what_is_refused_leaves_nothing_behind(queue: Queue, engine: Engine) -> None:
    """A bad call drops no other one, and begins no transaction."""
    ship = ship_of(queue)
    with Session(engine) as session:
        calls = queue.after_commit(session)
        with pytest.raises(TypeError):
            calls.enqueue(ship)
        assert not session.in_transaction()
        calls.enqueue(ship, 1)
        with pytest.raises(ValueError, match="negative"):
            calls.enqueue(ship, 2, delay=-1)
        session.commit()

    assert await shipped(queue) == [1]


async def test_a_queue_that_takes_no_calls(engine: Engine, tmp_path: Path) -> None:
    """Not started, standing by or closed: that is told at the call, before anything is committed."""
    queue = Queue(tmp_path / "timers.db", on_locked="standby")
    ship = queue.task("ship")(_ship)
    with Session(engine) as session:
        calls = queue.after_commit(session)
        with pytest.raises(NotStarted):
            calls.enqueue(ship, 1)
        async with Queue(tmp_path / "timers.db"), queue:
            assert queue.standby
            with pytest.raises(JournalLocked):
                calls.enqueue(ship, 1)
        with pytest.raises(QueueClosed):
            calls.enqueue(ship, 1)
        async with queue:
            calls.enqueue(ship, 1)
            session.commit()
            assert queue.stats().accepted == 1


async def test_a_call_can_be_checked_in_a_thread(queue: Queue, engine: Engine) -> None:
    """A `def` endpoint is told what is wrong, too."""
    ship = ship_of(queue)

    def endpoint() -> None:
        with Session(engine) as session, pytest.raises(TypeError, match="order"):
            queue.after_commit(session).enqueue(ship)

    await asyncio.to_thread(endpoint)


# What fails after the commit


class Gate:
    """A real store that holds its writes back while `gate` is shut, or refuses calls."""

    def __init__(self) -> None:
        self._store = MemoryStore()
        self.gate = asyncio.Event()
        self.gate.set()
        self.reached = asyncio.Event()
        self.refuses: Callable[[str], bool] = lambda _: False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        if not self.gate.is_set():
            self.reached.set()
            await self.gate.wait()
        if any(self.refuses(repr(command)) for command in commands):
            raise JournalFull("no room")
        return await self._store.write(owner, commands, within=within)


async def test_the_queue_was_closed_meanwhile(engine: Engine) -> None:
    """The commit stands and does not fail; the event names each call that is lost."""
    queue = Queue()
    ship = queue.task("ship")(_ship)
    failures = failures_of(queue)
    with Session(engine) as session:
        calls = queue.after_commit(session)
        async with queue:
            buys(session, calls, ship, 1)
            calls.enqueue(ship, 2, key="two")
        session.commit()
        assert rows_of(engine) == [1]

    assert [(told.task, told.key) for told in failures] == [("ship", None), ("ship", "two")]
    error = failures[0].error
    assert error is not None
    assert (error.type, failures[0].job_id) == ("QueueClosed", None)
    with pytest.raises(QueueClosed):
        await calls.accepted()
    await calls.accepted()  # it was told


async def test_closed_meanwhile_in_a_thread(engine: Engine) -> None:
    """A commit in a thread does not fail either, whether the loop is still there or not."""
    queue = Queue()
    ship = queue.task("ship")(_ship)
    failures = failures_of(queue)

    async def collect(session: Session, order: int) -> None:
        async with queue:
            buys(session, queue.after_commit(session), ship, order)

    with Session(engine) as session:
        await collect(session, 1)
        await asyncio.to_thread(session.commit)
        await asyncio.to_thread(asyncio.run, collect(session, 2))
        await asyncio.to_thread(session.commit)

    assert rows_of(engine) == [1, 2]
    assert [told.error and told.error.type for told in failures] == ["QueueClosed"] * 2


async def test_a_failure_is_logged(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    """At the level ERROR, with the task and the error, and without the arguments."""
    queue = Queue()
    with Session(engine) as session:
        async with queue:
            queue.after_commit(session).enqueue(queue.task("ship")(_ship), 4711, key="k")
        session.commit()

    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "asyncdefer.after_commit_failed task=ship key=k error=QueueClosed" in record.message
    assert "4711" not in record.message


@pytest.mark.parametrize("where", ["loop", "thread"])
async def test_one_that_the_journal_refuses(engine: Engine, where: str) -> None:
    """The other calls are made all the same; `accepted()` raises the first error, once."""
    store = Gate()
    store.refuses = lambda command: "second" in command
    async with Queue(store) as queue:
        ship = queue.task("ship", delay=60)(_ship)
        failures = failures_of(queue)
        with Session(engine) as session:
            calls = queue.after_commit(session)
            for n, note in enumerate(["first", "second", "third"]):
                calls.enqueue(ship, n, note)
            if where == "loop":
                session.commit()
            else:
                await asyncio.to_thread(session.commit)
            with pytest.raises(JournalFull):
                await calls.accepted()
            await calls.accepted()

        assert [told.error and told.error.type for told in failures] == ["JournalFull"]
        left = [job.arguments async for job in queue.jobs()]
        assert [arguments["order"] for arguments in left] == [0, 2]


async def test_one_that_fails_at_the_commit(
    defer_queue: Queue, engine: Engine, defer_clock: VirtualClock
) -> None:
    """What could not be known before, as a merge function that fails, is told like that, too."""

    def merge(old: dict[str, Any], new: dict[str, Any]) -> Any:
        raise LookupError("one") if new["order"] == 1 else ValueError("two")

    @defer_queue.task("ship", delay=5, defer=Defer(["order"], keep=merge))
    async def ship(order: int) -> None: ...

    failures = failures_of(defer_queue)
    with Session(engine) as session:
        calls = defer_queue.after_commit(session)
        for order in (1, 1, 2, 2, 3):
            calls.enqueue(ship, order)
        session.commit()

    assert [told.error and told.error.type for told in failures] == ["LookupError", "ValueError"]
    assert await shipped(defer_queue) == [1, 2, 3]
    with pytest.raises(LookupError, match="one"):
        await calls.accepted()
