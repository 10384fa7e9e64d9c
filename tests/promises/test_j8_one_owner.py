"""J8. One owner: a second queue is refused, or stands by until the first one lets go."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import Every, JournalLocked, MemoryStore, Queue, QueueClosed, State
from asyncdefer.testing import VirtualClock, check_conservation


def program(path: Path, clock: VirtualClock, ran: list[Any], **options: Any) -> Queue:
    queue = Queue(path, clock=clock, **options)

    @queue.task("note")
    async def note(text: str) -> str:
        ran.append(text)
        return text

    return queue


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "timers.db"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever stands by looks often: this is real time, since the lock is another process's."""
    monkeypatch.setattr("asyncdefer._opening.POLL", 0.01)


async def test_a_second_queue_is_told_who_has_it(path: Path, clock: VirtualClock) -> None:
    """The error names the process, and the second queue can be started when the first has closed."""
    second = program(path, clock, [])
    async with program(path, clock, []):
        with pytest.raises(JournalLocked, match=str(os.getpid())) as caught:
            await second.start()
        assert caught.value.pid == os.getpid()
        assert caught.value.since is not None
    async with second:
        await (await second.enqueue(second.task_of("note"), "a"))


async def test_standby_takes_over(path: Path, clock: VirtualClock) -> None:
    """It refuses calls until the owner is gone, and then runs what that left."""
    ran: list[str] = []
    second = program(path, clock, ran, on_locked="standby")
    async with program(path, clock, ran) as first:
        await first.enqueue(first.task_of("note"), "left", delay=60)
        await second.start()
        assert second.standby
        with pytest.raises(JournalLocked):
            await second.enqueue(second.task_of("note"), "refused")
        assert second.standby
    await asyncio.wait_for(second.ready(), 20)
    assert not second.standby
    await second.enqueue(second.task_of("note"), "own", delay=30)
    await clock.advance(60)
    assert ran == ["own", "left"]
    check_conservation(second)
    await second.close()


async def test_a_close_in_standby(path: Path, clock: VirtualClock) -> None:
    """It ends at once, and the owner never notices."""
    second = program(path, clock, [], on_locked="standby")
    async with program(path, clock, []) as first:
        async with second:
            assert second.standby
        assert not second.standby
        await (await first.enqueue(first.task_of("note"), "a"))
    async with second:
        assert not second.standby


async def test_standby_that_finds_it_free(path: Path, clock: VirtualClock) -> None:
    """It is the owner at once."""
    async with program(path, clock, [], on_locked="standby") as queue:
        assert not queue.standby
        await queue.ready()


async def test_a_schedule_begins_when_it_owns_the_journal(path: Path, clock: VirtualClock) -> None:
    """Not before."""
    ran: list[str] = []
    second = program(path, clock, ran, on_locked="standby")

    @second.task("tick", repeat=Every(60))
    async def tick() -> None:
        ran.append("tick")

    async with program(path, clock, ran):
        await second.start()
        await clock.advance(300)
        assert ran == []
    await asyncio.wait_for(second.ready(), 20)
    await clock.advance(60)
    assert ran == ["tick"]
    await second.close()


async def test_the_same_queue_again(path: Path, clock: VirtualClock) -> None:
    """A queue that was closed owns its journal again when it is started again."""
    ran: list[str] = []
    queue = program(path, clock, ran)
    for turn in range(3):
        async with queue:
            await queue.enqueue(queue.task_of("note"), str(turn), delay=60)
    async with queue:
        await clock.advance(60)
    assert ran == ["0", "1", "2"]


@pytest.mark.parametrize("value", ["wait", "", None, True])
def test_on_locked_is_one_of_two(value: Any, path: Path) -> None:
    """Anything else is refused at once."""
    with pytest.raises(ValueError, match="standby"):
        Queue(path, on_locked=value)


@pytest.mark.parametrize("value", [1, object(), b"timers.db", Queue])
def test_a_journal_is_a_path_or_a_store(value: Any) -> None:
    """Anything else is refused at once."""
    with pytest.raises(TypeError, match="journal"):
        Queue(value)


async def test_two_queues_on_one_memory_store(clock: VirtualClock) -> None:
    """A store that lets several owners in has each run its own."""
    store, ran = MemoryStore(), list[str]()
    one, two = Queue(store, clock=clock), Queue(store, clock=clock)
    for name, queue in (("one", one), ("two", two)):

        @queue.task("note")
        async def note(text: str, name: str = name) -> None:
            ran.append(f"{name} {text}")

    async with one, two:
        await one.enqueue(one.task_of("note"), "a", delay=60)
        await two.enqueue(two.task_of("note"), "b", delay=60)
        await clock.advance(60)
        states = [job.state async for job in one.jobs()]
    assert sorted(ran) == ["one a", "two b"]
    assert states == [State.SUCCEEDED] * 2


async def test_a_task_that_is_registered_in_standby(path: Path, clock: VirtualClock) -> None:
    """Its schedule begins when the queue owns the journal."""
    ran: list[str] = []
    second = program(path, clock, ran, on_locked="standby")
    async with program(path, clock, ran):
        await second.start()

        @second.task("tick", repeat=Every(60))
        async def tick() -> None:
            ran.append("tick")

        await clock.advance(300)
        assert ran == []
    await asyncio.wait_for(second.ready(), 20)
    await clock.advance(60)
    assert ran == ["tick"]
    await second.close()


def spoil(path: Path) -> None:
    path.rename(path.with_suffix(".aside"))
    path.mkdir()


def mend(path: Path) -> None:
    path.rmdir()
    path.with_suffix(".aside").rename(path)


async def test_a_takeover_that_fails_is_tried_again(path: Path, clock: VirtualClock) -> None:
    """Each failure is told, and when the cause is gone the queue owns its journal."""
    failed = asyncio.Event()
    second = program(path, clock, [], on_locked="standby")
    second.subscribe(lambda event: failed.set() if event.name == "journal_failed" else None)
    first = program(path, clock, [])
    await first.start()
    await second.start()
    spoil(path)  # under the owner, which can only close
    await first.close()
    await asyncio.wait_for(failed.wait(), 20)
    assert second.standby
    mend(path)
    await asyncio.wait_for(second.ready(), 20)
    await (await second.enqueue(second.task_of("note"), "a"))
    await second.close()


async def test_a_close_while_somebody_waits_to_be_ready(path: Path, clock: VirtualClock) -> None:
    """They are told that the queue was closed, and not cancelled themselves."""
    second = program(path, clock, [], on_locked="standby")
    async with program(path, clock, []):
        await second.start()
        waiter = asyncio.ensure_future(second.ready())
        await asyncio.sleep(0)
        await second.close()
        with pytest.raises(QueueClosed):
            await waiter
        with pytest.raises(QueueClosed):
            await second.ready()
