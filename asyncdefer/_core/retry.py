"""When to run again after a failure: exponential backoff with full jitter.

The rule is the one of the AWS builders' library: each wait is drawn evenly from zero to a bound
that grows with every failure, so that many jobs that failed together do not come back together.
"""

import random
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from msgspec import Struct

from asyncdefer._core.checks import whole
from asyncdefer._core.instant import duration
from asyncdefer.errors import GiveUp

_TUPLE: Final[Any] = tuple  # of what, a checker is not to wonder about
Errors = type[BaseException] | tuple[type[BaseException], ...]
Delay = float | timedelta | Callable[[int, BaseException], float | timedelta]


class _Attempts(Struct, frozen=True):  # a base, so that this may be positional and the rest may not
    attempts: int


class Retry(_Attempts, frozen=True, kw_only=True):
    """How often a job that fails is tried, and how long it waits in between.

    `attempts`: runs in all, the first one too. The wait after the n-th failure is
    `min(delay * factor ** (n - 1), max_delay)`, in seconds; with `jitter` it is a random part of
    that. `delay` and `max_delay` may be timedeltas; `delay` may also be a function of (n, error)
    that returns the wait itself. `jitter` may be a function that returns a number from 0 to 1.
    Only errors of the kinds `on` are retried, and of these none of the kinds `unless`.
    """

    delay: Delay = 1.0
    factor: float = 2.0
    max_delay: float | timedelta = 3600.0
    jitter: bool | Callable[[], float] = True
    on: Errors = Exception
    unless: Errors = ()

    def __post_init__(self) -> None:
        whole(self.attempts, "attempts")
        if not callable(self.delay):
            duration(self.delay)
        duration(self.max_delay, "max_delay")
        if isinstance(self.factor, bool) or not isinstance(self.factor, int | float):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are type-checked
            raise TypeError(f"factor must be a number, not {type(self.factor).__name__}")
        if not 0 <= self.factor < float("inf"):
            raise ValueError(f"factor must be finite and not negative, not {self.factor}")
        if not callable(self.jitter) and not isinstance(self.jitter, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - as above
            raise TypeError("jitter is True, False or a function that returns 0 to 1")
        for name in ("on", "unless"):
            kinds: Any = getattr(self, name)
            for kind in kinds if isinstance(kinds, _TUPLE) else (kinds,):
                if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                    raise TypeError(f"{name} takes exception classes, not {kind!r}")

    def wait(self, failures: int, error: BaseException) -> int | None:
        """Microseconds to the next run after so many failures; None if there is to be none."""
        if failures >= self.attempts or isinstance(error, GiveUp):
            return None
        if not isinstance(error, self.on) or isinstance(error, self.unless):
            return None
        if callable(self.delay):
            return duration(self.delay(failures, error))
        most = duration(self.max_delay, "max_delay")
        try:
            bound = min(int(duration(self.delay) * self.factor ** (failures - 1)), most)
        except OverflowError:
            bound = most if duration(self.delay) else 0
        if callable(self.jitter):
            return round(bound * self.jitter())
        return round(bound * random.random()) if self.jitter else bound


def read_retry(value: int | Retry) -> Retry:
    """`retry=5` is `Retry(5)`."""
    return value if isinstance(value, Retry) else Retry(value)
