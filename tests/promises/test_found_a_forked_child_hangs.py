"""A bug that forks have found, by its smallest program."""

import asyncio
import os
import select
import signal
import threading
from pathlib import Path

from asyncdefer import DeferError, Queue

GUARD = 5.0


def test_a_forked_child_that_calls_is_told_so(tmp_path: Path) -> None:
    """R7: whoever calls from the wrong place is told at once, a child of a fork too.

    `enqueue_from_thread` puts the call into a loop that does not run in the child, and waits for
    ever: nothing there looks whether the process is the one in which the queue was started.
    (`enqueue_nowait` does look, and raises `WrongLoop`.) The loop runs in a thread of its own,
    as it does beside a server that forks.
    """
    loop = asyncio.new_event_loop()
    runner = threading.Thread(target=loop.run_forever, daemon=True)
    runner.start()
    queue = Queue(tmp_path / "timers.db")

    @queue.task("job")
    async def job() -> None:
        return

    asyncio.run_coroutine_threadsafe(queue.start(), loop).result()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            queue.enqueue_from_thread(job, delay=3_600)
        except (DeferError, RuntimeError):
            status = 0
        finally:
            os._exit(status)
    descriptor = os.pidfd_open(pid)
    ended = bool(select.select([descriptor], [], [], GUARD)[0])
    os.close(descriptor)
    if not ended:
        os.kill(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    asyncio.run_coroutine_threadsafe(queue.close(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    runner.join()
    loop.close()
    assert ended, "the child hangs in enqueue_from_thread"
    assert status == 0
