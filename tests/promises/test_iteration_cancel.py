"""Iteration: a cancel stops every shard at the next item, and nothing of them is left."""

import asyncio
from typing import Any

import pytest

from asyncdefer import JobCancelled, Queue, Report, Retry, State, sleep
from asyncdefer.testing import VirtualClock, check_conservation


def program(disk: Any, clock: VirtualClock, seen: list[int], **options: Any) -> Queue:
    queue = Queue(disk.store(), clock=clock, **options)

    @queue.task("callback", retry=Retry(5, delay=1000, jitter=False))
    async def callback(n: int) -> None:
        await sleep(10)
        if n == 3 and len(seen) < 100:
            raise ValueError("again")
        seen.append(n)

    @queue.task("finalize")
    async def finalize(report: Report) -> None:
        raise AssertionError

    return queue


@pytest.mark.parametrize(
    ("concurrency", "seconds"),
    [
        pytest.param(100, 0, id="before they begin"),
        pytest.param(100, 5, id="while they run"),
        pytest.param(100, 500, id="one waits for a retry"),
        pytest.param(1, 15, id="others wait for a slot"),
    ],
)
@pytest.mark.parametrize("restart", [False, True])
async def test_all_shards_stop(
    disk: Any, clock: VirtualClock, concurrency: int, seconds: float, *, restart: bool
) -> None:
    """Wherever they are, also after a restart: no other item begins, and finalize does not run."""
    seen: list[int] = []
    queue = program(disk, clock, seen, concurrency=concurrency)
    await queue.start()
    handle = await queue.iterate(range(40), "callback", "finalize", shards=4)
    if seconds:
        await clock.advance(seconds)
    if restart:
        disk.crash()
        await queue.close()
        queue = program(disk, clock, seen, concurrency=concurrency)
        await queue.start()
        found = await queue.handle(handle.id)
        assert found is not None
        handle = found
        await clock.advance(5)
    before = len(seen)
    assert await handle.cancel()
    at = handle.progress()
    assert handle.state is State.CANCELLED
    await clock.advance(20)
    assert len(seen) <= before + 4
    assert queue.stats().waiting == queue.stats().running == queue.stats().held == 0
    with pytest.raises(JobCancelled):
        await handle
    assert handle.progress() == at
    check_conservation(queue)
    assert [(job.task, str(job.state)) async for job in queue.jobs()] == [
        ("asyncdefer.iteration", "cancelled")
    ]
    await queue.close()
    async with program(disk, clock, seen) as queue:
        found = await queue.handle(handle.id)
        assert found is not None
        assert found.progress() == at
        assert len(at.shards) == 4
        await clock.advance(5_000)
        assert queue.stats().accepted == queue.stats().claimed == 0


async def test_an_item_may_cancel_its_own_iteration(queue: Queue, clock: VirtualClock) -> None:
    """The item itself goes on to its end, and no other of its shard begins."""
    seen: list[int] = []
    handles: list[Any] = []

    async def callback(n: int) -> None:
        seen.append(n)
        if n == 3:
            await handles[0].cancel()

    handles.append(await queue.iterate(range(10), callback, shards=1))
    await clock.run_until_idle()
    assert seen == [0, 1, 2, 3]


async def test_a_failure_after_the_cancel(disk: Any, clock: VirtualClock) -> None:
    """An item that fails then is not tried again, and leaves no row."""
    seen: list[int] = []
    async with program(disk, clock, seen) as queue:
        handle = await queue.iterate([3], "callback", "finalize")
        await clock.advance(5)
        await handle.cancel()
        await clock.advance(10)
        assert queue.stats().waiting == 0
        assert [job.task async for job in queue.jobs()] == ["asyncdefer.iteration"]


@pytest.mark.parametrize("drain", [0, 0.2])
@pytest.mark.parametrize("swallows", [False, True])
@pytest.mark.parametrize("kind", ["async", "plain", "plain with a timeout"])
async def test_a_close_in_the_middle(disk: Any, kind: str, drain: float, *, swallows: bool) -> None:
    """Each shard stops at its item, also where a callback does not let itself be cancelled; at the
    next start all goes on, and no item is missed. Threads need real time.
    """
    done: list[int] = []

    def start() -> Queue:
        queue = Queue(disk.store(), drain_timeout=drain)

        async def wait(n: int) -> None:
            try:
                await asyncio.sleep(0.01)
            except asyncio.CancelledError:
                if not swallows:
                    raise
            done.append(n)

        def block(n: int) -> None:
            import time

            time.sleep(0.01)
            done.append(n)

        timeout = 60 if kind == "plain with a timeout" else None
        queue.task("callback", timeout=timeout)(wait if kind == "async" else block)
        return queue

    async with start() as queue:
        handle = await queue.iterate(range(40), "callback", shards=2)
        while len(done) < 5:  # noqa: ASYNC110 - threads add to it
            await asyncio.sleep(0.001)
        before = len(done)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        await queue.close()
        assert loop.time() - begun < 3
        assert len(done) <= before + 8
        check_conservation(queue)
    async with start() as queue:
        found = await queue.handle(handle.id)
        assert found is not None
        report = await found.result(timeout=20)
        assert (report.items, report.failed) == (40, [])
    assert set(done) == set(range(40))
    assert len(done) <= 40 + 2


async def test_a_close_in_memory() -> None:
    """The waiters are told, and no item runs any more."""
    from asyncdefer import QueueClosed

    seen: list[int] = []

    async def callback(n: int) -> None:
        seen.append(n)
        await asyncio.sleep(0.001)

    queue = Queue(drain_timeout=5)
    await queue.start()
    handle = await queue.iterate(range(100_000), callback)
    while len(seen) < 50:  # noqa: ASYNC110 - it is the moment that counts
        await asyncio.sleep(0.001)
    await queue.close()
    assert len(seen) < 1_000
    with pytest.raises(QueueClosed):
        await handle
    check_conservation(queue)


async def test_a_caller_that_is_cancelled(disk: Any, clock: VirtualClock) -> None:
    """Whoever is cancelled before the call has returned has begun nothing that goes on."""
    ran: list[int] = []
    for wait in range(12):
        async with Queue(disk.store(), clock=clock) as queue:

            @queue.task("callback")
            async def callback(n: int) -> None:
                ran.append(n)

            ran.clear()
            calling = asyncio.create_task(queue.iterate(range(10), "callback"))
            for _ in range(wait):
                await asyncio.sleep(0)
            calling.cancel()
            await asyncio.wait([calling])
            await clock.run_until_idle()
            check_conservation(queue)
            assert sorted(ran) == ([] if calling.cancelled() else list(range(10)))
            assert [job.task async for job in queue.jobs(task="asyncdefer.shard")] == []
