"""What happens to a job: a call is placed, a run starts, ends, and is followed by another.

Every change of state happens in one synchronous breath on the loop's thread, so there are no
locks. When the due may start is for the loop above to say.
"""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import Context
from functools import partial
from typing import Any, Final

from msgspec import UNSET, structs

from asyncdefer import _rows as rows
from asyncdefer._books import job_error
from asyncdefer._core.instant import moment, seconds
from asyncdefer._core.job import (
    NO_CONTEXT,
    NO_KWARGS,
    Again,
    Answer,
    Call,
    Outcome,
    Running,
)  # fmt: skip
from asyncdefer._core.lifecycle import FROM_RUNNING, Event, State, after
from asyncdefer._core.options import WHILE_AWAITED
from asyncdefer._core.rules import begun, decide, is_closing
from asyncdefer._log import DEBUG, ERROR, WARNING
from asyncdefer._plan import Record
from asyncdefer._recording import FAR, Recording
from asyncdefer._runner import judged, perform
from asyncdefer.errors import QueueClosed
from asyncdefer.stores._base import HELD, RUNNING, SCHEDULED, Drop, Set

LINES: Final = 1_000  # of work that a turn or a step of the close does at the most
_FAILED: Final = State.FAILED  # a member of an Enum is slow to look up

_PLAIN: Final = {state: state.value for state in State}
_NAMES: Final = {
    State.SUCCEEDED: "job_succeeded",
    State.FAILED: "job_failed",
    State.CANCELLED: "job_cancelled",
    State.EXPIRED: "job_expired",
    State.DROPPED: "job_dropped",
}


