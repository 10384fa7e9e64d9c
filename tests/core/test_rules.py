from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from msgspec import structs

from asyncdefer._core.instant import LAST, SECOND, instant
from asyncdefer._core.job import Again, Call, More, Outcome, Schedule
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.options import Options
from asyncdefer._core.recurrence import Cron, Every, Occurrence
from asyncdefer._core.retry import Retry
from asyncdefer._core.rules import (
    begun,
    decide,
    ends_schedule,
    expiry,
    following,
    grid_of,
    is_missed,
    message_of,
    presentable,
)
from asyncdefer.errors import (
    GiveUp,
    JobCancelled,
    JobDropped,
    JobExpired,
    JobFailed,
    QueueClosed,
    Snooze,
)

MakeCall = Callable[..., Call]


class Silent(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


# -- until when may it start


@pytest.mark.parametrize(
    ("of_task", "of_call", "ends"),
    [
        (None, None, None),
        (5, None, 105),
        (None, Options(expires=3), 103),
        (5, Options(expires=3), 103),
        (5, Options(expires=None), None),
        (5, Options(timeout=1), 105),
    ],
)
def test_expiry_is_eta_and_expires(
    of_task: int | None, of_call: Options | None, ends: int | None, make_call: MakeCall
) -> None:
    """On the clock of the eta; what the call says counts before what the task says."""
    assert expiry(make_call(100, expires=of_task, more=More(options=of_call))) == ends


def test_a_run_of_a_schedule_may_end_sooner(make_call: MakeCall) -> None:
    """Where it is to be skipped when it is missed; whichever is first counts."""
    assert expiry(make_call(100, more=More(ends=130))) == 130
    assert expiry(make_call(100, expires=5, more=More(ends=130))) == 105
    assert expiry(make_call(100, expires=50, more=More(ends=130))) == 130


# -- schedules


def run_of(rule: Cron | Every, call: Call, grid: int | None = None) -> Call:
    """The call as a run of a schedule by this rule."""
    schedule = Schedule(1, call.task, call.key, 0, True, (), {}, call.context)
    more = More(options=Options(repeat=rule), schedule=schedule, grid=grid, ends=call.more.ends)
    return structs.replace(call, more=more)


def test_a_call_that_is_no_run_of_a_schedule_is_followed_by_nothing(make_call: MakeCall) -> None:
    """Also where its options repeat."""
    call = structs.replace(make_call(), more=More(options=Options(repeat=Every(1))))
    assert call.repeat is None
    assert following(call, 5, 0) is None


def test_the_next_run_is_on_the_grid(make_call: MakeCall) -> None:
    """Whenever this one was due or ended."""
    call = run_of(Every(10), make_call(13 * SECOND), grid=10 * SECOND)
    assert following(call, 17 * SECOND, 0) == Occurrence(20 * SECOND)


@pytest.mark.parametrize(
    ("outcome", "ends"),
    [
        (Outcome(Event.SUCCEED), False),
        (Outcome(Event.FAIL, error=GiveUp("enough")), False),
        (Outcome(Event.EXPIRE, error=JobExpired("late")), False),
        (Outcome(Event.DROP, error=JobDropped("no room")), False),
        (Outcome(Event.FAIL, error=QueueClosed("of another queue")), False),
        (Outcome(Event.CANCEL, error=JobCancelled("by hand")), True),
        (Outcome(Event.DROP, error=QueueClosed("closed")), True),
    ],
    ids=str,
)
def test_cancel_and_close_end_a_schedule(outcome: Outcome, ends: bool) -> None:
    """Nothing else does."""
    assert ends_schedule(outcome) is ends


@pytest.mark.parametrize(
    ("steady", "rule", "grid"),
    [(True, Every(60), 100), (False, Every(60), 70), (True, Cron("@daily"), 130), (False, Cron("@daily"), 100)],
)  # fmt: skip
def test_a_first_eta_on_the_other_clock(
    steady: bool, rule: Cron | Every, grid: int, make_call: MakeCall
) -> None:
    """It counts as the instant at which that clock stands then; the wall is 30 ahead here."""
    call = run_of(rule, make_call(100, steady=steady))
    assert grid_of(call, rule, 30) == grid
    assert grid_of(run_of(rule, call, grid=7), rule, 30) == 7


def test_what_a_late_run_stood_for_is_not_missed(make_call: MakeCall) -> None:
    """It looked at the clock when it started, and the times until then are in it."""
    rule = Every(10)
    call = run_of(rule, make_call(10 * SECOND), grid=10 * SECOND)
    late = structs.replace(call, more=begun(call, rule, 22 * SECOND, 0))
    assert following(call, 35 * SECOND, 0) == Occurrence(30 * SECOND, left_out=20 * SECOND)
    assert following(late, 35 * SECOND, 0) == Occurrence(40 * SECOND, left_out=20 * SECOND)


def test_a_start_settles_the_instant(make_call: MakeCall) -> None:
    """Of an eta on the other clock, whatever the clocks do before the run ends."""
    rule = Every(10)
    call = run_of(rule, make_call(100 * SECOND, steady=False))
    run = structs.replace(call, more=begun(call, rule, SECOND, 30 * SECOND))
    assert (run.more.grid, run.more.seen) == (70 * SECOND, 71 * SECOND)
    assert following(run, 72 * SECOND, 1_000 * SECOND) == Occurrence(80 * SECOND)


@pytest.mark.parametrize(("expires", "missed"), [(None, True), (50, True), (20, True), (5, False)])
def test_what_comes_first_counts(expires: int | None, missed: bool, make_call: MakeCall) -> None:
    """A run that expires before it counts as missed has expired, whenever that is noticed."""
    assert is_missed(make_call(100, expires=expires, more=More(ends=120))) is missed
    assert not is_missed(make_call(100, expires=expires))


# -- what follows


def test_a_value_is_the_end(make_call: MakeCall) -> None:
    """A run that returned has succeeded with what it returned."""
    outcome = Outcome(Event.SUCCEED, value=5)
    assert decide(make_call(), outcome, 10) == outcome


def test_a_snooze_runs_again_by_the_clock_of_what_it_named(make_call: MakeCall) -> None:
    """A delay counts from the end of the run on the steady clock, an eta on the wall clock."""
    eta = datetime(2027, 1, 1, tzinfo=UTC)
    for snooze, again in [
        (Snooze(2), Again(Event.SNOOZE, 10 + 2 * SECOND, steady=True)),
        (Snooze(0), Again(Event.SNOOZE, 10, steady=True)),
        (Snooze(timedelta(seconds=1)), Again(Event.SNOOZE, 10 + SECOND, steady=True)),
        (Snooze(eta=eta), Again(Event.SNOOZE, instant(eta), steady=False)),
    ]:
        assert decide(make_call(), Outcome(Event.SNOOZE, error=snooze), 10) == again


def test_a_snooze_beyond_all_time_is_a_failure(make_call: MakeCall) -> None:
    """The job gets the ValueError that an enqueue would get."""
    verdict = decide(make_call(), Outcome(Event.SNOOZE, error=Snooze(LAST / SECOND)), 10 * SECOND)
    assert isinstance(verdict, Outcome)
    assert verdict.event is Event.FAIL
    assert isinstance(verdict.error, ValueError)


@pytest.mark.parametrize("error", [ValueError("x"), GiveUp("enough"), TimeoutError(), Silent()])
def test_a_failure_ends_with_the_job_s_own_exception(error: Exception, make_call: MakeCall) -> None:
    """An exception reaches the waiters as itself."""
    verdict = decide(make_call(), Outcome(Event.FAIL, error=error), 10)
    assert isinstance(verdict, Outcome)
    assert verdict.event is Event.FAIL
    assert verdict.error is error


def test_a_failure_that_no_waiter_could_stand_is_wrapped(make_call: MakeCall) -> None:
    """A SystemExit of a job does not end the program of those who wait."""
    verdict = decide(make_call(), Outcome(Event.FAIL, error=SystemExit(3)), 10)
    assert isinstance(verdict, Outcome)
    assert isinstance(verdict.error, JobFailed)


@pytest.mark.parametrize("event", [Event.CANCEL, Event.DROP, Event.EXPIRE])
def test_other_ends_stay_as_they_are(event: Event, make_call: MakeCall) -> None:
    """Cancelled, dropped and expired are decided already."""
    outcome = Outcome(event, error=JobCancelled("x"))
    assert decide(make_call(), outcome, 10) is outcome


def test_a_failure_with_attempts_left_runs_again(make_call: MakeCall) -> None:
    """After the wait that its rule says, on the steady clock, with one failure more."""
    rule = Options(retry=Retry(3, delay=2, jitter=False))
    call = make_call(more=More(attempt=4, failures=1, options=rule))
    again = Again(Event.RETRY, 10 + 4 * SECOND, failures=2)
    assert decide(call, Outcome(Event.FAIL, error=ValueError()), 10) == again
    call = make_call(more=More(attempt=5, failures=2, options=rule))
    verdict = decide(call, Outcome(Event.FAIL, error=ValueError()), 10)
    assert isinstance(verdict, Outcome)


def test_a_snooze_keeps_the_failures(make_call: MakeCall) -> None:
    """It burns no attempt and gives none back."""
    call = make_call(more=More(failures=2))
    assert decide(call, Outcome(Event.SNOOZE, error=Snooze(1)), 0) == Again(
        Event.SNOOZE, SECOND, failures=2
    )


@pytest.mark.parametrize("answer", [-1, "soon", float("nan"), 1e18, ZeroDivisionError()])
def test_a_delay_function_that_is_wrong_ends_the_job(answer: Any, make_call: MakeCall) -> None:
    """The job fails for good with what was wrong, and the error of the run is its cause."""

    def delay(failures: int, error: BaseException) -> float:
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    call = make_call(more=More(options=Options(retry=Retry(3, delay=delay))))
    error = KeyError("x")
    verdict = decide(call, Outcome(Event.FAIL, error=error), 0)
    assert isinstance(verdict, Outcome)
    assert verdict.event is Event.FAIL
    assert isinstance(verdict.error, (TypeError, ValueError, ZeroDivisionError))
    assert verdict.error.__cause__ is error


# -- how a waiter gets it


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), KeyboardInterrupt(), GeneratorExit(), StopIteration(5), StopAsyncIteration()],
)
def test_what_would_hurt_a_waiter_is_its_cause(error: BaseException) -> None:
    """JobFailed with the type and text of the original, which is its `__cause__`."""
    failure = presentable(error)
    assert isinstance(failure, JobFailed)
    assert failure.__cause__ is error
    assert failure.type == type(error).__name__
    assert failure.message == str(error)
    assert str(failure).startswith(type(error).__name__)


def test_a_stop_iteration_that_left_a_coroutine_is_found_again() -> None:
    """Python makes a RuntimeError of it; the waiter is told what it was."""
    stop = StopIteration(5)
    error = RuntimeError("coroutine raised StopIteration")
    error.__cause__ = stop
    failure = presentable(error)
    assert isinstance(failure, JobFailed)
    assert failure.type == "StopIteration"
    assert failure.__cause__ is stop


def test_any_other_runtime_error_is_itself() -> None:
    """Also one that has a cause."""
    error = RuntimeError("x")
    error.__cause__ = ValueError()
    assert presentable(error) is error


def test_an_error_that_cannot_tell_its_text_has_one() -> None:
    """A `__str__` that raises breaks nothing."""
    assert message_of(ValueError("x")) == "x"
    assert message_of(Silent()) == "<no text: its __str__ raised ZeroDivisionError>"
