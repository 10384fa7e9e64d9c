"""Jobs that may not run yet: others have to end before.

A held job has a row like any other, and is in memory from its call, or from the start of the queue,
to its release. It hangs on the answers of the jobs that it waits for, so when a newer call takes
the place of one of them, it waits for that one. What has ended is written into its row; of those
that have not, the row tells id and key, by which the next process finds them.

A held row that cannot be run here hangs on those answers too: its jobs may end, and be forgotten,
before a program comes that knows its task.
"""

from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from msgspec import UNSET, structs

from asyncdefer import _rows as rows
from asyncdefer._claims import Claims
from asyncdefer._codec import Unreadable
from asyncdefer._core.defer import folded, opened
from asyncdefer._core.instant import moment
from asyncdefer._core.job import (
    NO_CONTEXT,
    NO_KWARGS,
    Answer,
    Awaited,
    Call,
    Held,
    More,
    Outcome,
    Running,
    Schedule,
)  # fmt: skip
from asyncdefer._core.lifecycle import Event, State, after
from asyncdefer._core.options import Defer, Options
from asyncdefer._entry import Claim
from asyncdefer._handle import Handle
from asyncdefer._log import DEBUG
from asyncdefer._plan import Record
from asyncdefer.errors import JobCancelled, QueueClosed
from asyncdefer.stores._base import HELD, LAST_ID, Add, Drop, Row, Set

_SUCCEEDED: Final = State.SUCCEEDED.value
_DROPPED: Final = State.DROPPED.value


