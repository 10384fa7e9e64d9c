"""What may be said of a queue as a whole: in its constructor, and by `configure` while it is stopped."""

import os
from datetime import timedelta
from typing import Any, Literal, TypedDict, Unpack, cast

from msgspec import Struct, structs

from asyncdefer._clock import Clock, SystemClock
from asyncdefer._core.checks import whole
from asyncdefer._core.instant import duration
from asyncdefer.stores._base import Store
from asyncdefer.stores.sqlite import SQLiteStore


class QueueOptions(TypedDict, total=False):
    """What `Queue(…)` and `configure(…)` take."""

    journal: str | os.PathLike[str] | Store | None
    concurrency: int
    threads: int
    result_ttl: float | timedelta | None
    drain_timeout: float
    on_locked: Literal["raise", "standby"]
    clock: Clock | None


class Settings(Struct, frozen=True):
    """The same, checked; `result_ttl` is in microseconds, `drain_timeout` in seconds."""

    journal: Store | None
    concurrency: int
    threads: int
    result_ttl: int | None
    drain_timeout: float
    on_locked: Literal["raise", "standby"]
    clock: Clock

    def but(self, **options: Unpack[QueueOptions]) -> "Settings":
        """These settings with some of them changed."""
        return structs.replace(self, **_read(options))


def settings_of(**options: Unpack[QueueOptions]) -> Settings:
    """The settings of a new queue; all of them are given."""
    return Settings(**_read(options))


def _read(options: QueueOptions) -> dict[str, Any]:
    """What was given, as settings; everything is checked before anything is made of it."""
    for name in options:
        if name not in QueueOptions.__annotations__:
            raise TypeError(f"a queue has no option {name!r}")
    for name in ("concurrency", "threads"):
        whole(options.get(name, 1), name)
    read: dict[str, Any] = dict(options)
    if options.get("result_ttl") is not None:
        read["result_ttl"] = duration(cast(float, options.get("result_ttl")), "result_ttl")
    if "drain_timeout" in options:
        read["drain_timeout"] = duration(options["drain_timeout"], "drain_timeout") / 1e6
    on_locked = options.get("on_locked", "raise")
    if on_locked not in ("raise", "standby"):
        raise ValueError(f'on_locked is "raise" or "standby", not {on_locked!r}')
    if "clock" in options:
        read["clock"] = options["clock"] or SystemClock()
    if "journal" in options:
        read["journal"] = _store_of(options["journal"])
    return read


def _store_of(journal: str | os.PathLike[str] | Store | None) -> Store | None:
    """The store that a queue's `journal` means; `TypeError` for what is none."""
    if journal is None:
        return None
    if isinstance(journal, str | os.PathLike):
        return SQLiteStore(journal)
    if not callable(getattr(journal, "claim", None)):
        raise TypeError(
            f"a journal is None, the path of a file or a store, not {type(journal).__name__}"
        )
    return journal
