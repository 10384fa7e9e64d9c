"""The one loop that waits: from the start of a queue to its close.

It owns the agenda, the ledger, the runs and one armed alarm. There is no dispatcher task: a
*turn* is a callback of bounded work that lets the due stand in their lane, starts who may and
arms the alarm again. Every change of state happens in one synchronous breath on the loop's
thread, so there are no locks.
"""

import asyncio
from abc import ABC, abstractmethod
from contextvars import Context
from functools import partial
from typing import Any, Final

from msgspec import UNSET, structs

from asyncdefer._books import Books, job_error
from asyncdefer._clock import Alarm, Clock
from asyncdefer._core.agenda import Agenda
from asyncdefer._core.defer import past_bounds
from asyncdefer._core.instant import SECOND, moment, seconds
from asyncdefer._core.job import (
    NO_CONTEXT,
    NO_KWARGS,
    Again,
    Answer,
    Call,
    Key,
    Outcome,
    Running,
    Schedule,
)  # fmt: skip
from asyncdefer._core.ledger import Ledger
from asyncdefer._core.lifecycle import FROM_RUNNING, Event, State, after
from asyncdefer._core.rules import decide, grid_of
from asyncdefer._log import DEBUG, ERROR, WARNING, Events, LogEvent
from asyncdefer._runner import judged, perform
from asyncdefer._task import Task
from asyncdefer._threads import ThreadPool
from asyncdefer.errors import JobDropped, JobExpired

_LINES: Final = 1_000  # lines looked at in a turn
_STARTS: Final = 250  # runs started in a turn
_JUMP: Final = SECOND  # a step of the wall clock that is reported
_LAG: Final = SECOND // 2  # a late wake-up that is reported
_FAR: Final = 1 << 62
_ID: Final = (1 << 63) - 1
_FAILED: Final = State.FAILED  # a member of an Enum is slow to look up

_PLAIN: Final = {state: state.value for state in State}
NAMES: Final = {
    State.SUCCEEDED: "job_succeeded",
    State.FAILED: "job_failed",
    State.CANCELLED: "job_cancelled",
    State.EXPIRED: "job_expired",
    State.DROPPED: "job_dropped",
}


