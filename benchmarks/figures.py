"""What is measured, what it must reach, and the arithmetic between the two. Pure: it starts nothing and reads no clock.

A ratio is taken round by round, ours over the floor that ran just before it, and the median of the rounds counts: a neighbour that takes half the
machine for a minute slows both sides of a round.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass(frozen=True)
class Workload:
    """A file of this directory, the size of it, and who takes part."""

    file: str
    sides: tuple[str, ...]
    n: int = 0
    quick_n: int = 0
    peers: Mapping[str, int] = field(default_factory=dict[str, int])
    """Calls for each peer: as many as it does within some seconds."""
    rounds: float = 1.0
    """Share of the rounds that were asked for."""
    least: int = 1


@dataclass(frozen=True)
class Row:
    """One line of the table: a figure of one side of a workload, and what it must reach."""

    title: str
    workload: str
    figure: str
    unit: str
    must: float | None = None
    aim: float | None = None
    side: str = "ours"
    more_is_better: bool = False
    relative: bool = True
    """Judged as a ratio to the floor; otherwise as it is."""
    nearest: bool = True
    """Whether a peer's ratio to the floor says something."""


@dataclass(frozen=True)
class Spread:
    """The median of the rounds and how far they lay apart."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        if not values:
            return cls(math.nan, math.nan, math.nan)
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True)
class Line:
    """A row, measured."""

    row: Row
    floor: Spread
    ours: Spread
    ratio: Spread
    best_peer: tuple[str, float] | None

    @property
    def judged(self) -> float:
        return self.ratio.median if self.row.relative else self.ours.median

    @property
    def verdict(self) -> str:
        if math.isnan(self.judged):
            return "not measured"
        if self._reaches(self.row.aim):
            return "yes, the aim"
        if self.row.must is None:
            return "—"
        return "yes" if self._reaches(self.row.must) else "no"

    @property
    def missed(self) -> bool:
        return self.verdict == "no"

    def _reaches(self, mark: float | None) -> bool:
        if mark is None:
            return False
        return self.judged >= mark if self.row.more_is_better else self.judged <= mark


Rounds = Mapping[str, Sequence[Mapping[str, float]]]
"""For each side of one workload the figures of each round, in order; a round that failed is empty."""


def column(rounds: Rounds, side: str, figure: str) -> list[float]:
    return [
        each[figure] for each in rounds.get(side, ()) if not math.isnan(each.get(figure, math.nan))
    ]


def ratios(rounds: Rounds, side: str, figure: str) -> list[float]:
    """One for each round in which both were measured and the floor is not nothing."""
    pairs = zip(rounds.get(side, ()), rounds.get("floor", ()), strict=False)
    both = ((ours.get(figure, math.nan), floor.get(figure, math.nan)) for ours, floor in pairs)
    return [
        ours / floor
        for ours, floor in both
        if floor and not math.isnan(ours) and not math.isnan(floor)
    ]


def line(row: Row, rounds: Rounds, peers: Sequence[str]) -> Line:
    best: tuple[str, float] | None = None
    for peer in peers:
        measured = ratios(rounds, peer, row.figure)
        if not measured or not row.nearest:
            continue
        ratio = median(measured)
        if best is None or (ratio > best[1] if row.more_is_better else ratio < best[1]):
            best = (peer, ratio)
    return Line(
        row,
        Spread.of(column(rounds, "floor", row.figure)),
        Spread.of(column(rounds, row.side, row.figure)),
        Spread.of(ratios(rounds, row.side, row.figure)),
        best,
    )


WORKLOADS = {
    "far_timers": Workload(
        "far_timers.py",
        ("floor", "ours", "ours_task", "ours_nowait", "sleeping"),
        n=100_000,
        quick_n=20_000,
        peers={"huey": 100_000, "apscheduler": 100_000, "docket": 5_000},
    ),
    "far_timers_1m": Workload(
        "far_timers.py", ("floor", "ours", "ours_task"), n=1_000_000, quick_n=100_000, rounds=0.6
    ),
    "scattered_timers": Workload(
        "scattered_timers.py", ("floor", "ours"), n=100_000, quick_n=20_000
    ),
    "deferred_calls": Workload(
        "deferred_calls.py",
        ("floor", "ours"),
        n=200_000,
        quick_n=40_000,
        peers={"apscheduler": 50_000, "docket": 5_000},
    ),
    "due_jobs": Workload(
        "due_jobs.py",
        ("floor", "ours", "ours_1000", "ours_task"),
        n=100_000,
        quick_n=20_000,
        peers={"aiojobs": 100_000, "huey": 100_000, "apscheduler": 20_000, "docket": 1_000},
    ),
    "round_trips": Workload(
        "round_trips.py", ("floor", "ours", "ours_task"), n=20_000, quick_n=5_000
    ),
    "limited_jobs": Workload("limited_jobs.py", ("floor", "ours"), n=100_000, quick_n=20_000),
    "cron_jobs": Workload(
        "cron_jobs.py",
        ("floor", "ours", "ours_paris"),
        n=10_000,
        quick_n=2_000,
        peers={"apscheduler": 10_000},
        rounds=0.6,
    ),
    "lateness": Workload(
        "lateness.py",
        ("floor", "ours", "ours_eta"),
        n=10_000,
        quick_n=2_000,
        peers={"apscheduler": 10_000},
        rounds=0.6,
    ),
    "idle": Workload(
        "idle.py",
        ("floor", "ours", "ours_delay"),
        n=10_000,
        quick_n=10_000,
        peers={"apscheduler": 10_000, "docket": 10_000},
        rounds=0.6,
    ),
    "iteration": Workload(
        "iteration.py", ("floor", "ours", "ours_journal"), n=1_000_000, quick_n=50_000, rounds=0.6
    ),
    "durable_calls": Workload(
        "durable_calls.py", ("floor", "ours", "ours_bulk"), n=100_000, quick_n=10_000, rounds=0.6
    ),
    "durable_each": Workload(
        "durable_each.py",
        ("floor", "ours"),
        n=2_000,
        quick_n=200,
        peers={"huey": 2_000},
    ),
    "transactions": Workload(
        "transactions.py", ("floor", "ours"), n=5_000, quick_n=500, rounds=0.6
    ),
    "transactions_each": Workload(
        "transactions_each.py", ("floor", "ours"), n=1_000, quick_n=100, rounds=0.6
    ),
    "durable_jobs": Workload(
        "durable_jobs.py", ("floor", "ours", "ours_1000"), n=50_000, quick_n=5_000, rounds=0.6
    ),
    "durable_scattered": Workload(
        "durable_scattered.py", ("floor", "ours"), n=50_000, quick_n=5_000, rounds=0.6
    ),
    "durable_defers": Workload(
        "durable_defers.py", ("floor", "ours"), n=200_000, quick_n=10_000, rounds=0.6
    ),
    "durable_start": Workload(
        "durable_start.py", ("floor", "ours"), n=100_000, quick_n=10_000, rounds=0.6
    ),
    "durable_start_1m": Workload(
        "durable_start.py", ("floor", "ours"), n=1_000_000, quick_n=10_000, rounds=0.2
    ),
    "durable_lateness": Workload(
        "durable_lateness.py", ("floor", "ours"), n=10_000, quick_n=1_000, rounds=0.6
    ),
    "durable_growth": Workload(
        "durable_growth.py", ("ours",), n=1_000_000, quick_n=20_000, rounds=0.2
    ),
    "import_time": Workload("import_time.py", ("floor", "ours", "ours_alone"), least=11),
}


def _rate(
    title: str,
    workload: str,
    must: float | None = None,
    aim: float | None = None,
    side: str = "ours",
) -> Row:
    """By processor time: nothing in these workloads waits, so it is the wall's rate without the neighbours."""
    return Row(title, workload, "cpu_rate", "/s", must, aim, side, more_is_better=True)


