"""Times as integers: microseconds since 1970 in UTC, and nothing else inside the library.

Two datetimes of one zone compare by wall clock and ignore `fold`, so the hour that a clock
change repeats compares wrongly; integers do not. Datetimes and floats exist at the edges only,
and this is the edge.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Final

SECOND: Final = 1_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST: Final = datetime.min.replace(tzinfo=UTC)


def _microseconds(span: timedelta) -> int:
    return (span.days * 86_400 + span.seconds) * SECOND + span.microseconds


LAST: Final = _microseconds(datetime.max.replace(tzinfo=UTC) - _EPOCH)
_LONGEST: Final = LAST // SECOND * 2  # seconds; longer than any eta is away
FIRST: Final = _microseconds(_FIRST - _EPOCH)


def instant(eta: datetime) -> int:
    """The microseconds of an aware datetime; `ValueError` for a naive one or one past year 9999."""
    if not isinstance(eta, datetime):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are type-checked
        raise TypeError(f"eta must be an aware datetime, not {type(eta).__name__}")
    if eta.utcoffset() is None:
        raise ValueError(
            f"eta {eta.isoformat()} has no time zone: give an aware datetime,"
            " for example datetime.now(UTC) + timedelta(hours=2)"
        )
    # A subtraction cannot overflow where astimezone can (datetime.max at UTC-12).
    return within(_microseconds(eta - _EPOCH))


def within(time: int) -> int:
    """The same time; `ValueError` if no datetime in UTC can show it."""
    if time > LAST:
        raise ValueError("the eta is later than 9999-12-31 UTC")
    return time


def duration(value: float | timedelta, name: str = "delay") -> int:
    """The microseconds of a duration given in seconds or as a timedelta, never negative."""
    if (type(value) is int or type(value) is float) and 0 <= value < _LONGEST:
        return round(value * SECOND)
    if isinstance(value, timedelta):
        result = _microseconds(value)
    elif isinstance(value, bool) or not isinstance(value, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
        raise TypeError(f"{name} must be seconds or a timedelta, not {type(value).__name__}")
    elif value != value or value in (math.inf, -math.inf):
        raise ValueError(f"{name} must be finite, not {value}")
    else:
        result = round(min(max(value, -1), _LONGEST) * SECOND)
    if result < 0:
        raise ValueError(f"{name} must not be negative, not {value}")
    return result


def positive(value: float | timedelta, name: str) -> int:
    """The microseconds of a duration that is more than nothing."""
    result = duration(value, name)
    if result == 0:
        raise ValueError(f"{name} must be more than 0")
    return result


def moment(time: int) -> datetime:
    """The aware datetime in UTC, or the first or last that there is."""
    return _EPOCH + timedelta(microseconds=min(time, LAST)) if time > FIRST else _FIRST


def seconds(time: int) -> float:
    return time / SECOND
