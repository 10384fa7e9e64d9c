"""When to run next by a calendar or a period.

Every answer comes from the instant a run was scheduled for, so nothing drifts, and is later than
that. A calendar follows the wall clock of a place, a period the steady clock.

At a change of that place's clock the rule is the one of Debian's cron. Times that are fixed run
once: in the hour that comes twice the first time, and out of the hour that is left out at the
first instant after it. Expressions whose minute or hour starts with a star go by real time.
"""

from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import ClassVar, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError
from msgspec import Struct, structs

from asyncdefer._core.instant import LAST, SECOND, duration, instant, moment, positive

CATCH_UP: Final = 100  # missed runs that `missed="all"` catches up on at the most: the latest
GRACE: Final = 60 * SECOND  # how late a run may be that is else skipped; half a period at the most
Missed = Literal["once", "all", "skip"]

_ALIASES: Final = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
_DAY: Final = timedelta(days=1)


class Every(Struct, frozen=True):
    """A run each `period` (seconds or timedelta), on the steady clock.

    `missed`: what becomes of runs whose time went by, see `Cron`. `ValueError` for a period of
    nothing and for another `missed`.
    """

    period: float | timedelta
    missed: Missed = "once"

    steady: ClassVar[bool] = True

    def __post_init__(self) -> None:
        period = positive(self.period, "period")
        _check_missed(self.missed)
        # So that 60 seconds and a minute are the same schedule.
        structs.force_setattr(self, "period", timedelta(microseconds=period))

    def after(self, time: int, grid: int) -> int | None:
        """The first instant after `time` that is whole periods after `grid`."""
        period = duration(self.period, "period")
        found = grid + ((time - grid) // period + 1) * period
        return found if found <= LAST else None

    def explain(self) -> str:
        """The schedule in words."""
        return f"Every {self.period}"


class Cron(Struct, frozen=True):
    """A run at each time that a cron expression names, on the wall clock of a place.

    `expr`: minute, hour, day of month, month, day of week, as cron has them; with six fields the
    first one is the second; or `@hourly`, `@daily` and `@midnight`, `@weekly`, `@monthly`,
    `@yearly` and `@annually`.
    `tz`: the IANA name of the place. `missed`: what becomes of runs whose time went by while
    the program stood still, or while the run before them went on: `"once"` runs once for all of
    them, `"all"` runs each (the last hundred at the most), `"skip"` none: a run that has not
    started a minute after its time, or half of the time to the next one, is left out.

    `ValueError` for an expression that cannot be read or never comes, and for an unknown place.
    """

    expr: str
    tz: str = "UTC"
    missed: Missed = "once"

    steady: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.expr, str):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are type-checked
            raise TypeError(f"a cron expression is a str, not {type(self.expr).__name__}")
        _check_missed(self.missed)
        # So that `@daily` and what it stands for are the same schedule.
        fields = " ".join(self.expr.split())
        structs.force_setattr(self, "expr", _ALIASES.get(fields.lower(), fields))
        try:
            next(CronSim(self.expr, datetime(2000, 1, 1)))  # noqa: DTZ001 - local time of any place
        except (CronSimError, StopIteration) as error:
            wrong = str(error) or "that day never comes"
            raise ValueError(
                f"the cron expression {self.expr!r} cannot be used: {wrong}. It has five fields,"
                ' minute hour day-of-month month day-of-week, as in "30 2 * * MON-FRI"'
            ) from None
        try:
            ZoneInfo(self.tz)
        except (ZoneInfoNotFoundError, ValueError, TypeError, OSError):
            raise ValueError(
                f"no time zone is named {self.tz!r}: give an IANA name such as"
                ' "Europe/Paris"; where the system has none of them, install tzdata'
            ) from None

    def explain(self) -> str:
        """The schedule in words."""
        return f"{CronSim(self.expr, datetime(2000, 1, 1)).explain()} ({self.tz})"  # noqa: DTZ001 - as above

    def after(self, time: int, grid: int) -> int | None:
        """The first instant after `time` at which the clocks there show a time of the expression.

        None if there is none before year 10,000. A calendar needs no `grid`: it is one.
        """
        try:
            return _after(self.expr, self.tz, time)
        except (OverflowError, ValueError, StopIteration):  # past the last datetime there is
            return None


Repeat = Cron | Every


class Occurrence(Struct, frozen=True):
    """When a schedule runs next, on the clock of its rule.

    `ends`: when this run counts as missed if it has not started. `left_out`: the first instant that
    is left out before it. `caught`: up to it no more is missed than will be caught up on.
    """

    eta: int
    ends: int | None = None
    left_out: int | None = None
    caught: int | None = None


def first_occurrence(rule: Repeat, now: int) -> Occurrence | None:
    """The first run of a schedule that begins at `now`, on the rule's clock."""
    return _occurrence(rule, rule.after(now, now), now, None)


