"""Bugs to plant: each breaks one promise, and the soak has to see it."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec import structs

from asyncdefer import Queue
from asyncdefer._core.agenda import Agenda
from asyncdefer._core.instant import SECOND
from asyncdefer._core.job import Again, Answer, Call, Outcome, Verdict
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.rules import decide
from asyncdefer._handle import Handle
from asyncdefer._scheduler import Scheduler

Patch = pytest.MonkeyPatch


def patch_decide(patch: Patch, change: Callable[[Again], Again]) -> None:
    """Change what is to be of a job that runs again."""

    def decided(call: Call, outcome: Outcome, now: int) -> Verdict:
        verdict = decide(call, outcome, now)
        return change(verdict) if isinstance(verdict, Again) else verdict

    patch.setattr(f"{Scheduler._conclude.__module__}.decide", decided)


def a_replaced_call_runs_too(patch: Patch) -> None:
    """The older call of a key stays, under its id."""
    place = Agenda.place

    def placed(self: Agenda, call: Call, due: bool = False, order: int = 0) -> Call | None:
        old = place(self, call, due, order)
        if old is not None and old.id != call.id and old.calls:
            key = (old.task.identity, f"old {old.id}")
            place(self, structs.replace(old, key=key), due, order)
        return old

    patch.setattr(Agenda, "place", placed)


def the_older_arguments_win(patch: Patch) -> None:
    place = Agenda.place

    def placed(self: Agenda, call: Call, due: bool = False, order: int = 0) -> Call | None:
        old = self.waiting.get(call.key)
        if old is not None and old.calls:
            call.args = old.args
        return place(self, call, due, order)

    patch.setattr(Agenda, "place", placed)


def a_waiter_is_lost(patch: Patch) -> None:
    """Of several waiters the last one is forgotten."""
    wake = Answer.wake

    def woken(self: Answer) -> None:
        if self.waiters and len(self.waiters) > 2:
            self.waiters.popitem()
        wake(self)

    patch.setattr(Answer, "wake", woken)


def the_waiters_of_a_run_that_gives_way_are_lost(patch: Patch) -> None:
    follow = Answer.follow

    def followed(self: Answer, other: Answer) -> None:
        self.waiters = None
        follow(self, other)

    patch.setattr(Answer, "follow", followed)


def a_millisecond_early(patch: Patch) -> None:
    take_due = Agenda.take_due
    early = 1000

    def taken(self: Agenda, steady: int, wall: int, limit: int) -> list[Call]:
        return take_due(self, steady + early, wall + early, limit)

    next_times = Agenda.next_times

    def times(self: Agenda) -> tuple[int | None, int | None]:
        first, second = (None if time is None else time - early for time in next_times(self))
        return first, second

    patch.setattr(Agenda, "take_due", taken)
    patch.setattr(Agenda, "next_times", times)


def one_more_than_concurrency(patch: Patch) -> None:
    make = Agenda.__init__
    patch.setattr(Agenda, "__init__", lambda self, concurrency: make(self, concurrency + 1))


def a_cancelled_call_runs(patch: Patch) -> None:
    """`cancel()` settles the waiters and leaves the call where it was."""
    cancel = Scheduler.cancel

    def cancelled(self: Scheduler, call: Call) -> bool:
        live: Any = self.books.live(call)
        done = cancel(self, call)
        if isinstance(live, Call) and not self.closing:
            self.agenda.place(structs.replace(live, answer=None))
            self.ledger.accepted += 1
        return done

    patch.setattr(Scheduler, "cancel", cancelled)


def a_resumed_task_stays_shut(patch: Patch) -> None:
    patch.setattr(Queue, "resume", lambda self, task=None: None)


def a_snooze_is_a_second_longer(patch: Patch) -> None:
    def longer(again: Again) -> Again:
        return structs.replace(again, eta=again.eta + SECOND * (again.event is Event.SNOOZE))

    patch_decide(patch, longer)


def what_waited_runs_after_the_close(patch: Patch) -> None:
    shut_down = Scheduler.shut_down

    async def shut(self: Scheduler, drain: float, grace: float) -> None:
        kept = [structs.replace(call, answer=None) for call in self.agenda.waiting.values()]
        await shut_down(self, drain, grace)
        self.closing = False
        self.clock.attach(self)
        for call in kept:
            self.agenda.place(call)
        self.wake()

    patch.setattr(Scheduler, "shut_down", shut)


def a_cancelled_run_says_that_it_failed(patch: Patch) -> None:
    stop = Scheduler._stop
    patch.setattr(Scheduler, "_stop", lambda self, run, why: stop(self, run, Event.FAIL))


def ids_of_handles_are_shared(patch: Patch) -> None:
    """A handle of a replaced call takes itself for the newest."""
    patch.setattr(Handle, "replaced", False)


BUGS: Final[tuple[Callable[[Patch], None], ...]] = (
    a_replaced_call_runs_too,
    the_older_arguments_win,
    a_waiter_is_lost,
    the_waiters_of_a_run_that_gives_way_are_lost,
    a_millisecond_early,
    one_more_than_concurrency,
    a_cancelled_call_runs,
    a_resumed_task_stays_shut,
    a_snooze_is_a_second_longer,
    what_waited_runs_after_the_close,
    a_cancelled_run_says_that_it_failed,
    ids_of_handles_are_shared,
)
