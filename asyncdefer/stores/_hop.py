"""A step of work for the thread of an aiosqlite connection."""

from collections.abc import Callable
from typing import Any


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
