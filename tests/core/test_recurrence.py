"""When a schedule runs next: by a period, by a calendar, at clock changes, after a standstill."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdefer._core.instant import LAST, SECOND, instant, moment
from asyncdefer._core.recurrence import (
    CATCH_UP,
    Cron,
    Every,
    Missed,
    Occurrence,
    Repeat,
    first_occurrence,
    next_occurrence,
    read_repeat,
)

MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
YEAR = 365 * 24 * HOUR
START = instant(datetime(2027, 1, 1, tzinfo=UTC))


def times(rule: Repeat, start: datetime, count: int) -> list[str]:
    """The next instants, as UTC text."""
    time = grid = instant(start)
    found: list[str] = []
    for _ in range(count):
        after = rule.after(time, grid)
        assert after is not None
        assert after > time
        found.append(f"{moment(after):%m-%d %H:%M}")
        time = after
    return found


# Periods and calendars


def test_a_period_keeps_its_grid() -> None:
    """Whole periods after the first instant, from wherever one looks."""
    every = Every(90)
    assert every.after(START, START) == START + 90 * SECOND
    assert every.after(START + 89 * SECOND, START) == START + 90 * SECOND
    assert every.after(START + 90 * SECOND, START) == START + 180 * SECOND
    assert every.after(START - 200 * SECOND, START) == START - 180 * SECOND


def test_a_calendar_goes_by_its_place() -> None:
    """Half past two in Paris is half past one in UTC, in winter."""
    cron = Cron("30 2 * * *", tz="Europe/Paris")
    assert times(cron, datetime(2027, 1, 1, tzinfo=UTC), 2) == ["01-01 01:30", "01-02 01:30"]


@pytest.mark.parametrize(
    ("alias", "expr"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@midnight", "0 0 * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        (" @Daily ", "0 0 * * *"),
        ("0  0 * *   *", "0 0 * * *"),
    ],
)
def test_an_alias(alias: str, expr: str) -> None:
    """What crontab(5) has them stand for."""
    assert Cron(alias) == Cron(expr)


def test_seconds_come_first() -> None:
    """An expression of six fields begins with the second."""
    cron = Cron("*/20 * * * * *")
    after = cron.after(START + 1, START)
    assert after == START + 20 * SECOND
    assert cron.after(after, START) == START + 40 * SECOND


def test_a_leap_day_is_waited_for() -> None:
    """The next 29th of February may be years away."""
    cron = Cron("0 0 29 2 *")
    after = cron.after(instant(datetime(2096, 3, 1, tzinfo=UTC)), 0)
    assert after == instant(datetime(2104, 2, 29, tzinfo=UTC))


def test_the_last_year() -> None:
    """Past the year 9999 there are no times, and no error."""
    assert Cron("@yearly").after(LAST - HOUR, START) is None
    assert Cron("*/5 * * * *", tz="Pacific/Apia").after(LAST - MINUTE, START) is None
    assert Every(timedelta(days=400)).after(LAST - HOUR, LAST - HOUR) is None
    assert next_occurrence(Cron("@yearly"), LAST - HOUR, LAST - HOUR, LAST) is None


def test_words_for_people() -> None:
    """A schedule can be shown to somebody who does not read cron."""
    assert Cron("30 2 * * *", tz="Europe/Paris").explain() == "At 02:30 every day (Europe/Paris)"
    assert Cron("@hourly").explain() == "At the start of every hour (UTC)"
    assert Every(90).explain() == "Every 0:01:30"


# Bad input


@pytest.mark.parametrize(
    "expr", ["", "61 * * * *", "* * *", "0 0 30 2 *", "1 2 3 4 5 6 7", "@reboot"]
)
def test_an_expression_that_cannot_be_read(expr: str) -> None:
    """It is an error where it is written, and says how it should look."""
    with pytest.raises(ValueError, match="minute hour day-of-month"):
        Cron(expr)


def test_a_day_that_never_comes() -> None:
    """Also one that only the calendar can tell."""
    with pytest.raises(ValueError, match="never comes"):
        Cron("0 0 */30 2 MON#5")


@pytest.mark.parametrize("tz", ["Europe/Pariss", "", "../etc", "a" * 300, None])
def test_an_unknown_place(tz: Any) -> None:
    """It says what a name looks like, and what may be missing."""
    with pytest.raises(ValueError, match="IANA name"):
        Cron("@daily", tz=tz)


@pytest.mark.parametrize("period", [0, -1, float("nan"), timedelta()])
def test_a_period_must_pass(period: Any) -> None:
    """Nothing can happen each zero seconds."""
    with pytest.raises(ValueError, match="period"):
        Every(period)


@pytest.mark.parametrize("bad", ["often", None, True])
def test_missed_is_one_of_three(bad: Any) -> None:
    """Both rules say which."""
    for make in (lambda: Every(1, missed=bad), lambda: Cron("@daily", missed=bad)):
        with pytest.raises(ValueError, match='"once", "all" or "skip"'):
            make()


def test_a_rule_is_no_text() -> None:
    """A bare expression has no place, so it is not taken for a rule."""
    assert read_repeat(Every(1)) == Every(1)
    bad: Any = "@daily"
    with pytest.raises(TypeError, match="repeat takes Cron"):
        read_repeat(bad)


def test_an_expression_is_text() -> None:
    """And nothing else."""
    number: Any = 5
    with pytest.raises(TypeError, match="is a str"):
        Cron(number)


# Clock changes


def test_the_hour_that_is_left_out() -> None:
    """A fixed time in it comes at the first instant after it, and once."""
    start = datetime(2027, 3, 27, 20, tzinfo=UTC)
    one = Cron("30 2 * * *", tz="Europe/Paris")
    assert times(one, start, 2) == ["03-28 01:00", "03-29 00:30"]
    many = Cron("0,30 2,3 * * *", tz="Europe/Paris")
    assert times(many, start, 3) == ["03-28 01:00", "03-28 01:30", "03-29 00:00"]


def test_the_hour_that_comes_twice() -> None:
    """A fixed time comes once, the first time; what goes by real time goes on."""
    start = datetime(2027, 10, 31, 0, 20, tzinfo=UTC)
    fixed, wild = Cron("30 2 * * *", tz="Europe/Paris"), Cron("*/20 * * * *", tz="Europe/Paris")
    assert times(fixed, start, 2) == ["10-31 00:30", "11-01 01:30"]
    assert times(wild, start, 4) == ["10-31 00:40", "10-31 01:00", "10-31 01:20", "10-31 01:40"]


class Change(NamedTuple):
    """A clock change: the offset and the time of day before it, and how far clocks are set, in
    minutes.
    """

    offset: int
    before: int
    by: int


def changes() -> dict[Change, tuple[str, datetime]]:
    """Every shape of change since 1975 that any place has seen or will see until 2037, with one
    place and the instant of it.
    """
    found: dict[Change, tuple[str, datetime]] = {}
    month = timedelta(days=30)
    for name in sorted(available_timezones()):
        zone = ZoneInfo(name)
        at, offset = datetime(1975, 1, 1, tzinfo=UTC), None
        while at.year < 2038:
            at += month
            now = at.astimezone(zone).utcoffset()
            if offset is not None and now != offset:
                early, late = at - month, at
                while late - early > timedelta(minutes=1):
                    middle = early + (late - early) // 2
                    middle = middle.replace(second=0, microsecond=0)
                    same = middle.astimezone(zone).utcoffset() == early.astimezone(zone).utcoffset()
                    early, late = (middle, late) if same else (early, middle)
                before, after = (clock(when, zone) for when in (early, late))
                by = (after - before) // timedelta(minutes=1) - 1
                ahead = int(offset.total_seconds()) // 60
                shape = Change(ahead, before.hour * 60 + before.minute, by)
                found.setdefault(shape, (name, late))
            offset = now
    return found


def clock(when: datetime, zone: ZoneInfo) -> datetime:
    """What the clocks there show."""
    return when.astimezone(zone).replace(tzinfo=None, fold=0)


def matches(cron: str, local: datetime) -> bool:
    """An oracle that knows numbers, lists, `*` and `*/n` for minute and hour, and no other."""
    minute, hour = cron.split()[:2]
    return local.minute in named(minute) and local.hour in named(hour)


@cache
def named(field: str) -> set[int]:
    """The numbers that a field stands for."""
    if field.startswith("*"):
        return set(range(0, 60, int(field[2:] or 1)))
    return set(map(int, field.split(",")))


Minutes = list[tuple[datetime, datetime]]
"""Every minute around a change, and what the clocks of the place show then."""


def expected(cron: str, fixed: bool, around: Minutes, change: datetime) -> list[datetime]:
    """The instants around a change, found by looking at every minute."""
    if not fixed:
        return [when for when, local in around if matches(cron, local)]
    first = {local: when for when, local in reversed(around)}
    wanted: set[datetime] = set()
    local, last = around[0][1], around[-1][1]
    while local <= last:
        if matches(cron, local):
            wanted.add(first.get(local, change))
        local += timedelta(minutes=1)
    return sorted(wanted)


@pytest.mark.slow
def test_every_change_of_every_place() -> None:
    """In a gap fixed times come once, at its end; in a fold once, the first time; stars by real time.

    From any instant within a day of the change.
    """
    shapes = changes()
    assert len(shapes) > 200
    for change, (name, at) in shapes.items():
        zone = ZoneInfo(name)
        minute, hour = (change.before + 1) % 60, (change.before + 1) // 60 % 24
        span = (at + timedelta(minutes=minutes) for minutes in range(-26 * 60, 26 * 60))
        around = [(when, clock(when, zone)) for when in span]
        listed = ",".join(str((hour + more) % 24) for more in (-1, 0, 1))
        for cron, fixed in (
            (f"0,10,30 {listed} * * *", True),
            (f"{(minute + 20) % 60} {hour} * * *", True),
            (f"*/25 {listed} * * *", False),
            ("17 * * * *", False),
            ("40 */3 * * *", False),
        ):
            rule, wanted = Cron(cron, tz=name), expected(cron, fixed, around, at)
            assert wanted == sorted(set(wanted))
            for distance in range(-25 * 60, 25 * 60, 217):
                start = at + timedelta(minutes=distance, seconds=1)
                then = next((when for when in wanted if when > start), None)
                after = rule.after(instant(start), 0)
                assert after is not None
                if then is not None:
                    assert moment(after) == then, (cron, name, start)


@given(
    st.sampled_from(sorted(available_timezones())),
    st.sampled_from(["0 0 * * *", "*/7 * * * *", "30 1-3 * * *", "5 4 1 */2 *", "0 12 * * MON"]),
    st.integers(START - 50 * YEAR, START + 10 * YEAR),
)
def test_times_grow(name: str, expr: str, start: int) -> None:
    """Strictly, and nothing lies between two that follow each other."""
    rule, time = Cron(expr, tz=name), start
    found: list[int] = []
    for _ in range(5):
        after = rule.after(time, time)
        assert after is not None
        assert after > time
        found.append(after)
        time = after
    for early, late in pairwise(found):
        assert rule.after((early + late) // 2, 0) == late


# What was missed


def turn(rule: Repeat, *, grid: int = 0, seen: int | None = None, now: int) -> tuple[int, ...]:
    """The next turn in minutes after START: the eta, and the first one left out."""
    seen = grid if seen is None else seen
    found = next_occurrence(
        rule, START + grid * MINUTE, START + seen * MINUTE, START + now * MINUTE
    )
    assert found is not None
    left = () if found.left_out is None else ((found.left_out - START) // MINUTE,)
    return ((found.eta - START) // MINUTE, *left)


RULES = {
    "every": lambda missed: Every(600, missed),
    "cron": lambda missed: Cron("*/10 * * * *", missed=missed),
}


@pytest.mark.parametrize("make", RULES.values(), ids=RULES)
class TestMissed:
    """What becomes of the times that went by, at ten minutes each."""

    def test_none(self, make: Any) -> None:
        """In time, all three say the same."""
        for missed in ("once", "all", "skip"):
            assert turn(make(missed), now=7) == (10,)

    def test_once(self, make: Any) -> None:
        """One run for all of them, for the latest."""
        assert turn(make("once"), now=47) == (40, 10)
        assert turn(make("once"), now=17) == (10,)
        assert turn(make("once"), now=20) == (20, 10)

    def test_once_after_a_late_start(self, make: Any) -> None:
        """A run that started late stood for those that had come by then."""
        assert turn(make("once"), seen=47, now=48) == (50, 10)
        assert turn(make("once"), seen=47, now=53) == (50, 10)
        assert turn(make("once"), seen=47, now=75) == (70, 10)

    def test_all(self, make: Any) -> None:
        """Each of them, one after the other."""
        assert turn(make("all"), now=47) == (10,)
        assert turn(make("all"), grid=10, now=47) == (20,)
        assert turn(make("all"), now=CATCH_UP * 10) == (10,)

    def test_all_has_a_bound(self, make: Any) -> None:
        """Of more than a hundred the latest hundred, and it says from where on it leaves out."""
        assert turn(make("all"), now=CATCH_UP * 10 + 10) == (20, 10)
        assert turn(make("all"), now=CATCH_UP * 10 + 5_005) == (5_010, 10)

    def test_the_bound_is_settled_once(self, make: Any) -> None:
        """Until all that was missed by then is caught up on, and then anew."""
        rule, now = make("all"), START + (CATCH_UP * 10 + 5_005) * MINUTE
        first = next_occurrence(rule, START, START, now)
        assert first == Occurrence(START + 5_010 * MINUTE, left_out=START + 10 * MINUTE, caught=now)
        later = now + 300 * MINUTE
        second = next_occurrence(rule, first.eta, first.eta, later, first.caught)
        assert second == Occurrence(START + 5_020 * MINUTE, caught=now)
        grid = START + 6_000 * MINUTE
        last = next_occurrence(rule, grid, grid, later, first.caught)
        assert last == Occurrence(START + 6_010 * MINUTE, caught=later)

    def test_skip(self, make: Any) -> None:
        """None of them, but the next."""
        assert turn(make("skip"), now=47) == (50, 10)
        assert turn(make("skip"), now=50) == (60, 10)

    def test_skip_has_some_patience(self, make: Any) -> None:
        """A run counts as missed if it has not started a minute after its time."""
        found = next_occurrence(make("skip"), START, START, START)
        assert found == Occurrence(START + 10 * MINUTE, ends=START + 11 * MINUTE)
        first = first_occurrence(make("skip"), START)
        assert first == found

    def test_a_clock_set_back(self, make: Any) -> None:
        """No time comes twice."""
        assert turn(make("once"), grid=60, now=5) == (70,)
        assert turn(make("skip"), grid=60, now=5) == (70,)


def test_skip_has_less_patience_for_short_periods() -> None:
    """Then it is half of the time to the next one."""
    first = first_occurrence(Every(10, "skip"), START)
    assert first == Occurrence(START + 10 * SECOND, ends=START + 15 * SECOND)


@given(
    st.sampled_from(["once", "all", "skip"]),
    st.integers(0, 3_000),
    st.integers(0, 3_000),
    st.integers(0, 3_000),
)
def test_what_is_left_out_is_told(missed: Missed, grid: int, wait: int, run: int) -> None:
    """Nothing between a time and the next one disappears without being told."""
    rule = Every(600, missed)
    grid *= 10
    found = next_occurrence(
        rule,
        START + grid * MINUTE,
        START + (grid + wait) * MINUTE,
        START + (grid + wait + run) * MINUTE,
    )
    assert found is not None
    assert found.eta > START + grid * MINUTE
    gone = found.eta > START + (grid + 10) * MINUTE
    assert found.left_out == (START + (grid + 10) * MINUTE if gone else None)


def test_a_calendar_of_bursts() -> None:
    """The latest times may lie far back, though the first two lay close together."""
    rule = Cron("* * 1 1 *", missed="once")
    summer = instant(datetime(2027, 7, 1, tzinfo=UTC))
    found = next_occurrence(rule, START, START, summer)
    assert found is not None
    assert moment(found.eta) == datetime(2027, 1, 1, 23, 59, tzinfo=UTC)


def test_a_long_standstill_is_quick() -> None:
    """A year of missed minutes is looked through from its end: a few hundred questions, not 500,000."""
    asked = 0

    class Counted(Cron, frozen=True):
        def after(self, time: int, grid: int) -> int | None:
            nonlocal asked
            asked += 1
            return super().after(time, grid)

    found = next_occurrence(Counted("* * * * *", missed="all"), START, START, START + YEAR)
    assert found is not None
    assert found.eta == START + YEAR - (CATCH_UP - 1) * MINUTE
    assert asked < 1_000
