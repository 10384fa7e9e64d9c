"""R8: a run that awaits its own key is told so; jobs that starve each other are logged."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Handle, Queue, State
from asyncdefer.testing import VirtualClock, virtual

STARVED = "asyncdefer.starved"


def starved(caplog: pytest.LogCaptureFixture) -> int:
    return sum(STARVED in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("key", ["k", None])
async def test_a_run_cannot_await_itself(
    queue: Queue, clock: VirtualClock, key: str | None
) -> None:
    """A job that awaits its own handle gets a `RuntimeError`, and may go on."""
    own: list[Handle[Any]] = []

    async def job() -> str:
        with pytest.raises(RuntimeError):
            await own[0]
        return "went on"

    own.append(await queue.enqueue(job, key=key, delay=1))
    await clock.advance(1)
    assert own[0].done()
    assert await own[0] == "went on"


async def test_a_run_cannot_await_the_next_of_its_key(queue: Queue, clock: VirtualClock) -> None:
    """The next call of a key waits for the run: to await it there is a `RuntimeError` too."""
    words: list[str] = []

    async def job(word: str) -> None:
        words.append(word)
        if word == "first":
            after = await queue.enqueue(job, "second", key="k")
            with pytest.raises(RuntimeError):
                await after

    handle = await queue.enqueue(job, "first", key="k")
    await clock.advance(1)
    await clock.advance(1)
    assert handle.state is State.SUCCEEDED
    assert words == ["first", "second"]


async def test_result_is_a_wait_too(queue: Queue, clock: VirtualClock) -> None:
    """`handle.result()` inside the own run is refused as `await handle` is."""
    own: list[Handle[Any]] = []

    async def job() -> str:
        with pytest.raises(RuntimeError):
            await own[0].result()
        return "went on"

    own.append(await queue.enqueue(job, key="k", delay=1))
    await clock.advance(1)
    assert own[0].done()
    assert await own[0] == "went on"


async def test_a_child_task_of_the_run_is_inside_it(queue: Queue, clock: VirtualClock) -> None:
    """A task that the job started and waits for cannot await the job's own key either."""
    own: list[Handle[Any]] = []

    async def wait() -> None:
        await own[0]

    async def job() -> str:
        with pytest.raises(RuntimeError):
            await asyncio.create_task(wait())
        with pytest.raises(RuntimeError):
            await asyncio.gather(wait())
        return "went on"

    own.append(await queue.enqueue(job, key="k", delay=1))
    await clock.advance(1)
    assert own[0].done()
    assert await own[0] == "went on"


async def test_a_task_that_outlived_the_run_is_outside_it(
    queue: Queue, clock: VirtualClock
) -> None:
    """A task that the job left behind may await the key's next job, once the run has ended."""
    ended = asyncio.Event()
    left_behind: list[asyncio.Task[str]] = []

    async def later() -> str:
        await ended.wait()
        return await (await queue.enqueue(job, "second", key="k", delay=1))

    async def job(word: str) -> str:
        if word == "first":
            left_behind.append(asyncio.create_task(later()))
        return word

    handle = await queue.enqueue(job, "first", key="k")
    await clock.advance(1)
    assert handle.state is State.SUCCEEDED
    ended.set()
    await clock.advance(10)
    async with asyncio.timeout(5):
        assert await left_behind[0] == "second"


async def test_an_uncaught_one_is_the_jobs_failure(queue: Queue, clock: VirtualClock) -> None:
    """The `RuntimeError` of such a wait reaches the other waiters like any failure."""
    own: list[Handle[Any]] = []

    async def job() -> None:
        await own[0]

    own.append(await queue.enqueue(job, key="k", delay=1))
    await clock.advance(1)
    assert own[0].state is State.FAILED
    with pytest.raises(RuntimeError):
        await own[0]


async def test_other_keys_may_be_awaited(queue: Queue, clock: VirtualClock) -> None:
    """A run may await every other job, also one that it enqueued itself, and its children."""

    async def leaf(n: int) -> int:
        await asyncdefer.sleep(1)
        return n

    async def job() -> int:
        child = await queue.enqueue(leaf, 20, key="child")
        return await child + await (await queue.enqueue(leaf, 22))

    handle = await queue.enqueue(job, key="k")
    await clock.advance(10)
    assert handle.done()
    assert await handle == 42


async def test_an_equal_key_of_another_task_may_be_awaited(
    queue: Queue, clock: VirtualClock
) -> None:
    """Keys belong to their task: the same word for another function is another key."""

    async def leaf() -> str:
        return "leaf"

    async def job() -> str:
        return await (await queue.enqueue(leaf, key="k"))

    handle = await queue.enqueue(job, key="k")
    await clock.advance(1)
    assert handle.done()
    assert await handle == "leaf"


async def test_starving_jobs_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    """When every slot awaits a job that is due, and so none can start, that is logged."""
    caplog.set_level(logging.DEBUG, logger="asyncdefer")
    queue = Queue(concurrency=2)

    async def leaf() -> str:
        return "leaf"

    async def parent() -> str:
        return await (await queue.enqueue(leaf))

    async with virtual(queue) as clock:
        first = await queue.enqueue(parent)
        second = await queue.enqueue(parent)
        await clock.advance(10)
        assert not first.done()
        assert not second.done()
        assert starved(caplog) == 1
        assert await first.cancel() is True
        await clock.advance(10)
        assert second.done(), "one slot is enough to come free"
        assert await second == "leaf"


async def test_one_free_slot_is_no_starvation(caplog: pytest.LogCaptureFixture) -> None:
    """As long as one slot can still move, nobody starves and nothing is logged."""
    caplog.set_level(logging.DEBUG, logger="asyncdefer")
    queue = Queue(concurrency=2)

    async def leaf() -> str:
        await asyncdefer.sleep(5)
        return "leaf"

    async def parent() -> str:
        return await (await queue.enqueue(leaf))

    async with virtual(queue) as clock:
        handle = await queue.enqueue(parent)
        await clock.advance(10)
        assert await handle == "leaf"
        # One slot awaits, the other works: what waits will come.
        busy = await queue.enqueue(leaf)
        handle = await queue.enqueue(parent)
        await clock.advance(20)
        assert busy.done()
        assert await handle == "leaf"
    assert starved(caplog) == 0


async def test_a_wait_for_a_far_job_is_no_starvation(caplog: pytest.LogCaptureFixture) -> None:
    """A job that awaits a far one does not starve before that one is due."""
    caplog.set_level(logging.DEBUG, logger="asyncdefer")
    queue = Queue(concurrency=1)

    async def leaf() -> str:
        return "leaf"

    async with virtual(queue) as clock:
        far = await queue.enqueue(leaf, delay=60)

        async def parent() -> str:
            return await far

        handle = await queue.enqueue(parent)
        await clock.advance(59)
        assert starved(caplog) == 0
        await clock.advance(2)
        assert starved(caplog) == 1
        await handle.cancel()
        await clock.advance(1)
        assert far.done()
        assert await far == "leaf"
