"""The records of the model: a rule, a task, a call, and the burst of calls that share an outcome."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from asyncdefer import Handle

Key = tuple[str, str]  # the task, and the call's key or, without one, its id
Outcome = tuple[Any, BaseException | None]


@dataclass(frozen=True)
class Rule:
    """A defer rule as the library takes it, and the same in plain words."""

    defer: Any
    shown: Callable[[str], str | None]
    keep: str = "last"
    max_wait: int | None = None
    leading: bool = False


@dataclass(eq=False)
class Kind:
    """A task, or a bare function that is scheduled with options. Times are microseconds."""

    name: str
    rule: Rule
    target: Any = None
    bare: bool = False
    thread: bool = False
    delay: int = 0
    timeout: int | None = None
    expires: int | None = None
    paused: bool = False


def shown_by_name(key: str) -> str:
    return json.dumps([key])


def shown_by_all(key: str) -> str:
    return json.dumps([key, []], separators=(",", ":"))


@dataclass
class Call:
    """What one call asks for, before anything is made of it."""

    kind: Kind
    user: str
    key: str | None
    n: tuple[int, ...]
    steady: bool
    eta: int
    timeout: int | None
    expires: int | None
    mark: int


@dataclass(eq=False)
class Burst:
    """The calls of a key that share one outcome."""

    key: Key
    call: Call  # the newest
    args: tuple[int, ...]
    steady: bool
    eta: int
    handles: list[Handle[Any]]
    folded: int = 1
    attempt: int = 0
    bound: int | None = None
    window: int | None = None
    moved: bool = False  # by reschedule or flush, which max_wait does not bound
    came: bool = False  # its eta had come; who is due stays due when the clock is set back
    begun: int | None = None
    due: datetime | None = None  # its eta as the wall clock had it when it began
    inside: bool = False
    interrupted: bool = False
    left: Outcome | None = None  # how its function ended
    left_at: int = 0
    cancelled: bool = False
    discarded: bool = False
    kept: bool = True
    follows: "Burst | None" = None
    seen: list[Outcome] = field(default_factory=list)

    @property
    def newest(self) -> Handle[Any]:
        return self.handles[-1]

    @property
    def root(self) -> "Burst":
        return self if self.follows is None else self.follows.root

    def __repr__(self) -> str:
        return f"{self.key} {self.newest.id} (call {self.call.mark})"