def next_occurrence(
    rule: Repeat, grid: int, seen: int, now: int, caught: int | None = None
) -> Occurrence | None:
    """The run that follows the one for `grid`, which looked at the clock at `seen` when it started.

    All times are on the rule's clock. None if the schedule has come to its end.
    """
    first = rule.after(grid, grid)
    if first is None or first > now:
        return _occurrence(rule, first, grid, None)
    if rule.missed == "all":
        if caught is not None and first <= caught:
            return Occurrence(first, caught=caught)
        earliest = _latest(rule, grid, now, CATCH_UP)
        return Occurrence(earliest, left_out=first if first < earliest else None, caught=now)
    eta: int | None = None
    if rule.missed == "once":
        latest = _latest(rule, grid, now, 1)
        eta = latest if latest > seen else None  # the run itself stood for those before it
    if eta is None:
        eta = rule.after(now, grid)
    return _occurrence(rule, eta, grid, first)


def _occurrence(rule: Repeat, eta: int | None, grid: int, first: int | None) -> Occurrence | None:
    if eta is None:
        return None
    ends = None
    if rule.missed == "skip":
        after = rule.after(eta, grid)
        ends = eta + (GRACE if after is None else min(GRACE, (after - eta) // 2))
    return Occurrence(eta, ends, first if first is not None and first < eta else None)


def _between(rule: Repeat, grid: int, start: int, end: int) -> Iterator[int]:
    """The instants after `start`, up to `end`."""
    time = rule.after(start, grid)
    while time is not None and time <= end:
        yield time
        time = rule.after(time, grid)


def _latest(rule: Repeat, grid: int, now: int, count: int) -> int:
    """The earliest of the last `count` instants after `grid`, of which there is at least one.

    It looks back from now, as far as so many should be and then further: what is long ago costs
    nothing.
    """
    first = rule.after(grid, grid) or now
    span = ((rule.after(first, grid) or now) - first) * count
    while True:
        start = max(grid, now - span)
        found = deque(_between(rule, grid, start, now), maxlen=count)
        if len(found) == count or (start == grid and found):
            return found[0]
        span *= 2


@lru_cache(maxsize=1_024)  # a thousand schedules that run at midnight ask the same
def _after(fields: str, tz: str, time: int) -> int:
    zone, at = ZoneInfo(tz), moment(time)
    begin = local = _local(at, zone)
    fixed = _is_fixed(fields)
    if not fixed:
        # If clocks are set back soon, times that were before come again.
        back = local - _local(at + _DAY, zone) + _DAY
        begin -= max(back, timedelta())
    times, match = CronSim(fields, begin), begin
    best: datetime | None = None
    while best is None or match <= local:
        match = next(times)
        for when in _instants(match, zone, fixed=fixed):
            if when > at and (best is None or when < best):
                best = when
    return instant(best)


def _is_fixed(fields: str) -> bool:
    """They name times of day, and do not go by real time."""
    *_, minute, hour, _, _, _ = fields.split()
    return not minute.startswith("*") and not hour.startswith("*")


def _local(at: datetime, zone: ZoneInfo) -> datetime:
    """What the clocks there show, as a datetime without a zone: they go back and forth."""
    return at.astimezone(zone).replace(tzinfo=None, fold=0)


def _instants(local: datetime, zone: ZoneInfo, *, fixed: bool) -> list[datetime]:
    """The instants in UTC at which the clocks there show a time, or do in the eyes of the rule."""
    first = local.replace(tzinfo=zone).astimezone(UTC)
    again = local.replace(tzinfo=zone, fold=1).astimezone(UTC)
    if first == again:
        return [first]
    if first < again:  # it comes twice
        return [first] if fixed else [first, again]
    return [_end_of_gap(again, first, zone)] if fixed else []


def _end_of_gap(early: datetime, late: datetime, zone: ZoneInfo) -> datetime:
    """The instant between these two at which clocks there are set forward."""
    before = early.astimezone(zone).utcoffset()

    def is_over(second: int) -> bool:
        return (early + timedelta(seconds=second)).astimezone(zone).utcoffset() != before

    length = round((late - early).total_seconds())
    return early + timedelta(seconds=bisect_left(range(length), True, key=is_over))


def _check_missed(missed: str) -> None:
    if missed not in ("once", "all", "skip"):
        raise ValueError(f'missed must be "once", "all" or "skip", not {missed!r}')


def read_repeat(value: Repeat) -> Repeat:
    """The rule as given; `TypeError` for anything else."""
    if not isinstance(value, Cron | Every):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
        raise TypeError(
            'repeat takes Cron("30 2 * * *", tz="Europe/Paris") or Every(timedelta(hours=1)),'
            f" not {type(value).__name__}"
        )
    return value
