"""What may follow from a run, and whether the one outcome of a burst is a right one."""

from typing import Any

from asyncdefer import JobCancelled, JobDropped, JobExpired, JobFailed, QueueClosed, Snooze, State
from tests.soak.records import Burst, Outcome


class Violation(AssertionError):
    """A promise was broken."""


def runs_again(burst: Burst) -> Snooze | int | None:
    """What has to follow from the end of a run: a snooze, a retry after so many failures, or the
    end. A job that was cancelled has ended, however it takes it.
    """
    if burst.cancelled or burst.left is None:
        return None
    error = TimeoutError() if burst.timed_out else burst.left[1]
    if error is None or isinstance(error, Snooze):
        return error
    failures, retry = burst.failures + 1, burst.call.retry
    return failures if retry is not None and retry.covers(failures, error) else None


def judge(burst: Burst, *, closing: bool) -> str | None:
    """What is wrong with the one outcome of a burst; None if nothing is."""
    values = burst.seen
    value, error = values[0]
    if any(other[0] is not value or other[1] is not error for other in values):
        return f"the outcomes differ: {values}"
    if not _may_end(burst, value, error, closing=closing):
        return f"it is {burst.newest.state} with {value} {error!r}; it left {burst.left}"
    return None


def _may_end(burst: Burst, value: Any, error: BaseException | None, *, closing: bool) -> bool:
    left, thread = burst.left, burst.call.kind.thread
    natural = left is not None and _is(left, value, error)
    untouched = not (burst.cancelled or burst.interrupted or burst.timed_out)
    match burst.newest.state:
        case State.SUCCEEDED:
            return natural and error is None and (untouched or (thread and closing))
        case State.FAILED:
            late = type(error) is TimeoutError and burst.timed_out
            return late or (natural and error is not None and untouched)
        case State.CANCELLED:
            return type(error) is JobCancelled and burst.cancelled
        case State.EXPIRED:
            return type(error) is JobExpired and burst.begun is None
        case State.DROPPED if burst.discarded or burst.dropped:
            return type(error) is JobDropped and burst.begun is None
        case State.DROPPED:
            own = left is None or burst.interrupted or thread or burst.begun is None
            return type(error) is QueueClosed and closing and own
        case _:
            return False


def _is(left: Outcome, value: Any, error: BaseException | None) -> bool:
    """The outcome of a function as its waiters should get it."""
    if left[1] is None or error is None:
        return left[0] is value and left[1] is error
    causes = (left[1], left[1].__cause__)
    return error is left[1] or (type(error) is JobFailed and error.__cause__ in causes)