def _absolute(
    title: str,
    workload: str,
    figure: str,
    unit: str,
    must: float | None,
    aim: float | None = None,
    side: str = "ours",
) -> Row:
    return Row(title, workload, figure, unit, must, aim, side, relative=False)


def _durable(
    title: str,
    workload: str,
    must: float | None = None,
    aim: float | None = None,
    side: str = "ours",
) -> Row:
    """By the wall: the disk takes part."""
    return Row(title, workload, "rate", "/s", must, aim, side, more_is_better=True)


ROWS = (
    _rate("enqueue {n} far timers, awaited one after another", "far_timers", 0.6, 0.7),
    _rate("the same, {n}", "far_timers_1m", 0.6, 0.7),
    _rate("the same, {n}, a registered task", "far_timers", 0.6, 0.7, "ours_task"),
    _rate("the same, {n}, at random times", "scattered_timers"),
    _absolute("resident memory per waiting timer, {n}", "far_timers", "bytes", "B", 700, 500),
    _absolute("the same, {n}", "far_timers_1m", "bytes", "B", 700, 500),
    _rate("{n} deferred calls over 1,000 keys, the loop turning", "deferred_calls", 1.0, 2.0),
    Row(
        "heap lines per key after them",
        "deferred_calls",
        "lines_per_key",
        "",
        1.0,
        relative=False,
        nearest=False,
    ),
    _rate("{n} due jobs, enqueue to awaited result, concurrency 100", "due_jobs", 0.7, 1.2),
    _rate("the same, concurrency 1,000", "due_jobs", 0.7, 1.2, "ours_1000"),
    _rate("the same, concurrency 100, a registered task", "due_jobs", 0.7, 1.2, "ours_task"),
    _rate("{n} jobs one at a time, each awaited", "round_trips"),
    _rate("the same, a registered task", "round_trips", side="ours_task"),
    _rate("{n} jobs through a rate limit of 1,000 keys", "limited_jobs"),
    _rate("iterate over {n} items in 8 shards", "iteration", 0.3),
    _rate("the same, with a journal", "iteration", 0.3, side="ours_journal"),
    Row("begin {n} cron schedules", "cron_jobs", "begin_rate", "/s", more_is_better=True),
    _rate("run each of {n} cron schedules ten times", "cron_jobs"),
    _rate("the same, by the clocks of Paris", "cron_jobs", side="ours_paris"),
    Row(
        "lateness of {n} timers over {window:g} s by `delay`, p50",
        "lateness",
        "p50",
        "ms",
        1.2,
        1.05,
    ),
    Row("the same, p99", "lateness", "p99", "ms", 1.4, 1.1),
    Row("the same by `eta`, p50", "lateness", "p50", "ms", 1.2, 1.05, "ours_eta"),
    Row("the same by `eta`, p99", "lateness", "p99", "ms", 1.4, 1.1, "ours_eta"),
    Row(
        "timers of these that ran early, by `delay`",
        "lateness",
        "early",
        "",
        0,
        relative=False,
        nearest=False,
    ),
    Row(
        "the same by `eta`",
        "lateness",
        "early",
        "",
        0,
        side="ours_eta",
        relative=False,
        nearest=False,
    ),
    Row("processor time of the same, by `delay`", "lateness", "cpu", "s", 2.0, 1.2),
    Row("the same by `eta`", "lateness", "cpu", "s", 2.0, 1.2, "ours_eta"),
    _absolute("idle, {n} far timers: processor time per second", "idle", "cpu_per_s", "ms", 0.5),
    _absolute("the same: wake-ups per second", "idle", "wakes_per_s", "", None, 0),
    _durable("durable: {n} calls by 1,000 callers at once", "durable_calls", 0.13, 0.22),
    _durable("durable: {n} calls in bulk", "durable_calls", 0.25, 0.5, "ours_bulk"),
    _durable("durable: {n} calls one after another", "durable_each", 0.85, 1.0),
    _durable(
        "durable: {n} calls, a hundred in a transaction of the program's", "transactions", 0.5
    ),
    _durable("the same, {n}, a transaction each", "transactions_each", 0.5),
    _durable("durable: {n} jobs, enqueue to recorded result", "durable_jobs", 0.10, 0.2),
    _durable("the same, concurrency 1,000", "durable_jobs", 0.10, 0.2, "ours_1000"),
    _durable("durable: {n} calls, etas over a day, 100,000 rows there", "durable_scattered"),
    _durable("durable: {n} deferred calls over 1,000 keys", "durable_defers", 1.0, 2.0),
    _absolute(
        "start with {n} waiting timers to the first job", "durable_start", "ms", "ms", 30, 10
    ),
    _absolute("the same: resident memory", "durable_start", "mb", "MB", 15),
    _absolute(
        "start with {n} waiting timers to the first job", "durable_start_1m", "ms", "ms", 30, 10
    ),
    _absolute("the same: resident memory", "durable_start_1m", "mb", "MB", 15),
    Row("durable: lateness of {n} timers over {window:g} s, p99", "durable_lateness", "p99", "ms"),
    _absolute("files after {n} timers came and went", "durable_growth", "mb", "MB", None),
    Row(
        "import time over its dependencies",
        "import_time",
        "import_ms",
        "ms",
        30,
        relative=False,
        nearest=False,
    ),
)


