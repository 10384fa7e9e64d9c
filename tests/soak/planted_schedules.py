"""Bugs to plant in schedules."""

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, cast

from msgspec import structs

from asyncdefer import Every
from asyncdefer._core import recurrence
from asyncdefer._core.agenda import Agenda
from asyncdefer._core.instant import SECOND
from asyncdefer._core.job import Answer, Call, Outcome, Running
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.recurrence import Occurrence, Repeat, next_occurrence
from asyncdefer._core.rules import ends_schedule, following
from asyncdefer._recurring import Recurring
from asyncdefer._runner import perform
from tests.soak.planted import Patch

RECURRING: Final = Recurring.__module__
RULES: Final = following.__module__
Next = Callable[[Repeat, int, int, int, Any], Occurrence | None]


def patch_next(patch: Patch, change: Next) -> None:
    patch.setattr(f"{RULES}.next_occurrence", change)


def patch_ends(patch: Patch, ends: Callable[[Outcome], bool]) -> None:
    patch.setattr(f"{RECURRING}.ends_schedule", ends)


# -- when the next run is


def the_next_run_counts_from_the_end_of_the_last(patch: Patch) -> None:
    patch_next(patch, lambda rule, grid, seen, now, caught: next_occurrence(rule, now, now, now))


def the_next_run_counts_from_the_start_of_the_last(patch: Patch) -> None:
    patch_next(patch, lambda rule, grid, seen, now, caught: next_occurrence(rule, seen, seen, now))


def a_period_follows_the_wall_clock(patch: Patch) -> None:
    patch.setattr(Every, "steady", False)


def the_first_run_comes_at_once(patch: Patch) -> None:
    patch.setattr(f"{RECURRING}.first_occurrence", lambda rule, now: Occurrence(now))


def a_calendar_that_is_set_back_names_a_time_twice(patch: Patch) -> None:
    def again(rule: Repeat, grid: int, seen: int, now: int, caught: Any) -> Occurrence | None:
        return next_occurrence(rule, grid if rule.steady else min(grid, now), seen, now, caught)

    patch_next(patch, again)


def each_run_is_a_second_late(patch: Patch) -> None:
    def late(rule: Repeat, grid: int, seen: int, now: int, caught: Any) -> Occurrence | None:
        found = next_occurrence(rule, grid, seen, now, caught)
        return found and structs.replace(found, eta=found.eta + SECOND)

    patch_next(patch, late)


# -- what was missed


def all_are_as_good_as_one(patch: Patch) -> None:
    def once(rule: Repeat, grid: int, seen: int, now: int, caught: Any) -> Occurrence | None:
        missed = "once" if rule.missed == "all" else rule.missed
        return next_occurrence(structs.replace(rule, missed=missed), grid, seen, now, caught)

    patch_next(patch, once)


def a_late_run_does_not_stand_for_what_was_before_it(patch: Patch) -> None:
    patch_next(
        patch, lambda rule, grid, seen, now, caught: next_occurrence(rule, grid, grid, now, caught)
    )


def a_run_stands_for_all_that_was_before_its_end(patch: Patch) -> None:
    patch_next(
        patch, lambda rule, grid, seen, now, caught: next_occurrence(rule, grid, now, now, caught)
    )


def all_are_caught_up_on_without_bounds(patch: Patch) -> None:
    patch.setattr(recurrence, "CATCH_UP", 1000)


def late_runs_are_not_skipped(patch: Patch) -> None:
    make = recurrence._occurrence

    def made(*args: Any) -> Occurrence | None:
        found = make(*args)
        return found and structs.replace(found, ends=None)

    patch.setattr(recurrence, "_occurrence", made)


def the_grace_is_a_minute_for_short_periods_too(patch: Patch) -> None:
    make = recurrence._occurrence

    def made(*args: Any) -> Occurrence | None:
        found = make(*args)
        if found is None or found.ends is None:
            return found
        return structs.replace(found, ends=found.eta + recurrence.GRACE)

    patch.setattr(recurrence, "_occurrence", made)


def a_missed_run_expires(patch: Patch) -> None:
    patch.setattr(Recurring, "_skip", lambda self, call, now: False)


def a_skipped_run_loses_its_waiters(patch: Patch) -> None:
    skip = Recurring._skip

    def skipped(self: Recurring, call: Call, now: int) -> bool:
        return skip(self, structs.replace(call, answer=Answer()), now)

    patch.setattr(Recurring, "_skip", skipped)


# -- how a schedule goes on


def a_failure_ends_it(patch: Patch) -> None:
    patch_ends(patch, lambda outcome: ends_schedule(outcome) or outcome.event is Event.FAIL)


def a_dropped_run_ends_it(patch: Patch) -> None:
    patch_ends(patch, lambda outcome: ends_schedule(outcome) or outcome.event is Event.DROP)


def an_expired_run_ends_it(patch: Patch) -> None:
    patch_ends(patch, lambda outcome: ends_schedule(outcome) or outcome.event is Event.EXPIRE)


