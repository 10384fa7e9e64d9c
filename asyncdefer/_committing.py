"""Calls whose rows stand in a transaction of the program's: they may run when it has committed.

Until then the job is held here, and nobody else sees its row. What became of the transaction is
read from the journal: a claim by ids finds the rows that were committed, and those it does not find
were rolled back with a savepoint or with all of it; or a later transaction's call took their place.

What waits under the key of such a call is left alone until the commit, and may be replaced, moved
or ended meanwhile; what gave way to it in the file is counted when that is known to have happened.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs

from asyncdefer import _rows as rows
from asyncdefer._core.instant import moment
from asyncdefer._core.job import Call, Held, Key, More, Outcome
from asyncdefer._core.lifecycle import Event, State, after
from asyncdefer._entry import Claim
from asyncdefer._holding import Holding
from asyncdefer._log import DEBUG
from asyncdefer.errors import JobDropped, QueueClosed
from asyncdefer.stores._base import Row, Written


class Lodged(Struct, eq=False):
    """A call in a transaction. `replaced`: ids that gave way to it there. `since`: the last group of
    the journal that had begun when the row was seen to be written, None before. `outcome`: what it is to end with,
    if it was cancelled meanwhile. `spare`: the id before its own is not taken yet.
    """

    call: Call
    row: Row
    replaced: tuple[int, ...] = ()
    since: int | None = None
    outcome: Outcome | None = None
    spare: bool = True


class Committing(Holding):
    """From the call in a transaction to the commit, or to the rollback."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.lodged: dict[int, Lodged] = {}
        """Those whose transaction is not known to have ended, in the order of their ids."""

    @abstractmethod
    def _end_waiting(self, call: Call, outcome: Outcome) -> None:
        """Take a waiting job out."""

    # -- lodged

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
        """Its row stands in the transaction, or gave way there to one of a later call."""
        assert self.journal is not None
        call = lodged.call
        lodged.since = self.journal.groups
        lodged.replaced = tuple(id for id in written.replaced if id != call.id)
        for id in lodged.replaced:
            self.books.yielding.setdefault(id, self._is_row_only(call.key, id))
        if len(lodged.replaced) < len(written.replaced):
            self._overtaken(call, self._newer(call.key))

    def _is_row_only(self, key: Key, id: int) -> bool:
        """A row is one of those beyond the horizon."""
        books, far = self.books, self.books.far.get(key)
        if far is not None and far.id == id:
            return True
        waiting, run = self.agenda.waiting.get(key), self.runs.get(key)
        if (waiting is not None and waiting.id == id) or (run is not None and run.call.id == id):
            return False
        if id in books.on_hold or id in books.parked or id in self._accounted:
            return False
        return id not in self._unwritten().ids  # it has ended, and the end waits for the file

    def lodged_ill(self, lodged: Lodged, error: BaseException) -> None:
        """Its row could not be written: it was never accepted."""
        if self.books.on_hold.pop(lodged.call.id, None) is not None:
            self.ledger.accepted -= 1
        self.lodged.pop(lodged.call.id, None)
        self._bury(lodged.call, error)

    def end_lodged(self, id: int, outcome: Outcome) -> None:
        """It is not to run, nor is what took its place; their rows are not ours to change yet."""
        ended: set[int] = set()
        for lodged in self.lodged.values():
            if lodged.call.id == id or not ended.isdisjoint(lodged.replaced):
                ended.add(lodged.call.id)
                lodged.outcome = lodged.outcome or outcome

    def _id_after(self, call: Call, now: int) -> int:
        """What follows by itself is no newer than a call that was made before."""
        for lodged in self.lodged.values():
            if lodged.call.key == call.key and lodged.spare:
                lodged.spare = False
                return lodged.call.id - 1
        return super()._id_after(call, now)

    def _abandon_held(self, closed: QueueClosed) -> None:
        text = (
            "the queue was closed before the transaction of this call had ended: if it commits, the"
            " job runs when the queue is started again"
        )
        for lodged in self.lodged.values():
            if lodged.call.id in self.books.on_hold:
                dropped = Outcome(Event.DROP, error=QueueClosed(text))
                self._end(lodged.call, dropped, None, self._steady())
        super()._abandon_held(closed)

    # -- what became of it

    def look_for(self, calls: Sequence[Lodged], *, ended: bool) -> Claim | None:
        """Ask which of them were committed; `ended`: the others were not, and never will be.

        What was written before a group of the journal had its transaction ended by then: there is
        one writer.
        """
        left = [lodged for lodged in calls if lodged.call.id in self.lodged]
        if not left or self.journal is None or self.closing:
            return None
        written = self.journal.written
        over = [lodged for lodged in left if ended or (lodged.since or 0) < written]

        def arrived(claim: Claim, found: list[Row]) -> None:
            self._fetched(claim, found)
            if self.closing:
                return
            there = {row.id for row in found}
            self._rolled_back([lodged for lodged in over if lodged.call.id not in there])
            # A newer call takes their place, or is refused: then they are asked for once more.
            self.look_for([lodged for lodged in over if lodged.call.id in there], ended=True)

        ids = [lodged.call.id for lodged in left]
        return self.journal.claim(Claim(arrived=arrived, ids=ids))

    def _committed(self, call: Call) -> None:
        lodged = self.lodged.pop(call.id, None)
        if lodged is None:
            return
        left = list(lodged.replaced)
        while left:
            id = left.pop()
            self._accounted.discard(id)
            older = self.lodged.pop(id, None)
            row_only = self.books.yielding.pop(id, False)
            if older is not None:
                left += older.replaced
                self._gave_way(older, call, lodged.outcome)
            elif row_only or self.books.parked.pop(id, None) is not None:
                self.ledger.replaced += 1
                self.books.beyond -= row_only
        self._end_schedule_under(call)
        live = self.books.live(call)
        if lodged.outcome is not None and isinstance(live, Call) and live.id == call.id:
            self._end_waiting(live, lodged.outcome)

    def _gave_way(self, older: Lodged, call: Call, outcome: Outcome | None) -> None:
        """A call of a transaction that a later call in one has replaced."""
        if self.books.on_hold.pop(older.call.id, None) is None:
            return
        if older.outcome is not None and outcome is None:  # it was cancelled before
            self._conclude_unwritten(older.call, older.outcome)
            return
        call.calls += older.call.calls
        self.ledger.replaced += 1
        older.call.shared().follow(call.shared().final())
        self.books.name(older.call)
        self._replaced(older.call, call)
        older.call.let_go()

    def _end_schedule_under(self, call: Call) -> None:
        """Its schedule has no run any more, since this call is there."""
        schedule = self.schedules.get(call.key)
        if schedule is not None and self.books.live(schedule) is None:
            last = structs.replace(call, more=More(schedule=schedule))
            self._end_schedule(last, call.shared().final(), replaced=True)

    def _rolled_back(self, calls: Sequence[Lodged]) -> None:
        """Their rows are not there; but where a later transaction has taken the place of one, it is for that to say."""
        ids = {lodged.call.id for lodged in calls}
        others = [lodged for lodged in self.lodged.values() if lodged.call.id not in ids]
        given = {id for lodged in others for id in lodged.replaced}
        back: list[Lodged] = []
        for lodged in calls:
            call = lodged.call
            if call.id in given or self.lodged.pop(call.id, None) is None:
                continue
            for id in lodged.replaced:
                if id in self.lodged and id not in ids:
                    back.append(self.lodged[id])
                if id not in given:
                    self.books.yielding.pop(id, None)
            if self.books.on_hold.pop(call.id, None) is not None:
                text = f"the transaction of {call.task.name} was rolled back"
                dropped = Outcome(Event.DROP, error=JobDropped(text))
                self._conclude_unwritten(call, lodged.outcome or dropped)
        self.look_for(back, ended=True)

    def _conclude_unwritten(self, call: Call, outcome: Outcome) -> None:
        """It has ended, and there is no row to say so."""
        state = after(State.HELD, outcome.event)
        self.ledger.counts[state] += 1
        assert outcome.error is not None
        self._bury(call, outcome.error, state)
        call.let_go()
        if self._heard(DEBUG):
            self.tell(DEBUG, f"job_{state.value}", call, attempt=0)
