"""Named moments at which a process kills itself: kills at random instants rarely hit the narrow ones.

Nothing in the library knows of them. `install` wraps its methods in the process that is to die, so
that each says when it comes by; at the n-th time of the chosen moment the process is gone, by
SIGKILL. Some of the moments are in the event loop, some in the thread that works on the file.
"""

import functools
import os
import signal
import sqlite3
from collections.abc import Callable
from typing import Any, Final

from asyncdefer import _opening
from asyncdefer._claims import Claims
from asyncdefer._jobs import Jobs
from asyncdefer._journal import Journal
from asyncdefer._scheduler import Scheduler
from asyncdefer.stores import _group, _lock, _room, _schema
from asyncdefer.stores._file import File, Held
from asyncdefer.stores.sqlite import SQLiteStore

Hit = Callable[[str], None]

_CALLS: Final[tuple[tuple[str, Any, str], ...]] = (
    # In the loop. After a write or a claim: the store has done it, and nobody was told yet.
    ("write", SQLiteStore, "write"),
    ("claim", SQLiteStore, "claim"),
    ("renew", SQLiteStore, "renew"),
    ("open", SQLiteStore, "_begin"),
    ("end", SQLiteStore, "_end"),
    ("log", Journal, "log"),
    ("finish", Journal, "_finish"),
    ("journal close", Journal, "close"),
    ("shut down", Scheduler, "shut_down"),
    ("opening", _opening.Opening, "open"),
    ("arrive", Claims, "_arrive"),
    ("adopt", Claims, "_adopt"),
    ("interrupted", Claims, "_interrupted"),
    ("launch", Jobs, "_launch"),
    ("conclude", Jobs, "_conclude"),
    ("settle", Jobs, "_settle"),
    # In the thread.
    ("lock file", File, "lock"),
    ("open file", File, "open"),
    ("take over", File, "_take_over"),
    ("transact", File, "_transact"),
    ("purge", File, "purge"),
    ("tidy", File, "tidy"),
    ("clean", File, "finish"),
    ("close file", File, "close"),
    ("close lock", Held, "close"),
    ("reserve", _room.Reserve, "keep"),
    ("make", _schema, "make"),
    ("group", _group, "write"),
)
_STATEMENTS: Final = ("statement", "BEGIN", "COMMIT", "step")
_TOLD: Final = ("calling", "placed", "acked", "cancelling", "cancelled", "moved", "seen", "settled",
                "taken", "started", "ended", "chain_begun", "tick")  # fmt: skip

POINTS: Final[dict[str, int]] = {
    # The name of each, and up to how often it comes by in one life.
    **{f"{when} {name}": 6 for name, _, _ in _CALLS for when in ("before", "after")},
    **dict.fromkeys(("before log", "after log", "before settle", "after settle"), 25),
    **dict.fromkeys(("before write", "after write", "before finish", "after finish"), 15),
    **{f"{when} {name}": 1 for name in ("open", "end", "opening", "shut down", "journal close",
       "lock file", "open file", "take over", "clean", "close lock", "make")
       for when in ("before", "after")},
    **dict.fromkeys(_STATEMENTS, 120),
    "BEGIN": 15,
    "COMMIT": 15,
    **{f"told {word}": 12 for word in _TOLD},
}  # fmt: skip


class Fate:
    """The moment at which this process is to die; None: it is left to others."""

    def __init__(self, point: str | None, times: int) -> None:
        self._point = point
        self._left = times

    def hit(self, name: str) -> None:
        if name == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def told(self, word: str) -> None:
        """An event is in the ledger."""
        self.hit(f"told {word}")

    def install(self) -> None:
        """Have this process come by the moment that was chosen, and by no other."""
        point = self._point
        if point is None:
            return
        for name, owner, method in _CALLS:
            if point.endswith(f" {name}") and point.split(" ", 1)[1] == name:
                setattr(owner, method, _telling(getattr(owner, method), name, self.hit))
        if point in _STATEMENTS:
            _lock.connect = _listening(_lock.connect, self.hit)


def _telling(function: Callable[..., Any], name: str, hit: Hit) -> Callable[..., Any]:
    if hasattr(function, "__code__") and function.__code__.co_flags & 0x80:  # async def

        @functools.wraps(function)
        async def awaited(*args: Any, **kwargs: Any) -> Any:
            hit(f"before {name}")
            result = await function(*args, **kwargs)
            hit(f"after {name}")
            return result

        return awaited

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        hit(f"before {name}")
        result = function(*args, **kwargs)
        hit(f"after {name}")
        return result

    return called


def _listening(connect: Callable[..., Any], hit: Hit) -> Callable[..., Any]:
    """Connections that tell of each statement before it, and of every few steps within."""

    @functools.wraps(connect)
    def connected(*args: Any, **kwargs: Any) -> Any:
        db: sqlite3.Connection = connect(*args, **kwargs)

        def statement(sql: str) -> None:
            hit("statement")
            hit(sql.split(" ", 1)[0])

        db.set_trace_callback(statement)
        db.set_progress_handler(lambda: hit("step"), 20)
        return db

    return connected
