"""A queue between its start and its close: what comes to the loop from outside.

Calls come in through one door, `accept`; handles and the queue ask for changes; and the close
leads everything to an end.
"""

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import partial
from threading import get_ident
from typing import Any, Final

from msgspec import UNSET, structs

from asyncdefer import _rows as rows
from asyncdefer._core.checks import checked_key
from asyncdefer._core.defer import folded, opened
from asyncdefer._core.instant import LAST, duration, instant, moment, within
from asyncdefer._core.job import (
    NO_CONTEXT,
    NO_KWARGS,
    NOTHING_MORE,
    Call,
    Key,
    More,
    Outcome,
    Running,
    Unread,
)  # fmt: skip
from asyncdefer._core.lifecycle import Event, State, after
from asyncdefer._core.options import Defer, Options
from asyncdefer._core.rules import grid_of
from asyncdefer._door import NOWHERE, door_of, running_loop
from asyncdefer._handle import Handle
from asyncdefer._jobs import LINES
from asyncdefer._log import DEBUG, ERROR
from asyncdefer._lookups import LookUps
from asyncdefer._plan import SHARD, Record
from asyncdefer._runner import closed_text, judged
from asyncdefer._task import Task
from asyncdefer.errors import JobCancelled, JobDropped, JournalError, QueueClosed, WrongLoop
from asyncdefer.stores._base import RUNNING, Drop, Set

_MERGES: Final = 10  # tries to merge calls while the merge function changes what it merges


