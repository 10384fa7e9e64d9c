"""The ledger: what a program was told and what it did, written so that its death takes nothing away.

One `os.write` to a file opened for appending is one event: it has left the process when the call
returns, whatever happens next. Who writes says first what he is about to do (`calling`) and then
what he was told (`acked`), so between the two nothing is known, and only there. The ledger is
judged offline, by another process, and without a look into the journal.

A call is known by its number `n`, which the program gives it and the function gets as an argument.
A *boot* is one process: from the opening of the journal to its death or its close.
"""

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from msgspec import json

Event = tuple[int, int, str, list[Any]]
"""(boot, microseconds of the wall clock, word, values)"""

CRASHES: Final = 3
EARLY: Final = 2_000  # microseconds by which two readings of two clocks may differ
_encode: Final = json.Encoder().encode
_decode: Final = json.Decoder(Event).decode


class Ledger:
    """The writing end. `after` is called with the word of each event that is safe."""

    def __init__(self, path: str, boot: int, after: Callable[[str], object] | None = None) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._after = after
        self.boot = boot

    def tell(self, word: str, *values: Any) -> None:
        """One event, in one write."""
        os.write(
            self._file, _encode((self.boot, time.time_ns() // 1000, word, list(values))) + b"\n"
        )
        if self._after is not None:
            self._after(word)

    def close(self) -> None:
        os.close(self._file)


def read(path: str) -> list[Event]:
    """All that was told, in order."""
    with open(path, "rb") as file:
        return [_decode(line) for line in file]


@dataclass
class Run:
    """One run, as the function saw it. `how`: ok, fail, snooze or cancelled; None: no end."""

    boot: int
    attempt: int
    how: str | None = None


@dataclass
class Call:
    """What is known of one call.

    `floors`: the earliest times at which it may start, one of which is the true one. `attempts`:
    how many failures end it. `barred`: why it must never start again; `by`: the call that replaced
    it, if that is why. `spared`: newer calls up to this one were cancelled before it gave way.
    """

    n: int
    order: int  # among all calls
    key: tuple[str, str]
    floors: list[int]
    attempts: int
    id: str | None = None
    acked: bool = False
    ending: int | None = None  # the boot in which a cancel is on its way, or was told
    resolved: bool = False
    barred: str | None = None
    by: int = 0
    spared: int = -1
    taken: Run | None = None
    fair: bool = False  # it was not barred when it was taken
    runs: list[Run] = field(default_factory=list)
    crashes: set[int] = field(default_factory=set)  # boots that died during a run of it
    after: tuple[int, int] = (0, 0)  # (boot, the time before which the next attempt may not start)


class Judge:
    """Every law that can be seen from outside, for one journal and all its boots."""

    def __init__(self) -> None:
        self.wrongs: list[str] = []
        self.first = 0  # the boot of the first of them
        self.calls: dict[int, Call] = {}
        self.keys: dict[tuple[str, str], list[Call]] = {}
        self.ids: dict[str, Call] = {}
        self.acked = self.kills = self.boots = self.starts = 0
        self.lost: list[int] = []
        self.points: dict[str, int] = {}  # where it killed itself; "": it was killed
        self._running: dict[tuple[str, str], int] = {}
        self._ticks: dict[str, int] = {}
        self._chains: dict[str, set[int]] = {}  # schedules and the boots in which they ran
        self._over: dict[str, bool] = {}  # schedules that were cancelled: surely, or maybe
        self._limit = 0
        self._boot = -1

    def judge(self, events: Iterable[Event]) -> list[str]:
        """What is wrong, in words; nothing if all is well."""
        for event in events:
            boot, at, word, values = event
            getattr(self, f"_{word}")(boot, at, *values)
        return self.wrongs

    def add(self, other: "Judge") -> None:
        """The figures of another journal."""
        self.boots += other.boots
        self.kills += other.kills
        self.acked += other.acked
        self.starts += other.starts
        self.lost += other.lost
        for point, many in other.points.items():
            self.points[point] = self.points.get(point, 0) + many

    def wrong(self, boot: int, text: str) -> None:
        if not self.wrongs:
            self.first = boot
        self.wrongs.append(f"boot {boot}: {text}")

    # -- processes

    def _boot_begins(self, boot: int, at: int, limit: int) -> None:
        self._dies()  # the one before is gone, if that has not been told yet
        self._boot, self._limit = boot, limit
        self.boots += 1

    def _died(self, boot: int, at: int, point: str) -> None:
        """SIGKILL, from outside or, at some point, by its own hand."""
        self.points[point] = self.points.get(point, 0) + 1
        self.kills += 1
        if self._boot == boot:
            self._dies()

    def _dies(self) -> None:
        for call in self.calls.values():
            # Its last end may be unrecorded, if nobody was told of it.
            untold = call.barred is None or call.by
            if call.taken is not None and call.taken.boot == self._boot and untold:
                call.crashes.add(self._boot)
        self._running, self._boot = {}, -1

    def _closed(self, boot: int, at: int) -> None:
        """`close()` has returned: all ends are recorded."""
        for call in self.calls.values():
            if call.runs and call.runs[-1].boot == boot and self._is_over(call):
                self._bar(call, "its end was recorded by a close")
        self._running, self._boot = {}, -1

    def _ended_badly(self, boot: int, at: int, text: str) -> None:
        self.wrong(boot, text)

    def _note(self, boot: int, at: int, text: str) -> None:
        """Something for whoever reads the ledger."""

    # -- calls

    def _calling(
        self, boot: int, at: int, n: int, task: str, key: str | None, floor: int, attempts: int
    ) -> None:
        call = Call(n, len(self.calls), (task, key or f"#{n}"), [floor], attempts)
        self.calls[n] = call
        self.keys.setdefault(call.key, []).append(call)

    def _placed(self, boot: int, at: int, n: int, job: str) -> None:
        self._is(boot, self.calls[n], job)

    def _acked(self, boot: int, at: int, n: int) -> None:
        call = self.calls[n]
        call.acked = True
        self.acked += 1
        self._replaces(call)

    def _refused(self, boot: int, at: int, n: int) -> None:
        self.calls[n].barred = "it was refused"

    def _is(self, boot: int, call: Call, job: str) -> None:
        if call.id is None:
            call.id = job
            self.ids[job] = call
        elif call.id != job:
            self.wrong(boot, f"call {call.n} was {call.id} and is {job}")

    def _replaces(self, call: Call) -> None:
        """It is surely there, so the older calls of its key are not."""
        for older in self.keys[call.key]:
            if older.order < call.order > older.spared and older.barred is None:
                older.barred, older.by = f"call {call.n} has replaced it", call.n

    # -- what is done to calls

    def _cancelling(self, boot: int, at: int, n: int) -> None:
        newer = self.calls[n]
        newer.ending = boot
        for older in self.keys[newer.key]:
            run = older.taken
            if (
                older.order < newer.order
                and run is not None
                and run.boot == boot
                and run.how is None
            ):
                # It runs, so it has not given way yet, and now it will not have to.
                older.spared = newer.order
                if older.by:
                    older.barred, older.by = None, 0

    def _cancelled(self, boot: int, at: int, n: int) -> None:
        self._replaces(self.calls[n])
        self.calls[n].barred = "cancel() has returned True"

    def _moving(self, boot: int, at: int, n: int, floor: int) -> None:
        self.calls[n].floors.append(floor)
        self.calls[n].after = 0, 0

    def _moved(self, boot: int, at: int, n: int, floor: int) -> None:
        floors = self.calls[n].floors
        if floor in floors:
            del floors[: floors.index(floor)]
        self._replaces(self.calls[n])

    def _stopped(self, boot: int, at: int, n: int) -> None:
        self._replaces(self.calls[n])
        self._bar(self.calls[n], "cancel() of its run has returned True")

    def _seen(self, boot: int, at: int, n: int, what: str) -> None:
        """A waiter saw the outcome."""
        self._bar(self.calls[n], f"a waiter saw {what}")

    def _settled(self, boot: int, at: int, job: str, what: str) -> None:
        """An event told of the end, which comes when it is recorded."""
        if job in self.ids:
            self._bar(self.ids[job], f"{what} was told")

    def _bar(self, call: Call, why: str) -> None:
        if call.barred is None:
            call.barred = why

    def _is_over(self, call: Call) -> bool:
        """Its last run was surely the last."""
        match call.runs[-1].how:
            case "ok":
                return True
            case "cancelled":
                return (
                    call.ending == call.runs[-1].boot
                )  # else the queue was closed, and it runs again
            case "fail":  # of which some may be unrecorded
                return self._failures(call) - len(call.crashes) >= call.attempts
            case _:
                return False

    def _failures(self, call: Call) -> int:
        return sum(run.how == "fail" for run in call.runs)

    # -- runs

    def _taken(self, boot: int, at: int, n: int, attempt: int) -> None:
        """The start is about to be recorded."""
        call = self.calls[n]
        call.taken = Run(boot, attempt)
        call.fair = call.barred is None  # what is barred is taken too, until the journal says no

    def _started(self, boot: int, at: int, n: int, job: str, attempt: int) -> None:
        call = self.calls[n]
        self.starts += 1
        self._is(boot, call, job)
        if call.barred is not None and not (call.fair and call.taken == Run(boot, attempt)):
            self.wrong(boot, f"call {n} starts (attempt {attempt}), but {call.barred}")
        if at < min(call.floors) - EARLY or (call.after[0] == boot and at < call.after[1] - EARLY):
            early = max(min(call.floors), call.after[1]) - at
            self.wrong(boot, f"call {n} starts {early} microseconds early")
        self._judge_attempt(boot, call, attempt)
        self._begin(boot, call.key, n)
        for newer in self.keys[call.key]:  # an older call is there, so they are not
            if (
                newer.order > call.order
                and not newer.acked
                and newer.n // 1_000 != boot
                and newer.barred is None
            ):
                newer.barred = f"call {n} of its key, which is older, was still there"
        self._replaces(call)
        call.runs.append(Run(boot, attempt))

    def _judge_attempt(self, boot: int, call: Call, attempt: int) -> None:
        if not call.runs:
            return
        last = call.runs[-1]
        if attempt <= last.attempt:
            self.wrong(boot, f"call {call.n} is attempt {attempt} after attempt {last.attempt}")
        if last.boot == boot and last.how not in ("fail", "snooze"):
            self.wrong(boot, f"call {call.n} starts twice; its first run: {last.how}")
        if self._failures(call) - len(call.crashes) >= call.attempts:
            self.wrong(boot, f"call {call.n} starts too often: {call.runs}")

    def _begin(self, boot: int, key: tuple[str, str], n: int) -> None:
        if key in self._running:
            self.wrong(boot, f"call {n} starts beside {self._running[key]}, a run of its key")
        self._running[key] = n
        if len(self._running) > self._limit:
            self.wrong(boot, f"more than {self._limit} jobs run: {self._running}")

    def _ended(self, boot: int, at: int, n: int, attempt: int, how: str, wait: int) -> None:
        call = self.calls[n]
        self._running.pop(call.key, None)
        call.runs[-1].how = how
        if call.taken is not None:
            call.taken.how = how
        call.after = (boot, at + wait) if how in ("fail", "snooze") else (0, 0)
        if how == "ok" or (how == "fail" and self._failures(call) >= call.attempts):
            call.resolved = True

    # -- schedules

    def _chain_begun(self, boot: int, at: int, chain: str) -> None:
        """The schedule is acknowledged."""
        self._chains.setdefault(chain, set())

    def _chain_ending(self, boot: int, at: int, chain: str) -> None:
        self._over.setdefault(chain, False)

    def _chain_over(self, boot: int, at: int, chain: str) -> None:
        self._over[chain] = True

    def _tick(self, boot: int, at: int, chain: str, job: str, attempt: int) -> None:
        self.starts += 1
        if self._over.get(chain):
            self.wrong(boot, f"the schedule {chain} was cancelled and runs")
        if attempt <= self._ticks.get(job, 0):
            self.wrong(boot, f"the run {job} of {chain} starts as attempt {attempt} again")
        self._ticks[job] = attempt
        self._chains.setdefault(chain, set()).add(boot)
        self._begin(boot, (chain, ""), 0)

    def _tock(self, boot: int, at: int, chain: str) -> None:
        self._running.pop((chain, ""), None)

    # -- the end

    def _final(self, boot: int, at: int, n: int, state: str, error: str) -> None:
        """What the queue says of a call when everything has come to its end."""
        call = self.calls[n]
        crashed = error == "Crashed" and len(call.crashes) >= CRASHES
        call.resolved |= crashed
        if crashed and call.by and call.by // 1_000 <= max(call.crashes):
            self.wrong(boot, f"call {n} is FAILED by its crashes, but {call.barred}")
        right = {
            "succeeded": any(run.how == "ok" for run in call.runs),
            "failed": crashed or (error != "Crashed" and self._failures(call) >= call.attempts),
            "cancelled": call.ending is not None,
        }
        if not right.get(state, False):
            self.wrong(boot, f"call {n} is {state} {error} in the end: {call}")

    def _drained(self, boot: int, at: int) -> None:
        """All was run; who was acknowledged must have come to an end."""
        for key, calls in self.keys.items():
            newer_ended = False
            for call in reversed(calls):
                ended = call.resolved or call.ending is not None or len(call.crashes) >= CRASHES
                newer_ended = newer_ended or ended
                if call.acked and not newer_ended:
                    self.lost.append(call.n)
                    self.wrong(boot, f"call {call.n} of {key} was acknowledged and is lost: {call}")
        for chain, boots in self._chains.items():
            if boot not in boots and chain not in self._over:
                self.wrong(boot, f"the schedule {chain} was acknowledged and is lost")


def judged(path: str) -> Judge:
    """The judgement of a ledger."""
    judge = Judge()
    judge.judge(read(path))
    return judge
