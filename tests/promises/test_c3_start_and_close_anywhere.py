"""C3: start and close may happen in different tasks, and again, in another event loop too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import asyncdefer
from asyncdefer import NotStarted, Queue, QueueClosed, State
from asyncdefer.testing import VirtualClock

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop] | None] = {"asyncio": None}
try:
    import uvloop
except ImportError:
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


async def work(n: int) -> int:
    await asyncdefer.sleep(1)
    return 2 * n


async def starts(queue: Queue) -> None:
    await queue.start()


async def closes(queue: Queue) -> None:
    await queue.close()


async def test_start_in_one_task_close_in_another() -> None:
    """A queue started by a task that has ended runs on, and another task closes it."""
    clock = VirtualClock()
    queue = Queue(clock=clock)
    await asyncio.create_task(starts(queue))
    handle = await queue.enqueue(work, 21)
    await clock.advance(5)
    assert handle.done()
    assert await handle == 42
    async with asyncio.timeout(5):
        await asyncio.create_task(closes(queue))
    with pytest.raises(QueueClosed):
        await queue.enqueue(work, 1)


async def test_start_and_close_in_task_groups_that_have_ended() -> None:
    """Neither anyio's nor asyncio's task groups and scopes of the starter hold the queue."""
    clock = VirtualClock()
    queue = Queue(clock=clock)
    async with anyio.create_task_group() as group:
        group.start_soon(starts, queue)
    handle = await queue.enqueue(work, 21)
    await clock.advance(5)
    assert await handle == 42
    async with asyncio.timeout(5):
        async with asyncio.TaskGroup() as other:
            other.create_task(closes(queue))


async def test_the_end_of_the_starter_is_not_the_end_of_the_queue() -> None:
    """When the scope or the task that started the queue is cancelled the queue goes on."""
    clock = VirtualClock()
    queue = Queue(clock=clock)

    async def starter() -> None:
        await queue.start()
        await asyncio.Event().wait()

    async with anyio.create_task_group() as group:
        group.start_soon(starter)
        for _ in range(10):
            await asyncio.sleep(0)
        before = await queue.enqueue(work, 1)
        group.cancel_scope.cancel()
    after = await queue.enqueue(work, 2)
    await clock.advance(5)
    assert (before.state, after.state) == (State.SUCCEEDED, State.SUCCEEDED)
    await queue.close()


async def test_a_task_group_of_the_program_is_not_the_jobs_scope() -> None:
    """A job enqueued inside a scope that is cancelled later runs undisturbed."""
    clock = VirtualClock()
    queue = Queue(clock=clock)
    async with queue:
        with anyio.CancelScope() as scope:
            await queue.close()
            await queue.start()
            running = await queue.enqueue(work, 1)
            waiting = await queue.enqueue(work, 2, delay=3)
            await clock.advance(0)
            scope.cancel()
            await asyncio.sleep(0)
        assert running.state is State.RUNNING
        await clock.advance(10)
        assert (await running, await waiting) == (2, 4)


async def test_again_in_the_same_loop() -> None:
    """A closed queue may be started again, many times; each time it is fresh."""
    clock = VirtualClock()
    queue = Queue(clock=clock, drain_timeout=0)
    for n in range(5):
        async with queue:
            handle = await queue.enqueue(work, n)
            left_waiting = await queue.enqueue(work, n, key="k", delay=3600)
            left_running = await queue.enqueue(work, n, delay=4)
            await clock.advance(4.5)
            assert await handle == 2 * n
            assert not left_waiting.replaced
            assert queue.stats().waiting == 1
        with pytest.raises(QueueClosed):
            await left_waiting
        with pytest.raises(QueueClosed):
            await left_running


async def test_no_id_comes_twice() -> None:
    """Also when the queue was closed and started at one and the same moment."""
    queue = Queue(clock=VirtualClock())
    ids: list[str] = []
    for _ in range(3):
        async with queue:
            ids += [(await queue.enqueue(work, n, delay=5)).id for n in range(3)]
    assert sorted(set(ids)) == ids


@pytest.mark.parametrize("second", LOOPS)
@pytest.mark.parametrize("first", LOOPS)
def test_again_in_a_second_loop(first: str, second: str) -> None:
    """A closed queue, with its tasks, runs in a second event loop as in the first."""
    clock = VirtualClock()
    queue = Queue(clock=clock, drain_timeout=0)

    @queue.task(delay=5, defer=True)
    async def double(n: int) -> int:
        return 2 * n

    def plain(n: int) -> int:
        return 3 * n

    async def program(n: int) -> list[Any]:
        async with queue:
            in_thread = await queue.enqueue(plain, n)
            delayed = await double.enqueue(n)
            again = await double.enqueue(n)
            from_thread = await asyncio.to_thread(queue.enqueue_from_thread, work, n)
            await queue.enqueue(work, n, key="left behind", delay=3600)
            await clock.advance(10)
            assert delayed.replaced
            async with asyncio.timeout(5):
                handles = (in_thread, delayed, again, from_thread)
                return [await handle for handle in handles]

    for n, loop in ((1, first), (2, second)):
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            assert runner.run(program(n)) == [3 * n, 2 * n, 2 * n, 2 * n]


def test_again_on_the_system_clock() -> None:
    """The second loop has its own timers: nothing of the first is left in the clock."""
    # Real time on purpose, a few hundredths of a second: what the system clock arms is the loop's.
    queue = Queue()

    async def program() -> str:
        async with queue:
            await queue.enqueue(work, 1, delay=3600)

            async def note() -> str:
                return "on time"

            async with asyncio.timeout(2):
                return await (await queue.enqueue(note, delay=0.02))

    assert [asyncio.run(program()) for _ in range(3)] == ["on time"] * 3


async def test_a_started_queue_is_not_started_again(queue: Queue, clock: VirtualClock) -> None:
    """Starting a started queue is a `RuntimeError` and does not disturb it."""
    handle = await queue.enqueue(work, 21)
    with pytest.raises(RuntimeError):
        await queue.start()
    with pytest.raises(RuntimeError):
        async with queue:
            pass
    await clock.advance(5)
    assert handle.done()
    assert await handle == 42


async def test_two_starts_at_once() -> None:
    """Of two tasks that start a queue at the same time one succeeds; the queue works."""
    clock = VirtualClock()
    queue = Queue(clock=clock)
    results = await asyncio.gather(starts(queue), starts(queue), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["NoneType", "RuntimeError"]
    handle = await queue.enqueue(work, 21)
    await clock.advance(5)
    assert await handle == 42
    await queue.close()


async def test_before_the_first_start() -> None:
    """Before it is started a queue accepts nothing and says `NotStarted`."""
    queue = Queue()
    with pytest.raises(NotStarted):
        await queue.enqueue(work, 1)
    with pytest.raises(NotStarted):
        queue.enqueue_nowait(work, 1)
