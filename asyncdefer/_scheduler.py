"""The one loop that waits: from the start of a queue to its close.

It owns the agenda, the ledger, the runs and one armed alarm. There is no dispatcher task: a
*turn* is a callback of bounded work that lets the due stand in their lane, starts who may and
arms the alarm again. Every change of state happens in one synchronous breath on the loop's
thread, so there are no locks.
"""

import asyncio
from asyncio import events
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import Any, Final
from weakref import WeakValueDictionary

import anyio

from asyncdefer._books import Books, job_error
from asyncdefer._clock import Alarm, Clock
from asyncdefer._core.agenda import Agenda
from asyncdefer._core.defer import folded, opened
from asyncdefer._core.instant import SECOND, moment, seconds, within
from asyncdefer._core.job import NO_KWARGS, NOTHING_MORE, Call, Key, More, Outcome, Run
from asyncdefer._core.ledger import Ended, Ledger
from asyncdefer._core.lifecycle import Event, State, after
from asyncdefer._core.options import Defer, Options
from asyncdefer._core.rules import decide
from asyncdefer._handle import Handle
from asyncdefer._log import DEBUG, ERROR, WARNING, Events, LogEvent
from asyncdefer._runner import judged, perform
from asyncdefer._task import Task
from asyncdefer.errors import JobCancelled, JobExpired, QueueClosed, WrongLoop

_LINES: Final = 1_000  # lines looked at in a turn
_STARTS: Final = 250  # runs started in a turn
_JUMP: Final = SECOND  # a step of the wall clock that is reported
_LAG: Final = SECOND // 2  # a late wake-up that is reported
_FAR: Final = 1 << 62

NAMES: Final = {
    State.SUCCEEDED: "job_succeeded",
    State.FAILED: "job_failed",
    State.CANCELLED: "job_cancelled",
    State.EXPIRED: "job_expired",
    State.DROPPED: "job_dropped",
}


