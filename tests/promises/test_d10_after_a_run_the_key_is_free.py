"""D10: after a run, the key is free."""

import gc
import sys
from collections.abc import Callable

import pytest

import asyncdefer
from asyncdefer import GiveUp, Queue
from asyncdefer.testing import VirtualClock, virtual


async def succeed() -> None: ...


async def fail() -> None:
    raise ZeroDivisionError


async def give_up() -> None:
    raise GiveUp("no use")


async def leave() -> None:
    raise SystemExit


async def overstay() -> None:
    await asyncdefer.sleep(1000)


@pytest.mark.parametrize("ending", [succeed, fail, give_up, leave, overstay])
async def test_however_the_run_ended(
    queue: Queue, clock: VirtualClock, ending: Callable[[], object]
) -> None:
    """The next call is a job of its own, with a run of its own, and nothing is replaced."""
    runs: list[int] = []

    @queue.task(delay=5, defer=["user"], timeout=10)
    async def note(user: int, n: int) -> int:
        runs.append(n)
        if n == 1:
            await ending()  # type: ignore[misc]
        return n

    first = await note.enqueue(1, 1)
    await clock.advance(15)
    assert first.done()
    assert await note.pending(1, 2) is None
    state = first.state
    second = await note.enqueue(1, 2)
    assert (first.state, second.replaced, first.replaced) == (state, False, False)
    await clock.advance(5)

    assert runs == [1, 2]
    assert await second == 2
    assert queue.stats().replaced == 0
    await _swallow(first)


async def _swallow(handle: asyncdefer.Handle[int]) -> None:
    try:
        await handle
    except Exception:  # whatever it is: this test is about the key
        return


async def test_after_a_cancel_before_the_run(queue: Queue, clock: VirtualClock) -> None:
    """A cancelled call frees its key at once."""
    runs: list[int] = []

    @queue.task(delay=5, defer=["user"])
    async def note(user: int, n: int) -> None:
        runs.append(n)

    first = await note.enqueue(1, 1)
    assert await first.cancel()
    assert await note.pending(1, 2) is None
    second = await note.enqueue(1, 2)
    await clock.advance(60)

    assert not first.replaced
    assert runs == [2]
    assert await second is None


async def test_after_an_expiry() -> None:
    """A call that expired frees its key at once, in the lane too."""
    queue = Queue(concurrency=1)
    runs: list[int] = []

    @queue.task
    async def block() -> None:
        await asyncdefer.sleep(100)

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> None:
        runs.append(n)

    async with virtual(queue) as clock:
        await block.enqueue()
        await clock.advance(0)
        first = await note.options(expires=5).enqueue(1, 1)
        await clock.advance(5)
        assert first.done()
        assert await note.pending(1, 2) is None
        second = await note.enqueue(1, 2)
        assert not first.replaced
        await clock.advance(100)
        assert runs == [2]
        assert await second is None


async def test_a_free_key_has_its_full_delay(queue: Queue, clock: VirtualClock) -> None:
    """Nothing of the last run bends the time of the next call."""
    start, runs = clock.now(), list[float]()

    @queue.task(delay=5, defer=True)
    async def note() -> None:
        runs.append((clock.now() - start).total_seconds())

    await note.enqueue()
    await clock.advance(6)
    await note.enqueue()
    await clock.advance(60)

    assert runs == [5.0, 11.0]


async def test_finished_runs_leave_nothing_behind() -> None:
    """When its record is past the result_ttl, no state is left of a key."""
    queue = Queue(result_ttl=10)

    @queue.task(delay=1, defer=["user"])
    async def note(user: int) -> None: ...

    async with virtual(queue) as clock:

        async def round_of(users: range) -> int:
            for user in users:
                await note.enqueue(user)
            await clock.advance(1)
            for _ in range(5):
                await clock.advance(60)
            assert [job async for job in queue.jobs()] == []
            gc.collect()
            return sys.getallocatedblocks()

        before = await round_of(range(3000))
        assert await round_of(range(3000, 6000)) - before < 1500
        assert queue.stats().succeeded == 6000
