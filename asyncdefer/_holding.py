"""Jobs that may not run yet: others have to end before.

A held job has a row like any other, and is in memory from its call, or from the start of the queue,
to its release. It hangs on the answers of the jobs that it waits for, so when a newer call takes
the place of one of them, it waits for that one. What has ended is written into its row; of those
that have not, the row tells id and key, by which the next process finds them.
"""

import asyncio
from collections.abc import Iterable
from contextvars import Context
from typing import Any, Final

from msgspec import structs

from asyncdefer import _rows as rows
from asyncdefer._claims import Claims
from asyncdefer._core.instant import moment
from asyncdefer._core.job import Answer, Awaited, Call, Held, Outcome, Schedule
from asyncdefer._core.lifecycle import Event, State, after
from asyncdefer._core.options import Options
from asyncdefer._entry import Claim
from asyncdefer._handle import Handle
from asyncdefer._log import DEBUG
from asyncdefer._plan import Record
from asyncdefer._task import Task
from asyncdefer.errors import JobCancelled, JournalError
from asyncdefer.stores._base import HELD, LAST_ID, LIVE, Add, Drop, Row, Set

_SUCCEEDED: Final = State.SUCCEEDED.value
_DROPPED: Final = State.DROPPED.value
_AGAIN: Final = 1.0  # real seconds until the journal is asked again


