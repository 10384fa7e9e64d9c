"""Rates: how often a task may start, and when it may again.

The rule is GCRA, the generic cell rate algorithm (ITU-T I.371): one number for each key, the
theoretical arrival time of the next start. Nothing is reserved and nothing is given back: who may
not start yet stands in the lane of its key, and when that opens the first one goes on.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Final

from msgspec import Struct

from asyncdefer._core.checks import whole
from asyncdefer._core.instant import duration, positive

_SEQUENCE: Final[Any] = Sequence  # of what, a checker is not to wonder about


class _Rate(Struct, frozen=True):  # a base, so that these may be positional and the rest may not
    limit: int
    per: float | timedelta


class RateLimit(_Rate, frozen=True, kw_only=True):
    """At most `limit` starts in `per` (seconds or timedelta), evenly spaced.

    `burst`: how many may start at once after a rest; 1 if not given. `key`: names of parameters,
    or a function of the call's arguments; calls of different keys have rates of their own.
    `drop`: a call that may not start when it is due is not kept waiting but ends with
    `JobDropped`. `TypeError` or `ValueError` for what is none of these.
    """

    burst: int | None = None
    key: Sequence[str] | Callable[..., Any] | None = None
    drop: bool = False

    def __post_init__(self) -> None:
        whole(self.limit, "limit")
        if self.burst is not None:
            whole(self.burst, "burst")
        positive(self.per, "per")
        if isinstance(self.key, str):
            raise TypeError(f'RateLimit takes a list of parameter names: key=["{self.key}"]')
        if self.key is not None and not callable(self.key) and not isinstance(self.key, _SEQUENCE):
            raise TypeError("RateLimit takes key=[names of parameters] or a function of the call")
        if not isinstance(self.drop, bool):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are type-checked
            raise TypeError("drop is True or False")


class Gcra:
    """What a rate knows of one key.

    Times are kept in parts of a microsecond, `limit` of them to one, so that nothing is rounded.
    """

    __slots__ = ("_arrival", "_limit", "_per", "_slack")

    def __init__(self, rate: RateLimit) -> None:
        self._limit = rate.limit
        self._per = duration(rate.per, "per")
        self._slack = self._per * ((rate.burst or 1) - 1)
        self._arrival = 0

    def room(self, now: int) -> int:
        """How many may start at once."""
        early = now * self._limit + self._slack - self._arrival
        return min(early, self._slack) // self._per + 1 if early >= 0 else 0

    def take(self, now: int) -> None:
        """One starts."""
        self._arrival = max(self._arrival, now * self._limit) + self._per

    def opens(self, before: int = 0) -> int | None:
        """When there is room for one more than so many."""
        if before * self._per > self._slack:
            return None
        return -((self._slack - before * self._per - self._arrival) // self._limit)

    def arrival(self) -> int:
        """The theoretical arrival time of the next start, rounded up to microseconds."""
        return -(-self._arrival // self._limit)

    def restore(self, arrival: int) -> None:
        """Go on where another process was."""
        self._arrival = arrival * self._limit

    def idle(self, now: int) -> bool:
        """It remembers nothing any more: a new one would say the same."""
        return self._arrival <= now * self._limit
