"""`after` and a disk that fails, or is cut off: no held job is lost, run too early or counted twice."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from asyncdefer import (
    Handle,
    JournalError,
    JournalFull,
    Queue,
    QueueClosed,
    current,
    sleep,
)
from asyncdefer.stores._base import Add, Set, Unknown
from asyncdefer.testing import VirtualClock, check_conservation

HOUR = 3_600


def program(store: Any, clock: VirtualClock, ran: list[Any]) -> Queue:
    queue = Queue(store, clock=clock)

    @queue.task("work")
    async def work(text: str, seconds: float = 0) -> str:
        ran.append(text)
        await sleep(seconds)
        return text

    @queue.task("last")
    async def last(text: str) -> list[str]:
        told = [str(state) for state in current().after.values()]
        ran.append((text, *told))
        return told

    return queue


async def held(
    queue: Queue, handles: list[Handle[Any]], text: str = "last", **options: Any
) -> Handle[Any]:
    return await queue.options(after=handles, **options).enqueue(queue.task_of("last"), text)


class Cut:
    """A real store, and a crash right after one of its writes; each of those is one command."""

    def __init__(self, disk: Any, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self._disk = disk
        self._store = disk.store()
        self._left = after
        monkeypatch.setattr("asyncdefer._journal._GROUP", 1)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, owner: Any, commands: Any, *, within: Any = None) -> Any:
        written = await self._store.write(owner, commands, within=within)
        self._left -= 1
        if self._left == 0:
            self._disk.crash()
        return written


@pytest.mark.parametrize("writes", range(4, 16))
@pytest.mark.parametrize("ttl", [0, HOUR])
async def test_a_crash_after_any_write(
    disk: Any, clock: VirtualClock, writes: int, ttl: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An end is not forgotten before all that wait for it know: none is cancelled for nothing.

    Nor is what has ended taken for a call that was replaced, by one that has its key now.
    """
    ran: list[Any] = []
    store = Cut(disk, writes, monkeypatch)

    def after(store: Any) -> Queue:
        queue = program(store, clock, ran)

        @queue.task("repeats")
        async def repeats(n: int) -> None:
            ran.append("repeats")
            queue.enqueue_nowait(queue.task_of("repeats"), 0, key="k", delay=HOUR)

        return queue

    async with after(store) as queue:
        call = queue.options(result_ttl=ttl, delay=1)
        handles: list[Handle[Any]] = [
            await call.enqueue(queue.task_of("work"), "x"),
            await call.enqueue(queue.task_of("work"), "x"),
            await queue.options(result_ttl=ttl, delay=1, key="k").enqueue(
                queue.task_of("repeats"), 0
            ),
        ]
        await held(queue, handles, after_failure="cancel")
        await clock.advance(1)
        assert disk.crashes == 1
    before, told = ran.count("repeats"), ("last", *["succeeded"] * 3)
    assert ran.count(told) == 1
    async with after(disk.store()) as queue:
        await clock.advance(10)
        stats = queue.stats()
        assert stats.cancelled == 0
        assert stats.held == stats.replaced, (
            "the run that was cut off has given way, or nothing waits"
        )
        ended = [job async for job in queue.jobs("succeeded", "last")]
        assert ran.count(told) == 2 or ended or stats.held
        assert ran.count("repeats") - before < 2
        check_conservation(queue)