class Scheduler:
    """A queue between its start and its close."""

    def __init__(
        self,
        clock: Clock,
        events_: Events,
        *,
        concurrency: int,
        threads: int,
        result_ttl: int | None,
        forget: Callable[[Task[..., Any]], None],
    ) -> None:
        self.clock = clock
        self.loop = asyncio.get_running_loop()
        self.agenda = Agenda(concurrency)
        self.ledger = Ledger()
        self.runs: dict[Key, Run] = {}
        self.books = Books(clock, self.agenda, self.ledger, self.runs)
        self.named: WeakValueDictionary[int, Handle[Any]] = WeakValueDictionary()
        self.closing = False
        self._events = events_
        self._forget = forget
        self._result_ttl = result_ttl
        self._threads = anyio.CapacityLimiter(threads)
        self._open: asyncio.AbstractEventLoop | None = self.loop
        self._own = Context()  # the queue's own work belongs to no request
        self._last = 0
        self._awake = False
        self._alarm: Alarm | None = None
        self._armed = _FAR
        self._ahead = clock.wall() - clock.steady()
        self._read = clock.steady()
        self._joiners: list[asyncio.Future[None]] = []
        self._awaiting = 0
        self._starved = False
        clock.attach(self)

    # -- a call comes

    def check_loop(self) -> None:
        """`WrongLoop` unless the caller is in the queue's own loop."""
        if events._get_running_loop() is not self.loop:  # noqa: SLF001
            raise WrongLoop(
                "this queue runs in another event loop: use it where it was started,"
                " or queue.enqueue_from_thread(…) from another thread"
            )

    def _refuse(self) -> None:
        if self.closing:
            raise QueueClosed("the queue is closed and takes no calls: start it again first")
        self.check_loop()

    def accept(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        eta: int | None,
        delay: int | None,
        key: str | None,
        given: Options | None,
    ) -> Handle[Any]:
        """Take a call in: check it, make its key, place it, wake the loop if it is early."""
        if events._get_running_loop() is not self._open:  # noqa: SLF001 # the public one raises, and costs more
            self._refuse()
        now = self.clock.steady()
        rule, make_key, options = task.rule, task.make_key, task.declared
        more = NOTHING_MORE
        if given is not None:
            more = More(options=given)
            options = given.over(options)
            if options.defer is not task.declared.defer:
                rule = options.defer if isinstance(options.defer, Defer) else None
                make_key = None if rule is None else task.key_maker(rule)
            key = options.key if isinstance(options.key, str) else key
            eta = options.eta if isinstance(options.eta, int) else eta
            if isinstance(given.delay, int):
                delay = given.delay
            elif given.delay is None:
                delay = 0
        if task.check is not None and (make_key is None or key is not None or rule.key is not None):
            task.check(*args, **kwargs)
        if key is None and make_key is not None:
            key = make_key(*args, **kwargs)
        if eta is None:
            steady = True
            if delay is None:
                delay = options.delay or 0
            due = not delay
            order = eta = within(now + delay)
        else:
            steady = False
            self._ahead = ahead = self.clock.wall() - now
            order = eta - ahead
            due = order <= now
        self._last = number = max(self._last + 1, (now // 1000 & 0x7FFFFFFFFFF) << 20)
        full: Key = number if key is None else (task.identity, key)
        call = Call(
            number, task, full, eta, steady, args, kwargs or NO_KWARGS, copy_context(), 1, more
        )
        if key is not None:
            old = self.agenda.waiting.get(full)
            if rule is not None and not rule.plain:
                ahead = self._ahead
                if old is None:
                    call = opened(call, rule, now, ahead)
                else:
                    call = folded(old, call, rule, task.fn, now, ahead)
                order = call.eta if call.steady else call.eta - ahead
                due = order <= now
            if old is not None:
                call.calls = old.calls + 1
                call.answer = old.shared()
        self._take_in(call, due, order)
        return Handle(self, call)

    def _take_in(self, call: Call, due: bool, order: int) -> None:
        ledger = self.ledger
        old = self.agenda.place(call, due=due, order=order)
        ledger.accepted += 1
        if old is not None and old.calls:
            ledger.counts[after(State.SCHEDULED, Event.REPLACE)] += 1
            if self._events.heard(DEBUG):
                self._tell(DEBUG, "job_replaced", old, by=str(call.id))
        if self._events.heard(DEBUG):
            self._tell(DEBUG, "job_accepted", call, eta=moment(self.books.wall_eta(call)))
        if due or order < self._armed:
            self.wake()

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
        for call in agenda.take_due(steady, wall, _LINES):
            if call.calls:
                text = f"{call.task.name} had not started when its expires ran out"
                self._end(call, Outcome(Event.EXPIRE, error=JobExpired(text)), None)
        for _ in range(_STARTS):
            call = agenda.take()
            if call is None:
                break
            if call.calls:
                self._start(call, steady, wall)
            else:  # the empty call of a leading window that nobody replaced
                agenda.release(call.key)
        self._arm(steady)
        if self._awaiting:
            self._check_starved()
        self._settle_joiners()

    def _watch(self, steady: int, wall: int) -> None:
        """Report a wall clock that was set and a loop that did not come by for a while."""
        if self._alarm is not None and steady - self._armed > _LAG:
            self._tell(WARNING, "loop_lagged", None, seconds=seconds(steady - self._armed))
        jump = wall - steady - self._ahead
        # A clock that is slewed drifts by half a millisecond a second at the most.
        if abs(jump) > _JUMP + (steady - self._read) // 1000:
            self._tell(WARNING, "clock_jumped", None, seconds=seconds(jump))
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

    def _start(self, call: Call, steady: int, wall: int) -> None:
        late = max(0, (steady if call.steady else wall) - call.eta)
        run = Run(call, call.more.attempt + 1, steady, late, self.books.wall_eta(call), self)
        self.runs[call.key] = run
        self.ledger.started(late)
        if call.more.window is not None and call.more.window > steady:
            self._keep_open(call, call.more.window)
        if self._events.heard(DEBUG):
            self._tell(DEBUG, "job_started", call, attempt=run.attempt, seconds=seconds(late))
        task: Any = call.task
        timeout = call.options.timeout
        if isinstance(timeout, int):
            run.timer = self.clock.call_at(steady + timeout, partial(self._stop, run, Event.FAIL))
        run.task_of_loop = job = self.loop.create_task(
            perform(run, task, self._threads), context=call.context
        )
        job.add_done_callback(partial(self._ended, run), context=self._own)

    def _keep_open(self, call: Call, until: int) -> None:
        """An empty call that keeps a leading window open until somebody calls or it ends."""
        self._last = number = self._last + 1
        empty = Call(number, call.task, call.key, until, True, (), NO_KWARGS, self._own, 0)  # noqa: FBT003 - positions are fast
        self.agenda.place(empty)

    def _stop(self, run: Run, why: Event) -> None:
        """Cancel a run; the first reason counts."""
        if run.stop is None and self.runs.get(run.call.key) is run:
            run.stop = why
            run.task_of_loop.cancel()

    def _ended(self, run: Run, job: "asyncio.Task[Outcome]") -> None:
        key = run.call.key
        if self.runs.get(key) is not run:
            return  # abandoned at close
        if run.timer is not None:
            run.timer.cancel()
        if job.cancelled():  # before its first step
            outcome = Outcome(Event.FAIL, error=asyncio.CancelledError())
        else:
            error = job.exception()
            outcome = job.result() if error is None else Outcome(Event.FAIL, error=error)
        self._conclude(run, judged(run, outcome))

    def _conclude(self, run: Run, outcome: Outcome) -> None:
        call = run.call
        verdict = decide(outcome, self.clock.steady())
        del self.runs[call.key]
        self.agenda.release(call.key)
        if verdict.eta is None:
            final = Outcome(verdict.event, value=verdict.value, error=verdict.error)
            self._end(call, final, run)
        else:
            self._run_again(run, verdict.event, verdict.eta, steady=verdict.steady)
        if self.agenda.startable():
            self.wake()
        self._settle_joiners()

    def _run_again(self, run: Run, event: Event, eta: int, *, steady: bool) -> None:
        call = run.call
        after(State.RUNNING, event)
        newer = self.agenda.waiting.get(call.key)
        if newer is not None and newer.calls:
            call.shared().follow(newer.shared())
            self.ledger.counts[after(State.RUNNING, Event.REPLACE)] += 1
            if self._events.heard(DEBUG):
                self._tell(DEBUG, "job_replaced", call, by=str(newer.id))
            return
        more = More(call.more.attempt + 1, None, None, call.more.options)
        again = call.again(eta, steady=steady, more=more)
        self.agenda.place(again)
        self.wake()
        if self._events.heard(DEBUG):
            eta_ = moment(self.books.wall_eta(again))
            self._tell(DEBUG, "job_snoozed", again, eta=eta_, attempt=run.attempt)

    def _end(self, call: Call, outcome: Outcome, run: Run | None) -> None:
        """A job has ended: write it into the ledger, tell, and wake its waiters."""
        now = self.clock.steady()
        answer = call.shared().final()
        answer.state = state = after(
            State.SCHEDULED if run is None else State.RUNNING, outcome.event
        )
        answer.value = outcome.value
        answer.id = call.id
        answer.eta = self.books.wall_eta(call) if run is None else run.due
        answer.attempt = call.more.attempt if run is None else run.attempt
        error = outcome.error
        if error is not None:
            answer.error, answer.traceback = error, error.__traceback__
        self.ledger.counts[state] += 1
        ttl = call.options.result_ttl
        ttl = self._result_ttl if ttl is not None and not isinstance(ttl, int) else ttl
        started = None if run is None else run.started
        self.ledger.keep(Ended(call, started, now), None if ttl is None else now + ttl, now)
        self._forget(call.task)  # type: ignore[arg-type]
        unseen = state is State.FAILED and not answer.waiters
        level = ERROR if unseen else DEBUG
        if self._events.heard(level):
            told = None if error is None or state is not State.FAILED else job_error(error)
            self._tell(
                level,
                NAMES[state],
                call,
                error=told,
                attempt=answer.attempt,
                cause=error if unseen else None,
            )
        answer.wake()

    # -- what a handle asks for

    def cancel(self, call: Call) -> bool:
        """Take a waiting job out, or stop its run; False if it has ended."""
        self.check_loop()
        live = self.books.live(call)
        if isinstance(live, Run):
            self._stop(live, Event.CANCEL)
        elif live is not None:
            self.agenda.remove(live.key)
            text = f"{live.task.name} was cancelled before its start"
            self._end(live, Outcome(Event.CANCEL, error=JobCancelled(text)), None)
            self._settle_joiners()
        return live is not None

    def flush(self, call: Call) -> bool:
        """Let a waiting job run now."""
        return self.reschedule(call, self.clock.steady(), steady=True)

    def reschedule(self, call: Call, eta: int, *, steady: bool) -> bool:
        """Give a waiting job another eta."""
        self.check_loop()
        live = self.books.live(call)
        if live is None or isinstance(live, Run):
            return False
        after(State.SCHEDULED, Event.MOVE)
        now = self.clock.steady()
        order = within(eta) if steady else eta - self.books.ahead()
        self.agenda.place(live.again(eta, steady=steady), due=order <= now, order=order)
        self.wake()
        return True

    def run_awaits(self, run: Run, call: Call) -> None:
        """A run awaits the handle of another job."""
        run.awaits.append(call)
        self._awaiting += 1
        self._check_starved()

    def run_resumes(self, run: Run, call: Call) -> None:
        run.awaits.remove(call)
        self._awaiting -= 1

    def _check_starved(self) -> None:
        """Every slot awaits a job that is due, so none of them can ever end."""
        starved = self._awaiting >= self.agenda.concurrency == len(self.runs) and all(
            any(self._is_due(call) for call in run.awaits) for run in self.runs.values()
        )
        if starved and not self._starved:
            self._tell(WARNING, "starved", None)
        self._starved = starved

    def _is_due(self, call: Call) -> bool:
        live = self.books.live(call)
        return isinstance(live, Call) and self.agenda.standing(live.key)

    # -- rest and close

    def is_quiet(self) -> bool:
        """Nothing is due and nothing runs."""
        return not self.runs and not self.agenda.is_due(self.clock.steady(), self.clock.wall())

    async def join(self) -> None:
        """Wait until nothing is due and nothing runs."""
        self.check_loop()
        while not self.closing and not self.is_quiet():
            joiner: asyncio.Future[None] = self.loop.create_future()
            self._joiners.append(joiner)
            await joiner

    def _settle_joiners(self) -> None:
        if self._joiners and (self.closing or self.is_quiet()):
            joiners, self._joiners = self._joiners, []
            for joiner in joiners:
                if not joiner.done():
                    joiner.set_result(None)

    def busy(self) -> str | None:
        """What does not wait for the clock, for a clock that is moved by hand."""
        if self._awake:
            return "the queue's turn"
        return ", ".join(map(repr, self.books.busy())) or None

    def one_shots(self) -> bool:
        return len(self.agenda) > 0 or bool(self.runs)

    async def shut_down(self, drain: float, grace: float) -> None:
        """Stop accepting, let runs end, cancel those that do not, settle every waiter."""
        self.closing = True
        self._open = None
        if self._alarm is not None:
            self._alarm.cancel()
        if not self.clock.moves and not any(self.books.busy()):
            drain = 0  # nobody moves the clock that they wait for
        await self._wait_for_runs(drain)
        self.stop_runs()
        await self._wait_for_runs(grace)
        closed = QueueClosed("the queue was closed; it keeps nothing, so the job is lost")
        for run in tuple(self.runs.values()):
            self._tell(ERROR, "job_abandoned", run.call, attempt=run.attempt)
            self._conclude(run, Outcome(Event.DROP, error=closed))
        for at, (key, call) in enumerate(tuple(self.agenda.waiting.items())):
            self.agenda.remove(key)
            if call.calls:
                self._end(call, Outcome(Event.DROP, error=closed), None)
            if at % _LINES == _LINES - 1:
                await asyncio.sleep(0)
        self._settle_joiners()
        self.clock.detach(self)

    async def _wait_for_runs(self, timeout: float) -> None:
        if self.runs:
            await asyncio.wait([run.task_of_loop for run in self.runs.values()], timeout=timeout)
            await asyncio.sleep(0)  # the done callbacks of the last ones

    def stop_runs(self) -> None:
        """Cancel every run, as the queue closes."""
        for run in tuple(self.runs.values()):
            self._stop(run, Event.DROP)

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
            values |= {"job_id": str(call.id), "task": call.task.name, "key": call.shown_key}
        event = LogEvent(name=name, at=moment(self.clock.wall()), **values)
        self._events.emit(level, event, cause)
