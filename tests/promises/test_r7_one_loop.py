"""R7: used from another loop: `WrongLoop`, at once; from a thread there is a door of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import Handle, NotStarted, Queue, QueueClosed, State, WrongLoop
from asyncdefer.testing import VirtualClock, virtual

Use = Callable[[Queue, Handle[Any]], Awaitable[object]]


async def noop(word: str = "done") -> str:
    return word


async def nowait(queue: Queue, handle: Handle[Any]) -> object:
    return queue.enqueue_nowait(noop)


async def reschedule(queue: Queue, handle: Handle[Any]) -> object:
    return await handle.reschedule(delay=1)


async def wait(queue: Queue, handle: Handle[Any]) -> object:
    return await handle


async def jobs(queue: Queue, handle: Handle[Any]) -> object:
    return [job async for job in queue.jobs()]


async def pause(queue: Queue, handle: Handle[Any]) -> object:
    return queue.pause()


async def resume(queue: Queue, handle: Handle[Any]) -> object:
    return queue.resume()


USES: dict[str, Use] = {
    "enqueue": lambda queue, handle: queue.enqueue(noop),
    "options": lambda queue, handle: queue.options(delay=1).enqueue(noop),
    "enqueue_nowait": nowait,
    "await handle": wait,
    "result": lambda queue, handle: handle.result(timeout=60),
    "cancel": lambda queue, handle: handle.cancel(),
    "flush": lambda queue, handle: handle.flush(),
    "reschedule": reschedule,
    "join": lambda queue, handle: queue.join(),
    "handle": lambda queue, handle: queue.handle("123"),
    "pending": lambda queue, handle: queue.pending(queue.task("a task")(noop), "k"),
    "redrive": lambda queue, handle: queue.redrive("123"),
    "discard": lambda queue, handle: queue.discard(handle.id),
    "jobs": jobs,
    "pause": pause,
    "resume": resume,
    "ready": lambda queue, handle: queue.ready(),
    "close": lambda queue, handle: queue.close(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
async def test_another_loop_is_told_at_once(queue: Queue, clock: VirtualClock, use: Use) -> None:
    """A queue used from a second event loop raises `WrongLoop`; it neither hangs nor acts."""
    handle = await queue.enqueue(noop, delay=60)
    eta = handle.eta

    async def foreign() -> object:
        async with asyncio.timeout(2):
            return await use(queue, handle)

    with pytest.raises(WrongLoop):
        await asyncio.to_thread(asyncio.run, foreign())
    stats = queue.stats()
    assert (stats.accepted, stats.waiting) == (1, 1)
    assert (handle.state, handle.eta) == (State.SCHEDULED, eta)
    await clock.advance(60)
    assert await handle == "done"


async def test_waiting_to_be_accepted_elsewhere(tmp_path: Path) -> None:
    """The journal answers in the queue's own loop only, also while a call is on its way to it."""
    queue = Queue(tmp_path / "timers.db")
    task = queue.task("noop")(noop)

    async with queue:
        handle = queue.enqueue_nowait(task, delay=60)
        thread = threading.Thread(target=asyncio.run, args=(told(handle),))
        thread.start()
        thread.join(5)  # the loop stands still meanwhile
        await handle.accepted()


async def told(handle: Handle[Any]) -> None:
    with pytest.raises(WrongLoop):
        await handle.accepted()


async def test_a_started_queue_is_not_started_elsewhere(queue: Queue) -> None:
    """A queue that runs in one loop cannot be started in another."""

    async def foreign() -> None:
        async with asyncio.timeout(2):
            await queue.start()

    with pytest.raises((WrongLoop, RuntimeError)):
        await asyncio.to_thread(asyncio.run, foreign())
    await queue.enqueue(noop)


async def test_a_thread_is_told_which_door_to_take(queue: Queue) -> None:
    """`enqueue_nowait` from a thread is a `WrongLoop` that names `enqueue_from_thread`."""
    with pytest.raises(WrongLoop, match="enqueue_from_thread"):
        await asyncio.to_thread(queue.enqueue_nowait, noop)
    assert queue.stats().accepted == 0


async def test_a_thread_may_enqueue(queue: Queue, clock: VirtualClock) -> None:
    """`enqueue_from_thread` returns once the job is accepted, and the loop may await it."""
    accepted: list[tuple[int, int]] = []

    def endpoint() -> Handle[str]:
        before = queue.stats().accepted
        handle = queue.enqueue_from_thread(noop, "from a thread", delay=5)
        accepted.append((before, queue.stats().accepted))
        return handle

    async with asyncio.timeout(5):
        handle = await asyncio.to_thread(endpoint)
    assert accepted == [(0, 1)]
    assert handle.state is State.SCHEDULED
    await clock.advance(5)
    assert await handle == "from a thread"


async def test_a_thread_wakes_an_idle_loop(queue: Queue) -> None:
    """A call from a thread is accepted although the loop has nothing else to do."""
    accepted = asyncio.Event()
    loop = asyncio.get_running_loop()

    def endpoint() -> None:
        queue.enqueue_from_thread(noop)
        loop.call_soon_threadsafe(accepted.set)

    thread = threading.Thread(target=endpoint, daemon=True)
    thread.start()
    async with asyncio.timeout(5):
        await accepted.wait()
    thread.join(5)


