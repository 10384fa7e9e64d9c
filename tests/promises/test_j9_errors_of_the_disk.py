"""J9. What the disk refuses is an error at the call, never a false acknowledgement, and the program lives."""

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from asyncdefer import JournalError, JournalFull, Queue, QueueClosed, State, current, sleep
from asyncdefer.stores._base import Add, Command, Owner, Unknown, Written
from asyncdefer.testing import VirtualClock, check_conservation


class Trouble:
    """A real store whose writes fail for a while: `trouble(commands)` says with what.

    `happens`: the write is done all the same, as a commit that fails may be.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self.trouble: Any = lambda _: None
        self.happens = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        error = self.trouble(commands)
        if error is None or self.happens:
            written: Written = await self._store.write(owner, commands, within=within)
        if error is not None:
            raise error
        return written


def adds(commands: Sequence[Command]) -> bool:
    return any(isinstance(change, Add) for command in commands for change in command)


@pytest.fixture
def store(disk: Any) -> Trouble:
    return Trouble(disk.store())


def program(store: Any, clock: VirtualClock, ran: list[Any]) -> Queue:
    queue = Queue(store, clock=clock)

    @queue.task("plain")
    async def plain(text: str) -> str:
        ran.append((text, current().attempt))
        return text

    @queue.task("note", defer=["name"], delay=60)
    async def note(name: str, text: str) -> str:
        ran.append((text, current().calls))
        return text

    @queue.task("slow")
    async def slow() -> None:
        ran.append(current().attempt)
        await sleep(1)

    return queue


async def test_a_full_disk(store: Trouble, clock: VirtualClock) -> None:
    """A call is refused, what was accepted is run, and calls are accepted again when there is room."""
    ran: list[Any] = []
    async with program(store, clock, ran) as queue:
        plain = queue.task_of("plain")
        before = await queue.enqueue(plain, "before", delay=60)
        store.trouble = lambda commands: JournalFull("no room") if adds(commands) else None
        with pytest.raises(JournalFull):
            await queue.enqueue(plain, "refused")
        refused = queue.enqueue_nowait(plain, "refused too", delay=1)
        with pytest.raises(JournalFull):
            await refused.accepted()
        with pytest.raises(JournalFull):
            await refused
        assert refused.state is State.DROPPED
        await clock.advance(60)
        assert await before == "before"
        store.trouble = lambda _: None
        assert await (await queue.enqueue(plain, "after")) == "after"
        check_conservation(queue)
        assert queue.stats().accepted == 2
    assert ran == [("before", 1), ("after", 1)]


@pytest.mark.parametrize("delays", [[0], [30], [30, 30], [0, 0, 30], [30, 1_000, 0]])
async def test_calls_of_a_key_are_refused(
    store: Trouble, clock: VirtualClock, delays: list[float]
) -> None:
    """Near, far, or about to start when the disk was full: what they had replaced runs."""
    ran: list[Any] = []
    async with program(store, clock, ran) as queue:
        note = queue.task_of("note")
        old = await queue.enqueue(note, "key", "old")
        store.trouble = lambda commands: JournalFull("no room") if adds(commands) else None
        for delay in delays:
            with pytest.raises(JournalFull):
                await queue.options(delay=delay).enqueue(note, "key", "refused")
        store.trouble = lambda _: None
        await clock.advance(59)
        assert ran == []
        await clock.advance(1)
        assert await old == "old"
        check_conservation(queue)
        assert queue.stats().accepted == 1
        assert [text for text, _ in ran] == ["old"]


async def test_one_bad_call_fails_by_itself(store: Trouble, clock: VirtualClock) -> None:
    """Those that were to be written in the same group are."""

    def trouble(commands: Sequence[Command]) -> JournalError | None:
        texts = [c.row.arguments for command in commands for c in command if isinstance(c, Add)]
        return JournalError("a bad row") if any('"bad"' in text for text in texts) else None

    ran: list[Any] = []
    async with program(store, clock, ran) as queue:
        store.trouble = trouble
        plain = queue.task_of("plain")
        names = ["a", "bad", "b", "c"]
        calls = [queue.enqueue(plain, name) for name in names]
        found = await asyncio.gather(*calls, return_exceptions=True)
        assert [isinstance(one, JournalError) for one in found] == [False, True, False, False]
        await clock.advance(0)
        check_conservation(queue)
    assert [name for name, _ in ran] == ["a", "b", "c"]


async def test_what_a_refused_call_replaced_comes_back(store: Trouble, clock: VirtualClock) -> None:
    """The older call is still in the journal: its waiters, and those of the refused one, get its result."""
    ran: list[Any] = []
    async with program(store, clock, ran) as queue:
        note = queue.task_of("note")
        old = await queue.enqueue(note, "k", "old")
        waiter = asyncio.ensure_future(old.result())
        await asyncio.sleep(0)
        store.trouble = lambda commands: JournalFull("no room") if adds(commands) else None
        with pytest.raises(JournalFull):
            await queue.enqueue(note, "k", "new")
        await clock.advance(0)
        assert old.state is State.SCHEDULED
        await clock.advance(60)
        assert await waiter == "old"
        check_conservation(queue)
    assert [text for text, _ in ran] == ["old"]


@pytest.mark.parametrize("delay", [60, 86_400])
async def test_an_older_call_that_is_only_a_row(
    disk: Any, clock: VirtualClock, delay: float
) -> None:
    """The same if the older one came from another process, or is far."""
    ran: list[Any] = []
    async with program(disk.store(), clock, ran) as first:
        await first.options(delay=delay).enqueue(first.task_of("note"), "k", "old")
    store = Trouble(disk.store())
    async with program(store, clock, ran) as queue:
        store.trouble = lambda commands: JournalFull("no room") if adds(commands) else None
        with pytest.raises(JournalFull):
            await queue.enqueue(queue.task_of("note"), "k", "new")
        store.trouble = lambda _: None
        await clock.advance(delay)
        check_conservation(queue)
    assert [text for text, _ in ran] == ["old"]


@pytest.mark.parametrize("happens", [False, True])
@pytest.mark.parametrize("name", ["plain", "note"])
async def test_a_commit_that_failed_is_no_acknowledgement(
    store: Trouble, disk: Any, clock: VirtualClock, name: str, happens: bool
) -> None:
    """It may have happened: then the job runs, once, though its caller got an error."""
    ran: list[Any] = []
    args = ("k", "new")[-1 if name == "plain" else 0 :]
    async with program(store, clock, ran) as queue:
        store.trouble, store.happens = lambda _: Unknown("who knows"), happens
        call = asyncio.ensure_future(queue.options(delay=60).enqueue(queue.task_of(name), *args))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        with pytest.raises(JournalError, match="who knows"):
            await call
        store.trouble = lambda _: None
        await clock.advance(61)
        check_conservation(queue)
        assert len(ran) == happens
    async with program(disk.store(), clock, ran) as queue:
        await clock.advance(61)
    assert len(ran) == happens


@pytest.mark.parametrize("happens", [False, True])
@pytest.mark.parametrize("error", [JournalError, Unknown])
@pytest.mark.parametrize("failures", [1, 5])
async def test_starts_and_ends_are_written_when_it_can_be_done(
    store: Trouble, disk: Any, clock: VirtualClock, error: Any, happens: bool, failures: int
) -> None:
    """A write that fails is tried again; the job runs once, and its waiter gets the result."""
    if happens and error is not Unknown:
        return
    left: list[int] = []

    def trouble(_: object) -> Any:
        return error("not now") if left and left.pop() else None

    ran: list[Any] = []
    async with program(store, clock, ran) as queue:
        handles = [await queue.enqueue(queue.task_of("plain"), str(n), delay=60) for n in range(3)]
        store.trouble, store.happens = trouble, happens
        left += [1] * failures
        await clock.advance(60)
        left += [1] * failures
        assert [await handle for handle in handles] == ["0", "1", "2"]
        check_conservation(queue)
    assert ran == [("0", 1), ("1", 1), ("2", 1)]
    async with program(disk.store(), clock, ran) as queue:
        await clock.advance(61)
        assert [job.state async for job in queue.jobs()] == [State.SUCCEEDED] * 3
    assert len(ran) == 3


async def test_an_outcome_that_cannot_be_written_is_shown_to_nobody(
    store: Trouble, disk: Any, clock: VirtualClock
) -> None:
    """A waiter is settled by the close, and the job runs again at the next start."""
    ran: list[Any] = []
    async with program(store, clock, ran) as queue:
        handle = await queue.enqueue(queue.task_of("slow"))
        await clock.advance(0)  # it runs, and waits for the clock
        store.trouble = lambda _: JournalError("broken")
        waiter = asyncio.ensure_future(handle.result())
        await clock.advance(1, patience=0)
    with pytest.raises(QueueClosed, match="recorded"):
        await waiter
    async with program(disk.store(), clock, ran):
        await clock.advance(1)
    assert ran == [1, 2]


async def test_a_cancelled_caller_leaves_a_whole_call(store: Trouble, clock: VirtualClock) -> None:
    """Whoever is cancelled while it waits for the commit finds the job accepted."""
    ran: list[Any] = []
    async with program(store, clock, ran) as queue:
        for turns in range(12):
            call = asyncio.ensure_future(queue.enqueue(queue.task_of("plain"), str(turns)))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
        await clock.advance(0)
        check_conservation(queue)
        accepted = queue.stats().accepted
    assert len(ran) == accepted >= 11
