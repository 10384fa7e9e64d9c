"""Bugs to plant in attempts, rates, slots, head starts and what is done to failed jobs."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from msgspec import structs

from asyncdefer import GiveUp, RateLimit, Retry
from asyncdefer._core.agenda import Agenda
from asyncdefer._core.instant import SECOND
from asyncdefer._core.job import Again, Call, Key, Running
from asyncdefer._core.lane import Lane, Lanes, RateLane, Slots
from asyncdefer._core.ledger import Ledger
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.rate import Gcra
from asyncdefer._scheduler import Scheduler
from tests.soak.planted import Patch, patch_decide

Wait = Callable[[Retry, int, BaseException], int | None]
wait: Final[Wait] = Retry.wait

# -- attempts


def one_attempt_more(patch: Patch) -> None:
    patch.setattr(Retry, "wait", lambda self, failures, error: wait(self, failures - 1, error))


def one_attempt_less(patch: Patch) -> None:
    patch.setattr(Retry, "wait", lambda self, failures, error: wait(self, failures + 1, error))


def a_snooze_burns_an_attempt(patch: Patch) -> None:
    def burnt(again: Again) -> Again:
        return structs.replace(again, failures=again.failures + (again.event is Event.SNOOZE))

    patch_decide(patch, burnt)


def giving_up_is_a_failure_like_others(patch: Patch) -> None:
    def waits(self: Retry, failures: int, error: BaseException) -> int | None:
        return wait(self, failures, ValueError() if isinstance(error, GiveUp) else error)

    patch.setattr(Retry, "wait", waits)


def a_timeout_is_no_failure(patch: Patch) -> None:
    def waits(self: Retry, failures: int, error: BaseException) -> int | None:
        return None if isinstance(error, TimeoutError) else wait(self, failures, error)

    patch.setattr(Retry, "wait", waits)


def unless_is_not_asked(patch: Patch) -> None:
    def waits(self: Retry, failures: int, error: BaseException) -> int | None:
        return wait(structs.replace(self, unless=()), failures, error)

    patch.setattr(Retry, "wait", waits)


def waits_do_not_grow(patch: Patch) -> None:
    def waits(self: Retry, failures: int, error: BaseException) -> int | None:
        return None if wait(self, failures, error) is None else wait(self, 1, error)

    patch.setattr(Retry, "wait", waits)


def waits_grow_for_ever(patch: Patch) -> None:
    def waits(self: Retry, failures: int, error: BaseException) -> int | None:
        return wait(structs.replace(self, max_delay=timedelta(days=9)), failures, error)

    patch.setattr(Retry, "wait", waits)


def jitter_comes_on_top(patch: Patch) -> None:
    def waits(self: Retry, failures: int, error: BaseException) -> int | None:
        drawn = wait(self, failures, error)
        bound = wait(structs.replace(self, jitter=False), failures, error)
        return drawn if drawn is None or self.jitter is False else drawn + (bound or 0)

    patch.setattr(Retry, "wait", waits)


def a_retry_follows_the_wall_clock(patch: Patch) -> None:
    """It is right as long as nobody sets that clock."""
    run_again = Scheduler._run_again

    def again(self: Scheduler, run: Running, verdict: Again, error: BaseException | None) -> None:
        if verdict.event is Event.RETRY:
            eta = verdict.eta + self.books.ahead()
            verdict = structs.replace(verdict, eta=eta, steady=False)
        run_again(self, run, verdict, error)

    patch.setattr(Scheduler, "_run_again", again)


def a_newer_call_takes_over_the_failures(patch: Patch) -> None:
    place = Agenda.place

    def placed(self: Agenda, call: Call, due: bool = False, order: int = 0) -> Call | None:
        old = self.waiting.get(call.key)
        if old is not None and old.more.failures:
            call.more = structs.replace(call.more, failures=old.more.failures)
        return place(self, call, due, order)

    patch.setattr(Agenda, "place", placed)
    patch.setattr(Agenda, "renew", lambda self, call, old: placed(self, call))


def a_newer_call_waits_for_the_retry(patch: Patch) -> None:
    """It does not take over, but starts when the retry would have."""
    place = Agenda.place

    def placed(self: Agenda, call: Call, due: bool = False, order: int = 0) -> Call | None:
        old = self.waiting.get(call.key)
        if old is not None and old.more.failures and old.id != call.id:
            call.eta, call.steady, due = old.eta, old.steady, False
        return place(self, call, due, order)

    patch.setattr(Agenda, "place", placed)


# -- what failed


def a_redrive_goes_on_counting(patch: Patch) -> None:
    """Its failures are those of before."""
    redrive = Scheduler.redrive

    def redriven(self: Scheduler, number: int) -> Any:
        call = self.books.find(number)
        failures = 0 if call is None else call.more.failures
        handle = redrive(self, number)
        again = handle._call
        again.more = structs.replace(again.more, failures=failures)
        return handle

    patch.setattr(Scheduler, "redrive", redriven)


def a_redriven_job_is_kept_as_failed(patch: Patch) -> None:
    """So it can be redriven twice, and discarded twice."""
    patch.setattr(Ledger, "forget", lambda self, id_: None)


# -- rates


def a_burst_of_one_more(patch: Patch) -> None:
    make = Gcra.__init__

    def made(self: Gcra, rate: RateLimit) -> None:
        make(self, structs.replace(rate, burst=(rate.burst or 1) + 1))

    patch.setattr(Gcra, "__init__", made)


def a_rate_that_is_always_open(patch: Patch) -> None:
    patch.setattr(RateLane, "room", lambda self, now: 1)


def a_rate_opens_a_microsecond_early(patch: Patch) -> None:
    room, opens = RateLane.room, RateLane.opens
    patch.setattr(RateLane, "room", lambda self, now: room(self, now + 1))
    patch.setattr(RateLane, "opens", lambda self: (opens(self) or 1) - 1)


def a_rate_opens_a_millisecond_late(patch: Patch) -> None:
    opens = RateLane.opens
    patch.setattr(RateLane, "opens", lambda self: (opens(self) or 0) + 1000)


def a_rate_never_opens_by_itself(patch: Patch) -> None:
    patch.setattr(RateLane, "opens", lambda self: None)


def all_rate_keys_share_a_rate(patch: Patch) -> None:
    gates = Lanes.gates

    def shared(self: Lanes, call: Call) -> list[Lane]:
        return gates(self, structs.replace(call, more=structs.replace(call.more, rate="")))

    patch.setattr(Lanes, "gates", shared)


def a_rate_is_forgotten_too_soon(patch: Patch) -> None:
    patch.setattr(RateLane, "idle", lambda self, now: not self.sent and not len(self.lines))


def a_cancelled_call_takes_its_share(patch: Patch) -> None:
    remove = Agenda.remove

    def removed(self: Agenda, key: Key) -> Call | None:
        call = remove(self, key)
        if call is not None:
            for gate in self.lanes.gates(call):
                if isinstance(gate, RateLane):
                    gate.take(call.eta)
        return call

    patch.setattr(Agenda, "remove", removed)


def what_should_be_dropped_waits(patch: Patch) -> None:
    make = RateLane.__init__

    def made(self: RateLane, name: str, limit: RateLimit) -> None:
        make(self, name, limit)
        self.drops = False

    patch.setattr(RateLane, "__init__", made)


def retries_are_dropped(patch: Patch) -> None:
    take = Agenda.take

    def taken(self: Agenda, steady: int, wall: int, expired: list[Call]) -> Call | None:
        for call in tuple(self.waiting.values()):
            if call.more.failures and self.standing(call.key):
                gates = self.lanes.gates(call)
                if any(gate.drops and gate.room(steady) < 1 for gate in gates):
                    self.remove(call.key)
                    self.dropped.append(call)
        return take(self, steady, wall, expired)

    patch.setattr(Agenda, "take", taken)


def a_shut_rate_holds_up_other_tasks(patch: Patch) -> None:
    take = Agenda.take

    def taken(self: Agenda, steady: int, wall: int, expired: list[Call]) -> Call | None:
        if any(len(lane.lines) and lane.room(steady) < 1 for lane in self.lanes.rates.values()):
            return None
        return take(self, steady, wall, expired)

    patch.setattr(Agenda, "take", taken)
    patch.setattr(Agenda, "startable", lambda self: False)


# -- slots of a task


def a_slot_more(patch: Patch) -> None:
    room = Slots.room
    patch.setattr(Slots, "room", lambda self, now: room(self, now) + 1)


def a_slot_is_never_free_again(patch: Patch) -> None:
    patch.setattr(Slots, "free", lambda self: None)


def the_last_come_is_the_first_served(patch: Patch) -> None:
    """Who is turned away for want of a slot gets a claim by when that was."""
    turn_away = Agenda._turn_away

    def turned(self: Agenda, line: tuple[int, int, Key], lane: Lane, now: int) -> None:
        if isinstance(lane, Slots):
            line = (line[0] - 1000 * SECOND * len(lane.lines), *line[1:])
            self.lanes.standing[line[2]] = line[0]
        turn_away(self, line, lane, now)

    patch.setattr(Agenda, "_turn_away", turned)


def a_call_that_replaces_goes_to_the_end(patch: Patch) -> None:
    place = Agenda.place

    def placed(self: Agenda, call: Call, due: bool = False, order: int = 0) -> Call | None:
        old = self.remove(call.key) if due and self.standing(call.key) else None
        return place(self, call, due, order) or old

    patch.setattr(Agenda, "place", placed)


# -- head starts


def head_start(call: Call) -> int:
    return call.option("priority") or 0


def patch_head_start(patch: Patch, times: int) -> None:
    line_up = Agenda._line_up

    def lined_up(self: Agenda, call: Call, order: int) -> None:
        line_up(self, call, order - head_start(call) * (times - 1))

    patch.setattr(Agenda, "_line_up", lined_up)


def nobody_has_a_head_start(patch: Patch) -> None:
    patch_head_start(patch, 0)


def a_head_start_for_ever(patch: Patch) -> None:
    """Who has any goes before all others, however long they wait."""
    patch_head_start(patch, 1000)


def a_head_start_before_the_eta(patch: Patch) -> None:
    take_due = Agenda.take_due

    def taken(self: Agenda, steady: int, wall: int, limit: int) -> list[Call]:
        for call in tuple(self.waiting_for_time()):
            if call.steady and call.eta - head_start(call) <= steady < call.eta and call.calls:
                self.place(call, True, steady)
        return take_due(self, steady, wall, limit)

    patch.setattr(Agenda, "take_due", taken)


BUGS: Final[tuple[Callable[[Patch], None], ...]] = (
    one_attempt_more,
    one_attempt_less,
    a_snooze_burns_an_attempt,
    giving_up_is_a_failure_like_others,
    a_timeout_is_no_failure,
    unless_is_not_asked,
    waits_do_not_grow,
    waits_grow_for_ever,
    jitter_comes_on_top,
    a_retry_follows_the_wall_clock,
    a_newer_call_takes_over_the_failures,
    a_newer_call_waits_for_the_retry,
    a_redrive_goes_on_counting,
    a_redriven_job_is_kept_as_failed,
    a_burst_of_one_more,
    a_rate_that_is_always_open,
    a_rate_opens_a_microsecond_early,
    a_rate_opens_a_millisecond_late,
    a_rate_never_opens_by_itself,
    all_rate_keys_share_a_rate,
    a_rate_is_forgotten_too_soon,
    a_cancelled_call_takes_its_share,
    what_should_be_dropped_waits,
    retries_are_dropped,
    a_shut_rate_holds_up_other_tasks,
    a_slot_more,
    a_slot_is_never_free_again,
    the_last_come_is_the_first_served,
    a_call_that_replaces_goes_to_the_end,
    nobody_has_a_head_start,
    a_head_start_for_ever,
    a_head_start_before_the_eta,
)