async def test_many_threads_at_once(queue: Queue, clock: VirtualClock) -> None:
    """Threads that enqueue at the same time lose no call, and calls of a key still fold."""
    ran: list[int] = []

    async def note(n: int) -> None:
        ran.append(n)

    def caller(n: int) -> None:
        for i in range(20):
            queue.enqueue_from_thread(note, 100 * n + i, delay=5)
            queue.enqueue_from_thread(note, -1, key="k", delay=5)

    async with asyncio.timeout(20):
        await asyncio.gather(*(asyncio.to_thread(caller, n) for n in range(5)))
    assert queue.stats().accepted == 200
    await clock.advance(5)
    assert sorted(ran) == [-1, *sorted(100 * n + i for n in range(5) for i in range(20))]


async def test_a_bad_call_is_refused_in_the_thread(queue: Queue) -> None:
    """The errors of a call from a thread are raised in that thread."""
    with pytest.raises(ValueError):
        await asyncio.to_thread(queue.enqueue_from_thread, noop, delay=-1)
    with pytest.raises(TypeError):
        await asyncio.to_thread(queue.enqueue_from_thread, noop, "too", "many")
    assert queue.stats().accepted == 0


async def test_the_loops_own_thread_is_not_blocked_for_ever(queue: Queue) -> None:
    """`enqueue_from_thread` on the loop's own thread would wait for itself: it raises instead."""
    with pytest.raises((WrongLoop, RuntimeError)):
        queue.enqueue_from_thread(noop)
    assert queue.stats().accepted == 0


async def test_a_thread_is_told_that_the_queue_is_not_open() -> None:
    """Before the start a thread gets `NotStarted`, after the close `QueueClosed`."""
    queue = Queue()
    async with asyncio.timeout(5):
        with pytest.raises(NotStarted):
            await asyncio.to_thread(queue.enqueue_from_thread, noop)
        async with virtual(queue):
            pass
        with pytest.raises(QueueClosed):
            await asyncio.to_thread(queue.enqueue_from_thread, noop)


async def test_a_plain_job_may_enqueue(queue: Queue, clock: VirtualClock) -> None:
    """A plain function runs in a thread, so it enqueues by the door for threads."""
    children: list[Handle[str]] = []

    def parent() -> None:
        children.append(queue.enqueue_from_thread(noop, "child", delay=5))

    handle = await queue.enqueue(parent)
    async with asyncio.timeout(5):
        await handle
    await clock.advance(5)
    assert children[0].done()
    assert await children[0] == "child"


def test_a_loop_that_moved_to_a_thread() -> None:
    """Started here, turning there: from here it is another thread, and a call is refused."""
    loop, queue = asyncio.new_event_loop(), Queue()
    loop.run_until_complete(queue.start())
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        with pytest.raises(WrongLoop):
            queue.enqueue_nowait(abs, -1)
        assert asyncio.run_coroutine_threadsafe(outcome(queue), loop).result(10) == 2
        asyncio.run_coroutine_threadsafe(queue.close(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def outcome(queue: Queue) -> int:
    return await (await queue.enqueue(abs, -2))


def test_a_loop_that_stands_still() -> None:
    """Between two runs of its loop a queue takes no calls from another one of the same thread."""
    loop, queue = asyncio.new_event_loop(), Queue()
    loop.run_until_complete(queue.start())

    async def elsewhere() -> None:
        with pytest.raises(WrongLoop):
            await queue.enqueue(abs, -1)

    asyncio.run(elsewhere())
    with pytest.raises(WrongLoop):
        queue.enqueue_nowait(abs, -1)
    loop.run_until_complete(queue.close())
    loop.close()


FORKED = """
import asyncio, os
{policy}
from asyncdefer import Queue, WrongLoop

async def main():
    async with Queue() as queue:
        child = os.fork()
        if child == 0:  # the same stack, thread number and loop, but nobody turns that loop
            try:
                queue.enqueue_nowait(print, "never")
            except WrongLoop:
                os._exit(7)
            os._exit(1)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7, status
        await (await queue.enqueue(print, "the parent goes on"))

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize(
    "policy", ["", "import uvloop; uvloop.install()"], ids=["asyncio", "uvloop"]
)
def test_a_forked_child_is_refused(policy: str) -> None:
    """It has a copy of the queue whose loop will never turn: a call there would be lost in silence."""
    program = [sys.executable, "-W", "ignore", "-c", FORKED.format(policy=policy)]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "the parent goes on\n"), done.stderr


class Silent(asyncio.SelectorEventLoop):
    """A loop that does not tell the thread in which it runs, as Qt's does not."""

    _thread_id = property(lambda self: None, lambda self, value: None)


def test_a_loop_that_does_not_tell_its_thread() -> None:
    """The running loop is asked for then: calls come in, and not those of a foreign thread."""

    async def main() -> None:
        async with Queue() as queue:
            assert await (await queue.enqueue(abs, -3)) == 3
            with pytest.raises(WrongLoop):
                await asyncio.to_thread(queue.enqueue_nowait, abs, -1)

    with asyncio.Runner(loop_factory=Silent) as runner:
        runner.run(main())


async def test_a_timeout_error_of_the_call_reaches_the_thread(
    queue: Queue, clock: VirtualClock
) -> None:
    """What the key function raises is raised there, also what a wait could raise."""

    def broken(word: str) -> str:
        raise TimeoutError("no key in time")

    task = queue.task(defer=broken)(noop)
    with pytest.raises(TimeoutError, match="no key in time"):
        await asyncio.wait_for(asyncio.to_thread(queue.enqueue_from_thread, task, "x"), 20)
