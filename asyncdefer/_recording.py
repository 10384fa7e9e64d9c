"""What a queue that runs consists of, and what of it is written down.

Accepted calls, calls that wait elsewhere now, ends, and what rates have used.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final
from weakref import WeakValueDictionary

from msgspec import json, structs

from asyncdefer import _rows as rows
from asyncdefer._books import Books
from asyncdefer._clock import Alarm, Clock
from asyncdefer._core.agenda import Agenda
from asyncdefer._core.instant import SECOND, moment
from asyncdefer._core.job import Answer, Call, JobError, Key, Outcome, Running, Schedule
from asyncdefer._core.lane import RateLane
from asyncdefer._core.ledger import Ledger
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.rules import is_closing
from asyncdefer._journal import Journal
from asyncdefer._log import WARNING, Events, LogEvent
from asyncdefer._plan import Record
from asyncdefer._task import Task, TaskOf
from asyncdefer._threads import ThreadPool
from asyncdefer.stores._base import LAST_ID, RUNNING, SCHEDULED, Add, Change, Drop, Note, Set

FAR: Final = 1 << 62  # later than any time
RATE: Final = "rate:"
_TOLD: Final = 60 * SECOND  # until the rows of those that wait for a job tell how it has ended


class Recording:
    """The agenda, the ledger, the runs, and the journal that is told of them.

    What is logged is logged in the breath in which it became true.
    """

    def __init__(
        self,
        clock: Clock,
        events: Events,
        *,
        concurrency: int,
        threads: int,
        result_ttl: int | None,
        callables: dict[Any, Task[..., Any]],
        last: int = 0,
    ) -> None:
        self.journal: Journal | None = None
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.agenda = Agenda(concurrency)
        self.ledger = Ledger()
        self.runs: dict[Key, Running] = self.agenda.running
        self.books = Books(clock, self.agenda, self.ledger, self.runs)
        self.closing = False
        self._events = events
        self._callables = callables
        self._result_ttl = result_ttl
        self._threads = ThreadPool(threads)
        self.task_of: TaskOf = lambda _: None
        self._steady = clock.steady
        self._heard = events.heard
        self._own = Context()  # the queue's own work belongs to no request
        self.last = last
        self.salt = 0
        self._next_tick = 0
        self._purge = 0
        self._awake = False
        self._alarm: Alarm | None = None
        self._armed = FAR
        self._ahead = clock.wall() - clock.steady()
        self._watched = self._ahead  # as the last turn has found it
        self._highest = self._ahead  # since bounds were looked after
        self._read = clock.steady()
        self._joiners: list[asyncio.Future[None]] = []
        self._awaiting: int = 0
        self._starved = False
        self._launched: list[Running] = []  # by the journal's writer, and not looked at since
        self._told: set[Running] = set()  # runs that the close has cancelled
        self.near = FAR  # calls with an eta from here on are rows only
        self.claim_at: int | None = None  # when, on the wall clock, to look what has come near
        self._asking = False  # for what has come near
        self.more = False  # rows are due for memory, as soon as it has room
        self._accounted: set[int] = set()  # ids that gave way here, and will in the store
        self.schedules: dict[Key, Schedule] = {}
        self._former: WeakValueDictionary[Key, Schedule] = WeakValueDictionary()
        """Those that calls have ended: the journal may refuse such a call."""
        self._resting: dict[str, str] = {}  # what rates have used that no task here has

    def _now(self) -> int:
        """The steady clock; with a journal the wall clock is read too, by which rows are written."""
        now = self._steady()
        if self.journal is not None:
            self._ahead = self.clock.wall() - now
        return now

    def _next_id(self, now: int) -> int:
        """The id of a new call: its milliseconds, or one more than the last."""
        if now >= self._next_tick:
            self._tick(now)
        self.last += 1
        return self.last

    def _tick(self, now: int) -> None:
        self._next_tick = now + 1000 - now % 1000
        self.last = max(self.last, (now + self._ahead) // 1000 << 20 & LAST_ID | self.salt)

    # -- calls beyond the horizon

    def _come_near(self, call: Call) -> None:
        """Beyond the horizon it is no more."""
        if self.books.far and self.books.far.get(call.key) is call:
            self.books.far.pop(call.key)
            self.books.set_beyond(call.id, now=False)

    # -- entries

    async def recorded(self) -> None:
        """Wait until what happened so far is safe."""
        if self.journal is not None:
            await self.journal.recorded()

    def _log_call(self, call: Call, arguments: str, old: Call | None) -> None:
        """A call was accepted, maybe in the place of another."""
        assert self.journal is not None
        if old is not None and old.calls:
            self._accounted.add(old.id)
        row = rows.waiting(call, self._ahead, arguments)
        call.entry = self.journal.log(Add(row), call=call)

    def _log_again(self, call: Call) -> None:
        """A waiting call has another eta."""
        if self.journal is not None:
            self.journal.log(Set(rows.waiting(call, self._ahead), SCHEDULED))

    def _record_end(
        self,
        call: Call,
        answer: Answer,
        outcome: Outcome,
        state: str,
        following: Call | None,
        settle: Callable[[frozenset[int] | None], None],
    ) -> None:
        assert self.journal is not None
        if is_closing(outcome):  # it stays in the journal, and runs when the queue is there again
            if answer.ending != RUNNING:
                settle(frozenset())
                return
            more = structs.replace(call.more, attempt=answer.attempt, seen=None)
            again = call.again(call.eta, steady=call.steady, more=more)
            changes: list[Change] = [Set(rows.waiting(again, self._ahead), RUNNING)]
        else:
            changes = [self._ended(call, answer, state), *_gone_with(call)]
        if following is not None:
            arguments, *_ = rows.codec_of(call).encode(following.args, following.kwargs)
            changes.append(Add(rows.waiting(following, self._ahead, arguments)))
        self.journal.log(*changes, done=settle)

    def _ended(self, call: Call, answer: Answer, state: str) -> Change:
        was = str(answer.ending)
        until = None if answer.until >= FAR else answer.until + self._ahead
        if until is not None and self.books.is_still_awaited(answer):
            until = max(until, answer.finished + _TOLD)
        if until is not None and until <= answer.finished:
            return Drop(call.id, was)
        try:
            row = rows.ended(call, state, answer, until, self._ahead)
        except (TypeError, ValueError) as error:
            told = JobError(type(error).__name__, str(error), "")
            self.tell(WARNING, "result_not_recorded", call, error=told)
            row = rows.ended(call, state, answer, until, self._ahead, bare=True)
        return Set(row, was)

    def keep_progress(self, call: Call, text: str) -> None:
        """Keep with a job how far it is; it has not died at that place yet."""
        call.more = structs.replace(call.more, progress=text, crashes=0)

    def save(self, run: Running, done: Callable[[frozenset[int] | None], object]) -> None:
        """Write the row of a run anew."""
        if self.journal is not None:
            cancelled = run.stop is Event.CANCEL
            row = rows.under_way(run, self._ahead, cancelled=cancelled)
            self.journal.log(Set(row, RUNNING), done=done)

    # -- rates

    def _spent(self, call: Call) -> tuple[Note, ...]:
        lanes = self.agenda.lanes
        notes: list[Note] = []
        for gate in lanes.passed.get(call.key, ()):
            if isinstance(gate, RateLane):
                name = _note_name(call.task.name, call.more.rate)
                notes.append(Note(name, str(gate.arrival() + self._ahead)))
        if lanes.forgotten is not None:
            identity, rate = lanes.forgotten
            notes.append(Note(_note_name(str(identity), rate), None))
            lanes.forgotten = None
        return tuple(notes)

    def _restore_rates(self) -> None:
        """Rates go on where they were; those that have come to rest are forgotten."""
        now, idle = self.clock.wall(), list[Note]()
        for name, value in tuple(self._resting.items()):
            shown, key = json.decode(name.removeprefix(RATE), type=tuple[str, str])
            task = self.task_of(shown)
            if int(value) <= now:
                idle.append(Note(name, None))
            elif task is None:
                continue
            elif task.declared.rate_limit:
                rate = task.declared.rate_limit
                lane = RateLane(f"rate {shown} {key}", rate)
                lane.restore(int(value) - self._ahead)
                self.agenda.lanes.rates[task.identity, key] = lane
            del self._resting[name]
        if idle and self.journal is not None:
            self.journal.log(*idle)

    # -- events

    def tell(
        self,
        level: int,
        name: str,
        call: Call | None,
        *,
        cause: BaseException | None = None,
        **values: Any,
    ) -> None:
        """Tell of an event, if anybody listens; `values`: fields of `LogEvent`."""
        if not self._events.heard(level):
            return
        if call is not None:
            self.books.name(call)
            values |= {"job_id": str(call.id), "task": call.task.name, "key": call.shown_key}
        event = LogEvent(name=name, at=moment(self.clock.wall()), **values)
        self._events.emit(level, event, cause)


def _gone_with(call: Call) -> list[Change]:
    """The shards of an iteration go with its record."""
    if not isinstance(call.task, Record):
        return []
    return [Drop(one.id, one.state) for one in call.more.after if one.state is not None]


def _note_name(task: str, rate: str) -> str:
    return RATE + json.encode((task, rate)).decode()