class Holding(Claims):
    """From the call that waits for others to its release."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unattached: list[Held] = []
        self._strangers: dict[int, Held] = {}  # held rows that cannot be run here
        self._freed: deque[tuple[int, int, str]] = deque()
        self._freeing = False

    # -- a call comes

    def awaited(self, given: Options, more: More, rule: Defer | None) -> More:
        """What a call has to remember of the jobs of the handles in `after`."""
        if given.repeat:
            raise ValueError("a schedule waits for no other job: give repeat or after, not both")
        if rule is not None and (rule.leading or rule.keep != "last"):
            raise ValueError(
                "what waits for other jobs counts for its key when they have ended, too late for"
                " leading or keep: give after together with defer=None, or with names"
            )
        jobs = tuple(map(self._awaited, given.after or ()))
        # Without the handles: else each job of an endless chain would hold the one before.
        return structs.replace(more, options=structs.replace(given, after=UNSET), after=jobs)

    def _awaited(self, handle: object) -> Awaited:
        if not isinstance(handle, Handle):
            raise TypeError(f"after takes handles, not {type(handle).__name__}")
        call = _call_of(handle)
        if handle._scheduler is not self:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - two halves of one idea
            raise ValueError(
                f"{call.id} is a job of another queue, or of this one before it was started again:"
                " get its handle by `await queue.handle(id)`"
            )
        if isinstance(call, Schedule):
            raise ValueError(
                f"{call.task.name} repeats, so it does not end: nothing can wait for it"
            )
        return Awaited(call.id, call.task.name, call.shown_key)

    def hold(self, call: Call, arguments: str, handles: Iterable[Handle[Any]]) -> None:
        """Take in a call that waits for other jobs, which may have ended."""
        held = self._keep(call)
        for place, handle in enumerate(handles):
            awaited = _call_of(handle)
            self._hang(held, place, awaited.shared().final(), awaited)
        call.more = structs.replace(call.more, after=tuple(held.after))
        self.ledger.accepted += 1
        if self.journal is not None:
            row = rows.held(call, self._ahead, arguments)
            call.entry = self.journal.log(Add(row), call=call)
        if self._heard(DEBUG):
            self.tell(DEBUG, "job_accepted", call, eta=moment(self.books.wall_eta(call)))
        self._look_at(held)

    def _keep(self, call: Call) -> Held:
        held = self.books.on_hold[call.id] = Held(call, list(call.more.after))
        return held

    def _hang(self, held: Held, place: int, answer: Answer, call: Call | None) -> None:
        """Let it wait for the end of a job, or know it, if that has come."""
        state = answer.state or answer.becomes
        if state is not None:
            held.after[place] = structs.replace(held.after[place], state=state)
            return
        if answer.held is None:
            answer.held = []
        answer.held.append((held.call.id, place))
        held.left += 1
        if call is not None:
            held.awaits[place] = call

    def _move_held(self, call: Call) -> None:
        """It has another eta."""
        after(State.HELD, Event.MOVE)
        held = self.books.on_hold[call.id]
        held.call = call
        self._log_held(held)

    def waits_for(self, call: Call, run: Running) -> bool:
        """A job is held, and the run has to end before it can start."""
        todo, seen = [call], set[int]()
        while todo:
            live = self.books.live(todo.pop())
            if live is run:
                return True
            if isinstance(live, Call) and live.id not in seen and live.id in self.books.on_hold:
                seen.add(live.id)
                todo += self.books.on_hold[live.id].awaits.values()
        return False

    # -- what it waits for ends

    def _free(self, answer: Answer, state: str) -> None:
        self._freed += [(id, place, state) for id, place in answer.held or ()]
        answer.held = None
        if self._freeing:
            return  # the end of one is the end of the next: a long chain is no deep one
        self._freeing = True
        try:
            while self._freed:
                id, place, state = self._freed.popleft()
                held = self.books.on_hold.get(id) or self._strangers.get(id)
                if held is not None and held.after[place].state is None:
                    self._ended_for(held, place, state)
        finally:
            self._freeing = False

    def _ended_for(self, held: Held, place: int, state: str) -> None:
        held.after[place] = structs.replace(held.after[place], state=state)
        held.awaits.pop(place, None)
        held.left -= 1
        if held.row is None:
            if state != _SUCCEEDED and held.call.option("after_failure") == "cancel":
                self._give_up(held, held.after[place])
                return
            if not held.left:
                self._release(held)
                return
        if held.entry is None:
            self._log_held(held)

    def _look_at(self, held: Held) -> None:
        """Of one whose others may have ended before: it may run, or not any more, or it waits."""
        if held.call.option("after_failure") == "cancel":
            bad = next((one for one in held.after if one.state not in (None, _SUCCEEDED)), None)
            if bad is not None:
                self._give_up(held, bad)
                return
        if not held.left:
            self._release(held)

    def _give_up(self, held: Held, bad: Awaited) -> None:
        text = (
            f"{held.call.task.name} was to run after {bad.id} of {bad.task}, which was {bad.state}"
        )
        cancelled = Outcome(Event.CANCEL, error=JobCancelled(text))
        self._end(self._informed(held), cancelled, None, self._steady())

    def _release(self, held: Held) -> None:
        """It waits for its eta from now on, as any call, and by the rule of its key."""
        now = self._now()
        after(State.HELD, Event.RELEASE)
        call = self._informed(held)
        del self.books.on_hold[call.id]
        call.eta = max(call.eta, now if call.steady else now + self._ahead)
        old = self.agenda.waiting.get(call.key) or self.books.far.get(call.key)
        if old is not None and old.id > call.id and old.calls:
            after(State.SCHEDULED, Event.REPLACE)
            self._follow_newer(call, old, HELD)
            return
        rule = call.option("defer")
        if isinstance(rule, Defer) and rule.bound is not None:
            # A deploy may have brought the two since the call.
            rule = structs.replace(rule, leading=False, keep="last")
            if old is None:
                call = opened(call, rule, now, self._ahead)
            else:
                call = folded(old, call, rule, _nothing, now, self._ahead)
        if old is not None:
            call.calls += old.calls
            old.shared().follow(call.shared())
        order = call.eta if call.steady else call.eta - self._ahead
        self._make_way(call, old, order, now)
        if old is not None and old.calls:
            self.ledger.replaced += 1
            self._replaced(old, call)
            old.let_go()
        if self.journal is not None:
            if old is not None and old.calls:
                self._accounted.add(old.id)
            self.journal.log(Set(rows.waiting(call, self._ahead), HELD))
        self.wake()

    def _informed(self, held: Held) -> Call:
        """Its call, which knows how the others have ended."""
        call = held.call
        more = structs.replace(call.more, after=tuple(held.after))
        return call.again(call.eta, steady=call.steady, more=more)

    def _log_held(self, held: Held) -> None:
        """Write its row; while that is on its way, what ends is written with the next."""
        if self.journal is not None:
            left = held.left
            if held.row is None:
                row = rows.held(self._informed(held), self._ahead)
            else:
                row = rows.noted(held.row, held.after)

            def written(_: object) -> None:
                held.entry = None
                known = self.books.on_hold.get(held.call.id) or self._strangers.get(held.call.id)
                if held.left < left and known is held:
                    self._log_held(held)

            held.entry = self.journal.log(Set(row, HELD), done=written)

    def _abandon_held(self, closed: QueueClosed) -> None:
        """The queue closes."""
        for held in tuple(self.books.on_hold.values()):
            self._end(held.call, Outcome(Event.DROP, error=closed), None, self._steady())

    # -- a row comes

    def _hold_again(self, call: Call) -> Call:
        held = self.books.on_hold.get(call.id)
        if held is not None:
            return held.call
        held = self._strangers.pop(call.id, None)
        if held is None:
            self._unattached.append(self._keep(call))
            return call
        call.more = structs.replace(call.more, after=tuple(held.after))
        held.call, held.row = call, None
        self.books.on_hold[call.id] = held
        self._look_at(held)
        return call

    def _hold_parked(self, row: Row) -> None:
        if not (after_ := list(_awaited_by(row))):
            return
        stranger = rows.Stranger(row.task)
        call = Call(row.id, stranger, row.id, row.at, False, (), NO_KWARGS, NO_CONTEXT)
        held = self._strangers[row.id] = Held(call, after_)
        held.row = structs.replace(row, arguments="")
        self._unattached.append(held)

    def _discard_parked(self, row: Row) -> None:
        """A row that cannot be run here goes."""
        assert self.journal is not None
        self.ledger.counts[State.DROPPED] += 1
        self.journal.log(Drop(row.id, row.state))
        self._strangers.pop(row.id, None)
        promised = self.books.promised.pop(row.id, None)
        if promised is not None:
            self._free(promised, _DROPPED)

    async def ask_held(self) -> Claim:
        """Claim all jobs that are held, together with what they wait for: nothing of it ends before."""
        assert self.journal is not None
        store = self.journal.store
        held = [row async for row in store.scan(state=HELD, limit=LAST_ID)]
        left = [one for row in held for one in _awaited_by(row) if one.state is None]
        ids = [one.id for one in left]
        keys = [(one.task, one.key) for one in left if one.key is not None]
        scan = store.scan(ids=ids, limit=len(ids))
        ended = {row.id: row.state async for row in scan if State(row.state).ended}
        arrived = partial(self._recovered, ended)
        claim = Claim(arrived=arrived, ids=[*(row.id for row in held), *ids], keys=keys)
        return self.journal.claim(claim)

    def _recovered(self, ended: dict[int, str], claim: Claim, rows_: list[Row]) -> None:
        self._fetched(claim, rows_)
        unattached, self._unattached = self._unattached, []
        self._attach(unattached, {call.id: call for call in claim.found if call}, ended)
        for held in unattached:
            if self.books.on_hold.get(held.call.id) is held:
                self._look_at(held)

    async def take_in_records(self) -> None:
        """What stands for an iteration knows its shards again."""
        for held in tuple(self.books.on_hold.values()):
            if isinstance(held.call.task, Record):
                await held.call.task.taken_in(held.call)

    def _attach(
        self, unattached: list[Held], found: dict[int, Call], ended: dict[int, str]
    ) -> None:
        """Hang all on what they wait for, before the end of one may be that of another."""
        parked = {(row.task, row.key): row.id for row in self.books.parked.values()}
        for held in unattached:
            before = list(held.after)
            for place, one in enumerate(before):
                if one.state is not None:
                    continue
                call = found.get(one.id) or self.books.find(one.id)
                if call is None and one.id not in self.books.parked and one.id not in ended:
                    call = self._successor(one)
                number = one.id
                if call is None and number not in ended and number not in self.books.parked:
                    number = parked.get((one.task, one.key), number) if one.key else number
                if call is not None:
                    self._hang(held, place, call.shared().final(), call)
                elif number in self.books.parked:
                    promised = self.books.promised.setdefault(number, Answer())
                    self._hang(held, place, promised, None)
                else:
                    state = ended.get(number, _DROPPED)
                    held.after[place] = structs.replace(one, state=state)
            if held.after != before:
                self._log_held(held)

    def _successor(self, one: Awaited) -> Call | None:
        """The call that has taken the place of a job, as far as it is in memory."""
        task = self.task_of(one.task)
        if one.key is None or task is None:
            return None
        key = (task.identity, one.key)
        run = self.runs.get(key)
        waiting = self.agenda.waiting.get(key) or self.books.far.get(key)
        return waiting if waiting is not None or run is None else run.call


def _awaited_by(row: Row) -> Iterable[Awaited]:
    try:
        return rows.body_of(row).after
    except Unreadable:
        return ()


def _call_of(handle: Any) -> Call:
    call: Call = handle._call  # noqa: SLF001 - two halves of one idea
    return call


def _nothing() -> None:
    """What `folded` need not look at, since it merges nothing."""
