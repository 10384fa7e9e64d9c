"""The policies of a task in plain words, and the same as the library takes them.

Each knows what follows from records: from how often a job failed, or from when jobs started.
Spans are microseconds. Schedules (`repeat`) have a simulation of their own, `schedules.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from fractions import Fraction
from random import Random
from typing import Any, Final

from asyncdefer import GiveUp, RateLimit, Retry
from asyncdefer._core.instant import SECOND

Errors = tuple[type[BaseException], ...]


@dataclass(frozen=True)
class Retries:
    """`share`: what a jitter function says; None is the library's own draw, 1 is no jitter."""

    attempts: int
    delay: int
    factor: float
    most: int
    share: float | None
    on: Errors
    unless: Errors

    def given(self) -> Retry:
        return Retry(
            self.attempts,
            delay=timedelta(microseconds=self.delay),
            factor=self.factor,
            max_delay=timedelta(microseconds=self.most),
            jitter=self._jitter(),
            on=self.on,
            unless=self.unless,
        )

    def _jitter(self) -> bool | Callable[[], float]:
        share = self.share
        if share is None or share == 1:
            return share is None
        return lambda: share

    def covers(self, failures: int, error: BaseException) -> bool:
        """Whether another attempt follows, after so many failures of which this is the last."""
        kind = isinstance(error, self.on) and not isinstance(error, (*self.unless, GiveUp))
        return kind and failures < self.attempts

    def waits(self, failures: int) -> tuple[int, int]:
        """The shortest and the longest time until it, but for rounding."""
        longest = min(self.delay * Fraction(self.factor) ** (failures - 1), Fraction(self.most))
        if self.share is None:
            return 0, int(longest) + 1
        wait = longest * Fraction(self.share)
        return int(wait) - 1, int(wait) + 1


ON: Final[tuple[Errors, ...]] = (
    (Exception,),
    (Exception,),
    (BaseException,),
    (ArithmeticError, TimeoutError),
)
UNLESS: Final[tuple[Errors, ...]] = ((), (), (ConnectionError,), (TimeoutError,))


def some_retries(random: Random) -> Retries:
    choose = random.choice
    return Retries(
        attempts=choose((1, 2, 3, 4)),
        delay=choose((0, 1, 2, 5)) * SECOND,
        factor=choose((0, 1, 1.5, 2, 3)),
        most=choose((3, 10, 3600)) * SECOND,
        share=choose((None, None, 1, 0, 0.5)),
        on=choose(ON),
        unless=choose(UNLESS),
    )


@dataclass(frozen=True)
class Rate:
    """`by`: the parameter, or the function, that makes the key; None if there is none."""

    limit: int
    per: int
    burst: int | None
    by: Any
    drop: bool

    def given(self) -> RateLimit:
        per = timedelta(microseconds=self.per)
        return RateLimit(self.limit, per, burst=self.burst, key=self.by, drop=self.drop)

    def key(self, user: str) -> str:
        return "" if self.by is None else user

    def opens(self, starts: list[int]) -> int:
        """When the next one may start after these, in time order.

        Of any `burst + n` starts in a row the first and the last are at least n spaces apart. That
        is what GCRA promises, said without its state.
        """
        free = self.burst or 1
        apart = [
            start * self.limit + (len(starts) - at + 1 - free) * self.per
            for at, start in enumerate(starts)
            if len(starts) - at >= free
        ]
        return -(-max(apart, default=0) // self.limit)


def some_rate(random: Random, ways: tuple[Any, ...]) -> Rate:
    choose = random.choice
    return Rate(
        limit=choose((1, 2, 3, 7)),
        per=choose((1, 4, 10, 25)) * SECOND,
        burst=choose((None, None, 2, 3)),
        by=choose(ways),
        drop=random.random() < 0.25,
    )
