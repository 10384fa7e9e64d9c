"""What should be: a plain model of every key, fed with what callers do and with what jobs see.

It knows the contract and none of the library's structures. Who starts next and when is not
predicted; it is judged when it is seen.
"""

from collections.abc import Container
from dataclasses import replace
from datetime import datetime
from typing import Any

from asyncdefer import (
    Handle,
    JobCancelled,
    JobDropped,
    JobExpired,
    JobFailed,
    Queue,
    QueueClosed,
    Snooze,
    State,
)
from asyncdefer._core.instant import SECOND, moment
from asyncdefer.testing import VirtualClock
from tests.soak.records import Burst, Call, Key, Kind, Outcome


class Model:
    """All bursts of one session of a queue, from its start to its close."""

    def __init__(
        self, queue: Queue, clock: VirtualClock, *, concurrency: int, keeps: bool, paused: bool
    ) -> None:
        self.queue = queue
        self.clock = clock
        self.concurrency = concurrency
        self.waiting: dict[Key, Burst] = {}
        self.running: dict[Key, Burst] = {}
        self.windows: dict[Key, int] = {}
        self.bursts: list[Burst] = []
        self.accepted = 0
        self.replaced = 0
        self.keeps = keeps  # ended jobs can be looked up
        self.paused = paused
        self.over = False  # close() has returned
        self.wrongs: list[str] = []

    def wrong(self, text: str) -> None:
        """Noted, not raised: inside a job an exception would be that job's business."""
        self.wrongs.append(f"at {(self.clock.steady() % (1000 * SECOND)) / SECOND}: {text}")

    def demand(self, fact: bool, text: str, *what: object) -> None:
        if not fact:
            self.wrong(" ".join([text, *map(str, what)]))

    @property
    def ahead(self) -> int:
        return self.clock.wall() - self.clock.steady()

    @property
    def closing(self) -> bool:
        scheduler: Any = self.queue._scheduler
        return bool(scheduler.closing)

    # -- what callers do

    def accept(self, call: Call, handle: Handle[Any]) -> Burst:
        """A call was taken in: it opens a burst or is folded into the one that waits."""
        self.accepted += 1
        rule, now = call.kind.rule, self.clock.steady()
        self.demand(handle.key == call.key, "the key is", handle.key, "and not", call.key)
        key = (call.kind.name, handle.id if call.key is None else call.key)
        first = None if rule.max_wait is None else now + rule.max_wait
        steady, eta = call.steady, call.eta
        old = self.waiting.get(key)
        if old is None:
            old = Burst(key, call, call.n, steady, eta, [handle], kept=self.keeps)
            wanted = eta if steady else eta - self.ahead
            opened = self._window_is_open(key, now)
            if rule.leading and not opened and wanted > now:
                old.steady, old.eta, old.window = True, now, wanted
            else:
                old.bound = first
                self._bounded(old)
            self.bursts.append(old)
            self.waiting[key] = old
            self.windows.pop(key, None)
            return old
        self.replaced += 1
        replaced = old.newest
        old.handles.append(handle)
        old.call = call
        old.folded += 1
        old.attempt = 0
        old.args = {"last": call.n, "first": old.args, "merge": old.args + call.n}[rule.keep]
        if old.window is None:
            old.steady, old.eta = steady, eta
            old.moved = old.came = False
        old.bound = first if old.bound is None else old.bound
        self._bounded(old)
        self.demand(replaced.replaced, "a replaced call does not say so:", old)
        return old

    def _bounded(self, burst: Burst) -> None:
        if burst.bound is not None:
            eta = burst.eta if burst.steady else burst.eta - self.ahead
            if eta > burst.bound:
                burst.steady, burst.eta = True, burst.bound

    def clock_was_read(self, before: int, ahead: int, due: Container[Any]) -> None:
        """The queue compared its clocks; if the wall clock was set back, bounds did not follow.

        `due`: the keys of which it knew already that they are due, which they stay.
        """
        if before - ahead <= SECOND:
            return
        for burst in self.waiting.values():
            etas = burst.eta - before, burst.eta - ahead
            waits = not burst.steady and burst.handles[0]._call.key not in due
            if waits and burst.bound is not None and etas[0] <= burst.bound < etas[1]:
                burst.steady, burst.eta = True, burst.bound

    def _window_is_open(self, key: Key, now: int) -> bool:
        until = self.windows.get(key)
        return until is not None and now < until

    def move(self, burst: Burst, steady: bool, eta: int) -> bool:
        """An explicit reschedule or flush; whether there is something to move."""
        burst = burst.root
        if self.waiting.get(burst.key) is not burst:
            return False
        burst.steady, burst.eta, burst.moved, burst.came = steady, eta, True, False
        return True

    def cancel(self, burst: Burst) -> bool:
        """A cancel; whether there is something to cancel."""
        burst = burst.root
        if self.waiting.get(burst.key) is burst:
            burst.cancelled = True
            self._end(burst)
        elif self.running.get(burst.key) is burst:
            burst.cancelled = True
        else:
            return False
        return True

    def discard(self, burst: Burst) -> bool | None:
        """A discard of the newest id; whether it is known, and None if it runs."""
        burst = burst.root
        if self.running.get(burst.key) is burst:
            return None
        if self.waiting.get(burst.key) is burst:
            burst.discarded = True
            self._end(burst)
            return True
        known, burst.kept = burst.kept, False
        return known

    def redrive(self, burst: Burst, handle: Handle[Any], mark: int) -> Burst:
        """A failed job runs again under its own id; the burst that failed stays as it ended."""
        self.accepted += 1
        burst.kept = False
        call = replace(burst.call, mark=mark)
        again = Burst(
            burst.key, call, burst.args, True, self.clock.steady(), [handle], burst.folded
        )
        self.bursts.append(again)
        self.waiting[again.key] = again
        self.windows.pop(again.key, None)
        return again

    def can_redrive(self, burst: Burst) -> bool:
        failed = self.has_ended(burst) and burst.newest.state is State.FAILED
        return failed and burst.kept and burst.key not in self.waiting

    def latest(self, burst: Burst) -> Burst:
        """The burst that the newest id of this one stands for, after any redrive.

        A burst that has not ended is known by all its ids, one that has by its newest.
        """
        id_ = burst.root.newest.id
        for other in reversed(self.bursts):
            ids = other.handles[-1:] if self.has_ended(other) else other.handles
            if any(handle.id == id_ for handle in ids):
                return other
        return burst

    def has_ended(self, burst: Burst) -> bool:
        live = (self.waiting.get(burst.key), self.running.get(burst.key))
        return burst.follows is None and burst not in live

    # -- what jobs see

    def begin(self, burst: Burst) -> None:
        """A run has begun: the burst waits no more."""
        self._settle_left()
        now = self.clock.steady()
        time = now if burst.steady else self.clock.wall()
        self.demand(not self.over, "it runs after the close:", burst)
        self.demand(self.waiting.get(burst.key) is burst, "it runs and did not wait:", burst)
        self.demand(burst.key not in self.running, "two runs of a key overlap:", burst)
        self.demand(time >= burst.eta or burst.came, "early by", burst.eta - time, "µs:", burst)
        ends = burst.call.expires
        self.demand(ends is None or time < burst.eta + ends, "it runs and had expired:", burst)
        self.demand(not self.paused and not burst.call.kind.paused, "it runs in a pause:", burst)
        self.waiting.pop(burst.key, None)
        self.running[burst.key] = burst
        self.demand(len(self.running) <= self.concurrency, "too many run:", len(self.running))
        burst.begun = now
        burst.due = self._shown_eta(burst)
        burst.attempt += 1
        burst.left = None
        if burst.window is not None and burst.window > now:
            self.windows[burst.key] = burst.window

    def enter(self, kind: Kind, run: Any, n: tuple[int, ...], mark: int) -> Burst | None:
        """The first line of a job's function."""
        self._settle_left()
        key = (kind.name, run.key or run.id)
        burst = self.running.get(key)
        if burst is None or burst.inside:
            burst = self.waiting.get(key)
            if burst is None:
                self.wrong(f"a run of {key} {run.id}, which does not wait")
                return None
            self.begin(burst)
        expected = (burst.newest.id, burst.args, burst.folded, burst.attempt, burst.call.mark)
        seen = (run.id, n, run.calls, run.attempt, mark)
        self.demand(seen == expected, f"{burst} ran as {seen}, not as {expected}")
        self.demand(run.eta == burst.due, "its run has the eta", run.eta, "not", burst.due, burst)
        self.demand(run.lateness >= 0, "its run has the lateness", run.lateness, burst)
        burst.inside = True
        return burst

    def leave(self, burst: Burst, outcome: Outcome) -> None:
        """The last line of it. In a thread the run ends a little later."""
        burst.inside = False
        burst.left, burst.left_at = outcome, self.clock.steady()
        if burst.call.kind.thread:
            return
        if isinstance(outcome[1], Snooze) and not self._stopped(burst):
            self._snooze(burst, outcome[1])
        else:
            self._end(burst)

    def _stopped(self, burst: Burst) -> bool:
        return burst.cancelled or burst.interrupted or self._timed_out(burst, 1)

    def _timed_out(self, burst: Burst, more: int = 0) -> bool:
        limit = burst.call.timeout
        return limit is not None and burst.left_at >= (burst.begun or 0) + limit + more

    def _snooze(self, burst: Burst, signal: Snooze) -> None:
        del self.running[burst.key]
        if burst.key in self.waiting:
            self._look_at(self.waiting[burst.key])  # it may have expired
        newer = self.waiting.get(burst.key)
        if newer is not None:
            self.replaced += 1
            burst.follows = newer
            return
        burst.steady = signal.eta is None
        burst.eta = signal.eta or self.clock.steady() + (signal.delay or 0)
        burst.bound = burst.window = burst.begun = None
        burst.moved = burst.came = False
        self.windows.pop(burst.key, None)
        self.waiting[burst.key] = burst

    def _end(self, burst: Burst) -> None:
        """It waits and runs no more."""
        for place in (self.waiting, self.running):
            if place.get(burst.key) is burst:
                del place[burst.key]

    def _settle_left(self) -> None:
        """Runs whose function has ended in a thread, and those that never came to it."""
        for burst in tuple(self.running.values()):
            if not burst.inside and burst.newest.state.ended:
                stopped = burst.cancelled or self.closing
                self.demand(burst.left is not None or stopped, "its run was lost:", burst)
                self._end(burst)

    # -- what the library shows

    def observe(self) -> None:
        """Compare what waits and runs with what the handles say."""
        self._settle_left()
        for burst in tuple(self.waiting.values()):
            self._look_at(burst)
        stats = self.queue.stats()
        shown = (stats.waiting, stats.running, stats.accepted, stats.replaced)
        mine = (len(self.waiting), len(self.running), self.accepted, self.replaced)
        self.demand(shown == mine, f"waiting, running, accepted, replaced: {shown}, not {mine}")

    def _shown_eta(self, burst: Burst) -> datetime:
        return moment(burst.eta + (self.ahead if burst.steady else 0))

    def _look_at(self, burst: Burst) -> None:
        state = burst.newest.state
        if state is State.RUNNING:
            self.begin(burst)
        elif state is State.EXPIRED:
            time = self.clock.steady() if burst.steady else self.clock.wall()
            ends = burst.call.expires
            due = ends is not None and time >= burst.eta + ends
            self.demand(due, "it expired too early:", burst)
            self._end(burst)
        elif state is State.DROPPED and self.closing:
            self._end(burst)
        elif state is not State.SCHEDULED:
            self.wrong(f"{burst} waits and is {state}")
            self._end(burst)
        else:
            right = burst.newest.eta == self._shown_eta(burst)
            self.demand(right, "it shows the eta", burst.newest.eta, burst)
            time = self.clock.steady() if burst.steady else self.clock.wall()
            burst.came = burst.came or time >= burst.eta

    def at_rest(self) -> None:
        """Nothing that may start still waits."""
        if self.paused or self.closing or len(self.running) >= self.concurrency:
            return
        for burst in self.waiting.values():
            due = (self.clock.steady() if burst.steady else self.clock.wall()) >= burst.eta
            late = burst.bound is not None and self.clock.steady() >= burst.bound
            free = not burst.call.kind.paused and burst.key not in self.running
            self.demand(not (free and due), "it is due and does not start:", burst)
            self.demand(not (free and late) or burst.moved, "it is past its max_wait:", burst)

    def judge(self, burst: Burst) -> str | None:
        """What is wrong with the one outcome of a burst; None if nothing is."""
        burst = burst.root
        values = burst.seen
        value, error = values[0]
        if any(other[0] is not value or other[1] is not error for other in values):
            return f"the outcomes differ: {values}"
        if not self._may_end(burst, burst.newest.state, value, error):
            return f"it is {burst.newest.state} with {value} {error!r}; it left {burst.left}"
        return None

    def _may_end(self, burst: Burst, state: State, value: Any, error: BaseException | None) -> bool:
        left, thread = burst.left, burst.call.kind.thread
        natural = left is not None and _is(left, value, error)
        untouched = not (burst.cancelled or burst.interrupted or self._timed_out(burst, 1))
        match state:
            case State.SUCCEEDED:
                return natural and error is None and (untouched or (thread and self.closing))
            case State.FAILED:
                late = type(error) is TimeoutError and self._timed_out(burst)
                return late or (natural and error is not None and untouched)
            case State.CANCELLED:
                return type(error) is JobCancelled and burst.cancelled
            case State.EXPIRED:
                return type(error) is JobExpired and burst.begun is None
            case State.DROPPED if burst.discarded:
                return type(error) is JobDropped and burst.begun is None
            case State.DROPPED:
                own = left is None or burst.interrupted or thread or isinstance(left[1], Snooze)
                return type(error) is QueueClosed and self.closing and own
            case _:
                return False


def _is(left: Outcome, value: Any, error: BaseException | None) -> bool:
    """The outcome of a function as its waiters should get it."""
    if left[1] is None or error is None:
        return left[0] is value and left[1] is error
    causes = (left[1], left[1].__cause__)
    return error is left[1] or (type(error) is JobFailed and error.__cause__ in causes)
