"""What the queue knows of every job: those that wait, those that run, and those that ended."""

import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any
from weakref import WeakValueDictionary, ref

from asyncdefer._clock import Clock
from asyncdefer._core.agenda import Agenda
from asyncdefer._core.instant import moment
from asyncdefer._core.job import Answer, Call, Held, Job, JobError, Key, Running, Schedule
from asyncdefer._core.ledger import Ledger, Stats
from asyncdefer._core.lifecycle import State
from asyncdefer._core.rules import message_of
from asyncdefer._core.signature import bound_arguments, signature_of
from asyncdefer.errors import JobFailed
from asyncdefer.stores._base import Row


def job_error(error: BaseException) -> JobError:
    """An exception as text."""
    cause = error.__cause__
    if isinstance(error, JobFailed) and cause is None:
        return JobError(error.type, error.message, error.traceback)
    shown = cause if isinstance(error, JobFailed) and cause is not None else error
    text = "".join(traceback.format_exception(shown))
    return JobError(type=type(shown).__name__, message=message_of(shown), traceback=text)


class WeakCalls:
    """Calls by their keys, as long as somebody else holds them or what they share with others.

    A `WeakValueDictionary` costs two microseconds for each that is put in; here what died is
    swept out when it may be the greater half.
    """

    def __init__(self) -> None:
        self._refs: dict[Key, ref[Call]] = {}
        self._full = 1_024

    def put(self, call: Call) -> None:
        refs = self._refs
        refs[call.key] = ref(call)
        if call.answer is not None:  # older calls of the key are held, and their waiters follow it
            call.answer.final().far = call
        if len(refs) >= self._full:
            self._refs = {key: found for key, found in refs.items() if found() is not None}
            self._full = 2 * len(self._refs) + 1_024

    def get(self, key: Key) -> Call | None:
        found = self._refs.get(key)
        return None if found is None else found()

    def pop(self, key: Key) -> Call | None:
        found = self._refs.pop(key, None)
        call = None if found is None else found()
        if call is not None and call.answer is not None:
            call.answer.final().far = None
        return call

    def __iter__(self) -> Iterator[Call]:
        return iter([call for found in self._refs.values() if (call := found()) is not None])

    def __bool__(self) -> bool:
        return bool(self._refs)


