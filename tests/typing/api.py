"""What type checkers make of the public names. Checked by mypy and by pyright, both strict; never run.

`assert_type` says what must be inferred. Each deliberate mistake carries the ignore of both checkers, and both report an ignore
that nothing needs: so a mistake that is no longer seen is an error here.
"""

import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, assert_type

import aiosqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from asyncdefer import (
    AfterCommit,
    AsyncTransaction,
    Defer,
    Handle,
    Job,
    MemoryStore,
    Progress,
    Queue,
    Report,
    Run,
    SQLiteStore,
    State,
    Stats,
    Task,
    Tasks,
    Transaction,
    current,
    sleep,
)
from asyncdefer.testing import VirtualClock, virtual

queue = Queue(concurrency=10, threads=4, result_ttl=60, drain_timeout=2)
NEW_YEAR = datetime(2027, 1, 1, tzinfo=UTC)


@queue.task(delay=60, defer=["user_id"])
async def count(user_id: int, update: str, *, loud: bool = False) -> int:
    return user_id


@queue.task
async def bare(text: str) -> bytes:
    return text.encode()


@queue.task(name="billing.plain", timeout=timedelta(minutes=1))
def plain(amount: float) -> list[str]:
    return [str(amount)]


@queue.task
def bare_plain() -> None: ...


tasks = Tasks(prefix="mail.")


@tasks.task(defer=Defer(["to"], max_wait=5, leading=True, keep="first"))
async def send(to: str) -> State:
    return State.SUCCEEDED


queue.include(tasks)


async def results() -> None:
    """A handle has the type of the function's result, whether the function is async or not."""
    assert_type(await count.enqueue(1, "typo"), Handle[int])
    assert_type(await (await count.enqueue(1, update="typo", loud=True)), int)
    assert_type(await bare.enqueue("a"), Handle[bytes])
    assert_type(await plain.enqueue(1.5), Handle[list[str]])
    assert_type(await (await plain.enqueue(amount=1)), list[str])
    assert_type(await bare_plain.enqueue(), Handle[None])
    assert_type(await send.enqueue("ada"), Handle[State])