class Loop(ABC):
    """Turns, runs and ends."""

    def __init__(
        self,
        clock: Clock,
        events_: Events,
        *,
        concurrency: int,
        threads: int,
        result_ttl: int | None,
        strangers: dict[Any, Task[..., Any]],
        last: int = 0,
    ) -> None:
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.agenda = Agenda(concurrency)
        self.ledger = Ledger()
        self.runs: dict[Key, Running] = self.agenda.running
        self.books = Books(clock, self.agenda, self.ledger, self.runs)
        self.named = self.books.named
        self.closing = False
        self._events = events_
        self._strangers = strangers
        self._result_ttl = result_ttl
        self._threads = ThreadPool(threads)
        self._steady = clock.steady
        self._heard = events_.heard
        self._own = Context()  # the queue's own work belongs to no request
        self.last = last
        self._next_tick = 0
        self._purge = 0
        self._awake = False
        self._alarm: Alarm | None = None
        self._armed = _FAR
        self._ahead = clock.wall() - clock.steady()
        self._highest = self._ahead  # since bounds were looked after
        self._read = clock.steady()
        self._joiners: list[asyncio.Future[None]] = []
        self._awaiting = 0
        self._starved = False
        self._told: set[Running] = set()  # runs that the close has cancelled
        self.schedules: dict[Key, Schedule] = {}
        clock.attach(self)

    # -- the turn

    def wake(self) -> None:
        """Let a turn come as soon as the loop is free."""
        if not self._awake and not self.closing:
            self._awake = True
            self.loop.call_soon(self._turn, context=self._own)

    def _turn(self) -> None:
        self._awake = False
        if self.closing:
            return
        steady, wall = self.clock.steady(), self.clock.wall()
        self._watch(steady, wall)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._armed = _FAR
        agenda = self.agenda
        expired = agenda.take_due(steady, wall, _LINES)
        agenda.looks = _LINES
        if steady >= self._purge:
            self._purge = steady + SECOND
            self.ledger.purge(steady)
        told = bool(self._heard(DEBUG))
        started: list[Running] = []
        for _ in range(_STARTS):
            call = agenda.take(steady, wall, expired)
            if call is None:
                break
            started.append(self._start(call, steady, told=told))
        for call in expired:
            self._expire(call, steady)
        while agenda.dropped:
            self._drop(agenda.dropped.pop(), steady)
        if started:
            self.loop.call_soon(self._check_begun, started, context=self._own)
        self._arm(steady)
        if self._awaiting:
            self._check_starved()
        if self._joiners:
            self._settle_joiners()

    def _expire(self, call: Call, now: int) -> None:
        if call.more.ends is not None and self._skip(call, now):
            return
        text = f"{call.task.name} had not started when its expires ran out"
        self._end(call, Outcome(Event.EXPIRE, error=JobExpired(text)), None, now)

    def _drop(self, call: Call, now: int) -> None:
        text = f"{call.task.name} was due when its rate limit had no room for it"
        self._end(call, Outcome(Event.DROP, error=JobDropped(text)), None, now)

    def _watch(self, steady: int, wall: int) -> None:
        """Report a wall clock that was set and a loop that did not come by for a while."""
        if self._alarm is not None and steady - self._armed > _LAG:
            self._tell(WARNING, "loop_lagged", None, seconds=seconds(steady - self._armed))
        jump = wall - steady - self._ahead
        # A clock that is slewed drifts by half a millisecond a second at the most.
        if abs(jump) > _JUMP + (steady - self._read) // 1000:
            self._tell(WARNING, "clock_jumped", None, seconds=seconds(jump))
        before, self._highest = self._highest, max(self._highest, wall - steady)
        if before - (wall - steady) > _JUMP:  # etas are later now, and the bounds of bursts are not
            self._highest = wall - steady
            for call in past_bounds(self.agenda.waiting_for_time(), before, wall - steady):
                self.books.name(call)
                self.agenda.place(call)
        self._ahead = wall - steady
        self._read = steady

    def _arm(self, steady: int) -> None:
        agenda = self.agenda
        if agenda.startable():
            self.wake()
            return
        when, wall = agenda.next_times()
        if wall is not None:
            wall -= self._ahead
            if self.clock.reread is not None:
                wall = min(wall, steady + self.clock.reread)
            when = wall if when is None else min(when, wall)
        if when is None:
            return
        if when <= steady:
            self.wake()
        else:
            self._armed = when
            self._alarm = self.clock.call_at(when, self._turn)

    # -- a run

    def _start(self, call: Call, steady: int, *, told: bool) -> Running:
        started = steady if call.steady else steady + self._ahead
        late = started - call.eta if started > call.eta else 0
        due = call.eta + self._ahead if call.steady else call.eta
        more = call.more
        run = Running(call, more.attempt + 1, steady + self._ahead, late, due, self)
        self.runs[call.key] = run
        self.ledger.started(late)
        if more.window is not None and more.window > steady:
            self._keep_open(call, more.window)
        if told:
            self._tell(DEBUG, "job_started", call, attempt=run.attempt, seconds=seconds(late))
        task: Any = call.task
        timeout = (task.declared if more.options is None else call.options).timeout
        if timeout:
            run.timer = self.clock.call_at(steady + timeout, partial(self._stop, run, Event.FAIL))
        # Not loop.create_task: a task factory of the program (an eager one, say) has no say here.
        work = perform(run, task, self._threads, self._conclude)
        run.task_of_loop = asyncio.Task(
            work, loop=self.loop, name=task.name, context=call.context.copy()
        )
        return run

    def _check_begun(self, started: list[Running]) -> None:
        """A task that is cancelled before its first step never gets to say how it ended."""
        for run in started:
            if not run.begun and run.task_of_loop is not None:
                lost = Outcome(Event.FAIL, error=asyncio.CancelledError())
                self._conclude(run, lost if run.stop is None else judged(run, lost))

    def _keep_open(self, call: Call, until: int) -> None:
        """An empty call that keeps a leading window open until somebody calls or it ends."""
        number = self._next_id(self._steady())
        empty = Call(number, call.task, call.key, until, True, (), NO_KWARGS, self._own, 0)
        self.agenda.place(empty)

    def _stop(self, run: Running, why: Event) -> None:
        """Cancel a run; the first reason counts."""
        if self.runs.get(run.call.key) is run:
            run.stop = run.stop or why
            run.asked += 1
            run.task_of_loop.cancel()

    def _conclude(self, run: Running, outcome: Outcome) -> None:
        """A run has ended: free its slot and key, and do what follows."""
        call = run.call
        if self.runs.get(call.key) is not run:
            return  # abandoned at close
        run.task_of_loop = None  # else task, context and run would be a cycle for the collector
        if run.timer is not None:
            run.timer.cancel()
        agenda = self.agenda
        agenda.release(call.key)
        now = self._steady()
        verdict = decide(call, outcome, now)
        if isinstance(verdict, Outcome):
            self._end(call, verdict, run, now)
        else:
            self._run_again(run, verdict, outcome.error)
        if agenda.lanes.standing and not self._awake and agenda.startable():
            self.wake()
        if self._joiners:
            self._settle_joiners()

    def _run_again(self, run: Running, verdict: Again, error: BaseException | None) -> None:
        """A run that is to be followed by another; it gives way to a newer call that waits."""
        call = run.call
        state = after(State.RUNNING, verdict.event)
        newer = self.agenda.waiting.get(call.key)
        if newer is not None and newer.calls:
            call.shared().follow(newer.shared())
            after(state, Event.REPLACE)
            self.ledger.replaced += 1
            self.books.name(call)
            self.books.name(newer)
            self._replaced(call, newer)
            return
        more = structs.replace(
            call.more, attempt=run.attempt, failures=verdict.failures,
            bound=None, window=None, ends=None,
        )  # fmt: skip
        if call.repeat is not None:
            more = structs.replace(more, grid=grid_of(call, call.repeat, self._ahead))
        again = call.again(verdict.eta, steady=verdict.steady, more=more)
        self.agenda.place(again)
        self.books.name(again)
        self.wake()
        eta = moment(self.books.wall_eta(again))
        if verdict.event is Event.SNOOZE:
            self._tell(DEBUG, "job_snoozed", again, eta=eta, attempt=run.attempt)
        elif error is not None and self._heard(WARNING):
            told = job_error(error)
            self._tell(WARNING, "job_retried", again, eta=eta, attempt=run.attempt, error=told)

    def _end(self, call: Call, verdict: Outcome, run: Running | None, now: int) -> None:
        """A job has ended: write it into the ledger, tell, and wake its waiters."""
        if run is None:
            state = after(State.SCHEDULED, verdict.event)
            eta, attempt, started = self.books.wall_eta(call), call.more.attempt, None
        else:
            state = FROM_RUNNING[verdict.event]
            eta, attempt, started = run.due, run.attempt, run.started
        more = call.more
        ttl = (call.task.declared if more.options is None else call.options).result_ttl
        if ttl is UNSET:
            ttl = self._result_ttl
        until = _FAR if ttl is None else now + ttl
        ended, plain = now + self._ahead, _PLAIN[state]
        value, error = verdict.value, verdict.error
        answer = call.answer
        if answer is None:
            answer = Answer(plain, call.id, eta, attempt, started, ended, until, value)
            call.answer = answer
        else:
            answer = answer.final()
            answer.state, answer.id, answer.eta, answer.attempt = plain, call.id, eta, attempt
            answer.started, answer.finished, answer.until = started, ended, until
            answer.value = value
        if error is not None:
            answer.error, answer.traceback = error, error.__traceback__
        self.ledger.counts[state] += 1
        if more.schedule is not None:
            self._follow(call, verdict, 0 if run is None else run.late, now)
        call.context = NO_CONTEXT
        if call.first is not None:
            call.first.context = NO_CONTEXT
        if until > now:
            self.ledger.keep(call)
        identity = call.task.identity
        if identity is not call.task.name:
            self._strangers.pop(identity, None)  # a bare function is held no longer than its jobs
        failed = state is _FAILED
        level = ERROR if failed and not answer.waiters else DEBUG
        if self._heard(level):
            told = job_error(error) if failed and error is not None else None
            cause = error if level == ERROR else None
            self._tell(level, NAMES[state], call, error=told, attempt=answer.attempt, cause=cause)
        if answer.waiters:
            answer.wake()

    # -- what recurs

    @abstractmethod
    def _follow(self, call: Call, outcome: Outcome, late: int, now: int) -> None:
        """A run of a schedule has ended, having started so `late`."""

    @abstractmethod
    def _skip(self, call: Call, now: int) -> bool:
        """Leave a run out if it is to be skipped rather than to expire."""

    @abstractmethod
    def _end_schedule(self, call: Call, answer: Answer, *, replaced: bool = False) -> None:
        """No run follows this one."""

    # -- calls

    def _next_id(self, now: int) -> int:
        """The id of a new call: its milliseconds, or one more than the last."""
        if now >= self._next_tick:
            self._tick(now)
        self.last += 1
        return self.last

    def _tick(self, now: int) -> None:
        self._next_tick = now + 1000 - now % 1000
        self.last = max(self.last, (now + self._ahead) // 1000 << 20 & _ID)

    def _enter(self, call: Call, now: int) -> None:
        """Place a call that is not one of many: a schedule's run, a job that was redriven."""
        order = call.eta if call.steady else call.eta - self.books.ahead()
        old = self.agenda.waiting.get(call.key)
        if old is not None:
            call.calls, call.answer = old.calls + 1, old.shared()
        self.agenda.place(call, order <= now, order)
        self.ledger.accepted += 1
        if old is not None:
            self._replaced(old, call)
            self.ledger.replaced += old.calls > 0
            old.let_go()
        if self._heard(DEBUG):
            self._tell(DEBUG, "job_accepted", call, eta=moment(self.books.wall_eta(call)))
        self.wake()

    def _replaced(self, old: Call, new: Call) -> None:
        """A call gave way to a newer one: tell, and end its schedule, if it was a run of one."""
        if old.calls and self._heard(DEBUG):
            self._tell(DEBUG, "job_replaced", old, by=str(new.id))
        if old.more.schedule is not None:
            self._end_schedule(old, new.shared(), replaced=True)

    def is_quiet(self) -> bool:
        """Nothing is due and nothing runs."""
        return not self.runs and not self.agenda.is_due(self.clock.steady(), self.clock.wall())

    def _settle_joiners(self) -> None:
        if self._joiners and (self.closing or self.is_quiet()):
            joiners, self._joiners = self._joiners, []
            for joiner in joiners:
                if not joiner.done():
                    joiner.set_result(None)

    def run_awaits(self, run: Running, call: Call) -> None:
        """A run awaits the handle of another job."""
        run.awaits = [*(run.awaits or ()), call]
        self._awaiting += 1
        self._check_starved()

    def run_resumes(self, run: Running, call: Call) -> None:
        if run.awaits:
            run.awaits.remove(call)
        self._awaiting -= 1

    def _check_starved(self) -> None:
        """Every slot awaits a job that is due, so none of them can ever end."""
        starved = self._awaiting >= self.agenda.concurrency == len(self.runs) and all(
            any(self._is_due(call) for call in run.awaits or ()) for run in self.runs.values()
        )
        if starved and not self._starved:
            self._tell(WARNING, "starved", None)
        self._starved = starved

    def _is_due(self, call: Call) -> bool:
        live = self.books.live(call)
        return isinstance(live, Call) and self.agenda.standing(live.key)

    def busy(self) -> str | None:
        """What does not wait for the clock, for a clock that is moved by hand."""
        if self._awake:
            return "the queue's turn"
        return ", ".join(map(repr, self.books.busy())) or None

    def one_shots(self) -> bool:
        return bool(self.runs) or len(self.agenda) > len(self.schedules)

    def _tell(
        self,
        level: int,
        name: str,
        call: Call | None,
        *,
        cause: BaseException | None = None,
        **values: Any,
    ) -> None:
        if not self._events.heard(level):
            return
        if call is not None:
            self.books.name(call)
            values |= {"job_id": str(call.id), "task": call.task.name, "key": call.shown_key}
        event = LogEvent(name=name, at=moment(self.clock.wall()), **values)
        self._events.emit(level, event, cause)