def a_moved_run_moves_what_follows(patch: Patch) -> None:
    place = Agenda.place

    def placed(self: Agenda, call: Call, due: bool = False, order: int = 0) -> Call | None:
        if call.first is not None and call.more.ends is None and not call.more.attempt:
            call.more = structs.replace(call.more, grid=None)
        return place(self, call, due, order)

    patch.setattr(Agenda, "place", placed)


def runs_overlap(patch: Patch) -> None:
    """A run begins while another of the same schedule is under way."""
    start = Recurring._start

    def started(self: Recurring, call: Call, steady: int, *, told: bool) -> Running:
        run, task = start(self, call, steady, told=told), cast(Any, call.task)
        if call.repeat is not None:
            other = perform(structs.replace(run), task, self._threads, lambda run, outcome: None)
            twins.append(asyncio.Task(other, loop=self.loop, context=Context()))
        return run

    twins: list[asyncio.Task[None]] = []
    patch.setattr(Recurring, "_start", started)


# -- how it ends, and is replaced


def a_cancelled_run_does_not_end_it(patch: Patch) -> None:
    follow = Recurring._follow

    def followed(self: Recurring, call: Call, context: Context, outcome: Outcome, now: int) -> None:
        if outcome.event is Event.CANCEL and "was cancelled before" not in str(outcome.error):
            outcome = structs.replace(outcome, event=Event.SUCCEED)
        follow(self, call, context, outcome, now)

    patch.setattr(Recurring, "_follow", followed)


def a_cancel_while_it_waits_does_not_end_it(patch: Patch) -> None:
    patch_ends(
        patch,
        lambda outcome: ends_schedule(outcome) and "cancelled before" not in str(outcome.error),
    )


def the_same_again_begins_another(patch: Patch) -> None:
    patch.setattr(f"{RECURRING}._same", lambda *_: False)


def another_is_taken_for_the_same(patch: Patch) -> None:
    patch.setattr(f"{RECURRING}._same", lambda *_: True)


def other_arguments_in_a_run_begin_a_new_grid(patch: Patch) -> None:
    first = Recurring._first

    def anew(self: Recurring, rule: Repeat, live: Call | Running | None, now: int) -> Any:
        return first(self, rule, None, now)

    patch.setattr(Recurring, "_first", anew)


def an_entry_is_left_behind(patch: Patch) -> None:
    """Of a schedule that a call without one has replaced."""
    end = Recurring._end_schedule

    def ended(
        self: Recurring, call: Call, answer: Answer, *, replaced: bool = False, told: bool = True
    ) -> None:
        schedule = self.schedules.get(call.key)
        end(self, call, answer, replaced=replaced, told=told)
        if replaced and schedule is not None:
            self.schedules.setdefault(call.key, schedule)

    patch.setattr(Recurring, "_end_schedule", ended)


def who_took_its_key_does_not_end_it(patch: Patch) -> None:
    """It goes on beside the call that came during its run."""
    end = Recurring._end_schedule

    def ended(
        self: Recurring, call: Call, answer: Answer, *, replaced: bool = False, told: bool = True
    ) -> None:
        if not (replaced and call.key in self.schedules and call.key not in self.runs):
            end(self, call, answer, replaced=replaced, told=told)

    patch.setattr(Recurring, "_end_schedule", ended)


def a_replaced_schedule_says_that_it_was_not(patch: Patch) -> None:
    end = Recurring._end_schedule
    patch.setattr(
        Recurring, "_end_schedule", lambda self, call, answer, **_: end(self, call, answer)
    )


BUGS: Final[tuple[Callable[[Patch], None], ...]] = (
    the_next_run_counts_from_the_end_of_the_last,
    the_next_run_counts_from_the_start_of_the_last,
    a_period_follows_the_wall_clock,
    the_first_run_comes_at_once,
    a_calendar_that_is_set_back_names_a_time_twice,
    each_run_is_a_second_late,
    all_are_as_good_as_one,
    a_late_run_does_not_stand_for_what_was_before_it,
    a_run_stands_for_all_that_was_before_its_end,
    all_are_caught_up_on_without_bounds,
    late_runs_are_not_skipped,
    the_grace_is_a_minute_for_short_periods_too,
    a_missed_run_expires,
    a_skipped_run_loses_its_waiters,
    a_failure_ends_it,
    a_dropped_run_ends_it,
    an_expired_run_ends_it,
    a_moved_run_moves_what_follows,
    runs_overlap,
    a_cancelled_run_does_not_end_it,
    a_cancel_while_it_waits_does_not_end_it,
    the_same_again_begins_another,
    another_is_taken_for_the_same,
    other_arguments_in_a_run_begin_a_new_grid,
    an_entry_is_left_behind,
    who_took_its_key_does_not_end_it,
    a_replaced_schedule_says_that_it_was_not,
)
