"""Lanes that shut and open, moved at random: nobody passes a shut one, and nobody is forgotten."""

from collections import Counter, deque
from collections.abc import Callable, Hashable
from contextvars import Context
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from asyncdefer._core.agenda import EVERYTHING, Agenda
from asyncdefer._core.instant import SECOND
from asyncdefer._core.job import NO_KWARGS, Call, Key, More
from asyncdefer._core.lane import Lane, Lanes, RateLane, Slots
from asyncdefer._core.options import Options
from asyncdefer._core.rate import RateLimit


@dataclass(frozen=True)
class Declared:
    name: str
    declared: Options = field(default_factory=Options)

    @property
    def identity(self) -> Hashable:
        return self.name


TASKS = [
    Declared("free"),
    Declared("slots", Options(concurrency=2)),
    Declared("one", Options(concurrency=1, priority=3)),
    Declared("rate", Options(rate_limit=RateLimit(3, per=6e-6))),
    Declared("bursts", Options(rate_limit=RateLimit(1, per=4e-6, burst=3, key=["x"]))),
    Declared("both", Options(concurrency=2, rate_limit=RateLimit(1, per=2e-6, burst=2))),
    Declared("drops", Options(rate_limit=RateLimit(1, per=5e-6, drop=True))),
]


class Driver:
    """An agenda in which anything may happen next."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.agenda = Agenda(self.random.choice((2, 5, 50)))
        self.now = 0
        self.last = 0
        self.running: list[Call] = []
        self.started: dict[tuple[str, str], deque[int]] = {}
        self.accepted = self.done = self.dropped = self.gone = 0

    def call(self) -> None:
        random = self.random
        self.last += 1
        task = random.choice(TASKS)
        key: Any = self.last if random.random() < 0.5 else (task.name, random.choice("abc"))
        more = More(rate=random.choice("xy") if task.name == "bursts" else "")
        if random.random() < 0.2:
            more = More(rate=more.rate, options=Options(priority=random.randrange(9)))
        eta = self.now + random.choice((0, 0, 0, 1, 5))
        call = Call(self.last, task, key, eta, True, (), NO_KWARGS, Context(), 1, more)
        self.accepted += 1
        if self.agenda.place(call, eta <= self.now, eta) is not None:
            self.gone += 1

    def meddle(self) -> None:
        if not self.agenda.waiting:
            return
        key = self.random.choice(list(self.agenda.waiting))
        call = self.agenda.waiting[key]
        match self.random.randrange(3):
            case 0:
                assert self.agenda.remove(key) is call
                self.gone += 1
            case 1:
                self.agenda.place(call.again(self.now, steady=True), True, self.now)
            case _:
                self.agenda.place(call.again(self.now + 7, steady=True))

    def pause(self) -> None:
        identity = self.random.choice(TASKS).identity
        if self.random.random() < 0.6:
            self.agenda.lanes.resume(identity)
        else:
            self.agenda.lanes.pause(identity)

    def end(self) -> None:
        if self.running:
            call = self.running.pop(self.random.randrange(len(self.running)))
            self.agenda.release(call.key)
            self.done += 1

    def turn(self, limit: int = EVERYTHING) -> None:
        assert self.agenda.take_due(self.now, self.now, limit) == []
        self.agenda.looks = limit
        while (call := self.agenda.take(self.now, self.now, [])) is not None:
            self.running.append(call)
            assert call.eta <= self.now
            assert call.task.identity not in self.agenda.lanes.paused
            rate = call.task.declared.rate_limit
            if rate:
                self.within(
                    rate, self.started.setdefault((call.task.name, call.more.rate), deque())
                )
        self.dropped += len(self.agenda.dropped)
        assert all(call.task.name == "drops" for call in self.agenda.dropped)
        self.agenda.dropped.clear()
        counts = Counter(call.task.name for call in self.running)
        assert counts["slots"] <= 2
        assert counts["both"] <= 2
        assert counts["one"] <= 1
        assert len(self.running) <= self.agenda.concurrency

    def within(self, rate: RateLimit, started: deque[int]) -> None:
        most, window = rate.limit + (rate.burst or 1) - 1, round(float(rate.per) * SECOND)  # type: ignore[arg-type]
        started.append(self.now)
        if len(started) > most:
            assert self.now - started.popleft() >= window

    def check(self) -> None:
        self.agenda._check()
        waiting = len(self.agenda.waiting)
        assert self.accepted == self.done + self.dropped + self.gone + waiting + len(self.running)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            match self.random.randrange(12):
                case 0 | 1 | 2 | 3:
                    self.call()
                case 4:
                    self.meddle()
                case 5:
                    self.pause()
                case 6 | 7 | 8:
                    self.end()
                case 9:
                    self.now += self.random.choice((1, 1, 3, 20))
                case _:
                    self.turn(self.random.choice((1, 3, EVERYTHING)))
            self.check()

    def finish(self) -> None:
        """Everything is resumed and ends: then everything starts, without help, by its own times."""
        for task in TASKS:
            self.agenda.lanes.resume(task.identity)
        for _ in range(100_000):
            if not (self.agenda.waiting or self.running):
                break
            self.turn()
            if not self.agenda.startable():
                while self.running:
                    self.end()
            if not self.agenda.startable() and self.agenda.waiting:
                when, _ = self.agenda.next_times()
                assert when is not None, "nobody would ever come to those who wait"
                self.now = max(self.now, when)
        self.check()
        assert not self.agenda.waiting
        assert not self.running


@pytest.mark.parametrize("seed", range(150))
def test_nobody_passes_a_shut_lane_and_nobody_is_forgotten(seed: int) -> None:
    """Whatever is called, cancelled, moved, paused and ended in between, in turns long and short."""
    driver = Driver(seed)
    driver.run(400)
    driver.finish()


def deaf_to_ends(lanes: Lanes, key: Key) -> None:
    """A run that ended frees no slot."""
    lanes.passed.pop(key, ())


def no_one_follows(lanes: Lanes, key: Key) -> None:
    """A call that was sent back to `ready` is never counted as arrived."""


def never_by_itself(lanes: Lanes, now: int, limit: int) -> int:
    """Lanes that open at a time are not looked at again."""
    lanes.opening.clear()
    return drain(lanes, now, limit)


drain = Lanes.drain


@pytest.mark.parametrize(
    ("place", "bug"),
    [
        ("release", deaf_to_ends),
        ("arrive", no_one_follows),
        ("drain", never_by_itself),
    ],
)
def test_a_planted_bug_is_found(
    place: str, bug: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver can fail."""
    monkeypatch.setattr(Lanes, place, bug)
    with pytest.raises(AssertionError):
        for seed in range(20):
            driver = Driver(seed)
            driver.run(400)
            driver.finish()


@pytest.mark.parametrize("lane", [Slots, RateLane])
def test_a_gate_that_is_always_open_is_noticed(
    lane: type[Lane], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The driver counts who is inside by itself."""
    monkeypatch.setattr(lane, "room", lambda self, now: EVERYTHING)
    with pytest.raises(AssertionError):
        for seed in range(20):
            Driver(seed).run(400)