class Jobs(Recording, ABC):
    """What leads a job from one state to the next."""

    # -- calls

    def _enter(self, call: Call, now: int) -> None:
        """Place a call that is not one of many: a schedule's run, a job that was redriven."""
        order = call.eta if call.steady else call.eta - self.books.ahead()
        old = self.agenda.waiting.get(call.key) or self.books.far.get(call.key)
        if old is not None:
            self._come_near(old)
            call.calls, call.answer = old.calls + call.calls, old.shared()
        self.agenda.place(call, order <= now, order)
        self.ledger.accepted += 1
        if old is not None:
            self._replaced(old, call)
            self.ledger.replaced += old.calls > 0
            old.let_go()
        if self._heard(DEBUG):
            self.tell(DEBUG, "job_accepted", call, eta=moment(self.books.wall_eta(call)))
        self.wake()

    def _replaced(self, old: Call, new: Call) -> None:
        """A call gave way to a newer one: tell, and end its schedule, if it was a run of one."""
        if old.calls and self._heard(DEBUG):
            self.tell(DEBUG, "job_replaced", old, by=str(new.id))
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
            self.tell(
                DEBUG, "job_started", call,
                attempt=run.attempt, calls=call.calls, seconds=seconds(late),
            )  # fmt: skip
        if self.journal is None:
            self._launch(run, steady)
        else:
            row = rows.under_way(run, self._ahead)
            self.journal.log(
                Set(row, SCHEDULED), *self._spent(call), done=partial(self._begin, run)
            )
        return run

    def _launch(self, run: Running, steady: int) -> None:
        """Call the function of a run."""
        call = run.call
        task: Any = call.task
        timeout = call.option("timeout")
        if timeout:
            run.timer = self.clock.call_at(steady + timeout, partial(self._stop, run, Event.FAIL))
        # Not loop.create_task: a task factory of the program (an eager one, say) has no say here.
        work = perform(run, task, self._threads, self._conclude)
        run.task_of_loop = asyncio.Task(
            work, loop=self.loop, name=task.name, context=call.context.copy()
        )

    async def in_thread(self, function: Callable[[], Any], asked: Callable[[], int]) -> Any:
        """Call a plain function; see `ThreadPool.run`."""
        return await self._threads.run(function, asked)

    def _begin(self, run: Running, out: frozenset[int] | None) -> None:
        """The journal has the start of a run, or says that its job is not ours to run."""
        if self.runs.get(run.call.key) is not run:
            return  # abandoned at close
        if self.closing and run.stop is None:
            run.stop = Event.DROP
        if out is not None and run.call.id in out:
            self._disown(run)
        elif run.stop is not None:
            never = Outcome(Event.FAIL, error=asyncio.CancelledError())
            self._conclude(run, judged(run, never))
        else:
            self._launch(run, self._steady())
            if not self._launched:
                self.loop.call_soon(self._check_launched, context=self._own)
            self._launched.append(run)

    def _check_launched(self) -> None:
        """Those whose tasks have not had their first step by now are looked at again."""
        launched, self._launched = self._launched, []
        self._check_begun([run for run in launched if _is_over(run)])
        self._launched = [run for run in launched if not run.begun and run.task_of_loop is not None]
        if self._launched:
            self.loop.call_soon(self._check_launched, context=self._own)

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
        """Cancel a run; to be cancelled counts before the close, and that before a timeout."""
        if self.runs.get(run.call.key) is run:
            if run.stop in (None, Event.FAIL) or why is Event.CANCEL:
                run.stop = why
            run.asked += 1
            if run.task_of_loop is not None:
                run.task_of_loop.cancel()

    def _conclude(self, run: Running, outcome: Outcome) -> None:
        """A run has ended: free its slot and key, and do what follows."""
        call = run.call
        if self.runs.get(call.key) is not run:
            return  # abandoned at close
        run.task_of_loop = None  # else task, context and run would be a cycle for the collector
        if run.timer is not None:
            run.timer.cancel()
        agenda, now = self.agenda, self._now()
        verdict = decide(call, outcome, now)  # the retry's rule may look at the job: it still runs
        agenda.release(call.key)
        if isinstance(verdict, Outcome):
            self._end(call, verdict, run, now)
        else:
            self._run_again(run, verdict, outcome.error)
        if (agenda.lanes.standing and not self._awake and agenda.startable()) or self.more:
            self.wake()
        if self._joiners:
            self._settle_joiners()

    def _run_again(self, run: Running, verdict: Again, error: BaseException | None) -> None:
        """A run that is to be followed by another."""
        call = run.call
        after(State.RUNNING, verdict.event)
        if self._gives_way(call):
            return
        more = structs.replace(
            call.more, attempt=run.attempt, failures=verdict.failures,
            bound=None, window=None, ends=None, seen=None,
        )  # fmt: skip
        again = call.again(verdict.eta, steady=verdict.steady, more=more)
        self.agenda.place(again)
        self.books.name(again)
        self.wake()
        if self.journal is not None:
            self.journal.log(Set(rows.waiting(again, self._ahead), RUNNING))
        eta = moment(self.books.wall_eta(again))
        if verdict.event is Event.SNOOZE:
            self.tell(DEBUG, "job_snoozed", again, eta=eta, attempt=run.attempt)
        elif error is not None and self._heard(WARNING):
            told = job_error(error)
            self.tell(WARNING, "job_retried", again, eta=eta, attempt=run.attempt, error=told)

    def _gives_way(self, call: Call) -> bool:
        """Of a run that has ended, a newer call of its key that waits takes the place."""
        newer = self.agenda.waiting.get(call.key) or self.books.far.get(call.key)
        if newer is None or not newer.calls:
            return False
        after(State.SCHEDULED, Event.REPLACE)
        self._follow_newer(call, newer, RUNNING)
        return True

    def _follow_newer(self, call: Call, newer: Call, was: str) -> None:
        """A call ends since a newer one of its key waits, whose outcome is its own."""
        call.shared().follow(newer.shared())
        if self.books.far.get(newer.key) is newer:  # it may be that nobody else holds it
            newer.shared().final().far = newer
        self.ledger.replaced += 1
        self.books.name(call)
        self.books.name(newer)
        self._replaced(call, newer)
        if self.journal is not None:
            self.journal.log(Drop(call.id, was))

    def _end(self, call: Call, verdict: Outcome, run: Running | None, now: int) -> None:
        """A job has ended: write it into the ledger, tell, and wake its waiters."""
        was = RUNNING
        if run is None:
            held = self.books.on_hold.pop(call.id, None) if self.books.on_hold else None
            if held is not None:
                call.more = structs.replace(call.more, after=tuple(held.after))
            was = SCHEDULED if held is None else HELD
            state = after(State.SCHEDULED if held is None else State.HELD, verdict.event)
            eta, attempt, started = self.books.wall_eta(call), call.more.attempt, None
        else:
            state = FROM_RUNNING[verdict.event]
            eta, attempt, started = run.due, run.attempt, run.started
        ttl = call.option("result_ttl")
        if ttl is UNSET:
            ttl = self._result_ttl
        elif ttl == WHILE_AWAITED:
            ttl = None if self.books.is_awaited(call.id) else 0
        until = FAR if ttl is None else now + ttl
        ended, plain = now + self._ahead, _PLAIN[state]
        value, error = verdict.value, verdict.error
        shown = plain if self.journal is None else None
        answer = call.answer
        if answer is None:
            answer = Answer(shown, call.id, eta, attempt, started, ended, until, value)
            call.answer = answer
        else:
            answer = answer.final()
            answer.state, answer.id, answer.eta, answer.attempt = shown, call.id, eta, attempt
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
            self._callables.pop(identity, None)  # a bare function is held no longer than its jobs
        record = call.task if isinstance(call.task, Record) else None
        if record is not None:
            record.ending(call)
        following = None
        if call.more.schedule is not None:  # before anybody is told, and looks
            following = self._follow(call, context, verdict, now)
        if self.journal is None:
            self._settle(call, answer, state, plain)
        else:
            answer.ending, answer.becomes = was, plain
            settle = partial(self._settle, call, answer, state, plain)
            self._record_end(call, answer, verdict, plain, following, settle)
        if answer.held is not None and not is_closing(verdict):
            self._free(answer, plain)
        if record is not None:
            record.ended(call)

    def _settle(
        self,
        call: Call,
        answer: Answer,
        state: State,
        plain: str,
        out: frozenset[int] | None = frozenset(),
    ) -> None:
        """What became of a job is safe now: tell, and wake its waiters."""
        if out is None:  # nobody is to see what happens again when the queue is started again
            answer.error, plain = QueueClosed("the outcome could not be recorded"), "dropped"
        answer.state = plain
        failed = state is _FAILED
        level = ERROR if failed and not answer.waiters else DEBUG
        if self._heard(level):
            error = answer.error
            told = job_error(error) if failed and error is not None else None
            cause = error if level == ERROR else None
            self.tell(level, _NAMES[state], call, error=told, attempt=answer.attempt, cause=cause)
        if answer.waiters:
            answer.wake()

    # -- what waits for others

    @abstractmethod
    def _free(self, answer: Answer, state: str) -> None:
        """A job has ended: those that wait for nothing else may run."""

    # -- what recurs

    @abstractmethod
    def _follow(self, call: Call, context: Context, outcome: Outcome, now: int) -> Call | None:
        """A run of a schedule has ended: the one that follows, if there is one."""

    @abstractmethod
    def _skip(self, call: Call, now: int) -> bool:
        """Leave a run out if it is to be skipped rather than to expire."""

    @abstractmethod
    def _end_schedule(
        self, call: Call, answer: Answer, *, replaced: bool = False, told: bool = True
    ) -> None:
        """No run follows this one."""

    @abstractmethod
    def _disown(self, run: Running) -> None:
        """A run that the journal did not let begin: its job is another's by now."""

    # -- what is above

    @abstractmethod
    def wake(self) -> None:
        """Let a turn come as soon as the loop is free."""

    @abstractmethod
    def _settle_joiners(self) -> None:
        """Wake those who wait for rest, if there is."""


def _is_over(run: Running) -> bool:
    task = run.task_of_loop
    return task is not None and bool(task.done())