async def arguments() -> None:
    """`task.enqueue` takes the function's own parameters, and nothing else."""
    await count.enqueue()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await count.enqueue(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await count.enqueue("1", "typo")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await count.enqueue(1, "typo", True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await count.enqueue(1, "typo", silent=True)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await count.enqueue(1, "typo", delay=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await plain.enqueue("much")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def options() -> None:
    """`.options` is for one call: its options are known, and its arguments stay typed."""
    assert_type(await count.options(delay=5).enqueue(1, "title"), Handle[int])
    assert_type(
        await plain.options(eta=NEW_YEAR, key="k", expires=60).enqueue(2), Handle[list[str]]
    )
    await count.options(delay=5).enqueue("1", "title")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    count.options(dleay=5)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    count.options(delay="5")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert_type(await queue.options(delay=5).enqueue(bare, "a"), Handle[bytes])


def settings() -> None:
    """`configure` takes what the constructor takes."""
    queue.configure(journal="timers.db", on_locked="standby", clock=VirtualClock())
    queue.configure(journal=Path("timers.db"), result_ttl=timedelta(days=1), drain_timeout=2)
    queue.configure(journal=SQLiteStore("timers.db", synchronous="NORMAL"))
    queue.configure(journal=MemoryStore())
    queue.configure(journal=None, clock=None, concurrency=1, threads=1)
    queue.configure(journal=5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    queue.configure(on_locked="wait")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    queue.configure(concurency=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def pending() -> None:
    """The waiting call has the type of its task, by arguments or by key."""
    assert_type(await count.pending(1, "typo"), Handle[int] | None)
    await count.pending("1")  # type: ignore[call-arg,arg-type]  # pyright: ignore[reportCallIssue]
    assert_type(await queue.pending(plain, "k"), Handle[list[str]] | None)
    assert_type(await queue.pending(count, "k"), Handle[int] | None)
    assert_type(await queue.pending("billing.plain", "k"), Handle[Any] | None)


async def any_callable(method: Callable[[int], str]) -> None:
    """`queue.enqueue` takes any callable and types its result."""

    async def local(text: str) -> int:
        return len(text)

    assert_type(await queue.enqueue(local, "a", delay=timedelta(hours=2), key="k"), Handle[int])
    assert_type(await queue.enqueue(len, "abc", eta=NEW_YEAR), Handle[int])
    assert_type(await queue.enqueue(method, 1), Handle[str])
    assert_type(await queue.enqueue(partial(local, "a")), Handle[int])
    assert_type(await queue.enqueue(count, 1, "typo"), Handle[int])
    assert_type(await queue.enqueue(plain, 1, delay=5), Handle[list[str]])
    assert_type(queue.enqueue_nowait(local, "a"), Handle[int])
    assert_type(queue.enqueue_nowait(plain, 1.0, key="k"), Handle[list[str]])
    assert_type(queue.enqueue_from_thread(local, "a", delay=5), Handle[int])
    assert_type(queue.enqueue_from_thread(plain, 1.0), Handle[list[str]])
    queue.enqueue_from_thread(local, eta="tomorrow")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await queue.enqueue(local, "a", eta="tomorrow")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]
    await queue.enqueue(3)  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def transactions(
    queue: Queue, beside: aiosqlite.Connection, threads: sqlite3.Connection, asked: AsyncConnection
) -> None:
    async with queue.transaction(beside) as tx:
        assert_type(tx, AsyncTransaction)
        assert_type(await tx.enqueue(bare, "a", delay=5), Handle[bytes])
        assert_type(await tx.options(priority=1).enqueue(bare, "a"), Handle[Any])
    async with queue.transaction(asked) as joined:
        assert_type(joined, AsyncTransaction)
    with queue.transaction(threads) as within:
        assert_type(within, Transaction)
        assert_type(within.enqueue(plain, 1.0, key="k"), Handle[list[str]])
    queue.transaction("shop.db")  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue, reportArgumentType]


async def after_commits(
    session: Session,
    asynchronous: AsyncSession,
    scoped: scoped_session[Session],
    scoped_async: async_scoped_session[AsyncSession],
) -> None:
    """Sessions of four kinds give one kind of collector, whose calls give nothing back yet."""
    calls = assert_type(queue.after_commit(session), AfterCommit)
    assert_type(queue.after_commit(asynchronous), AfterCommit)
    assert_type(queue.after_commit(scoped), AfterCommit)
    assert_type(queue.after_commit(scoped_async), AfterCommit)
    calls.enqueue(count, 1, "typo", delay=timedelta(hours=2), key="k")
    calls.options(expires=60, eta=NEW_YEAR).enqueue(count, 1, "typo")
    assert_type(await calls.accepted(), None)
    queue.after_commit("sqlite://")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    calls.enqueue(count, 1, eta="tomorrow")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    calls.options(concurrency=1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


async def any_task(task: Task[[int], str]) -> None:
    """A task of either kind can be handed on; what a call of it gives is known by its subclass."""
    assert_type(await task.enqueue(1), Handle[str])
    assert_type(await queue.enqueue(task, 1), Handle[Any])
    assert_type(await queue.pending(task, "k"), Handle[str] | None)
    await any_task(queue.task("a.name", delay=5)(str))
    await any_task(count)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    for one in (task, count, "billing.plain", None):
        queue.pause(one)
        queue.resume(one)


async def called() -> None:
    """A task that is called is its function, unscheduled."""
    assert_type(await count(1, "typo"), int)
    assert_type(plain(1.0), list[str])
    await count("1", "typo")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def handles(handle: Handle[int]) -> None:
    """What a handle tells."""
    assert_type(handle.id, str)
    assert_type(handle.key, str | None)
    assert_type(handle.task, str)
    assert_type(handle.eta, datetime)
    assert_type(handle.state, State)
    assert_type(handle.attempt, int)
    assert_type(handle.replaced, bool)
    assert_type(handle.done(), bool)
    assert_type(await handle.result(timeout=1), int)
    assert_type(await handle.cancel(), bool)
    await handle.flush()
    await handle.reschedule(eta=NEW_YEAR)
    await handle.reschedule(delay=timedelta(seconds=1))


async def a_queue() -> None:
    """What a queue tells."""
    async with queue as entered:
        assert_type(entered, Queue)
    jobs: AsyncIterator[Job] = queue.jobs(state=State.SCHEDULED, task=count, key_prefix="k")
    async for job in jobs:
        assert_type(job.error.message if job.error else None, str | None)
    assert_type(queue.stats(), Stats)
    unsubscribe = queue.subscribe(lambda event: print(event.name))
    unsubscribe()


@queue.source
@dataclass
class Rows:
    table: str

    async def split(self, shards: int) -> list[tuple[int | None, int | None]]:
        return [(None, None)]

    async def page(self, after: int | None, upto: int | None, limit: int) -> list[tuple[int, str]]:
        return []


@queue.source("named")
@dataclass
class Named(Rows): ...


async def iterations() -> None:
    """A source keeps its type, and the handle of an iteration has a report and a progress."""
    assert_type(Rows("users"), Rows)
    assert_type(Named("users").table, str)
    handle = await queue.iterate(Rows("users"), bare, plain, shards=3, args=("a",), budget=1)
    assert_type(handle, Handle[Report])
    assert_type(handle.progress(), Progress)
    assert_type((await handle).started_at, datetime)
    await queue.iterate(range(3), count, args=["typo"], result_ttl=None)
    await queue.iterate([1, 2], "billing.plain", budget=timedelta(seconds=1))
    await queue.iterate({1, 2}, bare)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await queue.iterate(7, bare)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def in_a_job() -> None:
    """What a run knows."""
    run = current()
    assert_type(run, Run)
    assert_type(run.lateness, float)
    assert_type(run.calls, int)
    assert_type(await sleep(1), None)


async def in_a_test() -> None:
    """A queue on a clock that a test moves."""
    async with virtual(queue) as clock:
        assert_type(clock, VirtualClock)
        assert_type(clock.now(), datetime)
        await clock.advance(timedelta(days=1))
