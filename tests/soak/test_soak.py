"""The soak: random programs on a virtual clock keep every promise, and a broken promise is seen.

`scripts/soak` runs 10,000 seeds; one seed again: `scripts/soak --first 17 --seeds 1`.
"""

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec import structs

from asyncdefer import Queue
from asyncdefer._core.agenda import Agenda
from asyncdefer._core.instant import SECOND
from asyncdefer._core.job import Answer, Call
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.rules import decide
from asyncdefer._handle import Handle
from asyncdefer._loop import Loop
from asyncdefer._scheduler import Scheduler
from tests.soak.simulation import Violation, simulate

SEEDS = 300
PACKED = 10  # seeds in one test
TRIED = 60  # seeds after which a mutant should have been seen

Patch = pytest.MonkeyPatch


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Thousands of jobs fail on purpose here."""
    logger = logging.getLogger("asyncdefer")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, PACKED))
def test_any_program_keeps_the_promises(first: int) -> None:
    """Whatever callers, jobs, clocks and closes do, every law holds after every step."""
    for seed in range(first, first + PACKED):
        simulate(seed)


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_a_seed_is_the_same_program_every_time(seed: int) -> None:
    """The same seed gives the same trace, so a failing seed can be run again."""
    assert simulate(seed) == simulate(seed)


MUTANTS: list[Callable[[Patch], None]] = []


def mutant(plant: Callable[[Patch], None]) -> Callable[[Patch], None]:
    MUTANTS.append(plant)
    return plant


@mutant
def a_replaced_call_runs_too(patch: Patch) -> None:
    """The older call of a key stays, under its id."""
    place = Agenda.place

    def placed(self: Agenda, call: Call, due: bool = False, order: int = 0) -> Call | None:
        old = place(self, call, due, order)
        if old is not None and old.id != call.id and old.calls:
            place(self, structs.replace(old, key=old.id), due, order)
        return old

    patch.setattr(Agenda, "place", placed)


@mutant
def the_older_arguments_win(patch: Patch) -> None:
    place = Agenda.place

    def placed(self: Agenda, call: Call, due: bool = False, order: int = 0) -> Call | None:
        old = self.waiting.get(call.key)
        if old is not None and old.calls:
            call.args = old.args
        return place(self, call, due, order)

    patch.setattr(Agenda, "place", placed)


@mutant
def a_waiter_is_lost(patch: Patch) -> None:
    """Of several waiters the last one is forgotten."""
    wake = Answer.wake

    def woken(self: Answer) -> None:
        if self.waiters and len(self.waiters) > 2:
            self.waiters.popitem()
        wake(self)

    patch.setattr(Answer, "wake", woken)


@mutant
def the_waiters_of_a_run_that_gives_way_are_lost(patch: Patch) -> None:
    follow = Answer.follow

    def followed(self: Answer, other: Answer) -> None:
        self.waiters = None
        follow(self, other)

    patch.setattr(Answer, "follow", followed)


@mutant
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


@mutant
def one_more_than_concurrency(patch: Patch) -> None:
    make = Agenda.__init__
    patch.setattr(Agenda, "__init__", lambda self, concurrency: make(self, concurrency + 1))


@mutant
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


@mutant
def a_resumed_task_stays_shut(patch: Patch) -> None:
    patch.setattr(Queue, "resume", lambda self, task=None: None)


@mutant
def a_snooze_is_a_second_longer(patch: Patch) -> None:
    def decided(*given: Any) -> Any:
        verdict: Any = decide(*given)
        eta = getattr(verdict, "eta", None)
        return verdict if eta is None else structs.replace(verdict, eta=eta + SECOND)

    patch.setattr("asyncdefer._loop.decide", decided)


@mutant
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


@mutant
def a_cancelled_run_says_that_it_failed(patch: Patch) -> None:
    stop = Loop._stop
    patch.setattr(Loop, "_stop", lambda self, run, why: stop(self, run, Event.FAIL))


@mutant
def ids_of_handles_are_shared(patch: Patch) -> None:
    """A handle of a replaced call takes itself for the newest."""
    patch.setattr(Handle, "replaced", False)


@pytest.mark.parametrize("plant", MUTANTS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_seen(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """The soak can fail: a bug of each kind is found within a few seeds, with its command."""
    plant(monkeypatch)
    with pytest.raises(Violation, match=r"scripts/soak --first \d+ --seeds 1"):
        for seed in range(TRIED):
            simulate(seed)
