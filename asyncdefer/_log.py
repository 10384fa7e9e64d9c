"""Every event of a queue: to structlog if it is configured, else to the logger `asyncdefer`,
and to those who subscribed. Never with arguments.
"""

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final

import structlog
from msgspec import Struct

from asyncdefer._core.job import JobError

DEBUG: Final = logging.DEBUG
INFO: Final = logging.INFO
WARNING: Final = logging.WARNING
ERROR: Final = logging.ERROR

_logger: Final = logging.getLogger("asyncdefer")
_enabled: Final = _logger.isEnabledFor
_configured: Final = structlog.is_configured


class LogEvent(Struct, frozen=True, omit_defaults=True):
    """One event. What does not belong to it is None. `seconds` is a lateness, lag or jump."""

    name: str
    at: datetime
    job_id: str | None = None
    task: str | None = None
    key: str | None = None
    eta: datetime | None = None
    until: datetime | None = None
    attempt: int | None = None
    calls: int | None = None
    seconds: float | None = None
    by: str | None = None
    error: JobError | None = None
    shard: int | None = None
    items: int | None = None


Subscriber = Callable[[LogEvent], object]


class Events:
    """Who listens, and how they are told."""

    def __init__(self) -> None:
        subscribers: list[Subscriber] = []
        self._subscribers = subscribers

        def heard(level: int) -> object:
            return subscribers or _enabled(level) or _configured()

        self.heard: Callable[[int], object] = heard
        """True-ish if somebody would notice an event of this level; else it is not even made."""

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Tell `callback` of every event from now on; the result ends that."""
        if not callable(callback):
            raise TypeError("subscribe takes a function that gets each event")
        self._subscribers.append(callback)

        def unsubscribe() -> None:
            if callback in self._subscribers:
                self._subscribers.remove(callback)

        return unsubscribe

    def emit(self, level: int, event: LogEvent, cause: BaseException | None = None) -> None:
        """Tell all. A subscriber that fails is logged and hurts nobody."""
        self._log(level, event, cause)
        for subscriber in tuple(self._subscribers):
            try:
                subscriber(event)
            except Exception:
                _logger.exception("asyncdefer.subscriber_failed event=%s", event.name)

    def _log(self, level: int, event: LogEvent, cause: BaseException | None) -> None:
        name = f"asyncdefer.{event.name}"
        values: dict[str, Any] = {
            field: value
            for field in event.__struct_fields__
            if field not in ("name", "at", "error") and (value := getattr(event, field)) is not None
        }
        if event.error is not None:
            values["error"] = f"{event.error.type}: {event.error.message}"
        if _configured():
            structlog.get_logger("asyncdefer").log(
                level, name, **values, **({"exc_info": cause} if cause is not None else {})
            )
        elif _enabled(level):
            text = " ".join(
                [name, *(f"{field}={_shown(value)}" for field, value in values.items())]
            )
            _logger.log(level, "%s", text, exc_info=cause, extra={"event": name})


def _shown(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
