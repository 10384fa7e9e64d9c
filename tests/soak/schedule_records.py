"""The records of the soak of schedules: a rule in plain words, a task, a schedule, and its runs.

Times are microseconds. Nothing here asks the library when a run is next.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from asyncdefer import Cron, Every
from asyncdefer._core.instant import SECOND
from tests.soak.policies import Rate

GRACE: Final = 60 * SECOND
CATCH_UP: Final = 100
Key = tuple[str, str]  # the task, and the key or, without one, the id
Expected = tuple[Any, BaseException | type[BaseException] | None]
"""A value and an error; where it is the library that makes the error, its type."""


@dataclass(frozen=True)
class Rhythm:
    """A rule in plain words. The calendars here go by whole periods since 1970, in UTC."""

    period: int
    calendar: str | None
    missed: Literal["once", "all", "skip"]

    def given(self) -> Cron | Every:
        if self.calendar is not None:
            return Cron(self.calendar, missed=self.missed)
        return Every(timedelta(microseconds=self.period), self.missed)

    @property
    def steady(self) -> bool:
        return self.calendar is None

    def times(self, grid: int, start: int, end: int) -> range:
        """The times after `start` up to `end`, of which `grid` is one."""
        behind = (start - (grid if self.steady else 0)) % self.period
        return range(start - behind + self.period, end + 1, self.period)

    def after(self, grid: int, start: int) -> int:
        return self.times(grid, start, start + self.period)[0]

    def next(self, grid: int, seen: int, now: int, caught: int | None = None) -> int:
        """The time after the run for `grid`, that started at `seen` and ended now.

        `caught`: up to it times are caught up on, however many they are.
        """
        missed = self.times(grid, grid, now)
        if missed and self.missed == "all":
            return missed[0] if caught and missed[0] <= caught else missed[-CATCH_UP:][0]
        if missed and self.missed == "once" and missed[-1] > seen:
            return missed[-1]
        return self.after(grid, max(grid, now))

    def ends(self, time: int) -> int | None:
        """When a run for this time counts as missed."""
        return time + min(GRACE, self.period // 2) if self.missed == "skip" else None


@dataclass(eq=False)
class Kind:
    """A task; `rhythm`: of its decorator."""

    name: str
    target: Any = None
    rhythm: Rhythm | None = None
    retry: tuple[int, int] | None = None  # attempts, and microseconds between them
    timeout: int | None = None
    expires: int | None = None
    concurrency: int | None = None
    rate: Rate | None = None
    fails: bool = False  # nearly always
    paused: bool = False
    starts: list[int] = field(default_factory=list[int])


@dataclass(eq=False)
class Chain:
    """A schedule. `asked`: what was said when it was begun; `ran`: the times that were run."""

    key: Key
    rhythm: Rhythm
    asked: object
    id: str = ""
    ended: bool = False
    replaced: bool = False
    answer: "Job | None" = None  # for those who come after its end
    ran: list[int] = field(default_factory=list[int])


@dataclass(eq=False)
class Job:
    """A run of a schedule with its attempts, or a call that runs once."""

    kind: Kind
    key: Key
    n: int | None
    steady: bool
    eta: int
    timeout: int | None
    expires: int | None
    chain: Chain | None = None
    grid: int | None = None  # the time of the schedule that it is for; None: the caller's eta
    ends: int | None = None
    caught: int | None = None
    moved: bool = False  # its eta is no time of its schedule: given, flushed, tried again
    due: bool = False  # once the queue knows that its time has come, it stays so
    attempt: int = 0
    failures: int = 0
    begun: int = 0
    set_back: bool = False  # the wall clock showed its time, and was set back before it began
    ahead: int = 0  # of the wall clock, when it began
    seen: int = 0  # when the last attempt began, on the clock of its schedule
    inside: bool = False
    cancelled: bool = False
    left: Expected | None = None
    outcome: Expected | None = None
    follows: "Job | None" = None

    @property
    def root(self) -> "Job":
        return self if self.follows is None else self.follows.root

    def expiry(self) -> int | None:
        times = [self.ends] if self.ends is not None else []
        if self.expires is not None:
            times.append(self.eta + self.expires)
        return min(times, default=None)

    def __repr__(self) -> str:
        return f"{self.key} n={self.n} eta={self.eta} attempt={self.attempt}"