class Scheduler(LookUps):
    """The loop, and the doors to it."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._door = door_of(self)
        self.pid = os.getpid()
        self.clock.attach(self)

    def shut_door(self) -> None:
        """Let no more calls in by the short way; the long one tells why."""
        self._door = NOWHERE

    # -- a call comes

    def check_loop(self) -> None:
        """`WrongLoop` unless the caller is in the queue's own loop."""
        if running_loop() is not self.loop:
            raise WrongLoop(
                "this queue runs in another event loop: use it where it was started,"
                " or queue.enqueue_from_thread(…) from another thread"
            )

    def _check_open(self) -> None:
        self.check_not_closed()
        self.check_loop()

    def check_not_closed(self) -> None:
        """`QueueClosed` if it is; also from another thread."""
        if self.closing:
            raise QueueClosed("the queue is closed and takes no calls: start it again first")

    def accept(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        given: Options | None = None,
        lodge: Callable[[Call, str], object] | None = None,
    ) -> Handle[Any]:
        """Take a call in: check it, make its key, place it, wake the loop if it is early."""
        if get_ident() != self._door._thread_id:  # noqa: SLF001 - see _door.py
            self._check_open()
        now = self._steady()
        if self.journal is not None:  # as in _now
            self._ahead = self.clock.wall() - now
        rule, make_key, span, more = task.folding, task.make_key, task.delay, NOTHING_MORE
        when: int | None = None
        if given is not None:
            more = More(options=given)
            if given.defer is not UNSET:
                make_key = None if given.defer is None else task.key_maker(given.defer)
                rule = None if given.defer is None or given.defer.plain else given.defer
            key = given.key or None
            if given.eta is not UNSET:
                when = given.eta
            if given.delay is not UNSET:
                span = given.delay or 0
        if make_key is not None and key is None:
            key = make_key(*args, **kwargs)
        else:
            if task.check is not None:
                task.check(*args, **kwargs)
            if key is not None:
                checked_key(key)
        if task.make_rate_key is not None:
            more = structs.replace(more, rate=task.make_rate_key(*args, **kwargs))
        if given is not None and given.after:
            more = self.awaited(given, more, rule)
        if given is not None and given.repeat:
            return self.repeat(task, args, kwargs or NO_KWARGS, key, more, copy_context())
        text = ""
        if self.journal is not None:
            if given is not None:
                rows.portable(given)
            text, args, kwargs = task.codec.encode(args, kwargs)
        if delay is not None:
            if eta is not None:
                raise TypeError("give eta or delay, not both")
            span = duration(delay)
        elif eta is not None:
            when = instant(eta)
        if when is None:
            steady = True
            order = when = now + span
            if when > LAST:
                within(when)
        else:
            steady = False
            order = when - self.clock.wall() + now
        if now >= self._next_tick:
            self._tick(now)
        self.last = number = self.last + 1
        agenda = self.agenda
        heard = self._heard(DEBUG)
        kwargs = kwargs or NO_KWARGS
        context = copy_context() or NO_CONTEXT  # an empty one is shared; runs take copies
        if lodge is not None or (given is not None and given.after):
            if lodge is not None:
                self.last = number = number + 1  # the one before it is left for `_id_after`
            own: Key = number if key is None else (task.identity, key)
            call = Call(number, task, own, when, steady, args, kwargs, context, 1, more)
            (lodge or partial(self.hold, handles=(given and given.after) or ()))(call, text)
            return Handle(self, call)
        if key is None:
            call = Call(number, task, number, when, steady, args, kwargs, context, 1, more)
            if order >= self.near and self._is_far(order, now):
                self._go_far(call)
            elif given is None:
                agenda.add(call, order <= now, order)
            else:
                agenda.place(call, order <= now, order)
            old = None
        else:
            full: Key = (task.identity, key)
            old = agenda.waiting.get(full)
            if old is None and self.books.far:
                old = self.books.far.get(full)
            if old is None:
                calls, answer = 1, None
            else:  # with its own key object, which dicts find faster than an equal one
                full, calls, answer = old.key, old.calls + 1, old.answer or old.shared()
            call = Call(
                number, task, full, when, steady, args, kwargs, context, calls, more, answer
            )
            if rule is not None:
                ahead = self.books.ahead()
                self._highest = max(self._highest, ahead)
                call, old = self._folded(call, rule, task, now, ahead)
                order = call.eta if call.steady else call.eta - ahead
                if self.journal is not None and call.args is not args:
                    text, call.args, call.kwargs = task.codec.encode(call.args, call.kwargs)
            if self.journal is not None:
                self._make_way(call, old, order, now)
            elif old is None or order <= now:
                agenda.place(call, order <= now, order)
            else:
                agenda.renew(call, old)
            if old is not None:
                if heard or old.more.schedule is not None:
                    self._replaced(old, call)
                if old.calls:
                    self.ledger.replaced += 1
                old.let_go()
        self.ledger.accepted += 1
        if self.journal is not None:
            self._log_call(call, text, old)
        if heard:
            self.tell(DEBUG, "job_accepted", call, eta=moment(self.books.wall_eta(call)))
        if order < self._armed:
            self.wake()
        return Handle(self, call)

    def _folded(
        self, call: Call, rule: Defer, task: Task[..., Any], now: int, ahead: int
    ) -> tuple[Call, Call | None]:
        """The call as its rule wants it to wait, and the one it replaces.

        A merge function is the user's: if it called or cancelled under this very key, what it
        was given is out of date, and it is asked again.
        """
        for _ in range(_MERGES):
            old = self.agenda.waiting.get(call.key)
            if old is None:
                return opened(structs.replace(call, calls=1, answer=None), rule, now, ahead), None
            self.last += 1
            call = structs.replace(call, id=self.last, calls=old.calls + 1, answer=old.shared())
            result = folded(old, call, rule, task.fn, now, ahead)
            if task.make_rate_key is not None:
                text = task.make_rate_key(*result.args, **result.kwargs)
                result = structs.replace(result, more=structs.replace(result.more, rate=text))
            if self.agenda.waiting.get(call.key) is old:
                return result, old
        raise RuntimeError(f"keep: {rule.keep!r} keeps calling {task.name} under its own key")

    # -- what a handle asks for

    def cancel(self, call: Call) -> bool:
        """Take a waiting job out, or stop its run; False if it has ended."""
        self.check_loop()
        live = self.books.live(call)
        if isinstance(live, Running):
            self._stop(live, Event.CANCEL)
            if self.journal is not None:
                row = rows.under_way(live, self._ahead, cancelled=True)
                self.journal.log(Set(row, RUNNING))
        elif live is not None:
            text = f"{live.task.name} was cancelled before its start"
            self._end_waiting(live, Outcome(Event.CANCEL, error=JobCancelled(text)))
        return live is not None

    def _end_waiting(self, call: Call, outcome: Outcome) -> None:
        if call.id in self.lodged:
            self.end_lodged(call.id, outcome)
            return
        self._take_out(call)
        self._end(call, outcome, None, self._steady())
        self._settle_joiners()

    def flush(self, call: Call) -> bool:
        """Let a waiting job run now."""
        return self.reschedule(call, self.clock.steady(), steady=True)

    def reschedule(self, call: Call, eta: int, *, steady: bool) -> bool:
        """Give a waiting job another eta."""
        self.check_loop()
        live = self.books.live(call)
        if live is None or isinstance(live, Running):
            return False
        if live.id in self.lodged:
            return False
        if live.id in self.books.on_hold:
            self._move_held(live.again(within(eta), steady=steady))
            return True
        after(State.SCHEDULED, Event.MOVE)
        now = self._now()
        order = within(eta) if steady else eta - self.books.ahead()
        more, rule = live.more, live.repeat
        if rule is not None:  # this run moves, and what follows stays where it was
            grid = grid_of(live, rule, self.books.ahead())
            more = structs.replace(more, grid=grid, ends=None)
        again = live.again(eta, steady=steady, more=more)
        self.books.name(again)
        self._make_way(again, live, order, now)
        self._log_again(again)
        self.wake()
        return True

    def redrive(self, number: int) -> Handle[Any]:
        """Run a failed job again, with its attempts counted anew."""
        self._check_open()
        call = self.books.find(number)
        state = None if call is None else self.books.state(call)
        if call is None or state is not State.FAILED:
            raise ValueError(f"only a failed job can be redriven; {number} is {state or 'unknown'}")
        if isinstance(call.task, Record) or call.task.name == SHARD:
            raise ValueError(f"{number} was an iteration, whose shards are gone: iterate again")
        if isinstance(call, Unread):
            raise ValueError(f"{number} cannot be redriven by this program: {call.why}")
        if call.key in self.schedules:
            raise ValueError(f"the schedule of {number} goes on: its next run will come")
        newer = self.agenda.waiting.get(call.key) or self.books.far.get(call.key)
        if newer is not None and newer.calls:
            raise ValueError(f"a newer call waits under the key of {number}: it will run instead")
        after(state, Event.REDRIVE)
        now = self._now()
        again = structs.replace(
            call, eta=now, steady=True, context=copy_context(), answer=None, first=None,
            more=More(rate=call.more.rate, options=call.more.options, after=call.more.after),
        )  # fmt: skip
        self.ledger.forget(number)
        self.books.named[number] = again
        if self.journal is not None:
            self.journal.log(Set(rows.waiting(again, self._ahead), State.FAILED.value))
        self._enter(again, now)
        return Handle(self, again)

    def discard(self, number: int) -> bool:
        """Forget an ended job, or drop a waiting one; False if nothing is known of it."""
        self.check_loop()
        row = self.books.parked.pop(number, None)
        if row is not None and self.journal is not None:
            self._discard_parked(row)
            return True
        call = self.books.find(number)
        if call is None:
            return False
        live = self.books.live(call)
        if isinstance(live, Running):
            raise ValueError(f"{live!r} runs: cancel it, or discard it when it has ended")
        if live is None:
            self.ledger.forget(number)
            if self.journal is not None:
                self.journal.log(Drop(number, self.books.state(call).value))
            return True
        text = f"{live.task.name} was discarded"
        self._end_waiting(live, Outcome(Event.DROP, error=JobDropped(text)))
        return True

    # -- rest and close

    async def join(self) -> None:
        """Wait until nothing is due and nothing runs."""
        self.check_loop()
        while not self.closing and not self.is_quiet():
            joiner: asyncio.Future[None] = self.loop.create_future()
            self._joiners.append(joiner)
            await joiner
        with suppress(JournalError):  # of what has ended here, the outcome may be on its way
            await self.recorded()

    async def shut_down(self, drain: float, grace: float) -> None:
        """Stop accepting, let runs end, cancel those that do not, settle every waiter."""
        self.closing = True
        self.shut_door()
        if self._alarm is not None:
            self._alarm.cancel()
        if not self.clock.moves and not any(self.books.busy()):
            drain = 0  # nobody moves the clock that they wait for
        await self._wait_for_runs(drain)
        self.stop_runs()
        await self._wait_for_runs(grace)
        closed = QueueClosed(closed_text(self.journal is not None))
        for run in tuple(self.runs.values()):
            self.tell(ERROR, "job_abandoned", run.call, attempt=run.attempt)
            outcome = Outcome(Event.DROP, error=closed)
            self._conclude(run, judged(run, outcome) if run.stop is Event.CANCEL else outcome)
        for at, (key, call) in enumerate(tuple(self.agenda.waiting.items())):
            self.agenda.remove(key)
            if call.calls:
                self._end(call, Outcome(Event.DROP, error=closed), None, self._steady())
            if at % LINES == LINES - 1:
                await _undisturbed(asyncio.sleep(0))
        self._abandon_held(closed)
        self._abandon_far(closed)
        if self.journal is not None:
            await self.journal.close()
        self._settle_joiners()
        self._threads.close()
        self.clock.detach(self)

    async def _wait_for_runs(self, timeout: float) -> None:
        if self.journal is not None:  # runs begin when it has their start
            await _undisturbed(self._recorded_within(timeout))
        jobs = [run.task_of_loop for run in self.runs.values() if run.task_of_loop is not None]
        if jobs:
            await _undisturbed(asyncio.wait(jobs, timeout=timeout))
            await _undisturbed(asyncio.sleep(0))  # those that never began are seen in the next turn

    async def _recorded_within(self, timeout: float) -> None:
        with suppress(TimeoutError, JournalError):
            await asyncio.wait_for(self.recorded(), timeout)

    def stop_runs(self) -> None:
        """Cancel every run, as the queue closes."""
        for run in [run for run in self.runs.values() if run not in self._told]:
            self._told.add(run)
            self._stop(run, Event.DROP)


async def _undisturbed(step: Coroutine[Any, Any, object]) -> None:
    """One step of the close; when the loop is torn down meanwhile, it hurries and goes on."""
    try:
        await step
    except asyncio.CancelledError:
        return
