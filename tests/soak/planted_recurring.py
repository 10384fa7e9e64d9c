"""Bugs to plant in schedules: each breaks one promise, and the simulation has to see it."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec import structs

from asyncdefer._core.job import Call, Outcome
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.recurrence import Occurrence
from asyncdefer._core.rules import ends_schedule, following
from asyncdefer._recurring import Recurring

Patch = pytest.MonkeyPatch
ROOM: Final = Recurring.__module__


def change_following(patch: Patch, change: Callable[[Occurrence, Call, int], Occurrence]) -> None:
    """Change which run is next."""

    def changed(call: Call, late: int, now: int, ahead: int) -> Occurrence | None:
        found = following(call, late, now, ahead)
        return None if found is None else change(found, call, now)

    patch.setattr(f"{ROOM}.following", changed)


def the_next_run_counts_from_the_end(patch: Patch) -> None:
    """It drifts."""

    def drift(found: Occurrence, call: Call, now: int) -> Occurrence:
        return structs.replace(found, eta=max(now, found.eta) + 1)

    change_following(patch, drift)


def the_next_run_is_far(patch: Patch) -> None:
    """An hour late."""
    change_following(patch, lambda found, *_: structs.replace(found, eta=found.eta + 3_600_000_000))


def a_time_comes_twice(patch: Patch) -> None:
    """The run that was is the next one too."""

    def again(found: Occurrence, call: Call, now: int) -> Occurrence:
        return structs.replace(found, eta=call.more.grid or found.eta)

    change_following(patch, again)


def a_failure_ends_it(patch: Patch) -> None:
    def ends(outcome: Outcome) -> bool:
        return ends_schedule(outcome) or outcome.event is Event.FAIL

    patch.setattr(f"{ROOM}.ends_schedule", ends)


def nothing_ends_it(patch: Patch) -> None:
    patch.setattr(f"{ROOM}.ends_schedule", lambda _: False)


def the_same_again_is_another(patch: Patch) -> None:
    patch.setattr(f"{ROOM}._same", lambda *_: False)


def a_missed_run_expires(patch: Patch) -> None:
    """Where it should be left out."""
    patch.setattr(f"{ROOM}.is_missed", lambda _: False)


def a_missed_run_runs(patch: Patch) -> None:
    """Nothing notices that it is too late for it."""
    change_following(patch, lambda found, *_: structs.replace(found, ends=None))


def the_one_that_was_replaced_stays_listed(patch: Patch) -> None:
    def ended(self: Recurring, call: Call, answer: Any, *, replaced: bool = False) -> None:
        schedule = call.more.schedule
        if schedule is not None and schedule.answer is None:
            schedule.answer, schedule.replaced = answer, replaced

    patch.setattr(Recurring, "_end_schedule", ended)


def the_one_that_was_taken_over_goes_on(patch: Patch) -> None:
    """Its run is followed by another, though its key has a new owner."""
    end = Recurring._end_schedule

    def ended(self: Recurring, call: Call, answer: Any, *, replaced: bool = False) -> None:
        if call.key not in self.runs or not replaced:
            end(self, call, answer, replaced=replaced)

    patch.setattr(Recurring, "_end_schedule", ended)


BUGS: Final[list[Callable[[Patch], None]]] = [
    the_next_run_counts_from_the_end,
    the_next_run_is_far,
    a_time_comes_twice,
    a_failure_ends_it,
    nothing_ends_it,
    the_same_again_is_another,
    a_missed_run_expires,
    a_missed_run_runs,
    the_one_that_was_replaced_stays_listed,
    the_one_that_was_taken_over_goes_on,
]
