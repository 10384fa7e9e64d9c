"""Calls that leave again: refused by the journal, or gone from it without our doing.

Those who wait for such a call follow what the journal has under its key, if it has anything.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from asyncdefer._core.job import Call, Key, Running
from asyncdefer._core.lifecycle import State
from asyncdefer._entry import Claim
from asyncdefer._loop import Loop
from asyncdefer.errors import JournalError
from asyncdefer.stores._base import Row, Unknown, Written


class Leaving(Loop):
    """What becomes of those who wait for a call that is no more."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._left: list[tuple[Call, JournalError]] = []
        self._orphans: dict[Key, tuple[Call, JournalError]] = {}

    @abstractmethod
    def fetch(self, *, ids: Sequence[int] = (), keys: Sequence[tuple[str, str]] = ()) -> Claim:
        """Bring rows in by their ids or keys."""

    def refused(self, call: Call, error: JournalError) -> None:
        """A call could not be written: it was never accepted, and what it replaced comes back."""
        key = call.key
        waiting, run = self.agenda.waiting.get(key), self.runs.get(key)
        if waiting is not None and waiting.id == call.id:
            self.agenda.remove(key)
        elif run is not None and run.call.id == call.id and not isinstance(error, Unknown):
            self.agenda.release(key)  # its start stands in line behind it, and will find nothing
            self.wake()
        elif (far := self.books.far.get(key)) is not None and far.id == call.id:
            self._come_near(far)
        elif call.id in self.books.on_hold:
            self._refuse_held(call, error)
            return
        else:
            return  # it runs, has ended or was replaced: what was logged of that will tell
        self.ledger.accepted -= 1
        if call.more.schedule is not None:
            self._end_schedule(call, call.shared())
        self._leave(call, error)

    def _refuse_held(self, call: Call, error: JournalError) -> None:
        """It was never there; or nobody knows, and it waits on until the journal says that it has not."""
        assert self.journal is not None

        def looked(_: Claim, found: list[Row]) -> None:
            if not found and not self.closing and self.books.on_hold.pop(call.id, None) is not None:
                self.ledger.accepted -= 1
                self._bury(call, error)

        if isinstance(error, Unknown):
            self.journal.claim(Claim(arrived=looked, ids=[call.id]))
        else:
            looked(Claim(arrived=looked), [])

    def _leave(self, call: Call, error: JournalError) -> None:
        if isinstance(call.key, int) and not isinstance(error, Unknown):
            self._bury(call, error)
            return
        if not self._left:
            self.loop.call_soon(self._fetch_left, context=self._own)
        self._left.append((call, error))

    def _fetch_left(self) -> None:
        left, self._left = self._left, []
        keys: list[tuple[str, str]] = []
        for call, error in left:
            older = self._orphans.get(call.key)
            if older is not None and older[0].shared().final() is not call.shared().final():
                older[0].shared().final().follow(call.shared())
            self._orphans[call.key] = (call, error)
            if not isinstance(call.key, int):
                keys.append((call.task.name, call.key[1]))
        ids = [call.id for call, _ in left]
        if keys:
            self.fetch(keys=keys)
        self.fetch(ids=ids)

    def _settle_orphans(self, keys: Sequence[Key]) -> None:
        """The journal was asked for what it has under these keys, and what it had is here."""
        asked_again = {call.key for call, _ in self._left}
        for key in keys:
            if key in asked_again or key not in self._orphans:
                continue
            call, error = self._orphans.pop(key)
            answer, newer = call.shared().final(), self._newer(key)
            if newer is None or newer.shared().final() is answer:
                self._bury(call, error)
            else:
                answer.follow(newer.shared())

    def _newer(self, key: Key) -> Call | None:
        """A call that has come meanwhile: what becomes of it is the outcome for all."""
        waiting = self.agenda.waiting.get(key) or self.books.far.get(key)
        if waiting is not None and waiting.calls:
            return waiting
        run = self.runs.get(key)
        return run.call if run is not None and run.call.entry is not None else None

    def _bury(self, call: Call, error: BaseException, state: State = State.DROPPED) -> None:
        """Nothing of a call is left: those who wait for it get the error."""
        answer = call.shared().final()
        if answer.state is None:
            answer.id, answer.error, answer.state = call.id, error, state.value
            answer.wake()
            if answer.held is not None and not self.closing:
                self._free(answer, answer.state)

    def _disown(self, run: Running) -> None:
        call = run.call
        self.agenda.release(call.key)
        self.ledger.counts[State.DROPPED] += 1
        if (newer := self._newer(call.key)) is not None:
            self._end_schedule(call, newer.shared(), replaced=True)
        self._leave(call, _gone(call))
        self.wake()

    @abstractmethod
    def _committed(self, call: Call) -> None:
        """The row of a call that was in a transaction was there after it, if only for a while."""

    def _overtaken(self, call: Call, newer: Call | None) -> None:
        """A call that came later has taken the place of one that was committed, and is not here yet."""
        self.books.on_hold.pop(call.id, None)
        self.ledger.replaced += 1
        if newer is None:
            self._leave(call, _gone(call))
        else:
            call.shared().follow(newer.shared())
            self.books.name(call)
            self._replaced(call, newer)
        self._committed(call)

    def out(self, written: Written) -> None:
        """Ids that left the store without having been told to."""
        gone = {id for id in written.replaced if id not in self._accounted}
        self._accounted.difference_update(written.replaced)
        if not gone and not written.lost:
            return
        self._forget_all(gone, replaced=True)
        self._forget_all(written.lost, replaced=False)

    def _forget_all(self, ids: Iterable[int], *, replaced: bool) -> None:
        left = set(ids)
        calls: list[Call] = [*self.agenda.waiting.values(), *self.books.far]
        for call in calls:
            if call.id not in left:
                continue
            left.discard(call.id)
            if self.agenda.waiting.get(call.key) is call:
                self.agenda.remove(call.key)
            else:
                self._come_near(call)
            if replaced:
                self.ledger.replaced += 1
            else:
                self.ledger.counts[State.DROPPED] += 1
            self._leave(call, _gone(call))
        if replaced:  # of the others, those that were rows only
            known = {run.call.id for run in self.runs.values()}
            for id in left - known:
                if (held := self.books.on_hold.get(id)) is not None:
                    self._overtaken(held.call, self._newer(held.call.key))
                    continue
                self.ledger.replaced += 1
                if (row := self.books.parked.pop(id, None)) is None:
                    self.books.set_beyond(id, now=False)
                else:
                    self._leave_parked(row)

    def _leave_parked(self, row: Row) -> None:
        """A row that could not be run here is gone: what waits for it follows a newer call."""
        answer, task = self.books.promised.pop(row.id, None), self.task_of(row.task)
        if answer is not None:
            newer = (
                None if task is None or row.key is None else self._newer((task.identity, row.key))
            )
            if newer is None:
                self._free(answer, State.DROPPED.value)
            else:
                answer.follow(newer.shared())


def _gone(call: Call) -> JournalError:
    return JournalError(f"the journal does not have {call.task.name} any more")
