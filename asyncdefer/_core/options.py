"""What may be said about a call: on the decorator, and for one call by `.options(…)`.

Options given to a call are laid over those of its task; the task's are read at the run.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, Literal, TypedDict

from msgspec import UNSET, Struct, UnsetType

from asyncdefer._core.checks import checked_key, whole
from asyncdefer._core.instant import duration, instant, positive
from asyncdefer._core.rate import RateLimit
from asyncdefer._core.recurrence import Repeat, read_repeat
from asyncdefer._core.retry import Retry, read_retry

Merge = Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]


class Defer(Struct, frozen=True):
    """How calls of one key fold into one run.

    `params`: the names of the parameters that make the key; None stands for all of them.
    `key`: a callable instead, which gets the call's arguments and returns the key.
    `max_wait`: seconds or timedelta; the run starts at the latest this long after the first
    call of the burst. `leading`: the first call runs at once, and the last one at the end if
    there was more than one. `keep`: whose arguments count: `"last"`, `"first"`, or a function
    `merge(old, new)` that gets and returns the bound arguments as dicts.
    """

    params: Sequence[str] | None = None
    key: Callable[..., Any] | None = None
    max_wait: float | timedelta | None = None
    leading: bool = False
    keep: Literal["last", "first"] | Merge = "last"

    @property
    def plain(self) -> bool:
        """Newest call wins, and nothing else to remember."""
        return self.keep == "last" and not self.leading and self.max_wait is None

    def __post_init__(self) -> None:
        if isinstance(self.params, str):
            raise TypeError(f'defer takes a list of parameter names: defer=["{self.params}"]')
        if self.params is not None and self.key is not None:
            raise TypeError("Defer takes params or key, not both")
        if self.key is not None and not callable(self.key):
            raise TypeError("Defer(key=…) takes a callable that returns the key")
        if self.keep not in ("last", "first") and not callable(self.keep):
            raise ValueError(f'keep must be "last", "first" or a function, not {self.keep!r}')
        if self.max_wait is not None:
            duration(self.max_wait, "max_wait")

    @property
    def bound(self) -> int | None:
        """`max_wait` in microseconds."""
        return None if self.max_wait is None else duration(self.max_wait, "max_wait")


DeferRule = bool | Sequence[str] | Callable[..., Any] | Defer


class SharedOptions(TypedDict, total=False):
    """What may be said of a task and of a call."""

    delay: float | timedelta | None
    defer: DeferRule | None
    retry: int | Retry | None
    priority: float | timedelta | None
    repeat: Repeat | None
    timeout: float | timedelta | None
    expires: float | timedelta | None
    result_ttl: float | timedelta | None


class TaskOptions(SharedOptions, total=False):
    """What a decorator takes beside the name."""

    concurrency: int | None
    rate_limit: RateLimit | None


class CallOptions(SharedOptions, total=False):
    """What `.options(…)` takes for one call."""

    eta: datetime | None
    key: str | None
    after: Sequence[Any] | None
    after_failure: Literal["run", "cancel"] | None


WHILE_AWAITED: Final = -1
"""As a `result_ttl`: for as long as a job that is held waits for this one."""


class Options(Struct, frozen=True):
    """The same, checked and in microseconds. UNSET: not given; None: given as nothing."""

    delay: int | None | UnsetType = UNSET
    defer: Defer | None | UnsetType = UNSET
    retry: Retry | None | UnsetType = UNSET
    priority: int | None | UnsetType = UNSET
    concurrency: int | None | UnsetType = UNSET
    rate_limit: RateLimit | None | UnsetType = UNSET
    repeat: Repeat | None | UnsetType = UNSET
    timeout: int | None | UnsetType = UNSET
    expires: int | None | UnsetType = UNSET
    result_ttl: int | None | UnsetType = UNSET
    eta: int | None | UnsetType = UNSET
    key: str | None | UnsetType = UNSET
    after: tuple[Any, ...] | None | UnsetType = UNSET
    after_failure: str | None | UnsetType = UNSET


def _defer(value: DeferRule) -> Defer | None:
    if isinstance(value, Defer):
        return value
    if isinstance(value, bool):
        return Defer() if value else None
    if callable(value):
        return Defer(key=value)
    return Defer(params=value if isinstance(value, str) else tuple(value))


def _head_start(value: float | timedelta) -> int:
    return duration(value, "priority")


def _rate_limit(value: RateLimit) -> RateLimit:
    if not isinstance(value, RateLimit):  # pyright: ignore[reportUnnecessaryIsInstance] - as below
        raise TypeError(f"rate_limit takes RateLimit(limit, per), not {type(value).__name__}")
    return value


def _after(value: Sequence[Any]) -> tuple[Any, ...]:
    if isinstance(value, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] - as below
        return tuple(value)
    raise TypeError(f"after takes a list of handles, not {type(value).__name__}")


def _after_failure(value: str) -> str:
    if value not in ("run", "cancel"):
        raise ValueError(f'after_failure is "run" or "cancel", not {value!r}')
    return value


_READ: dict[str, Callable[[Any], Any]] = {
    "delay": duration,
    "defer": _defer,
    "retry": read_retry,
    "priority": _head_start,
    "concurrency": lambda value: whole(value, "concurrency"),
    "rate_limit": _rate_limit,
    "repeat": read_repeat,
    "timeout": lambda value: positive(value, "timeout"),
    "expires": lambda value: positive(value, "expires"),
    "result_ttl": lambda value: duration(value, "result_ttl"),
    "eta": instant,
    "key": checked_key,
    "after": _after,
    "after_failure": _after_failure,
}


def read_options(given: TaskOptions | CallOptions, allowed: type) -> Options:
    """Check what a user gave. `allowed` is `TaskOptions` or `CallOptions`."""
    known = allowed.__annotations__
    for name in given:
        if name not in known:
            raise TypeError(f"there is no option {name!r} here; the options are {', '.join(known)}")
    if given.get("eta") is not None and given.get("delay") is not None:
        raise TypeError("give eta or delay, not both")
    read: dict[str, Any] = {
        name: None if value is None else _READ[name](value) for name, value in given.items()
    }
    return Options(**read)
