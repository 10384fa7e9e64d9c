"""`enqueue_from_thread`: the same call from another thread, which waits until it is accepted."""

import asyncio
import threading
from datetime import timedelta

import pytest

import asyncdefer
from asyncdefer import Handle, NotStarted, Queue, QueueClosed, State, WrongLoop
from asyncdefer.testing import VirtualClock


async def echo(*args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    return args, kwargs


async def test_it_returns_when_accepted(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """The thread gets a handle of an accepted job; arguments and options are those of `enqueue`."""
    start = defer_clock.now()

    def elsewhere() -> Handle[object]:
        handle = defer_queue.enqueue_from_thread(echo, 1, colour="red", delay=10, key="k")
        assert handle.state is State.SCHEDULED
        assert defer_queue.stats().accepted == 1
        return handle

    handle = await asyncio.to_thread(elsewhere)

    assert (handle.key, handle.eta) == ("k", start + timedelta(seconds=10))
    await defer_clock.advance(10)
    assert await handle == ((1,), {"colour": "red"})


async def test_with_an_eta(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """An eta is an eta in every thread."""
    eta = defer_clock.now() + timedelta(hours=1)
    handle = await asyncio.to_thread(defer_queue.enqueue_from_thread, echo, eta=eta)

    assert handle.eta == eta


async def test_a_task(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Calls of a task from threads fold with calls from the loop."""

    @defer_queue.task(delay=10, defer=["user"])
    async def note(user: int, n: int) -> int:
        return n

    first = await note.enqueue(1, 1)
    second = await asyncio.to_thread(defer_queue.enqueue_from_thread, note, 1, n=2)
    third = await note.enqueue(1, 3)

    assert (first.replaced, second.replaced, third.replaced) == (True, True, False)
    await defer_clock.advance(10)
    assert [await handle for handle in (first, second, third)] == [3, 3, 3]


async def test_from_many_threads(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Nothing is lost or doubled when many threads call at once."""
    runs: list[tuple[int, int]] = []

    async def job(thread: int, n: int) -> None:
        runs.append((thread, n))

    def caller(thread: int) -> list[str]:
        return [defer_queue.enqueue_from_thread(job, thread, n, delay=10).id for n in range(50)]

    ids = await asyncio.gather(*(asyncio.to_thread(caller, thread) for thread in range(8)))

    assert len({id for of_thread in ids for id in of_thread}) == 400
    assert all(of_thread == sorted(of_thread, key=int) for of_thread in ids)
    await defer_clock.advance(10)
    assert sorted(runs) == [(thread, n) for thread in range(8) for n in range(50)]
    for thread in range(8):
        assert [n for t, n in runs if t == thread] == list(range(50))


async def test_from_a_job_in_a_thread(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A plain function that runs as a job can enqueue the next one."""

    def job() -> Handle[object]:
        return defer_queue.enqueue_from_thread(echo, asyncdefer.current().id)

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(0)
    inner = await handle

    assert await asyncio.wait_for(inner, 5) == ((handle.id,), {})


async def test_it_wakes_the_loop(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A job that is due at once starts without any other event in the loop."""
    ran = threading.Event()

    async def job() -> None:
        ran.set()

    def elsewhere() -> bool:
        defer_queue.enqueue_from_thread(job)
        return ran.wait(10)

    assert await asyncio.to_thread(elsewhere)


async def test_errors_are_raised_in_the_thread(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A wrong call is an error of the thread that made it, and changes nothing."""

    async def job(n: int) -> None: ...

    with pytest.raises(TypeError):
        await asyncio.to_thread(defer_queue.enqueue_from_thread, job)
    with pytest.raises(ValueError, match="delay"):
        await asyncio.to_thread(defer_queue.enqueue_from_thread, job, 1, delay=-1)
    with pytest.raises(TypeError):
        await asyncio.to_thread(defer_queue.enqueue_from_thread, None)  # type: ignore[call-overload,arg-type]
    assert defer_queue.stats().accepted == 0


async def test_on_the_loops_own_thread_it_is_an_error(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """There it would wait for itself for ever: the error says to use `enqueue`."""
    with pytest.raises(RuntimeError, match="enqueue"):
        defer_queue.enqueue_from_thread(echo)
    assert defer_queue.stats().accepted == 0


async def test_enqueue_in_another_thread_says_what_to_use(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """`enqueue_nowait` in another thread is WrongLoop and names `enqueue_from_thread`."""
    with pytest.raises(WrongLoop, match="enqueue_from_thread"):
        await asyncio.to_thread(defer_queue.enqueue_nowait, echo)
    assert defer_queue.stats().accepted == 0


async def test_before_the_start_and_after_the_close() -> None:
    """A thread is told apart that it is too early and that it is too late."""
    queue = Queue()
    with pytest.raises(NotStarted):
        await asyncio.to_thread(queue.enqueue_from_thread, echo)
    async with queue:
        await asyncio.to_thread(queue.enqueue_from_thread, echo, delay=3600)
    with pytest.raises(QueueClosed):
        await asyncio.to_thread(queue.enqueue_from_thread, echo)


async def test_close_releases_threads_that_call(defer_queue: Queue) -> None:
    """Threads that enqueue while the queue closes get their handle or QueueClosed; none hangs."""
    accepted, refused = 0, 0
    lock = threading.Lock()
    barrier = threading.Barrier(5)

    def caller() -> None:
        nonlocal accepted, refused
        barrier.wait(10)
        while True:
            try:
                defer_queue.enqueue_from_thread(echo, delay=3600)
            except QueueClosed:
                with lock:
                    refused += 1
                return
            with lock:
                accepted += 1

    callers = [asyncio.create_task(asyncio.to_thread(caller)) for _ in range(4)]
    await asyncio.to_thread(barrier.wait, 10)
    await defer_queue.close()
    await asyncio.wait_for(asyncio.gather(*callers), 10)

    assert refused == 4
    assert defer_queue.stats().accepted == accepted == defer_queue.stats().dropped
