"""A step of work for the thread of an aiosqlite connection, and work that is done to its end."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio

T = TypeVar("T")


class Hop:
    """A step, and then what it gave. An idle thread holds on to its last hop, which is empty then.

    aiosqlite logs what it is to execute; of this it logs the name of the class, so arguments of
    jobs never get into a log.
    """

    __slots__ = ("held",)

    def __init__(self, step: Callable[[], object]) -> None:
        self.held: list[Any] = [step]

    def __call__(self) -> None:
        step = self.held.pop()
        self.held.append(step())


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Do all of it, however often the caller is cancelled; that is raised afterwards."""
    task = asyncio.Task(work, loop=asyncio.get_running_loop())
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
    if cancelled is not None:
        raise cancelled from None if task.cancelled() else task.exception()
    return task.result()
