"""The one loop that waits: from the start of a queue to its close.

It owns one armed alarm. There is no dispatcher task: a *turn* is a callback of bounded work that
lets the due stand in their lane, starts who may and arms the alarm again.
"""

from abc import abstractmethod
from typing import Final

from asyncdefer._core.defer import past_bounds
from asyncdefer._core.instant import SECOND, seconds
from asyncdefer._core.job import Call, Outcome, Running
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.rules import expiry
from asyncdefer._jobs import LINES
from asyncdefer._log import DEBUG, WARNING
from asyncdefer._recording import FAR
from asyncdefer._recurring import Recurring
from asyncdefer.errors import JobDropped, JobExpired

_STARTS: Final = 250  # runs started, and lines that came due, in a turn
_JUMP: Final = SECOND  # a step of the wall clock that is reported
_LAG: Final = SECOND // 2  # a late wake-up that is reported


class Loop(Recurring):
    """Turns, and what they find."""

    # -- the turn

    def wake(self) -> None:
        """Let a turn come as soon as the loop is free."""
        if not self._awake and not self.closing:
            self._awake = True
            self.loop.call_soon(self._turn, context=self._own)

    @property
    def is_crowded(self) -> bool:
        """All slots are taken, and a job that is due waits for one."""
        is_full = len(self.runs) >= self.agenda.concurrency
        return is_full and bool(self.agenda.lanes.standing) and not self.agenda.startable()

    def _turn(self) -> None:
        self._awake = False
        if self.closing:
            return
        steady, wall = self.clock.steady(), self.clock.wall()
        self._watch(steady, wall)
        if self.journal is not None:
            self._look_around(wall)
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._armed = FAR
        agenda = self.agenda
        expired = agenda.take_due(steady, wall, _STARTS)
        self._let_go(expired, steady)
        agenda.looks = LINES
        if steady >= self._purge:
            self._purge = steady + SECOND
            self.ledger.purge(steady)
        told = bool(self._heard(DEBUG))
        started: list[Running] = []
        for _ in range(_STARTS):
            call = agenda.take(steady, wall, expired)
            if expired or agenda.dropped:
                self._let_go(expired, steady)
            if call is None:
                break
            started.append(self._start(call, steady, told=told))
        if started and self.journal is None:
            self.loop.call_soon(self._check_begun, started, context=self._own)
        self._arm(steady)
        if self._awaiting:
            self._check_starved()
        if self._joiners:
            self._settle_joiners()

    def _let_go(self, expired: list[Call], now: int) -> None:
        """End those that the agenda gave up, before anybody is told of what comes after them."""
        while expired:
            self._expire(expired.pop(0), now)
        while self.agenda.dropped:
            self._drop(self.agenda.dropped.pop(0), now)

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
            self.tell(WARNING, "loop_lagged", None, seconds=seconds(steady - self._armed))
        jump = wall - steady - self._watched
        # A clock that is slewed drifts by half a millisecond a second at the most.
        if abs(jump) > _JUMP + (steady - self._read) // 1000:
            self.tell(WARNING, "clock_jumped", None, seconds=seconds(jump))
        before, self._highest = self._highest, max(self._highest, wall - steady)
        if before - (wall - steady) > _JUMP:  # etas are later now, and the bounds of bursts are not
            self._highest = wall - steady
            for call in past_bounds(self.agenda.waiting_for_time(), before, wall - steady):
                self.books.name(call)
                self.agenda.place(call)
                self._log_again(call)
        self._ahead = self._watched = wall - steady
        self._read = steady

    def _arm(self, steady: int) -> None:
        agenda = self.agenda
        if agenda.startable():
            self.wake()
            return
        when, wall = agenda.next_times()
        if self.claim_at is not None:
            wall = self.claim_at if wall is None else min(wall, self.claim_at)
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

    @abstractmethod
    def _look_around(self, wall: int) -> None:
        """Ask the journal for what has come near, when it is time to."""

    @abstractmethod
    def has_due_rows(self) -> bool:
        """Rows of the journal may be due that are still to come."""

    # -- rest

    def is_quiet(self) -> bool:
        """Nothing is due and nothing runs."""
        if self.runs or self.has_due_rows():
            return False
        return not self.agenda.is_due(self.clock.steady(), self.clock.wall())

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
            self.tell(WARNING, "starved", None)
        self._starved = starved

    def _is_due(self, call: Call) -> bool:
        live = self.books.live(call)
        return isinstance(live, Call) and self.agenda.standing(live.key)

    def busy(self) -> str | None:
        """What does not wait for the clock, for a clock that is moved by hand."""
        if self._awake:
            return "the queue's turn"
        if self.journal is not None and self.journal.is_busy:
            return "the journal"
        return ", ".join(map(repr, self.books.busy())) or None

    def one_shots(self) -> bool:
        """Something runs or waits that is no run of a schedule, and not only for a resume."""
        if self.books.beyond:
            return True
        if not self.schedules:
            return bool(self.runs) or len(self.agenda) > 0
        if any(run.call.more.schedule is None for run in self.runs.values()):
            return True
        is_paused = self.agenda.lanes.is_paused
        return any(
            call.calls
            and call.more.schedule is None
            and (expiry(call) is not None or not is_paused(call.key))
            for call in self.agenda.waiting.values()
        )
