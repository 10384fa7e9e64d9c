"""Threads for plain functions.

They are daemons: a function that blocks for ever keeps its thread, but not the interpreter from
exiting. And nobody leaves a call half-way: a thread cannot be stopped, and a run that seemed
over while its thread goes on would let the next run of its key overlap it.
"""

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context, copy_context
from queue import SimpleQueue
from typing import Any

_Work = tuple[
    Context, list[Callable[[], Any]], "asyncio.Future[_Result]", asyncio.AbstractEventLoop
]
_Result = tuple[Any, BaseException | None]


class ThreadPool:
    """Up to `size` threads, started when there is work for them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._started = 0
        self._busy = 0
        self._work: SimpleQueue[_Work | None] = SimpleQueue()

    async def run(self, function: Callable[[], Any], asked: Callable[[], int]) -> Any:
        """Call in a thread, in the caller's context, and stay until it returns.

        `asked`: how many cancellations were the queue's own. One more means that the loop is
        being torn down, and then nobody waits for a thread.
        """
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        done: asyncio.Future[_Result] = loop.create_future()
        self._busy += 1
        if self._started < min(self._busy, self._size):
            self._started += 1
            threading.Thread(target=_work, args=(self._work,), daemon=True).start()
        token = [function]
        self._work.put((copy_context(), token, done, loop))
        try:
            while not done.done():
                try:
                    await asyncio.shield(done)
                except asyncio.CancelledError:
                    if _taken(token) is not None:
                        raise  # no thread had begun, and now none will
                    if task is not None and task.cancelling() > asked():
                        raise
        finally:
            self._busy -= 1
        value, error = done.result()
        if error is not None:
            raise error
        return value

    def close(self) -> None:
        """Let the threads end that have nothing to do."""
        for _ in range(self._started):
            self._work.put(None)
        self._started = 0


def _work(work: "SimpleQueue[_Work | None]") -> None:
    while (item := work.get()) is not None:
        context, token, done, loop = item
        function = _taken(token)
        if function is None:
            continue
        # A StopIteration or SystemExit must not travel through a future, so it goes as a value.
        result: _Result
        try:
            result = context.run(function), None
        except BaseException as error:  # noqa: BLE001 - it is raised again in the loop
            result = None, error
        try:
            loop.call_soon_threadsafe(_settle, done, result)
        except RuntimeError:
            return  # the loop has ended without us
        del item, context, token, function, done, result


def _taken(token: list[Callable[[], Any]]) -> Callable[[], Any] | None:
    """The function, for whoever comes first: the thread that calls it or who cancels."""
    try:
        return token.pop()
    except IndexError:
        return None


def _settle(done: "asyncio.Future[_Result]", result: _Result) -> None:
    if not done.done():
        done.set_result(result)
