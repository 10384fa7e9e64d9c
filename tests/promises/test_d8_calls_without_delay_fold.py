"""D8: without `delay`, defer still folds calls that wait for a free slot."""

import asyncdefer
from asyncdefer import Queue
from asyncdefer.testing import VirtualClock, virtual


async def test_calls_that_wait_for_a_slot_fold() -> None:
    """Calls of one key that are due and wait for a slot are one run, the newest."""
    queue = Queue(concurrency=1)
    runs: list[tuple[str, int, int]] = []

    @queue.task
    async def block() -> None:
        await asyncdefer.sleep(10)

    @queue.task(defer=["key"])
    async def work(key: str, n: int) -> int:
        runs.append((key, n, asyncdefer.current().calls))
        return n

    async with virtual(queue) as clock:
        await block.enqueue()
        await clock.advance(0)
        handles = []
        for n in range(5):
            handles.append(await work.enqueue("a", n))
            await clock.advance(1)
        other = await work.enqueue("b", 9)
        assert (queue.stats().waiting, queue.stats().replaced) == (2, 4)
        assert runs == []
        await clock.advance(5)
        assert sorted(runs) == [("a", 4, 5), ("b", 9, 1)]
        assert [await handle for handle in handles] == [4] * 5
        assert await other == 9


async def test_calls_of_a_paused_task_fold(queue: Queue, clock: VirtualClock) -> None:
    """Calls of one key that are due in a paused task are one run, too."""
    runs: list[int] = []

    @queue.task(defer=["key"])
    async def work(key: str, n: int) -> None:
        runs.append(n)

    queue.pause(work)
    for n in range(5):
        await work.enqueue("a", n)
        await clock.advance(1)
    assert queue.stats().waiting == 1
    queue.resume(work)
    await clock.advance(0)

    assert runs == [4]


async def test_calls_of_one_breath_fold(queue: Queue, clock: VirtualClock) -> None:
    """Calls that follow each other before the loop could start the first one are one run."""
    runs: list[int] = []

    @queue.task(defer=["user"])
    async def work(user: str, n: int) -> None:
        runs.append(n)

    for n in range(5):
        queue.enqueue_nowait(work, "a", n)
    await clock.advance(0)

    assert runs == [4]


async def test_a_folded_call_does_not_start_a_second_time() -> None:
    """Folding in the lane leaves no shadow of the older call that would run it again."""
    queue = Queue(concurrency=1)
    runs: list[object] = []

    @queue.task
    async def block() -> None:
        await asyncdefer.sleep(10)

    @queue.task(defer=["key"])
    async def work(key: str, n: int) -> None:
        runs.append(n)

    async with virtual(queue) as clock:
        await block.enqueue()
        await clock.advance(0)
        await work.enqueue("a", 1)
        await clock.advance(1)
        await work.options(delay=60).enqueue("a", 2)  # leaves the lane again
        await clock.advance(20)
        assert runs == []
        await clock.advance(60)
        assert runs == [2]


async def test_a_cancelled_call_leaves_the_lane() -> None:
    """A due call that is cancelled never runs, and those behind it move up."""
    queue = Queue(concurrency=1)
    runs: list[int] = []

    @queue.task
    async def block() -> None:
        await asyncdefer.sleep(10)

    @queue.task(defer=["n"])
    async def work(n: int) -> None:
        runs.append(n)

    async with virtual(queue) as clock:
        await block.enqueue()
        await clock.advance(0)
        handles = [await work.enqueue(n) for n in range(3)]
        await clock.advance(1)
        assert await handles[1].cancel()
        await clock.advance(20)
        assert runs == [0, 2]


async def test_calls_without_a_key_do_not_fold_there() -> None:
    """Waiting for a slot folds nothing that has no key."""
    queue = Queue(concurrency=1)
    runs: list[int] = []

    @queue.task
    async def block() -> None:
        await asyncdefer.sleep(10)

    @queue.task
    async def work(n: int) -> None:
        runs.append(n)

    async with virtual(queue) as clock:
        await block.enqueue()
        await clock.advance(0)
        for _ in range(3):
            await work.enqueue(1)
        await clock.advance(20)
        assert runs == [1, 1, 1]
