"""Calls whose rows stand in a transaction of the program's: they may run when it has committed.

Until then the job is held here, and nobody else sees its row. What became of the transaction is
read from the journal: a claim by ids finds the rows that were committed, and those it does not find
were rolled back with a savepoint or with all of it.
"""

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct

from asyncdefer import _rows as rows
from asyncdefer._core.instant import moment
from asyncdefer._core.job import Call, Held
from asyncdefer._core.lifecycle import State
from asyncdefer._entry import Claim
from asyncdefer._holding import Holding
from asyncdefer._log import DEBUG
from asyncdefer.errors import JobDropped
from asyncdefer.stores._base import Row, Written


class Lodged(Struct, eq=False):
    """A call in a transaction. `replaced`: ids that gave way to it there; `unseen`: those of them
    that were no jobs in memory then.
    """

    call: Call
    row: Row
    replaced: tuple[int, ...] = ()
    unseen: tuple[int, ...] = ()
    cancelled: bool = False


class Committing(Holding):
    """From the call in a transaction to the commit, or to the rollback."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lodged: dict[int, Lodged] = {}
        """Those whose transaction is not known to have ended."""

    @abstractmethod
    def cancel(self, call: Call) -> bool:
        """Take a waiting job out, or stop its run; False if it has ended."""

    def lodge(self, call: Call, arguments: str) -> Lodged:
        """Hold a call whose row is about to be written."""
        row = rows.waiting(call, self._ahead, arguments)
        lodged = self.lodged[call.id] = Lodged(call, row)
        self.books.on_hold[call.id] = Held(call, [], 1)
        self.ledger.accepted += 1
        if self._heard(DEBUG):
            self.tell(DEBUG, "job_accepted", call, eta=moment(self.books.wall_eta(call)))
        return lodged

    def lodged_well(self, lodged: Lodged, written: Written) -> None:
        """Its row stands in the transaction."""
        key = lodged.call.key
        waiting = self.agenda.waiting.get(key) or self.books.far.get(key)
        run = self.runs.get(key)
        known = {call.id for call in (waiting, run and run.call) if isinstance(call, Call)}
        known.update(self.books.on_hold)
        lodged.replaced = written.replaced
        lodged.unseen = tuple(id for id in written.replaced if id not in known)

    def lodged_ill(self, lodged: Lodged, error: Exception) -> None:
        """Its row could not be written: it was never accepted."""
        if self.books.on_hold.pop(lodged.call.id, None) is not None:
            self.ledger.accepted -= 1
        self.lodged.pop(lodged.call.id, None)
        self._bury(lodged.call, error)

    def look_for(self, calls: Sequence[Lodged], *, ended: bool) -> Claim | None:
        """Ask which of them were committed; `ended`: the others were not, and never will be."""
        left = [lodged for lodged in calls if lodged.call.id in self.lodged]
        if not left or self.journal is None:
            return None

        def arrived(claim: Claim, found: list[Row]) -> None:
            self._committed(left, claim, found)
            if ended and not self.closing:
                self._rolled_back(left)

        ids = [lodged.call.id for lodged in left]
        return self.journal.claim(Claim(arrived=arrived, ids=ids))

    def _committed(self, calls: Iterable[Lodged], claim: Claim, found: list[Row]) -> None:
        if self.closing:
            return
        by_id = {lodged.call.id: lodged for lodged in calls}
        for row in sorted(found, key=lambda row: row.id, reverse=True):
            lodged = by_id.get(row.id)
            if lodged is not None:
                self._count_replaced(lodged, by_id)
        self._fetched(claim, found)
        for row in found:
            lodged = by_id.get(row.id)
            if lodged is not None and self.lodged.pop(row.id, None) is not None:
                self._accounted.difference_update(lodged.replaced)
                if lodged.cancelled:
                    self.cancel(lodged.call)

    def _count_replaced(self, lodged: Lodged, by_id: dict[int, Lodged]) -> None:
        """What gave way in the transaction: calls of the same one, and rows that nobody has seen."""
        for id in lodged.replaced:
            older = by_id.get(id)
            if older is not None and self.lodged.pop(id, None) is not None:
                self.books.on_hold.pop(id, None)
                self.ledger.replaced += 1
                older.call.shared().follow(lodged.call.shared())
                self.books.name(older.call)
                self._replaced(older.call, lodged.call)
                self._count_replaced(older, by_id)
            elif id in lodged.unseen and self.books.find(id) is None:
                self.ledger.replaced += 1
                if self.books.parked.pop(id, None) is None:
                    self.books.beyond -= 1

    def _rolled_back(self, calls: Iterable[Lodged]) -> None:
        for lodged in calls:
            call = lodged.call
            if self.lodged.pop(call.id, None) is None:
                continue
            if self.books.on_hold.pop(call.id, None) is not None:
                self.ledger.counts[State.DROPPED] += 1
                text = f"the transaction of {call.task.name} was rolled back"
                self._bury(call, JobDropped(text))
