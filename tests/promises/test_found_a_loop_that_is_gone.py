"""C3: a queue whose event loop has ended without a close can be used again, in another loop."""

import asyncio
import threading
from typing import Any

import pytest

from asyncdefer import Queue, current
from asyncdefer.stores._file import File
from asyncdefer.testing import VirtualClock


def program(journal: Any) -> tuple[Queue, list[tuple[str, int]]]:
    queue, ran = Queue(journal), list[tuple[str, int]]()

    @queue.task("note")
    async def note(word: str) -> None:
        ran.append((word, current().attempt))
        if word == "long" and current().attempt == 1:
            await asyncio.Event().wait()

    return queue, ran


async def leave_it(queue: Queue) -> None:
    await queue.start()
    note = queue.task_of("note")
    begun = asyncio.Event()
    queue.subscribe(lambda event: begun.set() if event.name == "job_started" else None)
    await queue.options(delay=60).enqueue(note, "later")
    await queue.enqueue(note, "long")
    await begun.wait()
    assert queue._scheduler is not None
    await queue._scheduler.recorded()
    for _ in range(3):  # the journal has the start, and the function begins
        await asyncio.sleep(0)


@pytest.mark.parametrize("torn_down", [True, False])
def test_what_it_left_is_as_after_a_crash(disk: Any, torn_down: bool) -> None:
    """J2: what waited waits, and what ran runs again; nothing is left of the former loop."""
    queue, ran = program(disk.store())
    threads = threading.active_count()
    if torn_down:
        asyncio.run(leave_it(queue))
    else:  # nobody is told that it ends
        loop = asyncio.new_event_loop()
        loop.run_until_complete(leave_it(queue))
        loop.close()

    async def again() -> None:
        async with queue:
            assert queue.stats().claimed == 2
            await queue.join()
            assert queue.stats().waiting == 1

    asyncio.run(asyncio.wait_for(again(), 20))
    assert ran == [("long", 1), ("long", 2)]
    assert threading.active_count() == threads


def test_it_can_be_closed_from_the_next_loop(disk: Any) -> None:
    """C1: then another queue may have the journal."""
    queue, _ = program(disk.store())
    asyncio.run(leave_it(queue))
    asyncio.run(queue.close())

    async def other() -> None:
        async with program(disk.store())[0] as second:
            assert second.stats().claimed == 2

    asyncio.run(other())


def test_in_memory() -> None:
    """What was in the memory of the former loop is gone, and its clock goes on without it."""
    clock = VirtualClock()
    queue, ran = program(None)
    queue.configure(clock=clock)

    async def again() -> None:
        async with queue:
            assert queue.stats().waiting == 0
            await queue.enqueue(queue.task_of("note"), "new", delay=60)
            clock.step(3600)
            await clock.advance(100)

    asyncio.run(leave_it(queue))
    asyncio.run(again())
    assert ran == [("long", 1), ("new", 1)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_write_under_way(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that has nobody to answer to dies of it; the journal is free all the same."""
    write = File.write

    begun, gone = threading.Event(), threading.Event()

    def slow(file: File, commands: Any) -> Any:
        begun.set()
        gone.wait(20)
        return write(file, commands)

    queue, ran = program(tmp_path / "timers.db")

    async def leave() -> None:
        await queue.start()
        monkeypatch.setattr(File, "write", slow)
        queue.enqueue_nowait(queue.task_of("note"), "under way")
        assert await asyncio.to_thread(begun.wait, 20)

    async def again() -> None:
        async with queue:
            await queue.enqueue(queue.task_of("note"), "new")
            await queue.join()

    asyncio.run(leave())
    gone.set()
    asyncio.run(asyncio.wait_for(again(), 20))
    assert ("new", 1) in ran
