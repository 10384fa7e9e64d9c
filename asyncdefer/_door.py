"""Who may come in: calls from the queue's own loop and thread, and from no forked child.

asyncio's loops have the number of the thread they run in, or None: an attribute that is read in a
third of the time that asking for the running loop takes (on 3.11 that asks for the pid).
"""

import asyncio
import os
from contextvars import ContextVar
from threading import get_ident
from typing import Any, Final, Protocol
from weakref import WeakSet

running_loop: Final = asyncio._get_running_loop  # noqa: SLF001 - the public one raises where we compare


class Inside:
    """A task or thread that has a transaction on the file of a journal open."""

    __slots__ = ("journal", "who")

    def __init__(self, journal: object) -> None:
        self.who: object = _who()
        self.journal: object = journal


_inside: Final[ContextVar[tuple[Inside, ...]]] = ContextVar("asyncdefer_transactions", default=())


class Guarded(Protocol):
    """What has a door."""

    loop: asyncio.AbstractEventLoop

    def shut_door(self) -> None: ...


class _Nowhere:
    """What stands for the loop where none runs any more: in a closed queue, in a forked child."""

    _thread_id: int | None = None


class _Asked:
    """A loop that does not tell the thread it runs in, as uvloop's: the running one is asked for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    @property
    def _thread_id(self) -> int | None:
        return get_ident() if running_loop() is self._loop else None


NOWHERE: Final[Any] = _Nowhere()
_open: Final[WeakSet[Any]] = WeakSet()


def door_of(guarded: Guarded) -> Any:
    """Something whose `_thread_id` is that of the caller, if the caller may come in."""
    _open.add(guarded)
    loop = guarded.loop
    return loop if getattr(loop, "_thread_id", None) == get_ident() else _Asked(loop)


def _close_in_child() -> None:
    """A forked child has the thread's number and the loop, but the loop does not run there."""
    for guarded in _open:
        guarded.shut_door()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


def go_in(journal: object) -> Inside:
    """What this task or thread does is part of a transaction on the journal's file."""
    inside = Inside(journal)
    _inside.set((*(other for other in _inside.get() if other.journal is not None), inside))
    return inside


def go_out(inside: Inside) -> None:
    """It is no more, whichever task or context says so."""
    inside.who = inside.journal = None


def check_outside(journal: object) -> None:
    """`RuntimeError` for who would wait for the commit that it is about to make itself."""
    if any(inside.journal is journal and inside.who == _who() for inside in _inside.get()):
        raise RuntimeError(
            "inside of queue.transaction(…) calls are made by tx.enqueue(…): anything else is recorded"
            " after the commit only, and to wait for that here would be to wait for ever"
        )


def _who() -> object:
    return get_ident() if running_loop() is None else asyncio.current_task()