class Holding(Claims):
    """From the call that waits for others to its release."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._unattached: list[Held] = []
        self._stranded: list[Held] = []  # they wait for rows that nobody here can run
        self._attaching: asyncio.Task[None] | None = None
        self._recovering = False

    # -- a call comes

    def awaited(self, given: Options) -> tuple[Awaited, ...]:
        """The jobs of the handles in `after`, as they are now."""
        if given.repeat:
            raise ValueError("a schedule waits for no other job: give repeat or after, not both")
        return tuple(map(self._awaited, given.after or ()))

    def _awaited(self, handle: object) -> Awaited:
        if not isinstance(handle, Handle):
            raise TypeError(f"after takes handles, not {type(handle).__name__}")
        call: Call = handle._call  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - two halves of one idea
        if handle._scheduler is not self:  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above
            raise ValueError(
                f"{call.id} is a job of another queue, or of this one before it was started again:"
                " get its handle by `await queue.handle(id)`"
            )
        if isinstance(call, Schedule):
            raise ValueError(
                f"{call.task.name} repeats, so it does not end: nothing can wait for it"
            )
        return Awaited(call.id, call.task.name, call.shown_key, self.books.answer(call).state)

    def hold(self, call: Call, arguments: str, handles: Iterable[Handle[Any]]) -> None:
        """Take in a call that waits for jobs which have not ended."""
        held = self._keep(call)
        for place, handle in enumerate(handles):
            if held.after[place].state is None:
                _hang(self.books.answer(handle._call), call, place)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above
        self.ledger.accepted += 1
        if self.journal is not None:
            row = rows.held(call, self._ahead, arguments)
            call.entry = self.journal.log(Add(row), call=call)
        if self._heard(DEBUG):
            self.tell(DEBUG, "job_accepted", call, eta=moment(self.books.wall_eta(call)))
        self._look_at(held)

    def _keep(self, call: Call) -> Held:
        after_ = list(call.more.after)
        held = Held(call, after_, sum(one.state is None for one in after_))
        self.books.on_hold[call.id] = held
        return held

    def _move_held(self, call: Call) -> None:
        """It has another eta."""
        after(State.HELD, Event.MOVE)
        self.books.on_hold[call.id].call = call
        self._log_held(self.books.on_hold[call.id])

    # -- what it waits for ends

    def _free(self, answer: Answer, state: str) -> None:
        on_hold, answer.held = answer.held, None
        for id, place in on_hold or ():
            held = self.books.on_hold.get(id)
            if held is not None and held.after[place].state is None:
                self._ended_for(held, place, state)

    def _ended_for(self, held: Held, place: int, state: str) -> None:
        held.after[place] = structs.replace(held.after[place], state=state)
        held.left -= 1
        self._look_at(held)
        if held.left and held.entry is None and self.books.on_hold.get(held.call.id) is held:
            self._log_held(held)

    def _look_at(self, held: Held) -> None:
        """It may run, or is not to run any more, or goes on waiting."""
        call = held.call
        if call.option("after_failure") == "cancel":
            bad = next((one for one in held.after if one.state not in (None, _SUCCEEDED)), None)
            if bad is not None:
                text = f"{call.task.name} was to run after {bad.task}, which was {bad.state}"
                cancelled = Outcome(Event.CANCEL, error=JobCancelled(text))
                self._end(self._informed(held), cancelled, None, self._steady())
                return
        if not held.left:
            self._release(held)

    def _release(self, held: Held) -> None:
        """It waits for its eta from now on, as any call, and by the rule of its key."""
        now = self._now()
        after(State.HELD, Event.RELEASE)
        call = self._informed(held)
        del self.books.on_hold[call.id]
        call.eta = max(call.eta, now if call.steady else now + self._ahead)
        key = call.key
        old = self.agenda.waiting.get(key) or self.books.far.get(key)
        if old is not None and old.id > call.id and old.calls:
            self._yield_to(old, call)
            return
        if old is not None:
            call.calls += old.calls
            old.shared().follow(call.shared())
        order = call.eta if call.steady else call.eta - self._ahead
        self._make_way(call, old, order, now)
        if old is not None and old.calls:
            self._accounted.add(old.id)
            self.ledger.replaced += 1
            self._replaced(old, call)
            old.let_go()
        if self.journal is not None:
            self.journal.log(Set(rows.waiting(call, self._ahead), HELD))
        self.wake()

    def _yield_to(self, newer: Call, call: Call) -> None:
        """A call that came later waits under its key."""
        after(State.HELD, Event.REPLACE)
        call.shared().follow(newer.shared())
        self.ledger.replaced += 1
        self.books.name(call)
        self.books.name(newer)
        self._replaced(call, newer)
        if self.journal is not None:
            self.journal.log(Drop(call.id, HELD))

    def _informed(self, held: Held) -> Call:
        """Its call, which knows how the others have ended."""
        call = held.call
        more = structs.replace(call.more, after=tuple(held.after))
        return call.again(call.eta, steady=call.steady, more=more)

    def _log_held(self, held: Held) -> None:
        """Write its row; while that is on its way, what ends is written with the next."""
        if self.journal is not None:
            row = rows.held(self._informed(held), self._ahead)
            left = held.left

            def written(_: object) -> None:
                held.entry = None
                if held.left < left and self.books.on_hold.get(held.call.id) is held:
                    self._log_held(held)

            held.entry = self.journal.log(Set(row, HELD), done=written)

    # -- a row comes

    def _hold_again(self, call: Call) -> Call:
        held = self.books.on_hold.get(call.id)
        if held is None:
            held = self._keep(call)
            self._unattached.append(held)
            self._attach_soon()
        return held.call

    def _attach_soon(self) -> None:
        if self._unattached and not self._recovering and self._attaching is None:
            self._attaching = asyncio.Task(self._attach_late(), loop=self.loop, context=Context())

    def look_again(self) -> None:
        """Rows that nobody here could run can be run now, or are gone."""
        if self._stranded:
            self._unattached += self._stranded
            self._stranded = []
            self._attach_soon()

    def _welcomed(self, task: Task[..., Any], claim: Claim, found: list[Row]) -> None:
        super()._welcomed(task, claim, found)
        self.look_again()

    async def recover_held(self) -> None:
        """Take in all jobs that are held, and what they wait for."""
        assert self.journal is not None
        self._recovering = True
        rows_ = self.journal.store.scan(state=HELD, limit=LAST_ID)
        if ids := [row.id async for row in rows_]:
            await self.journal.through(self.fetch(ids=ids))
        await self._attach()
        self._recovering = False

    async def _attach_late(self) -> None:
        while self._unattached and not self.closing:
            try:
                await self._attach()
            except JournalError:
                await asyncio.sleep(_AGAIN)
        self._attaching = None

    async def _attach(self) -> None:
        """Hang what is held on the answers that it waits for."""
        assert self.journal is not None
        unattached, self._unattached = self._unattached, []
        try:
            left = [one for held in unattached for one in held.after if one.state is None]
            claim = None  # it keeps what lies beyond the horizon, until that is hung on
            if left:
                ids = [one.id for one in left]
                keys = [(one.task, one.key) for one in left if one.key is not None]
                await self.journal.through(claim := self.fetch(ids=ids, keys=keys))
            gone = [one.id for one in left if self.successor(one) is None]
            scan = self.journal.store.scan(ids=gone, limit=len(gone))
            ended = {row.id: row.state async for row in scan} if gone else {}
        except BaseException:
            self._unattached += unattached
            raise
        for held in unattached:
            if isinstance(held.call.task, Record):
                await held.call.task.taken_in(held.call)
        for held in unattached:
            self._hang_all(held, ended)
        del claim

    def _hang_all(self, held: Held, ended: dict[int, str]) -> None:
        for place, one in enumerate(held.after):
            if one.state is not None or self.books.on_hold.get(held.call.id) is not held:
                continue
            live = self.successor(one)
            state = ended.get(one.id, _DROPPED) if live is None else live.shared().final().state
            if live is None and state in LIVE:
                self._stranded.append(held)
            elif live is None or state is not None:
                self._ended_for(held, place, state or _DROPPED)
            else:
                held.calls.append(live)
                _hang(live.shared().final(), held.call, place)
        if self.books.on_hold.get(held.call.id) is held:
            self._look_at(held)

    def successor(self, one: Awaited) -> Call | None:
        """The job, or the one that has taken its place, as far as it is in memory."""
        found = self.books.find(one.id)
        if found is not None or one.key is None:
            return found
        task = self.task_of(one.task)
        key = (one.task if task is None else task.identity, one.key)
        run = self.runs.get(key)
        waiting = self.agenda.waiting.get(key) or self.books.far.get(key)
        if run is not None and (waiting is None or run.call.id > one.id):
            return run.call if run.call.id > one.id else None
        return waiting if waiting is not None and waiting.id > one.id else None


def _hang(answer: Answer, call: Call, place: int) -> None:
    if answer.held is None:
        answer.held = []
    answer.held.append((call.id, place))
