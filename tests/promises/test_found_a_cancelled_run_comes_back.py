"""Bugs that kills at random moments have found, by their smallest programs."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from asyncdefer import JobCancelled, Queue, State, current, sleep
from asyncdefer.testing import VirtualClock
from tests.promises.conftest import Disk


async def test_a_run_that_was_cancelled_does_not_come_back(
    defer_clock: VirtualClock, tmp_path: Path
) -> None:
    """J4: `cancel()` has returned True ("what was done is safe when the caller is told"), then kill -9.

    `cancel()` of a run cancels its task and writes nothing: the journal hears of it when the run
    has ended. A run that takes a while to put things in order, and whose process dies in that
    while, runs again from its beginning after the restart.
    """
    disk = Disk("sqlite", tmp_path)
    starts: list[int] = []
    started, over = asyncio.Event(), asyncio.Event()

    def program() -> Queue:
        queue = Queue(disk.store(), clock=defer_clock, drain_timeout=0)

        @queue.task("job")
        async def job() -> None:
            starts.append(current().attempt)
            started.set()
            try:
                await sleep(3_600)
            finally:
                await over.wait()  # it puts things in order

        return queue

    async with program() as queue:
        handle = await queue.enqueue(queue.task_of("job"))
        await started.wait()
        assert await handle.cancel()
        assert handle.state is State.RUNNING
        disk.crash()
        over.set()
    async with program() as queue:
        await defer_clock.advance(1)
        assert starts == [1], "the job whose cancel was acknowledged has started again"


@pytest.mark.parametrize("obeys", [True, False])
async def test_a_run_that_is_cancelled_while_the_queue_closes(
    disk: Disk, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    """J4: it does not come back, though the close had told it to stop before, and whether it obeys or not."""
    monkeypatch.setattr("asyncdefer._queue.CANCEL_GRACE", 5 if obeys else 0.2)  # real time
    starts: list[int] = []
    started, stopped, over = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def program() -> Queue:
        queue = Queue(disk.store(), clock=clock, drain_timeout=0)

        @queue.task("job")
        async def job() -> None:
            starts.append(current().attempt)
            started.set()
            try:
                await sleep(3_600)
            finally:
                stopped.set()
                while not over.is_set():
                    with suppress(asyncio.CancelledError):
                        await over.wait()

        return queue

    queue = program()
    await queue.start()
    handle = await queue.enqueue(queue.task_of("job"))
    await started.wait()
    closing = asyncio.create_task(queue.close())
    await stopped.wait()
    assert await handle.cancel()
    if obeys:
        over.set()
    await closing
    over.set()
    with pytest.raises(JobCancelled):
        await handle
    disk.crash()
    async with program():
        await clock.advance(1)
    assert starts == [1]
