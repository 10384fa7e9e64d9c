"""R3: a plain function that blocks delays nobody."""

# These tests block real threads, as the law is about them, but no one sleeps: the functions wait
# for an event that the test sets once it has seen that the others were not held up. Where the law
# is broken they give up after `PATIENCE` seconds, and the test fails.

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import anyio.to_thread
import pytest

import asyncdefer
from asyncdefer import Queue, State
from asyncdefer.testing import virtual

PATIENCE = 5


class Blocker:
    """A plain function that blocks until it is released, and counts who is in it."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.entered = threading.Semaphore(0)

    def __call__(self) -> bool:
        self.entered.release()
        return self.release.wait(PATIENCE)


@pytest.fixture
def blocker() -> Iterator[Blocker]:
    blocker = Blocker()
    yield blocker
    blocker.release.set()


async def entered(blocker: Blocker, times: int = 1) -> None:
    """Let the loop turn until so many are blocked, without a thread of our own for it."""
    async with asyncio.timeout(PATIENCE):
        for _ in range(times):
            while not blocker.entered.acquire(blocking=False):  # noqa: ASYNC110 - set in a thread
                await asyncio.sleep(0)


async def test_coroutines_go_on(blocker: Blocker) -> None:
    """While a plain function blocks, coroutine jobs start, run and end."""
    queue = Queue()

    async def work() -> str:
        await asyncio.sleep(0)
        return "done"

    async with virtual(queue):
        blocked = await queue.enqueue(blocker)
        await entered(blocker)
        async with asyncio.timeout(PATIENCE):
            assert await (await queue.enqueue(work)) == "done"
        assert blocked.state is State.RUNNING
        blocker.release.set()
        assert await blocked is True


async def test_timers_are_on_time(blocker: Blocker) -> None:
    """While a plain function blocks, timers of other jobs start at their etas."""
    queue = Queue()
    started: list[datetime] = []

    async with virtual(queue) as clock:
        base = clock.now()

        async def note() -> None:
            started.append(clock.now())

        blocked = await queue.enqueue(blocker)
        for n in range(1, 6):
            await queue.enqueue(note, delay=n)
        await entered(blocker)
        await clock.advance(10, patience=0)  # does not wait for the one that blocks
        assert started == [base + timedelta(seconds=n) for n in range(1, 6)]
        assert blocked.state is State.RUNNING
        blocker.release.set()
        assert await blocked is True


async def test_plain_functions_do_not_wait_for_each_other() -> None:
    """Plain functions run side by side, as many as there are threads."""
    queue = Queue(threads=20)
    meeting = threading.Barrier(20)

    def meet() -> None:
        meeting.wait(PATIENCE)  # passes only when twenty are in it at once

    async with virtual(queue):
        handles = [await queue.enqueue(meet) for _ in range(20)]
        async with asyncio.timeout(PATIENCE * 2):
            await asyncio.gather(*handles)


async def test_more_blocked_than_threads(blocker: Blocker) -> None:
    """When every thread is blocked, coroutine jobs still run; the plain ones wait their turn."""
    queue = Queue(threads=2)

    async def work() -> str:
        return "done"

    async with virtual(queue):
        blocked = [await queue.enqueue(blocker) for _ in range(5)]
        await entered(blocker, times=2)
        async with asyncio.timeout(PATIENCE):
            assert await (await queue.enqueue(work)) == "done"
        assert not blocker.entered.acquire(blocking=False), "only two threads were allowed"
        blocker.release.set()
        async with asyncio.timeout(PATIENCE):
            assert await asyncio.gather(*blocked) == [True] * 5


@pytest.mark.parametrize("lender", ["asyncio", "anyio"])
async def test_the_programs_own_threads_are_left_alone(blocker: Blocker, lender: str) -> None:
    """Blocked jobs use up neither asyncio's nor anyio's default threads."""
    queue = Queue(threads=60)

    async with virtual(queue):
        blocked = [await queue.enqueue(blocker) for _ in range(60)]
        await entered(blocker, times=60)
        async with asyncio.timeout(PATIENCE):
            if lender == "asyncio":
                assert await asyncio.to_thread(lambda: "own") == "own"
            else:
                assert await anyio.to_thread.run_sync(lambda: "own") == "own"
        blocker.release.set()
        assert await asyncio.gather(*blocked) == [True] * 60


async def test_every_kind_of_plain_callable_goes_to_a_thread() -> None:
    """Functions, methods, lambdas, builtins and callable objects all run outside the loop."""
    queue = Queue()
    main = threading.get_ident()

    class Objects:
        def method(self) -> int:
            return threading.get_ident()

        @classmethod
        def of_class(cls) -> int:
            return threading.get_ident()

        @staticmethod
        def static() -> int:
            return threading.get_ident()

        def __call__(self) -> int:
            return threading.get_ident()

    objects = Objects()
    callables = [
        lambda word="": threading.get_ident(),
        threading.get_ident,
        objects.method,
        Objects.of_class,
        Objects.static,
        objects,
    ]
    async with virtual(queue):
        for fn in callables:
            handle = await queue.enqueue(fn)
            async with asyncio.timeout(PATIENCE):
                assert await handle != main


async def test_the_loop_does_not_stall() -> None:
    """While functions sleep on the real clock the loop keeps turning."""
    # Real time on purpose, and short: what a blocked loop is can only be seen by its gaps.
    queue = Queue()
    async with queue:
        handles = [await queue.enqueue(time.sleep, 0.2) for _ in range(4)]
        gap, last = 0.0, time.perf_counter()
        while not all(handle.done() for handle in handles):
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gap, last = max(gap, now - last), now
        assert gap < 0.15


async def test_a_coroutine_may_hand_on_to_a_thread(blocker: Blocker) -> None:
    """A coroutine job that waits for a thread of its own delays no other job."""
    queue = Queue()

    async def hands_on() -> bool:
        return await asyncio.to_thread(blocker)

    async def work() -> str:
        await asyncdefer.sleep(0)
        return "done"

    async with virtual(queue):
        blocked = await queue.enqueue(hands_on)
        await entered(blocker)
        async with asyncio.timeout(PATIENCE):
            assert await (await queue.enqueue(work)) == "done"
        blocker.release.set()
        assert await blocked is True
