"""What should be: a plain model of every key, fed with what callers do and with what jobs see.

It knows the contract and none of the library's structures. Who starts next and when is not
predicted; it is judged when it is seen.
"""

from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from asyncdefer import Handle, Queue, Snooze, State
from asyncdefer._core.instant import SECOND, instant, moment
from asyncdefer.testing import VirtualClock
from tests.soak.gates import Gates, expired
from tests.soak.records import Burst, Call, Key, Kind, Outcome
from tests.soak.verdict import runs_again


class Model:
    """All bursts of one session of a queue, from its start to its close."""

    def __init__(
        self,
        queue: Queue,
        clock: VirtualClock,
        kinds: Iterable[Kind],
        *,
        concurrency: int,
        keeps: bool,
        paused: bool,
    ) -> None:
        self.queue = queue
        self.clock = clock
        self.kinds = {kind.function: kind for kind in kinds}
        self.concurrency = concurrency
        self.waiting: dict[Key, Burst] = {}
        self.running: dict[Key, Burst] = {}
        self.gates = Gates(self.running)
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
            old = Burst(key, call, call.user, call.n, steady, eta, [handle], kept=self.keeps)
            wanted = eta if steady else eta - self.ahead
            opened = self._window_is_open(key, now)
            if rule.leading and not opened and wanted > now:
                old.steady, old.eta, old.window = True, now, wanted
            else:
                old.bound = first
                self._bounded(old)
            self._line_up(old)
            self.bursts.append(old)
            self.waiting[key] = old
            self.windows.pop(key, None)
            return old
        self.replaced += 1
        replaced, lane = old.newest, old.lane
        old.handles.append(handle)
        old.call = call
        old.folded += 1
        old.spared = old.claim is not None and (old.spared or old.attempt > 0)
        old.attempt = old.failures = 0
        old.user = old.user if rule.keep == "first" else call.user
        old.args = {"last": call.n, "first": old.args, "merge": old.args + call.n}[rule.keep]
        if old.window is None:
            old.steady, old.eta = steady, eta
            old.moved = False
        old.bound = first if old.bound is None else old.bound
        self._bounded(old)
        self._line_up(old, old.claim if old.lane == lane else None)
        self.demand(replaced.replaced, "a replaced call does not say so:", old)
        return old

    def _bounded(self, burst: Burst) -> None:
        if burst.bound is not None:
            eta = burst.eta if burst.steady else burst.eta - self.ahead
            if eta > burst.bound:
                burst.steady, burst.eta = True, burst.bound

    def _line_up(self, burst: Burst, had: tuple[int, int] | None = None) -> None:
        """If it is due it stands in line, with the claim it `had` or else one of its own.

        Who stands there stays due when the clock is set back, and a newer call takes the place.
        """
        eta = burst.eta if burst.steady else burst.eta - self.ahead
        own = (eta - burst.call.priority, int(burst.newest.id))
        burst.claim = (had or own) if eta <= self.clock.steady() else None

    def clock_was_read(self, before: int, ahead: int) -> None:
        """The queue looked at its clocks, and at who is due by now.

        If the wall clock was set back, the bounds of bursts did not follow.
        """
        for burst in self.waiting.values():
            if burst.claim is not None:
                continue
            bound, etas = burst.bound, (burst.eta - before, burst.eta - ahead)
            back = before - ahead > SECOND and not burst.steady
            if back and bound is not None and etas[0] <= bound < etas[1]:
                burst.steady, burst.eta = True, bound
            self._line_up(burst)

    def _window_is_open(self, key: Key, now: int) -> bool:
        until = self.windows.get(key)
        return until is not None and now < until

    def move(self, burst: Burst, steady: bool, eta: int) -> bool:
        """An explicit reschedule or flush; whether there is something to move."""
        burst = burst.root
        if self.waiting.get(burst.key) is not burst:
            return False
        burst.steady, burst.eta, burst.moved = steady, eta, True
        self._line_up(burst, burst.claim)
        return True

    def cancel(self, burst: Burst) -> bool:
        """A cancel; whether there is something to cancel."""
        burst = burst.root
        if self.waiting.get(burst.key) is burst:
            burst.cancelled = True
            del self.waiting[burst.key]
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
            del self.waiting[burst.key]
            return True
        known, burst.kept = burst.kept, False
        return known

    def redrive(self, burst: Burst, handle: Handle[Any], mark: int) -> Burst:
        """A failed job runs again under its own id; the burst that failed stays as it ended."""
        self.accepted += 1
        burst.kept = False
        call = replace(burst.call, mark=mark)
        again = Burst(
            burst.key, call, burst.user, burst.args, True, self.clock.steady(), [handle],
            burst.folded,
        )  # fmt: skip
        self._line_up(again)
        self.bursts.append(again)
        self.waiting[again.key] = again
        self.windows.pop(again.key, None)
        return again

    def has_failed(self, burst: Burst) -> bool:
        return self.has_ended(burst) and burst.newest.state is State.FAILED

    def can_redrive(self, burst: Burst) -> bool:
        return self.has_failed(burst) and burst.kept and burst.key not in self.waiting

    def latest(self, burst: Burst) -> Burst:
        """The burst that the newest id of this one stands for, after any redrive.

        A burst that has not ended is known by all its ids, one that has by its newest.
        """
        id_ = burst.root.newest.id
        for other in reversed(self.bursts):
            root = other.root
            known = root.handles[-1:] if self.has_ended(root) else other.handles
            if any(handle.id == id_ for handle in known):
                return other
        return burst

    def has_ended(self, burst: Burst) -> bool:
        live = (self.waiting.get(burst.key), self.running.get(burst.key))
        return burst.follows is None and burst not in live

    # -- what jobs see

    def begin(self, function: Callable[..., Any], key: str) -> None:
        """A run has been started: the burst waits no more."""
        name = (self.kinds[function].name, key)
        burst = self.waiting.get(name)
        if burst is None:
            self.wrong(f"a run of {name}, which does not wait")
            return
        self._judge_start(burst)
        now = self.clock.steady()
        del self.waiting[burst.key]
        self.running[burst.key] = burst
        self.gates.started(burst, now)
        burst.begun = now
        burst.due = self._shown_eta(burst)
        burst.attempt += 1
        burst.left = burst.claim = None
        burst.interrupted = False
        if burst.window is not None and burst.window > now:
            self.windows[burst.key] = burst.window

    def _judge_start(self, burst: Burst) -> None:
        now, wall, kind = self.clock.steady(), self.clock.wall(), burst.call.kind
        early = burst.eta - (now if burst.steady else wall)
        self.demand(not self.over, "it runs after the close:", burst)
        self.demand(burst.key not in self.running, "two runs of a key overlap:", burst)
        self.demand(early <= 0 or burst.claim is not None, "early by", early, "µs:", burst)
        self.demand(not expired(burst, now, wall), "it runs and had expired:", burst)
        self.demand(not self.paused and not kind.paused, "it runs in a pause:", burst)
        self.demand(len(self.running) < self.concurrency, "too many run:", burst)
        self.demand(not self.gates.shut(burst), "too many of its task run:", burst)
        soon = self.gates.opens(burst) - now
        self.demand(soon <= 0, "sooner than its rate by", soon, "µs:", burst)
        first = self.gates.first(self.waiting.values(), now, wall)
        if first is not None and first.claim is not None and burst.claim is not None:
            overtakes = first.claim < burst.claim
            self.demand(not overtakes, "it started before its turn:", burst, "before", first)

    def drop(self, function: Callable[..., Any], key: str) -> None:
        """A call was given up since its rate had no room."""
        burst = self.waiting.pop((self.kinds[function].name, key), None)
        if burst is None:
            self.wrong(f"{key} was dropped, which does not wait")
            return
        rate = burst.call.kind.rate
        drops = rate is not None and rate.drop and not burst.attempt and burst.claim is not None
        right = drops and self.gates.opens(burst) > self.clock.steady()
        self.demand(right, "it was dropped for no reason:", burst)
        burst.dropped = True

    def enter(
        self, kind: Kind, run: Any, args: tuple[str, tuple[int, ...]], mark: int
    ) -> Burst | None:
        """The first line of a job's function."""
        key = (kind.name, run.key or run.id)
        burst = self.running.get(key)
        if burst is None or burst.inside or burst.left is not None:
            self.wrong(f"a run of {key} {run.id}, which was not started")
            return None
        mine = (burst.user, burst.args)
        expected = (burst.newest.id, mine, burst.folded, burst.attempt, burst.call.mark)
        seen = (run.id, args, run.calls, run.attempt, mark)
        self.demand(seen == expected, f"{burst} ran as {seen}, not as {expected}")
        self.demand(run.eta == burst.due, "its run has the eta", run.eta, "not", burst.due, burst)
        self.demand(run.lateness >= 0, "its run has the lateness", run.lateness, burst)
        burst.inside = True
        return burst

    def leave(self, burst: Burst, outcome: Outcome) -> None:
        """The last line of it. In a thread the run ends a little later."""
        burst.inside = False
        burst.left, burst.left_at = outcome, self.clock.steady()

    def end(self, function: Callable[..., Any], key: str) -> None:
        """A run has ended: with an outcome, or its job waits again, or it gave way."""
        burst = self.running.pop((self.kinds[function].name, key), None)
        if burst is None:
            self.wrong(f"the end of a run of {key}, which was not started")
            return
        if burst.left is None:
            told = burst.cancelled or self.closing
            self.demand(told, "its run was lost:", burst)
        again, ended = runs_again(burst), burst.newest.state.ended
        right = (again is None) == ended or (self.closing and ended)
        self.demand(right, "it runs again, or should:", burst, burst.newest.state, burst.left)
        if again is None or ended:
            return
        if burst.key in self.waiting:
            self._look_at(self.waiting[burst.key])  # it may have expired
        newer = self.waiting.get(burst.key)
        if newer is not None:
            self.replaced += 1
            burst.follows = newer
            return
        if isinstance(again, Snooze):
            burst.steady = again.eta is None
            burst.eta = again.eta or self.clock.steady() + (again.delay or 0)
        else:
            self._retry(burst, again)
        burst.bound = burst.window = burst.begun = None
        burst.moved = False
        self.windows.pop(burst.key, None)
        self.waiting[burst.key] = burst

    def _retry(self, burst: Burst, failures: int) -> None:
        """It waits on the steady clock, as long as its rule says, from the end of the run."""
        retry = burst.call.retry
        assert retry is not None
        least, most = retry.waits(failures)
        wait = instant(burst.newest.eta) - self.clock.wall()
        right = least <= wait <= most
        self.demand(right, f"it waits for {wait} and not {least} to {most} µs:", burst)
        burst.failures = failures
        burst.steady, burst.eta = True, self.clock.steady() + wait

    # -- what the library shows

    def observe(self) -> None:
        """Compare what waits and runs with what the handles say."""
        for burst in tuple(self.waiting.values()):
            self._look_at(burst)
        stats = self.queue.stats()
        shown = (stats.waiting, stats.running, stats.accepted, stats.replaced)
        mine = (len(self.waiting), len(self.running), self.accepted, self.replaced)
        self.demand(shown == mine, f"waiting, running, accepted, replaced: {shown}, not {mine}")

    def _shown_eta(self, burst: Burst) -> datetime:
        return moment(burst.eta + (self.ahead if burst.steady else 0))

    def _look_at(self, burst: Burst) -> None:
        now, wall, state = self.clock.steady(), self.clock.wall(), burst.newest.state
        if state is State.SCHEDULED:
            right = burst.newest.eta == self._shown_eta(burst)
            self.demand(right, "it shows the eta", burst.newest.eta, burst)
            return
        if state is State.EXPIRED:
            self.demand(expired(burst, now, wall), "it expired too early:", burst)
        elif state is not State.DROPPED or not self.closing:
            self.wrong(f"{burst} waits and is {state}")
        del self.waiting[burst.key]

    def at_rest(self, until: int = 0) -> None:
        """Nothing that may start still waits, and the clock stops, `until`, when the next one may."""
        if self.closing:
            return
        now, wall = self.clock.steady(), self.clock.wall()
        room = not self.paused and len(self.running) < self.concurrency
        for burst in self.waiting.values():
            self.demand(not expired(burst, now, wall), "it has expired and waits:", burst)
            if not room or self.gates.shut(burst):
                continue
            when = self._opens(burst)
            late = burst.bound is not None and now >= max(burst.bound, self.gates.opens(burst))
            self.demand(not late or burst.moved, "it is past its max_wait:", burst)
            self.demand(when > now, "it is due and does not start:", burst)
            self.demand(until <= when, "nobody will come in time to:", burst)

    def _opens(self, burst: Burst) -> int:
        """When it may start, or will be dropped, if nothing else happens."""
        due = 0 if burst.claim is not None else burst.eta - (0 if burst.steady else self.ahead)
        rate = burst.call.kind.rate
        if rate is not None and rate.drop and not burst.attempt and not burst.spared:
            return due
        return max(due, self.gates.opens(burst))
