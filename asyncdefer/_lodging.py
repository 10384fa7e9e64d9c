"""What every transaction on the journal's file does: calls are lodged in it, and looked for afterwards.

The rows are written on the program's connection, so they are there with its commit and gone with
its rollback. Then the journal is asked for them: at once if the transaction was ended by its block,
else when it is seen to have ended.
"""

import sqlite3
import warnings
from abc import ABC, abstractmethod
from contextvars import Context
from typing import Any, Final

from asyncdefer._calls import Calls
from asyncdefer._committing import Lodged
from asyncdefer._core.job import Call
from asyncdefer._core.options import Options
from asyncdefer._door import Inside, go_in, go_out
from asyncdefer._entry import Claim
from asyncdefer._handle import Handle
from asyncdefer._journal import Journal
from asyncdefer._log import WARNING
from asyncdefer._scheduler import Scheduler
from asyncdefer.errors import JournalError, JournalFull
from asyncdefer.stores._base import Note, Written
from asyncdefer.stores._lent import Home
from asyncdefer.stores._within import has_wal_reset_bug
from asyncdefer.stores.sqlite import SQLiteStore

_LOOK: Final = 0.25  # real seconds between two looks whether a transaction has ended
_SLOW: Final = 1.0  # real seconds for which one may hold the file without a word
_warned: Final[list[bool]] = []


class Lodging(ABC):
    """What both kinds of transaction know: the queue, and the calls that were made."""

    def __init__(self, queue: Calls) -> None:
        self._queue = queue
        self._calls: list[Lodged] = []  # whose rows were written
        self._own = False  # it is for the block to end it
        self._entered = False
        self._inside: Inside | None = None
        self._watching = False
        self._asked: Claim | None = None

    # -- in and out

    def _enter(self) -> Home:
        """The journal that the connection has to be to; an error if there can be no transaction."""
        if self._entered:
            raise RuntimeError("a transaction is entered once: ask the queue for another one")
        self._scheduler: Scheduler = self._queue._taking()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - two halves of one idea
        journal = self._scheduler.journal
        if journal is None or not isinstance(journal.store, SQLiteStore):
            raise JournalError(
                "a transaction needs a queue with a journal in SQLite, and a connection to that very"
                " file: Queue(“timers.db”). For data elsewhere there is queue.after_commit"
            )
        self._journal: Journal = journal
        self._entered = True
        return self._home()

    def _home(self) -> Home:
        store: Any = self._journal.store
        home: Home = store.home(self._journal.owner)
        return home

    def _begun(self) -> None:
        """The queue is to know that the file is taken; and to say so if that lasts."""
        self._journal.lent += 1
        self._scheduler.loop.call_later(_SLOW, self._tell_slow, context=Context())

    def _come_in(self) -> None:
        self._inside = go_in(self._journal)

    def _go_out(self) -> None:
        if self._inside is not None:
            go_out(self._inside)
            self._inside = None

    def _left(self) -> None:
        self._journal.lent -= 1

    def _tell_slow(self) -> None:
        lodged = self._scheduler.lodged
        holds = self._inside or any(one.call.id in lodged for one in self._calls)
        if holds and self._is_open() and not self._scheduler.closing:
            self._scheduler.tell(WARNING, "transaction_slow", None, seconds=_SLOW)

    @abstractmethod
    def _is_open(self) -> bool:
        """A transaction is open on the connection."""

    # -- a call

    def _lodge(
        self, fn: Any, args: Any, kwargs: Any, eta: Any, delay: Any, key: Any, given: Options | None
    ) -> tuple[Handle[Any], Lodged]:
        """Take a call in, in the loop's thread; its row is still to be written."""
        task = self._queue.task_beside(fn) if given is None else self._queue.task_of(fn)
        if given is not None and (given.after or given.repeat):
            raise ValueError(
                "in a transaction a call takes neither after nor repeat: make it when the transaction"
                " has committed"
            )
        scheduler, found = self._scheduler, list[Lodged]()

        def lodge(call: Call, text: str) -> None:
            found.append(scheduler.lodge(call, text))

        handle = scheduler.accept(task, args, kwargs, eta, delay, key, given, lodge)
        return handle, found[0]

    def _written(self, lodged: Lodged, written: Written) -> None:
        self._calls.append(lodged)
        self._scheduler.lodged_well(lodged, written)
        self._watch()

    # -- what becomes of it

    def _watch(self) -> None:
        """Look again and again whether the transaction has ended, if somebody else ends it."""
        if not self._own and not self._watching:
            self._watching = True
            self._scheduler.loop.call_later(_LOOK, self._look, context=Context())

    def _look(self) -> None:
        self._watching = False
        ended = not self._is_open()
        lodged = self._scheduler.lodged
        self._calls = [one for one in self._calls if one.call.id in lodged]
        if not self._calls or self._scheduler.closing:
            return
        if ended or self._asked is None or self._asked.through:
            self._asked = self._scheduler.look_for(self._calls, ended=ended)
        if not ended:
            self._watch()

    def _ended(self) -> None:
        """It was committed, rolled back, or nobody knows: the journal does."""
        self._left()
        calls, self._calls = self._calls, []
        self._scheduler.look_for(calls, ended=True)

    def _failed(self, error: BaseException) -> None:
        """After a commit that may have happened: what is written next settles whether it has."""
        if not isinstance(error, JournalFull) and not self._scheduler.closing:
            self._journal.log(Note("settled", str(self._scheduler.last)))


def ended_inside() -> RuntimeError:
    """There is nothing left for the block to commit."""
    return RuntimeError(
        "the transaction was ended inside of its block: by a commit, a rollback or executescript()"
        " there, by a close, or by SQLite after an error. The block is to end it; or begin it"
        " yourself, and the block joins it"
    )


def warn_of_wal_reset_bug() -> None:
    """A `RuntimeWarning`, once in a process."""
    if has_wal_reset_bug() and not _warned:
        _warned.append(True)
        text = (
            f"SQLite {sqlite3.sqlite_version} may corrupt a file in WAL mode when one connection "
            "checkpoints it while another one writes, which transactions on a connection of the "
            "program's own make possible, if hardly likely: use SQLite 3.51.3 or newer "
            "(https://sqlite.org/wal.html#walresetbug)"
        )
        warnings.warn(text, RuntimeWarning, stacklevel=4)
