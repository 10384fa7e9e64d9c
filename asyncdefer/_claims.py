"""The other door: jobs that come in by a claim, at the start and whenever far ones come near.

In memory are the waiting jobs up to the *horizon*, and those that must be there. What lies beyond
is rows, and the calls of those that somebody holds a handle of. Recovery is the first claim.
"""

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from msgspec import structs

from asyncdefer import _rows as rows
from asyncdefer._codec import Unreadable
from asyncdefer._core.instant import SECOND, moment
from asyncdefer._core.job import (
    NO_CONTEXT,
    Call,
    JobError,
    Key,
    Outcome,
    Running,
)  # fmt: skip
from asyncdefer._core.lifecycle import Event
from asyncdefer._entry import Claim
from asyncdefer._journal import Journal
from asyncdefer._leaving import Leaving
from asyncdefer._log import WARNING
from asyncdefer._recording import RATE
from asyncdefer._task import Task, TaskOf
from asyncdefer.errors import JobCancelled, JobFailed, QueueClosed
from asyncdefer.stores._base import (
    HELD,
    LAST_ID,
    LIVE,
    RUNNING,
    SCHEDULED,
    START,
    Drop,
    Note,
    Opened,
    Place,
    Row,
    Set,
)

HORIZON: Final = 600 * SECOND
IN_MEMORY: Final = 100_000  # waiting jobs that claims bring in at the most
PAGE: Final = 1_000  # rows of one claim
CRASHES: Final = 3


class Unwritten(NamedTuple):
    """What the store does not know yet: ids, and the newest waiting call of each key among them."""

    ids: set[int]
    newest: dict[tuple[str, str], int]

    def knows_better(self, row: Row) -> bool:
        """What a claim has found is out of date."""
        if row.id in self.ids:
            return True
        waits = row.key is not None and row.state == SCHEDULED
        return waits and self.newest.get((row.task, row.key or ""), 0) > row.id