class Books:
    """Questions about jobs; nothing here changes one."""

    def __init__(
        self, clock: Clock, agenda: Agenda, ledger: Ledger, runs: dict[Key, Running]
    ) -> None:
        self.clock = clock
        self.agenda = agenda
        self.ledger = ledger
        self.runs = runs
        self.far = WeakCalls()
        """Calls beyond the horizon of the journal, as long as somebody holds them."""
        self.beyond = 0  # rows beyond it, those among them
        self.yielding: dict[int, bool] = {}
        """Rows that gave way in a transaction that is open; True for those that `beyond` counts."""
        self.parked: dict[int, Row] = {}
        """Rows that cannot be run here, without their arguments."""
        self.promised: dict[int, Answer] = {}
        """What held jobs wait for that is among those."""
        self.on_hold: dict[int, Held] = {}
        """Jobs that may not run yet."""
        self.named: WeakValueDictionary[int, Call] = WeakValueDictionary()
        """Calls whose id was told to somebody; one that was replaced lives while it is held."""

    def name(self, call: Call) -> None:
        """Its id is told to somebody. What handles hold, the first object of an id, is remembered."""
        if isinstance(call, Schedule):  # its id was that of its first run
            live = self.live(call)
            run = live.call if isinstance(live, Running) else live
            if run is None:
                return
            call = run
        self.named.setdefault(call.id, call.first or call)

    def set_beyond(self, id: int, *, now: bool) -> None:
        """A row is among those beyond the horizon from now on, or no more."""
        self.beyond += 1 if now else -1
        if self.yielding and id in self.yielding:
            self.yielding[id] = now

    def live(self, call: Call) -> Call | Running | None:
        """The waiting call or the run that a call has become; None if it has ended."""
        mine = call.answer.final() if call.answer is not None else None
        if mine is not None and (mine.state or mine.ending) is not None:
            return None
        waiting = self.agenda.waiting.get(call.key)
        if waiting is not None and _one(call, waiting, mine):
            return waiting
        if self.far and (far := self.far.get(call.key)) is not None and _one(call, far, mine):
            return far
        if self.on_hold and (held := self.on_hold.get(call.id)) is not None:
            return held.call
        run = self.runs.get(call.key)
        return run if run is not None and _one(call, run.call, mine) else None

    def held(self, call: Call) -> Call:
        """What a handle of a live call holds: its schedule, as long as that goes on."""
        schedule = call.more.schedule
        return call if schedule is None or schedule.answer is not None else schedule

    def answer(self, call: Call) -> Answer:
        """What its waiters share; a schedule has that of the run that waits or is under way."""
        if isinstance(call, Schedule) and call.answer is None:
            live = self.live(call)
            if live is None:  # somebody asks in the very moment between two runs
                return Answer()
            call = live.call if isinstance(live, Running) else live
        return call.shared().final()

    def state(self, call: Call) -> State:
        live = self.live(call)
        if live is None:
            answer = self.answer(call)
            return State(answer.state or answer.ending or State.DROPPED)
        return self._state_of(live)

    def _state_of(self, live: Call | Running) -> State:
        if isinstance(live, Running):
            return State.RUNNING
        return State.HELD if live.id in self.on_hold else State.SCHEDULED

    def eta(self, call: Call) -> int:
        """Microseconds on the wall clock."""
        live = self.live(call)
        if live is None:
            return self.answer(call).eta or self.wall_eta(call)
        return live.due if isinstance(live, Running) else self.wall_eta(live)

    def attempt(self, call: Call) -> int:
        live = self.live(call)
        if live is None:
            return self.answer(call).attempt
        return live.attempt if isinstance(live, Running) else live.more.attempt

    def replaced(self, call: Call) -> bool:
        """A newer call took the place of this one."""
        if isinstance(call, Schedule):
            return call.replaced
        live = self.live(call)
        if live is None:
            return (self.answer(call).id or call.id) != call.id
        return (live.call.id if isinstance(live, Running) else live.id) != call.id

    def wall_eta(self, call: Call) -> int:
        """The eta of a waiting call on the wall clock."""
        return call.eta + self.ahead() if call.steady else call.eta

    def ahead(self) -> int:
        """How far the wall clock is ahead of the steady one."""
        return self.clock.wall() - self.clock.steady()

    def find(self, id: int) -> Call | None:
        """The call of an id, as far as anything is known of it."""
        call = self.agenda.waiting.get(id)
        if call is not None:
            return call
        if (call := self.far.get(id)) is not None:
            return call
        for run in self.runs.values():
            if run.call.id == id:
                return run.call
        if (held := self.on_hold.get(id)) is not None:
            return held.call
        told = self.named.get(id)
        if told is not None and self.live(told) is not None:
            return told  # it has a key, or was replaced while somebody holds its handle
        return self.ledger.find(id, self.clock.steady())

    def jobs(self) -> list[tuple[int, int, Call | Running]]:
        """Every known job as (eta, id, the call or its run), in eta order."""
        found: list[tuple[int, int, Call | Running]] = [
            (self.wall_eta(call), call.id, call)
            for call in self.agenda.waiting.values()
            if call.calls
        ]
        found += [(run.due, run.call.id, run) for run in self.runs.values()]
        on_hold = [held.call for held in self.on_hold.values()]
        found += [(self.wall_eta(call), call.id, call) for call in on_hold]
        found += [
            (self.answer(call).eta, call.id, call) for call in self.ledger.kept(self.clock.steady())
        ]
        found.sort(key=lambda line: line[:2])
        return found

    def view(self, eta: int, what: Call | Running) -> Job | None:
        """A job as the public record shows it; None if a newer call has replaced it."""
        call = what if isinstance(what, Call) else what.call
        if self.replaced(call):
            return None
        answer = self.answer(call)
        self.name(call)
        state = State(answer.state or answer.ending or self._state_of(what))
        started = what.started if isinstance(what, Running) else answer.started
        return Job(
            id=str(call.id),
            task=call.task.name,
            key=call.shown_key,
            state=state,
            eta=moment(eta),
            attempt=self.attempt(call),
            calls=call.calls,
            enqueued_at=moment((call.id >> 20) * 1000),
            started_at=None if started is None else moment(started),
            finished_at=None if answer.state is None else moment(answer.finished),
            error=job_error(answer.error) if state is State.FAILED and answer.error else None,
            read_arguments=partial(_arguments, call.task, call.args, call.kwargs),
        )

    def is_awaited(self, id: int) -> bool:
        """A job that is held is to run after this one."""
        return any(one.id == id for held in self.on_hold.values() for one in held.after)

    def is_still_awaited(self, answer: Answer) -> bool:
        """A job that is held hangs on this answer."""
        return any(id in self.on_hold for id, _ in answer.held or ())

    def stats(self) -> Stats:
        waiting = len(self.agenda) + self.beyond
        return self.ledger.stats(waiting, len(self.runs), len(self.parked) + len(self.on_hold))

    def busy(self) -> Iterator[Running]:
        """The runs that do not wait for the clock."""
        return (run for run in self.runs.values() if not run.waits)


def _one(call: Call, other: Call, mine: Answer | None) -> bool:
    """Both are the same call, or share their answer, or the one is a schedule and the other its run."""
    if other is call or other.more.schedule is call:
        return True
    return mine is not None and other.answer is not None and other.answer.final() is mine


def _arguments(task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return bound_arguments(signature_of(task.fn), args, kwargs)
