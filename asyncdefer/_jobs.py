"""What happens to a job: a call is placed, a run starts, ends, and is followed by another.

Every change of state happens in one synchronous breath on the loop's thread, so there are no
locks. When the due may start is for the loop above to say.
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
from asyncdefer._core.instant import moment, seconds
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
from asyncdefer._core.rules import begun, decide
from asyncdefer._log import DEBUG, ERROR, WARNING, Events, LogEvent
from asyncdefer._runner import judged, perform
from asyncdefer._task import Task
from asyncdefer._threads import ThreadPool

LINES: Final = 1_000  # of work that a turn or a step of the close does at the most
FAR: Final = 1 << 62  # later than any time
_ID: Final = (1 << 63) - 1
_FAILED: Final = State.FAILED  # a member of an Enum is slow to look up

_PLAIN: Final = {state: state.value for state in State}
_NAMES: Final = {
    State.SUCCEEDED: "job_succeeded",
    State.FAILED: "job_failed",
    State.CANCELLED: "job_cancelled",
    State.EXPIRED: "job_expired",
    State.DROPPED: "job_dropped",
}


class Jobs(ABC):
    """The agenda, the ledger, the runs, and what leads a job from one state to the next."""

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
        self._armed = FAR
        self._ahead = clock.wall() - clock.steady()
        self._highest = self._ahead  # since bounds were looked after
        self._read = clock.steady()
        self._joiners: list[asyncio.Future[None]] = []
        self._awaiting: int = 0
        self._starved = False
        self._told: set[Running] = set()  # runs that the close has cancelled
        self.schedules: dict[Key, Schedule] = {}

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
            call.calls, call.answer = old.calls + call.calls, old.shared()
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

    # -- a run

    def _start(self, call: Call, steady: int, *, told: bool) -> Running:
        started = steady if call.steady else steady + self._ahead
        late = started - call.eta if started > call.eta else 0
        due = call.eta + self._ahead if call.steady else call.eta
        more = call.more
        if more.schedule is not None and (rule := call.repeat) is not None:
            more = begun(call, rule, late, self._ahead)
            call = call.again(call.eta, steady=call.steady, more=more)
        run = Running(call, more.attempt + 1, steady + self._ahead, late, due, self)
        self.runs[call.key] = run
        self.ledger.started(late)
        if more.window is not None and more.window > steady:
            self._keep_open(call, more.window)
        if told:
            self._tell(
                DEBUG, "job_started", call,
                attempt=run.attempt, calls=call.calls, seconds=seconds(late),
            )  # fmt: skip
        task: Any = call.task
        timeout = call.option("timeout")
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
            run.stop = why if run.stop in (None, Event.FAIL) else run.stop
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
        agenda, now = self.agenda, self._steady()
        verdict = decide(call, outcome, now)  # the retry's rule may look at the job: it still runs
        agenda.release(call.key)
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
            bound=None, window=None, ends=None, seen=None,
        )  # fmt: skip
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
        ttl = call.option("result_ttl")
        if ttl is UNSET:
            ttl = self._result_ttl
        until = FAR if ttl is None else now + ttl
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
        context = call.context
        call.context = NO_CONTEXT
        if call.first is not None:
            call.first.context = NO_CONTEXT
        if until > now:
            self.ledger.keep(call)
        identity = call.task.identity
        if identity is not call.task.name:
            self._strangers.pop(identity, None)  # a bare function is held no longer than its jobs
        if call.more.schedule is not None:  # before anybody is told, and looks
            self._follow(call, context, verdict, now)
        failed = state is _FAILED
        level = ERROR if failed and not answer.waiters else DEBUG
        if self._heard(level):
            told = job_error(error) if failed and error is not None else None
            cause = error if level == ERROR else None
            self._tell(level, _NAMES[state], call, error=told, attempt=answer.attempt, cause=cause)
        if answer.waiters:
            answer.wake()

    # -- what recurs

    @abstractmethod
    def _follow(self, call: Call, context: Context, outcome: Outcome, now: int) -> None:
        """A run of a schedule has ended."""

    @abstractmethod
    def _skip(self, call: Call, now: int) -> bool:
        """Leave a run out if it is to be skipped rather than to expire."""

    @abstractmethod
    def _end_schedule(self, call: Call, answer: Answer, *, replaced: bool = False) -> None:
        """No run follows this one."""

    # -- what is above

    @abstractmethod
    def wake(self) -> None:
        """Let a turn come as soon as the loop is free."""

    @abstractmethod
    def _settle_joiners(self) -> None:
        """Wake those who wait for rest, if there is."""

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
