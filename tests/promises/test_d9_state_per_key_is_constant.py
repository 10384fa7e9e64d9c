"""D9: state per key is O(1): any number of calls of one key is one waiting job.

Memory is counted in allocated blocks (`sys.getallocatedblocks`), since the collector does not see
a tuple of atoms, which is what a forgotten heap line would be.
"""

import asyncio
import gc
import sys
import weakref
from collections.abc import Callable
from datetime import timedelta

import pytest

import asyncdefer
from asyncdefer import Defer, Queue
from asyncdefer.testing import VirtualClock

CALLS = 20_000
LEFT = 4_000  # blocks that may be left; one per call and more would be CALLS


def many(queue: Queue) -> int:
    """How many calls are made one after another; with a journal each takes a sync of the disk."""
    return 6_000 if queue.keeps else CALLS


def blocks() -> int:
    gc.collect()
    return sys.getallocatedblocks()


DELAYS: dict[str, Callable[[int], float]] = {
    "the same": lambda n: 1_000_000,
    "ever later": lambda n: 1_000_000 + n,
    "ever earlier": lambda n: 1_000_000 - n,
    "to and fro": lambda n: 1_000_000 + (-1) ** n * n,
}


@pytest.mark.parametrize("name", DELAYS)
async def test_the_calls_leave_one_job(defer_queue: Queue, clock: VirtualClock, name: str) -> None:
    """However the etas of a key's calls move, one job and a bounded heap are left of them."""
    queue = defer_queue
    delay, ran = DELAYS[name], list[int]()

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> None:
        ran.append(n)

    for n in range(1000):  # what is allocated once and kept
        await note.options(delay=delay(n)).enqueue(1, n)
    before = blocks()
    for n in range(CALLS):
        await note.options(delay=delay(n)).enqueue(1, n)
        if n % 500 == 0:
            await asyncio.sleep(0)

    assert blocks() - before < LEFT
    assert (queue.stats().waiting, queue.stats().replaced) == (1, CALLS + 999)
    assert len([job async for job in queue.jobs()]) == 1
    await clock.advance(2_000_000)
    assert ran == [CALLS - 1]


async def test_on_the_wall_clock_too(defer_queue: Queue, clock: VirtualClock) -> None:
    """Calls with an eta leave as little as calls with a delay."""
    queue = defer_queue
    eta = clock.now() + timedelta(days=30)

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> int:
        return n

    for n in range(1000):
        await note.options(eta=eta + timedelta(seconds=-n)).enqueue(1, n)
    before = blocks()
    for n in range(CALLS):
        handle = await note.options(eta=eta - timedelta(seconds=n)).enqueue(1, n)

    assert blocks() - before < LEFT
    assert queue.stats().waiting == 1
    await clock.advance(timedelta(days=31))
    assert await handle == CALLS - 1


async def test_a_thousand_keys_are_a_thousand_jobs(queue: Queue, clock: VirtualClock) -> None:
    """State follows the number of keys, not of calls."""

    @queue.task(delay=1_000_000, defer=["user"])
    async def note(user: int, n: int) -> None: ...

    for n in range(2000):
        handle = queue.enqueue_nowait(note, n % 1000, n)
    await handle.accepted()
    before = blocks()
    for n in range(CALLS):
        handle = queue.enqueue_nowait(note, n % 1000, n)
    await handle.accepted()

    assert blocks() - before < LEFT
    assert queue.stats().waiting == 1000


async def test_a_waiter_of_the_first_call_holds_no_chain(
    defer_queue: Queue, clock: VirtualClock
) -> None:
    """A caller that waits since the first call keeps none of the calls between alive."""
    queue = defer_queue

    @queue.task(delay=100, defer=["user"])
    async def note(user: int, n: int) -> int:
        return n

    first = await note.enqueue(1, -1)

    async def wait() -> int:
        return await first

    waiter = asyncio.create_task(wait())
    await asyncio.sleep(0)
    for n in range(1000):
        await note.enqueue(1, n)
    before = blocks()
    for n in range(CALLS):
        await note.enqueue(1, n)

    assert blocks() - before < LEFT
    await clock.advance(100)
    assert await asyncio.wait_for(waiter, 5) == CALLS - 1


async def test_replaced_calls_let_go_of_their_arguments(
    defer_queue: Queue, clock: VirtualClock
) -> None:
    """Arguments of a replaced call are free as soon as it is replaced, though its handle is held."""
    queue = defer_queue

    class Payload: ...

    @queue.task(delay=100, defer=["user"])
    async def note(user: int, payload: Payload) -> None: ...

    old = Payload()
    ref = weakref.ref(old)
    handle = await note.enqueue(1, old)
    await note.enqueue(1, Payload())
    del old
    gc.collect()

    assert ref() is None
    assert handle.replaced


async def test_calls_of_a_running_key(queue: Queue, clock: VirtualClock) -> None:
    """While the key runs, its calls fold in constant space as well."""

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> int:
        if n < 0:
            await asyncdefer.sleep(100)
        return n

    await note.enqueue(1, -1)
    await clock.advance(1)
    for n in range(1000):
        await note.enqueue(1, n)
    before = blocks()
    calls = many(queue)
    for n in range(calls):
        handle = await note.enqueue(1, n)
        if n % 500 == 0:
            await asyncio.sleep(0)

    assert blocks() - before < LEFT
    assert (queue.stats().running, queue.stats().waiting) == (1, 1)
    await clock.advance(100)
    assert await handle == calls - 1


async def test_calls_that_wait_in_a_lane(queue: Queue, clock: VirtualClock) -> None:
    """While its task is paused, the due calls of a key fold in constant space as well."""

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> int:
        return n

    queue.pause(note)
    for n in range(1000):
        await note.enqueue(1, n)
    before = blocks()
    calls = many(queue)
    for n in range(calls):
        handle = await note.enqueue(1, n)
        if n % 500 == 0:
            await asyncio.sleep(0)

    assert blocks() - before < LEFT
    assert queue.stats().waiting == 1
    queue.resume(note)
    await clock.advance(0)
    assert await handle == calls - 1


@pytest.mark.parametrize(
    "defer",
    [Defer(params=["user"], max_wait=1_000_000), Defer(params=["user"], keep="first")],
    ids=["max_wait", "keep first"],
)
async def test_bursts_with_a_memory(queue: Queue, clock: VirtualClock, defer: Defer) -> None:
    """A burst that remembers its first call remembers that one only."""

    @queue.task(delay=100, defer=defer)
    async def note(user: int, n: int) -> int:
        return asyncdefer.current().calls

    for n in range(1000):
        await note.enqueue(1, n)
    before = blocks()
    calls = many(queue)
    for n in range(calls):
        handle = await note.enqueue(1, n)

    assert blocks() - before < LEFT
    await clock.advance(100)
    assert await handle == calls + 1000


async def test_moves_leave_no_lines(defer_queue: Queue, clock: VirtualClock) -> None:
    """`reschedule` in both directions leaves one job and a bounded heap, too."""
    queue = defer_queue

    @queue.task(delay=100)
    async def note() -> str:
        return "ran"

    handle = await note.enqueue()
    for n in range(1000):
        await handle.reschedule(delay=1_000_000 - n)
    before = blocks()
    for n in range(CALLS):
        await handle.reschedule(delay=1_000_000 - n)

    assert blocks() - before < LEFT
    await clock.advance(1_000_000)
    assert await handle == "ran"