class Claims(Leaving):
    """Rows become jobs, and jobs beyond the horizon are rows."""

    def use(self, journal: Journal, opened: Opened, task_of: TaskOf) -> None:
        """Begin with what a store was found to hold."""
        self.journal = journal
        self.task_of = task_of
        self.books.beyond = opened.counts.get(SCHEDULED, 0)
        self.ledger.claimed = sum(opened.counts.get(state, 0) for state in LIVE)
        self._upto: Place = START
        self._near_at = 0
        self._beyond: int | None = None  # no row beyond the horizon has an earlier eta
        self._unknown: set[str] = set()
        self._resting = {n: v for n, v in opened.notes.items() if n.startswith(RATE)}
        self._restore_rates()

    # -- the horizon

    def ask(self) -> Claim:
        """Claim what has come near. What is accepted meanwhile is near already."""
        assert self.journal is not None
        self._asking, self.claim_at = True, None
        until = self.clock.wall() + HORIZON
        self._near_at = max(self._near_at, until + 1)
        self.near = self._near_at - self._ahead
        claim = Claim(arrived=self._arrive, until=until, limit=PAGE, after=self._upto)
        return self.journal.claim(claim)

    def _see_horizon(self, wall: int) -> None:
        """The horizon moves with the time, up to the first row that lies beyond it."""
        if not self._asking and not self.more:
            near = wall + HORIZON
            if self._beyond is not None and self._beyond < near:
                near = self._beyond
            if near > self._near_at:
                self._near_at, self._upto = near, (near - 1, LAST_ID)
        self.near = self._near_at - self._ahead

    def has_due_rows(self) -> bool:
        """The rows up to the horizon are still to come, and some of them are due."""
        return self._asking or (self.more and self._near_at <= self.clock.wall())

    def _is_far(self, order: int, now: int) -> bool:
        """An order by the steady clock that seemed to be beyond the horizon is there indeed."""
        self._see_horizon(now + self._ahead)
        return order >= self.near

    def _arrive(self, claim: Claim, found: list[Row]) -> None:
        self._asking = False
        if self.closing:
            return
        self._adopt_all(found)
        plain = [row for row in found if row.state == SCHEDULED and not row.pinned]
        self.more = len(plain) >= claim.limit
        if self.more:
            self._upto = (plain[-1].at, plain[-1].id)
            self._near_at = plain[-1].at
        else:
            self._upto = max(self._upto, (claim.until, LAST_ID))
            self._beyond = None if claim.beyond is None else claim.beyond.at
            if self._beyond is not None:
                self.claim_at = max(self._beyond - HORIZON, self.clock.wall()) + HORIZON // 2
        self._see_horizon(self.clock.wall())
        self.wake()

    def _look_around(self, wall: int) -> None:
        self._see_horizon(wall)
        if self._asking:
            return
        if self.more:
            if len(self.agenda.waiting) <= IN_MEMORY - PAGE:
                self.ask()
        elif self.claim_at is not None and wall >= self.claim_at:
            self.ask()

    def _go_far(self, call: Call) -> None:
        """It is a row from now on, and follows the wall clock."""
        held = call
        if call.first is not None:  # by handles, and nobody else
            held = call.first
            held.more, held.answer, held.calls = call.more, call.answer, call.calls
            held.args, held.kwargs = call.args, call.kwargs
        held.eta = call.eta + self._ahead if call.steady else call.eta
        held.steady, held.context = False, NO_CONTEXT
        self.books.set_beyond(held.id, now=True)
        self.books.far.put(held)
        if self._beyond is None or held.eta < self._beyond:
            self._beyond = held.eta
        near = held.eta - HORIZON // 2
        if not self._asking and not self.more and (self.claim_at is None or near < self.claim_at):
            self.claim_at = near
            self.wake()

    def _make_way(self, call: Call, old: Call | None, order: int, now: int) -> None:
        """Place a call in the agenda or beyond the horizon; `old`: the one whose place it takes."""
        if order >= self.near and self._is_far(order, now) and not self._stays(call):
            if old is not None:
                self._take_out(old)
            self._go_far(call)
            return
        if old is not None:
            self._come_near(old)
        self.agenda.place(call, order <= now, order)

    def _take_out(self, call: Call) -> None:
        """It waits no more, wherever it did."""
        if self.agenda.waiting.get(call.key) is call:
            self.agenda.remove(call.key)
        else:
            self._come_near(call)

    def _abandon_far(self, closed: QueueClosed) -> None:
        """The queue closes: whoever waits for far calls, or for calls that were refused, is told."""
        for call in self.books.far:
            self._come_near(call)
            self._end(call, Outcome(Event.DROP, error=closed), None, self._steady())
        for call, _ in (*self._orphans.values(), *self._left):
            self._bury(call, closed)
        self._orphans.clear()
        self._left.clear()

    # -- rows come

    def fetch(self, *, ids: Sequence[int] = (), keys: Sequence[tuple[str, str]] = ()) -> Claim:
        """Bring rows in by their ids or keys."""
        assert self.journal is not None
        return self.journal.claim(Claim(arrived=self._fetched, ids=ids, keys=keys))

    def _fetched(self, claim: Claim, found: list[Row]) -> None:
        if self.closing:  # nobody would settle those who wait for what comes in now
            return
        claim.found = self._adopt_all(found)
        self._settle_orphans([*claim.keys, *claim.ids])

    def _adopt_all(self, found: list[Row]) -> list[Call | None]:
        unwritten = self._unwritten()
        # Runs come last: they may have to give way to a call that waits.
        found = sorted(found, key=lambda row: row.state == RUNNING)
        return [self._adopt(row, unwritten) for row in found]

    def _unwritten(self) -> Unwritten:
        assert self.journal is not None
        ids: set[int] = set()
        newest: dict[tuple[str, str], int] = {}
        for change in self.journal.unwritten():
            if isinstance(change, Drop):
                ids.add(change.id)
            elif not isinstance(change, Note):
                row = change.row
                ids.add(row.id)
                if row.key is not None and row.state == SCHEDULED:
                    name = row.task, row.key
                    newest[name] = max(row.id, newest.get(name, 0))
        return Unwritten(ids, newest)

    def _adopt(self, row: Row, unwritten: Unwritten) -> Call | None:
        """Take a row in, unless it is here already, or we know better."""
        task = self.task_of(row.task)
        rewritten = row.state == HELD and row.id in self.books.parked  # with how the others ended
        if unwritten.knows_better(row) and not rewritten:
            return None
        if task is None:
            self._park(row, "UnknownTask", f"no task is named {row.task!r} here: register it")
            return None
        key: Key = row.id if row.key is None else (task.identity, row.key)
        waiting, run = self.agenda.waiting.get(key), self.runs.get(key)
        if run is not None and run.call.id == row.id:
            return None
        if (
            waiting is not None
            and waiting.calls
            and waiting.id >= row.id
            and row.state == SCHEDULED
        ):
            held = self.books.on_hold.get(row.id)
            if held is not None and waiting.id > row.id:
                self._accounted.add(row.id)
                self._overtaken(held.call, waiting)
            return None  # it is this one, or has given way to it
        held = self.books.on_hold.get(row.id) if row.state == SCHEDULED else None
        try:
            call = rows.call_of(row, task, self._ahead) if held is None else held.call
        except Unreadable as error:
            self._park(row, "Unreadable", str(error))
            return None
        if row.state == HELD:
            self.books.parked.pop(row.id, None)
            self._keep_promise(call)
            return self._hold_again(call)
        if held is not None:  # it was in a transaction, which has committed
            del self.books.on_hold[row.id]
        elif row.id in self._accounted:  # it had given way to a call that was refused
            self._accounted.discard(row.id)
            self.ledger.claimed += 1
        elif self.books.parked.pop(row.id, None) is None and row.state == SCHEDULED:
            self.books.set_beyond(row.id, now=False)
        far = None
        if row.state != RUNNING and held is None:  # else it may give way to that, or that to it
            far = self.books.far.pop(key)
        if far is not None and far.id == call.id:
            call.answer, call.first = far.shared(), far.first or far
        orphan = self._orphans.pop(key, None)
        if orphan is not None:  # those who waited for the call that was refused follow this one
            orphan[0].shared().final().follow(call.shared())
            self._revive(call)
        if far is not None and row.state == SCHEDULED and not self._is_near(call):
            self._go_far(call)
            return call.first  # the object that somebody holds
        goes_on = self._goes_on(call, row)
        self._keep_promise(call)
        if not goes_on:
            return None
        if row.state == RUNNING:
            self._interrupted(call, cancelled=rows.body_of(row).cancelled)
        else:
            self._let_wait(call)
        if held is not None:
            self._committed(call)
        return call

    def _keep_promise(self, call: Call) -> None:
        """What waited for a row that could not be run waits for the job that it is now."""
        promised = self.books.promised.pop(call.id, None)
        if promised is not None:
            answer = call.shared().final()
            promised.follow(answer)
            if answer.state is not None:
                self._free(answer, answer.state)

    def _let_wait(self, call: Call) -> None:
        if (far := self.books.far.get(call.key)) is not None and far.id < call.id:
            self._give_way(far, call)
        if self._is_near(call):
            order = call.eta if call.steady else call.eta - self._ahead
            old = self.agenda.place(call, order <= self._steady(), order)
            if old is not None and old.calls:  # an interrupted run gives way to a newer call
                self._give_way(old, call)
            self.wake()
        else:
            old = self.agenda.waiting.get(call.key)
            if old is not None and old.id < call.id:  # it gave way in a transaction
                self.agenda.remove(call.key)
                if old.calls:
                    self._give_way(old, call)
            self._go_far(call)

    def _give_way(self, old: Call, call: Call) -> None:
        self._come_near(old)
        self._accounted.add(old.id)
        self.ledger.replaced += 1
        old.shared().follow(call.shared())
        self._replaced(old, call)

    def _is_near(self, call: Call) -> bool:
        order = call.eta if call.steady else call.eta - self._ahead
        return order < self.near or self._stays(call)

    def _stays(self, call: Call) -> bool:
        """It is in memory however far its eta is: for itself, or since its key has a schedule."""
        return rows.stays(call) or call.key in self.schedules

    def _interrupted(self, call: Call, *, cancelled: bool) -> None:
        """The process died while it ran: it gives way to a newer call, or runs again, but not for ever."""
        assert self.journal is not None
        run = Running(call, call.more.attempt, call.eta, 0, call.eta, self)
        if cancelled:
            text = f"{call.task.name} was cancelled, and its process died before it had stopped"
            self._end(call, Outcome(Event.CANCEL, error=JobCancelled(text)), run, self._steady())
            return
        if self._gives_way(call):
            return
        call.more = structs.replace(call.more, crashes=call.more.crashes + 1)
        if call.more.crashes >= CRASHES:
            text = f"the process died {CRASHES} times while {call.task.name} ran"
            failed = Outcome(Event.FAIL, error=JobFailed("Crashed", text))
            self._end(call, failed, run, self._steady())
            return
        self.journal.log(Set(rows.waiting(call, self._ahead), RUNNING))
        self._let_wait(call)

    @abstractmethod
    def _hold_again(self, call: Call) -> Call:
        """A row that is held becomes a job that is."""

    @abstractmethod
    def _hold_parked(self, row: Row) -> None:
        """A row that is held and cannot be run here: what it waits for may end here all the same."""

    # -- rows that we cannot run

    def _park(self, row: Row, kind: str, text: str) -> None:
        """Keep a row as it is, and say so: once for all rows of an unknown task."""
        if row.id in self.books.parked:
            return
        self.books.parked[row.id] = structs.replace(row, arguments="", body="")
        if row.state == SCHEDULED:
            self.books.set_beyond(row.id, now=False)
        elif row.state == HELD:
            self._hold_parked(row)
        if kind != "UnknownTask" or row.task not in self._unknown:
            self._unknown.add(row.task)
            if self._heard(WARNING):
                self.tell(
                    WARNING, "job_held", None, job_id=str(row.id), task=row.task, key=row.key,
                    eta=moment(row.at), error=JobError(kind, text, ""),
                )  # fmt: skip

    @abstractmethod
    def check_loop(self) -> None:
        """`WrongLoop` unless the caller is in the queue's own loop."""

    def welcome(self, task: Task[..., Any]) -> None:
        """A task was registered: take in what was kept for it, and then its schedule may begin."""
        self._restore_rates()
        ids = [row.id for row in self.books.parked.values() if row.task == task.name]
        if ids and self.journal is not None:
            self.check_loop()
            arrived = partial(self._welcomed, task)
            self.journal.claim(Claim(arrived=arrived, ids=ids))
        elif task.declared.repeat:
            self.begin(task)

    def _welcomed(self, task: Task[..., Any], claim: Claim, found: list[Row]) -> None:
        self._fetched(claim, found)
        if task.declared.repeat and not self.closing:
            self.begin(task)
