"""Random schedules under random hands, checked against what was told and when it ran.

A simulation of its own beside the soak of calls: here the questions are whether a schedule lives as
long as it should and no longer, runs on its grid, one run at a time, and is never late without a
reason.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import asyncdefer
from asyncdefer import Cron, Every, GiveUp, Handle, Queue, Retry, Run, Snooze, State
from asyncdefer._core.instant import SECOND, instant
from asyncdefer.testing import VirtualClock, check_conservation
from tests.soak.simulation import Violation

KEYS: Final = ("a", "b", "c")
STEPS: Final = 50
PATIENCE: Final = 60.0  # how late a run may be that is else skipped
Rule = Cron | Every


@dataclass(eq=False)
class Life:
    """One schedule: what was said of it, and what has been seen."""

    key: str
    rule: Rule
    word: int
    handle: Handle[Any]
    alive: bool = True
    moved: bool = False
    """Somebody has moved the run that waits."""
    moves: int = 0
    """So often in all: each may be a run before its time, after which the grid is a step further."""
    first: int | None = None
    """The first instant of a period, on the steady clock."""
    last: int | None = None
    waiters: list[asyncio.Task[object]] = field(default_factory=list)


class Recurring:
    """One queue, a few keys, and hands that do what they like."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.seed = seed
        self.clock = VirtualClock()
        self.shift = 0  # of the wall clock against the steady one
        self.latest = self.clock.now()  # that the wall clock has shown
        self.slots = random.randint(1, 4)
        self.queue = Queue(concurrency=self.slots, clock=self.clock, drain_timeout=0.01)
        self.lives: dict[str, Life] = {}
        self.over: list[Life] = []
        self.once: list[asyncio.Task[object]] = []
        self.under_way: set[str] = set()
        self.words = 0
        self.wrong: list[str] = []
        self.paused = False
        self.wild = random.random() < 0.5  # runs that fail, snooze and take their time
        retry = random.choice([None, Retry(2, delay=1, jitter=False), Retry(3, delay=4, factor=1)])
        self.task = self.queue.task("job", retry=retry)(self.job)

    # -- what runs

    async def job(self, key: str, word: int) -> int:
        run = asyncdefer.current()
        self.demand(key not in self.under_way, f"two runs of {key} at once")
        self.under_way.add(key)
        try:
            life = self.lives.get(key)
            if life is not None and life.word == word:
                self.look_at(life, run)
            if self.wild:
                await self.act()
        finally:
            self.under_way.discard(key)
        return word

    async def act(self) -> None:
        """Take some time, and end in some way."""
        await asyncdefer.sleep(self.random.choice([0, 0, 0.5, 3, 8, 30]))
        match self.random.randrange(8):
            case 0:
                raise ValueError("on purpose")
            case 1:
                raise GiveUp("on purpose")
            case 2:
                raise Snooze(delay=self.random.choice([0, 1, 7]))
            case _:
                pass

    def look_at(self, life: Life, run: Run) -> None:
        """A run begins: is it one that its rule names, later than the last, and in time?"""
        self.demand(run.lateness >= 0, "before its time")
        if run.attempt > 1:
            return
        moved, life.moved = life.moved, False
        if moved:
            return
        eta = instant(run.eta) - (self.shift if life.rule.steady else 0)
        self.demand(life.last is None or eta > life.last, f"{run} again, or back")
        life.last = eta
        if isinstance(life.rule, Every):
            period = round(life.rule.period.total_seconds() * SECOND)  # type: ignore[union-attr]
            life.first = eta if life.first is None else life.first
            self.demand((eta - life.first) % period == 0, f"{run} is not on the grid")
        else:
            self.demand(eta % (5 * SECOND) == 0, f"{run} is not a time of {life.rule}")
        if life.rule.missed == "skip":
            self.demand(run.lateness <= self.patience(life.rule), f"{run} should be skipped")

    def patience(self, rule: Rule) -> float:
        return min(PATIENCE, self.period(rule) / 2)

    @staticmethod
    def period(rule: Rule) -> float:
        return rule.period.total_seconds() if isinstance(rule, Every) else 5.0  # type: ignore[union-attr]

    # -- what is done

    async def run(self) -> None:
        async with self.queue:
            for _ in range(STEPS):
                await self.hand()
                await self.clock.advance(self.random.choice([0, 0, 1, 5, 12.5, 60, 400]))
                self.check()
        check_conservation(self.queue)
        for _ in range(3):
            await asyncio.sleep(0)
        for life in [*self.lives.values(), *self.over]:
            self.demand(life.handle.done(), f"{life.handle} goes on after the close")
            self.demand(all(waiter.done() for waiter in life.waiters), f"{life.handle}: one waits")
        self.demand(all(waiter.done() for waiter in self.once), "one waits for a call")

    async def hand(self) -> None:
        """One thing that somebody does."""
        key = self.random.choice(KEYS)
        life = self.lives.get(key)
        match self.random.randrange(12):
            case 0 | 1 | 2:
                await self.begin(key)
            case 3 if life is not None:
                again = await self.enqueue(key, life.word, life.rule)
                self.demand(again.id == life.handle.id, "the same schedule again is another one")
            case 4 if life is not None:
                self.demand(await life.handle.cancel(), f"{life.handle} cannot be cancelled")
                self.end(life)
            case 5 if life is not None and life.handle.state is State.SCHEDULED:
                self.end(life)
                call = await self.task.options(key=key, delay=1).enqueue(key, self.word())
                self.once.append(asyncio.ensure_future(outcome(call)))
            case 6 if life is not None:
                self.move(life, await life.handle.flush())
            case 7 if life is not None:
                delay = self.random.choice([0, 3, 90])
                self.move(life, await life.handle.reschedule(delay=delay))
            case 8:
                self.paused = not self.paused
                (self.queue.pause if self.paused else self.queue.resume)()
            case 9:
                seconds = self.random.choice([-3600, -7, -0.4, 0.4, 7, 3600])
                self.shift += round(seconds * SECOND)
                self.clock.step(seconds)
            case 10 | 11 if life is not None:
                life.waiters.append(asyncio.ensure_future(outcome(life.handle)))
            case _:
                pass

    @staticmethod
    def move(life: Life, moved: bool) -> None:
        life.moved |= moved
        life.moves += moved

    async def begin(self, key: str) -> None:
        """A schedule, which takes the key of any other."""
        missed = self.random.choice(["once", "all", "skip"])
        rule: Rule = Every(self.random.choice([2, 7.5, 60, 300]), missed)
        if self.random.random() < 0.3:
            rule = Cron("*/5 * * * * *", missed=missed)
        word = self.word()
        old = self.lives.get(key)
        again = old is not None and old.handle.attempt > 0  # it waits for a retry, off the grid
        handle = await self.enqueue(key, word, rule)
        if old is not None:
            self.demand(old.handle.replaced, f"{old.handle} was not replaced")
            self.end(old)
        new = self.lives[key] = Life(key, rule, word, handle)
        if old is not None and old.rule == rule:  # it takes over the time of the other
            new.moved, new.moves = old.moved or again, old.moves

    async def enqueue(self, key: str, word: int, rule: Rule) -> Handle[int]:
        return await self.task.options(repeat=rule, key=key).enqueue(key, word)

    def word(self) -> int:
        self.words += 1
        return self.words

    def end(self, life: Life) -> None:
        life.alive = False
        self.lives.pop(life.key, None)
        self.over.append(life)

    # -- what must be

    def check(self) -> None:
        """At rest: who should live lives, and nobody is late without a reason."""
        self.demand(not self.wrong, "in a run")
        self.latest = max(self.latest, self.clock.now())
        scheduler: Any = self.queue._scheduler  # pyright: ignore[reportPrivateUsage] - the books are compared
        scheduler.agenda._check()
        listed = {key[1] for key in scheduler.schedules}
        self.demand(listed == set(self.lives), f"{listed} go on, not {set(self.lives)}")
        for life in self.lives.values():
            state = life.handle.state
            self.demand(not life.handle.done(), f"{life.handle} has ended by itself")
            self.demand(not life.handle.replaced, f"{life.handle} was replaced by nobody")
            if state is not State.SCHEDULED or life.moved:
                continue
            eta, now = life.handle.eta, self.clock.now()
            shown = now if life.rule.steady else self.latest  # no time of a calendar comes twice
            if life.handle.attempt == 0:
                wait = (eta - shown).total_seconds()
                most = self.period(life.rule) * (1 + life.moves)
                self.demand(wait <= most, f"{life.handle} comes in {wait} s only")
            if (
                not self.paused
                and len(self.under_way) < self.slots
                and life.key not in self.under_way
            ):
                self.demand(eta > now, f"{life.handle} could have started")
        for life in self.over:
            self.demand(
                life.handle.replaced or life.handle.done() or life.key in self.under_way,
                f"{life.handle} lives",
            )
        self.demand(self.queue.stats().expired == 0, "a run has expired, which none should")
        check_conservation(self.queue)

    def demand(self, holds: bool, what: str) -> None:
        if not holds:  # in a run the queue catches it, so it is kept
            self.wrong.append(f"at {self.clock!r}: {what}")
            raise Violation(self.wrong[0])


async def outcome(handle: Handle[Any]) -> object:
    """The result or the error of what a handle stands for."""
    try:
        return await handle
    except Exception as error:
        return error


def simulate(seed: int) -> None:
    """Run one seed; `Violation` if it breaks a promise."""
    try:
        asyncio.run(Recurring(seed).run())
    except Exception as error:
        error.add_note(f"schedules, seed {seed}; again with: scripts/soak --first {seed} --seeds 1")
        raise
