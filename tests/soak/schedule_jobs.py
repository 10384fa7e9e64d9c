"""The tasks of a random program of schedules, and runs that misbehave."""

import asyncio
from abc import ABC, abstractmethod
from datetime import timedelta
from random import Random
from typing import Any, Final, Literal

import asyncdefer
from asyncdefer import GiveUp, Queue, QueueClosed, Retry, Snooze
from asyncdefer._core.instant import SECOND, moment
from tests.soak.policies import some_rate
from tests.soak.schedule_model import Model
from tests.soak.schedule_records import Expected, Kind, Rhythm
from tests.soak.seams import RestingClock

OWN: Final = "@repeat"  # the key of the schedule of a decorator
MISSED: Final[tuple[Literal["once", "all", "skip"], ...]] = ("once", "all", "skip")
PERIODS: Final = (1 * SECOND, 2 * SECOND, 3_300_001, 7 * SECOND, 20 * SECOND, 150 * SECOND)
CALENDARS: Final = {"*/5 * * * * *": 5, "*/20 * * * * *": 20, "* * * * *": 60, "*/5 * * * *": 300}
ERRORS: Final = (ZeroDivisionError, KeyError, TimeoutError, GiveUp, QueueClosed)


class ScheduleJobs(ABC):
    """The queue of a seed, its tasks, and what they do when they run."""

    model: Model
    loop: asyncio.AbstractEventLoop

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.clock = RestingClock()
        self.trace: list[tuple[object, ...]] = []
        self.concurrency = self.random.choice((1, 2, 3, 10))
        self.queue = Queue(concurrency=self.concurrency, drain_timeout=0, clock=self.clock)
        if self.chance(0.5):  # events are made only if somebody listens
            self.queue.subscribe(lambda event: self.note(event.name, event.job_id, event.key))
        self.kinds = [self.kind(f"task{at}") for at in range(self.random.choice((1, 2, 3)))]
        self.n = 0
        self.failing = False  # the loop is torn down, and nobody moves the clock any more

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def span(self, *seconds: int) -> int:
        """One of these, in microseconds, or a little more."""
        return self.random.choice(seconds) * SECOND + self.random.choice((0, 0, 0, 1, 700_001))

    def note(self, *what: object) -> None:
        self.trace.append((self.clock.steady(), *what))

    @abstractmethod
    async def meddle(self) -> None: ...

    # -- tasks and their runs

    def rhythm(self) -> Rhythm:
        missed = self.random.choice(MISSED)
        if self.chance(0.3):
            calendar, period = self.random.choice(tuple(CALENDARS.items()))
            return Rhythm(period * SECOND, calendar, missed)
        return Rhythm(self.random.choice(PERIODS), None, missed)

    def kind(self, name: str) -> Kind:
        kind, choose = Kind(name), self.random.choice
        options: dict[str, Any] = {}
        kind.fails = self.chance(0.2)
        if self.chance(0.3):
            kind.retry = choose((2, 3)), choose((0, 1, 4)) * SECOND
            options["retry"] = Retry(
                kind.retry[0], delay=kind.retry[1] // SECOND, factor=1, jitter=False
            )
        if self.chance(0.2):
            kind.timeout = 4 * SECOND
            options["timeout"] = 4
        if self.chance(0.2):
            kind.expires = choose((1, 3, 20)) * SECOND
            options["expires"] = kind.expires // SECOND
        if self.chance(0.2):
            options["concurrency"] = kind.concurrency = choose((1, 2))
        if self.chance(0.2):
            kind.rate = some_rate(self.random, (None,))
            options["rate_limit"] = kind.rate.given()
        if self.chance(0.3):
            kind.rhythm = self.rhythm()
            options["repeat"] = kind.rhythm.given()

        async def job(n: int | None = None) -> object:
            return await self.job(kind, n)

        kind.target = self.queue.task(name, **options)(job)
        return kind

    async def job(self, kind: Kind, n: int | None) -> object:
        run = asyncdefer.current()
        self.note("run", kind.name, n, run.id)
        job = self.model.enter((kind.name, run.key or run.id), n, run)
        left: Expected = None, asyncio.CancelledError
        try:
            value = await self.deeds(kind)
            left = value, None
        except BaseException as error:
            left = None, error
            raise
        finally:
            if job is not None:
                job.left = left
        return value

    async def deeds(self, kind: Kind) -> object:
        swallows = self.chance(0.2)
        for _ in range(self.random.choice((0, 0, 0, 1, 1, 2))):
            try:
                if self.chance(0.7):
                    await asyncdefer.sleep(self.span(0, 1, 1, 3, 8, 30) / SECOND)
                elif not self.model.closing:
                    await self.meddle()
            except asyncio.CancelledError:
                if not swallows or self.failing or self.model.closing:
                    raise
                swallows = False
        choice = self.random.random()
        if choice < 0.08:
            raise Snooze(timedelta(microseconds=self.span(0, 1, 10)))
        if choice < 0.12:
            raise Snooze(eta=moment(self.clock.wall() + self.span(-2, 1, 10)))
        if choice < 0.25 or kind.fails:
            raise self.random.choice(ERRORS)("on purpose")
        return object()
