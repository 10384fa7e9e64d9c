"""What every transaction on the journal's file does: calls are lodged in it, and looked for afterwards.

The rows are written on the program's connection, so they are there with its commit and gone with
its rollback. Then the journal is asked for them: at once if the transaction was ended by its block,
else when it is seen to have ended.
"""

from abc import ABC, abstractmethod
from contextvars import Context
from typing import Any, Final

from asyncdefer._calls import Calls
from asyncdefer._committing import Lodged
from asyncdefer._core.job import Call
from asyncdefer._core.options import Options
from asyncdefer._door import go_in, go_out
from asyncdefer._handle import Handle
from asyncdefer._journal import Journal
from asyncdefer._log import WARNING
from asyncdefer._scheduler import Scheduler
from asyncdefer.errors import JournalError
from asyncdefer.stores._base import Note, Written
from asyncdefer.stores.sqlite import SQLiteStore

_LOOK: Final = 0.25  # real seconds between two looks whether a transaction has ended
_SLOW: Final = 1.0  # real seconds for which one may hold the file without a word


class Lodging(ABC):
    """What both kinds of transaction know: the queue, and the calls that were made."""

    def __init__(self, queue: Calls) -> None:
        self._queue = queue
        self._calls: list[Lodged] = []
        self._own = False
        self._inside = False
        self._watching = False

    @property
    def _scheduler(self) -> Scheduler:
        return self._queue._started()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - two halves of one idea

    def _store(self) -> tuple[SQLiteStore, Journal]:
        journal = self._queue.journal
        if journal is None or not isinstance(journal.store, SQLiteStore):
            raise JournalError(
                "a transaction needs a queue that runs with a journal in SQLite, and a connection to "
                "that very file: Queue(“timers.db”). For data elsewhere there is queue.after_commit"
            )
        return journal.store, journal

    def _come_in(self) -> None:
        self._inside = True
        self._before = go_in()

    def _go_out(self) -> None:
        self._inside = False
        go_out(self._before)

    def _lodge(
        self, fn: Any, args: Any, kwargs: Any, eta: Any, delay: Any, key: Any, given: Options | None
    ) -> tuple[Handle[Any], Lodged]:
        """Take a call in, in the loop's thread; its row is still to be written."""
        scheduler = self._scheduler
        scheduler.check_loop()
        task = self._queue.task_of(fn)
        given = given or Options()
        if given.after or given.repeat:
            raise ValueError(
                "in a transaction a call takes neither after nor repeat: give them to a call that is "
                "made after the commit"
            )
        found: list[Lodged] = []

        def lodge(call: Call, text: str) -> None:
            found.append(scheduler.lodge(call, text))

        handle = self._queue.accept(task, args, kwargs, eta, delay, key, given, lodge)
        self._calls.append(found[0])
        return handle, found[0]

    def _written(self, lodged: Lodged, written: Written) -> None:
        self._scheduler.lodged_well(lodged, written)
        self._watch()

    def _not_written(self, lodged: Lodged, error: BaseException) -> None:
        if isinstance(error, Exception):
            self._calls.remove(lodged)
            self._scheduler.lodged_ill(lodged, error)
        else:  # it was cancelled, and may be written all the same
            lodged.cancelled = True
            self._watch()

    # -- what becomes of it

    def _watch(self) -> None:
        """Look again and again whether the transaction has ended, if somebody else ends it."""
        if not self._own and not self._watching:
            self._watching = True
            loop = self._scheduler.loop
            loop.call_later(_LOOK, self._look, context=Context())

    def _look(self) -> None:
        self._watching = False
        ended = not self._is_open()
        if not self._scheduler.closing:
            self._scheduler.look_for(self._calls, ended=ended)
            if not ended:
                self._watch()

    @abstractmethod
    def _is_open(self) -> bool:
        """The transaction has not ended."""

    def _left(self) -> None:
        self._journal.lent -= 1

    def _ended(self) -> None:
        """It was committed, rolled back, or nobody knows: the journal does."""
        self._left()
        calls, self._calls = self._calls, []
        self._scheduler.look_for(calls, ended=True)

    def _unknown(self) -> None:
        """After a commit that may have happened: what is written next settles whether it has."""
        _, journal = self._store()
        journal.log(Note("settled", str(self._scheduler.last)))

    def _begun(self) -> None:
        """The queue is to know that the file is taken; and to say so if that lasts."""
        _, self._journal = self._store()
        self._journal.lent += 1
        self._scheduler.loop.call_later(_SLOW, self._tell_slow, context=Context())

    def _tell_slow(self) -> None:
        if self._inside and self._is_open() and not self._scheduler.closing:
            self._scheduler.tell(WARNING, "transaction_slow", None, seconds=_SLOW)