class Trouble:
    """A real store whose writes fail for a while; `happens`: they are done all the same."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self.error: Exception | None = None
        self.kind: Any = object
        self.happens = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(self, owner: Any, commands: Any, *, within: Any = None) -> Any:
        fails = self.error is not None and any(
            isinstance(c, self.kind) for cs in commands for c in cs
        )
        if not fails or self.happens:
            written = await self._store.write(owner, commands, within=within)
        if fails and self.error is not None:
            raise self.error
        return written


async def test_a_refused_call(disk: Any, clock: VirtualClock) -> None:
    """It was never accepted, and who waits for it is told that it was dropped."""
    ran: list[Any] = []
    store = Trouble(disk.store())
    async with program(store, clock, ran) as queue:
        one = await queue.enqueue(queue.task_of("work"), "one", delay=10)
        store.error, store.kind = JournalFull("no room"), Add
        refused = queue.enqueue_nowait(queue.task_of("work"), "refused")
        for handles in ([one], [refused]):
            with pytest.raises(JournalFull):
                await held(queue, handles, "refused")
        await clock.advance(0)
        store.error = None
        await held(queue, [refused, one])
        await clock.advance(10)
        assert ran == ["one", ("last", "dropped", "succeeded")]
        assert queue.stats().accepted == 2
        check_conservation(queue)


@pytest.mark.parametrize("happens", [False, True])
@pytest.mark.parametrize("delay", [0, 10])
async def test_a_commit_of_which_nobody_knows(
    disk: Any, clock: VirtualClock, happens: bool, delay: float
) -> None:
    """The caller gets an error; if it has happened the job waits and runs, and only then."""
    ran: list[Any] = []
    store = Trouble(disk.store())
    async with program(store, clock, ran) as queue:
        one = await queue.options(result_ttl=0, delay=delay).enqueue(queue.task_of("work"), "one")
        await clock.advance(0)
        store.error, store.happens, store.kind = Unknown("who knows"), happens, Add
        with pytest.raises(JournalError, match="who knows"):
            await held(queue, [one], after_failure="cancel")
        store.error = None
        await clock.advance(0)
        assert queue.stats().held == (happens and delay > 0)
        check_conservation(queue)
        await clock.advance(20)
        check_conservation(queue)
    assert ran == ["one", ("last", "succeeded")][: 1 + happens]


@pytest.mark.parametrize("error", [JournalError("no"), Unknown("who knows")])
@pytest.mark.parametrize("happens", [False, True])
async def test_a_disk_that_fails_at_the_ends(
    disk: Any, clock: VirtualClock, error: Exception, happens: bool
) -> None:
    """It is held until an end can be written, and then runs."""
    ran: list[Any] = []
    store = Trouble(disk.store())
    async with program(store, clock, ran) as queue:
        handles = [await queue.enqueue(queue.task_of("work"), "x", n) for n in (1, 2)]
        one = await held(queue, handles)
        await clock.advance(0)
        store.error, store.kind, store.happens = error, Set, happens
        moving = asyncio.ensure_future(clock.advance(2))
        await asyncio.sleep(0.1)
        assert not one.done()
        store.error = None
        await moving
        await clock.advance(2)
        assert await one == ["succeeded"] * 2
        check_conservation(queue)


async def test_a_row_under_way_at_the_close_of_a_broken_disk(
    disk: Any, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The close ends, and the journal has the job as it was before."""
    monkeypatch.setattr("asyncdefer._queue.CANCEL_GRACE", 0)
    ran: list[Any] = []
    store = Trouble(disk.store())
    async with program(store, clock, ran) as queue:
        handles = [await queue.enqueue(queue.task_of("work"), "x", n) for n in (1, 20)]
        one = await held(queue, handles)
        await clock.advance(0)
        store.error, store.kind = JournalError("no"), Set
        moving = asyncio.ensure_future(clock.advance(1))
        await asyncio.sleep(0.05)
        moving.cancel()
        await asyncio.wait_for(queue.close(), 10)
        with pytest.raises(QueueClosed):
            await one
    async with program(disk.store(), clock, ran) as queue:
        await clock.advance(30)
        assert ran[-1] == ("last", "succeeded", "succeeded")
        check_conservation(queue)


async def test_a_refused_call_that_takes_its_key(disk: Any, clock: VirtualClock) -> None:
    """What waited for the call that comes back waits for it again."""
    ran: list[Any] = []
    store = Trouble(disk.store())
    async with program(store, clock, ran) as queue:
        work = queue.task_of("work")
        old = await queue.enqueue(work, "old", key="k", delay=10)
        await held(queue, [old])
        store.error, store.kind = JournalFull("no room"), Add
        with pytest.raises(JournalFull):
            await queue.enqueue(work, "new", key="k", delay=100)
        store.error = None
        await clock.advance(10)
        assert ran == ["old", ("last", "succeeded")]
        check_conservation(queue)
