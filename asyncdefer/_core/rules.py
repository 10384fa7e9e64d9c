"""The rules of a run: until when it may start, and what follows from how it ended."""

from msgspec import structs

from asyncdefer._core.instant import within
from asyncdefer._core.job import Again, Call, More, Outcome, Verdict
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.recurrence import Occurrence, Repeat, next_occurrence
from asyncdefer._core.retry import Retry
from asyncdefer.errors import JobFailed, QueueClosed, Snooze


def expiry(call: Call) -> int | None:
    """When a call that has not started is given up, on the clock of its eta."""
    ends = call.more.ends
    expires: int | None = call.option("expires") or None
    if expires is None:
        return ends
    return call.eta + expires if ends is None else min(call.eta + expires, ends)


def is_missed(call: Call) -> bool:
    """Of a run that has not started in time: it is left out, rather than expired."""
    return call.more.ends is not None and call.more.ends == expiry(call)


def grid_of(call: Call, rule: Repeat, ahead: int) -> int:
    """The instant of its schedule that a run is for, on the clock of the rule; `ahead`: wall minus
    steady. Where the caller gave the eta of the first run, it is that.
    """
    return _on_clock_of(rule, call, ahead) if call.more.grid is None else call.more.grid


def is_closing(outcome: Outcome) -> bool:
    """It came to nothing since the queue closes."""
    return outcome.event is Event.DROP and isinstance(outcome.error, QueueClosed)


def ends_schedule(outcome: Outcome) -> bool:
    """No run follows one that ended so: it was cancelled, or the queue closes. A failure ends none."""
    return outcome.event is Event.CANCEL or is_closing(outcome)


def begun(call: Call, rule: Repeat, late: int, ahead: int) -> More:
    """What a run of a schedule has to remember of its start, `late` after its eta.

    It is settled then, since the clocks may be set against each other before the run ends.
    """
    seen = _on_clock_of(rule, call, ahead) + late
    return structs.replace(call.more, grid=grid_of(call, rule, ahead), seen=seen)


def following(call: Call, now: int, ahead: int) -> Occurrence | None:
    """The next run of the schedule that a call is a run of; None if there is none."""
    rule = call.repeat
    if rule is None:
        return None
    more, now = call.more, now if rule.steady else now + ahead
    seen = _on_clock_of(rule, call, ahead) if more.seen is None else more.seen
    return next_occurrence(rule, grid_of(call, rule, ahead), seen, now, more.caught)


def _on_clock_of(rule: Repeat, call: Call, ahead: int) -> int:
    """The eta of a call on the clock of a rule."""
    if call.steady == rule.steady:
        return call.eta
    return call.eta - ahead if rule.steady else call.eta + ahead


def decide(call: Call, outcome: Outcome, now: int) -> Verdict:
    """What follows from the outcome of a call's run that ended at `now` (steady time)."""
    error = outcome.error
    if error is None or outcome.event not in (Event.SNOOZE, Event.FAIL):
        return outcome
    failures = call.more.failures
    try:
        if isinstance(error, Snooze) and outcome.event is Event.SNOOZE:
            if error.eta is not None:
                return Again(Event.SNOOZE, error.eta, steady=False, failures=failures)
            return Again(Event.SNOOZE, within(now + (error.delay or 0)), failures=failures)
        retry = call.option("retry")
        wait = retry.wait(failures + 1, error) if isinstance(retry, Retry) else None
        if wait is not None:
            return Again(Event.RETRY, within(now + wait), failures=failures + 1)
    except Exception as invalid:  # noqa: BLE001 - a time out of range, or the user's `delay` function
        invalid.__cause__ = error
        return Outcome(Event.FAIL, error=presentable(invalid))
    return Outcome(Event.FAIL, error=presentable(error))


def presentable(error: BaseException | None) -> BaseException:
    """The error as a waiter can get it.

    A waiter that got the job's CancelledError would look cancelled itself, a SystemExit would
    end its program, and a StopIteration cannot pass an await.
    """
    if isinstance(error, RuntimeError) and isinstance(error.__cause__, StopIteration):
        error = error.__cause__  # what Python makes of a StopIteration that leaves a coroutine
    if isinstance(error, Exception) and not isinstance(error, StopIteration | StopAsyncIteration):
        return error
    failure = JobFailed(type(error).__name__, message_of(error))
    failure.__cause__ = error
    return failure


def message_of(error: BaseException | None) -> str:
    """The text of an error, also of one that cannot tell it."""
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - whatever a user's __str__ may raise
        return f"<no text: its __str__ raised {type(broken).__name__}>"
