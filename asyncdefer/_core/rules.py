"""The rules of a run: until when it may start, and what follows from how it ended."""

from asyncdefer._core.instant import within
from asyncdefer._core.job import Again, Call, Outcome, Verdict
from asyncdefer._core.lifecycle import Event
from asyncdefer._core.retry import Retry
from asyncdefer.errors import JobFailed, Snooze


def expiry(call: Call) -> int | None:
    """When a call that has not started is given up, on the clock of its eta."""
    given = call.more.options
    ends = (call.task.declared if given is None else call.options).expires
    return call.eta + ends if isinstance(ends, int) else None


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
        retry = call.options.retry
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
