import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdefer._core.instant import FIRST, LAST, SECOND, duration, instant, moment, seconds, within

PARIS = ZoneInfo("Europe/Paris")
OFFSETS = st.integers(-1439, 1439).map(lambda at: timezone(timedelta(minutes=at)))


def exact(eta: datetime) -> int:
    """Microseconds since 1970 without a float and without our own code."""
    offset = eta.utcoffset()
    assert offset is not None
    span = eta.replace(tzinfo=None) - datetime(1970, 1, 1) - offset  # noqa: DTZ001
    return span // timedelta(microseconds=1)


@given(st.datetimes(timezones=OFFSETS))
def test_an_instant_is_exact(eta: datetime) -> None:
    """No microsecond is lost, whatever the zone and the year."""
    time = exact(eta)
    if time > LAST:
        with pytest.raises(ValueError, match="9999"):
            instant(eta)
    else:
        assert instant(eta) == time
        assert moment(time) == eta.astimezone(UTC) if time >= FIRST else moment(time).year == 1


@given(st.integers(FIRST, LAST))
def test_a_moment_is_the_reverse(time: int) -> None:
    """A time that a datetime can show comes back as it was, in UTC."""
    shown = moment(time)
    assert shown.tzinfo is UTC
    assert instant(shown) == time


def test_an_hour_that_comes_twice_is_two_instants() -> None:
    """`fold` is respected: datetimes of one zone compare wrongly there, instants do not."""
    first = datetime(2027, 10, 31, 2, 30, tzinfo=PARIS)
    second = first.replace(fold=1)
    assert first == second
    assert instant(second) - instant(first) == 3_600 * SECOND


def test_a_time_before_the_first_year_is_shown_as_the_first() -> None:
    """A past eta of any year is fine, also one that is before year 1 in UTC."""
    early = datetime.min.replace(tzinfo=timezone(timedelta(hours=14)))
    assert instant(early) == FIRST - 14 * 3_600 * SECOND
    assert moment(instant(early)) == datetime.min.replace(tzinfo=UTC)
    assert moment(FIRST) == datetime.min.replace(tzinfo=UTC)
    assert moment(FIRST + 1) == datetime.min.replace(tzinfo=UTC, microsecond=1)


def test_the_last_microsecond_there_is() -> None:
    """Year 9999 is fine, and what is later in UTC is a ValueError."""
    last = datetime.max.replace(tzinfo=UTC)
    assert instant(last) == within(LAST) == LAST
    assert moment(LAST) == last
    with pytest.raises(ValueError, match="9999-12-31"):
        instant(datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))))
    with pytest.raises(ValueError, match="9999-12-31"):
        within(LAST + 1)


def test_a_naive_eta_is_refused_with_the_fix() -> None:
    """No zone, no guess."""
    with pytest.raises(ValueError, match=r"has no time zone.*datetime\.now\(UTC\)"):
        instant(datetime(2027, 1, 1))  # noqa: DTZ001


@pytest.mark.parametrize("eta", [5, 5.0, "2027-01-01", date(2027, 1, 1), timedelta(1), None])
def test_an_eta_of_another_type_is_refused(eta: Any) -> None:
    """Only a datetime is an eta."""
    with pytest.raises(TypeError, match=f"not {type(eta).__name__}"):
        instant(eta)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0, 0),
        (0.0, 0),
        (-0.0, 0),
        (1, SECOND),
        (0.000001, 1),
        (0.1, 100_000),
        (2.5, 2_500_000),
        (timedelta(0), 0),
        (timedelta(days=3, microseconds=7), 3 * 86_400 * SECOND + 7),
        (timedelta.max, timedelta.max // timedelta(microseconds=1)),
    ],
)
def test_a_duration_is_seconds_or_a_timedelta(value: float | timedelta, expected: int) -> None:
    """Both give microseconds."""
    assert duration(value) == expected


class Count(int):
    pass


def test_a_number_of_a_type_of_its_own_is_a_duration() -> None:
    """Subclasses of int and float count as numbers; only bool does not."""
    assert duration(Count(3)) == 3 * SECOND


@given(st.integers(0, 10**6), st.integers(0, 999_999))
def test_a_duration_is_exact_to_the_microsecond(whole: int, part: int) -> None:
    """Seconds as a float round to the microsecond that was meant."""
    span = whole * SECOND + part
    assert duration(seconds(span)) == span
    assert duration(timedelta(microseconds=span)) == span


@pytest.mark.parametrize("value", [10**30, 1e300, Count(10**30)])
def test_a_duration_beyond_all_time_is_later_than_any_eta(value: float) -> None:
    """It is a number all the same; the eta that it makes is out of range."""
    assert duration(value) > LAST
    with pytest.raises(ValueError, match="9999"):
        within(duration(value))


@pytest.mark.parametrize("value", [-1, -0.5, -1e-6, -(10**400), -1e300, timedelta(microseconds=-1)])
def test_a_negative_duration_is_refused(value: float | timedelta) -> None:
    """Nothing is scheduled into the past by a delay."""
    with pytest.raises(ValueError, match="timeout must not be negative"):
        duration(value, "timeout")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_duration_that_is_no_number_is_refused(value: float) -> None:
    """NaN and the infinities are errors."""
    with pytest.raises(ValueError, match="delay must be finite"):
        duration(value)


@pytest.mark.parametrize("value", [True, False, "5", None, 5j, [5]])
def test_a_duration_of_another_type_is_refused(value: Any) -> None:
    """A bool is no number of seconds."""
    with pytest.raises(
        TypeError, match=f"delay must be seconds or a timedelta, not {type(value).__name__}"
    ):
        duration(value)