def self_check() -> None:
    """The arithmetic, against cases worked out by hand, with those among them that have to be found too slow. Raises AssertionError."""

    def judge(row: Row, ours: list[float], floor: list[float], **peers: list[float]) -> Line:
        rounds = {
            side: [{row.figure: value} for value in values]
            for side, values in {"ours": ours, "floor": floor, **peers}.items()
        }
        return line(row, rounds, list(peers))

    def expect(found: object, wanted: object) -> None:
        if found != wanted:
            raise AssertionError(
                f"the benchmark's own arithmetic is wrong: {found!r}, not {wanted!r}"
            )

    expect({row.workload for row in ROWS}, set(WORKLOADS))
    rate = _rate("", "", 0.6, 0.7)
    expect(judge(rate, [30.0], [100.0]).verdict, "no")
    expect(judge(rate, [59.0], [100.0]).missed, True)
    expect(judge(rate, [60.0], [100.0]).verdict, "yes")
    expect(judge(rate, [70.0], [100.0]).verdict, "yes, the aim")
    expect(judge(rate, [], [100.0]).verdict, "not measured")
    # Round by round: the second one ran on half a machine, which changes both sides and no ratio.
    expect(judge(rate, [60.0, 30.0, 60.0], [100.0, 50.0, 100.0]).ratio, Spread(0.6, 0.6, 0.6))
    expect(judge(rate, [10.0, 20.0, 60.0], [100.0, 100.0, 100.0]).ratio, Spread(0.2, 0.1, 0.6))
    expect(judge(rate, [1.0], [100.0], slow=[4.0], quick=[9.0]).best_peer, ("quick", 0.09))
    late = Row("", "", "p50", "ms", 1.2, 1.05)
    expect(judge(late, [3.0], [2.0]).verdict, "no")
    expect(judge(late, [1.2], [1.0]).verdict, "yes")
    expect(judge(late, [1.0], [1.0]).verdict, "yes, the aim")
    expect(judge(late, [1.0], [1.0], slow=[9.0], quick=[4.0]).best_peer, ("quick", 4.0))
    weight = _absolute("", "", "bytes", "B", 700, 500)
    expect(judge(weight, [701.0], [1.0]).verdict, "no")
    expect(judge(weight, [600.0], [1.0]).verdict, "yes")
    expect(judge(weight, [400.0], []).verdict, "yes, the aim")
    expect(judge(_absolute("", "", "w", "", None, 0), [1.0], [0.0]).verdict, "—")
    # A round that failed takes its partner out, and no other.
    torn = {
        "ours": [{"cpu_rate": 6.0}, {}, {"cpu_rate": 8.0}],
        "floor": [{"cpu_rate": 10.0}, {"cpu_rate": 1.0}, {"cpu_rate": 10.0}],
    }
    expect(line(rate, torn, []).ratio, Spread(0.7, 0.6, 0.8))
