"""What can go wrong, and the two signals that a job raises about itself."""

from datetime import datetime, timedelta
from typing import Any

from asyncdefer._core.instant import duration, instant


class DeferError(Exception):
    """The base of every error that asyncdefer raises on its own account."""


class NotStarted(DeferError):
    """The queue does not run yet: use `async with queue:` or `await queue.start()` first."""


class QueueClosed(DeferError):
    """The queue is closing or closed; the job of this handle will not run in this process."""


class WrongLoop(DeferError):
    """The queue runs in another event loop or thread than the one that called."""


class UnknownTask(DeferError, LookupError):
    """No task of this name is registered in the queue."""


class JobCancelled(DeferError):
    """The job was cancelled, before its start or during its run."""


class JobExpired(DeferError):
    """The job had not started when its `expires` ran out."""


class JobDropped(DeferError):
    """The job was given up without a run."""


class JobFailed(DeferError):
    """A job failed with an exception that cannot be raised to a waiter as it is.

    `type`, `message` and `traceback` are texts; the original is `__cause__` where it is known.
    """

    def __init__(self, type: str, message: str, traceback: str = "") -> None:  # noqa: A002 - the field's name
        super().__init__(f"{type}: {message}" if message else type)
        self.type = type
        self.message = message
        self.traceback = traceback


class Snooze(Exception):
    """Raised by a job: run me again later. It burns no attempt, and the handle stays pending.

    Exactly one of `delay` (seconds or timedelta) and `eta` (aware datetime) is needed.
    """

    def __init__(
        self, delay: float | timedelta | None = None, *, eta: datetime | None = None
    ) -> None:
        if (delay is None) == (eta is None):
            raise TypeError("Snooze needs either a delay or an eta, as in Snooze(delay=30)")
        super().__init__(delay if eta is None else eta)
        self.delay: int | None = None if delay is None else duration(delay)
        self.eta: int | None = None if eta is None else instant(eta)


class GiveUp(Exception):
    """Raised by a job: failed for good, whatever attempts are left. Waiters get it as it is."""

    def __init__(self, reason: str = "") -> None:
        super().__init__(reason)
        self.reason = reason


class IterationFailed(DeferError):
    """More items of an iteration failed than may, or a shard did; `report` has all of them."""

    def __init__(self, report: Any) -> None:
        bad = report.failed
        shown = "; ".join(f"{it.key!r}: {it.error.type}: {it.error.message}" for it in bad[:3])
        more = f", and {len(bad) - 3} more" if len(bad) > 3 else ""
        super().__init__(f"{report.items} items succeeded, {len(bad)} failed: {shown}{more}")
        self.report = report


class JournalError(DeferError):
    """The journal could not be read or written; what was not acknowledged is not safe."""


class JournalLocked(JournalError):
    """Another process owns the journal: `pid`, `host` and `since` say which, where they are known."""

    def __init__(
        self,
        text: str,
        *,
        pid: int | None = None,
        host: str | None = None,
        since: datetime | None = None,
    ) -> None:
        super().__init__(text)
        self.pid = pid
        self.host = host
        self.since = since


class JournalFull(JournalError):
    """There is no room for another call; starts, ends and cancels are still recorded."""


class ResultUnavailable(DeferError):
    """The job succeeded, and its result is not to be had: it could not be recorded or read."""
