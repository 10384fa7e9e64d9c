"""The records of the model: a rule, a task, a call, and the burst of calls that share an outcome."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from asyncdefer import Handle
from tests.soak.policies import Rate, Retries

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
    function: Any = None
    target: Any = None
    bare: bool = False
    thread: bool = False
    delay: int = 0
    timeout: int | None = None
    expires: int | None = None
    retry: Retries | None = None
    rate: Rate | None = None
    concurrency: int | None = None
    priority: int = 0
    fails: bool = False  # nearly always
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
    retry: Retries | None
    priority: int
    mark: int


@dataclass(eq=False)
class Burst:
    """The calls of a key that share one outcome."""

    key: Key
    call: Call  # the newest
    user: str
    args: tuple[int, ...]
    steady: bool
    eta: int
    handles: list[Handle[Any]]
    folded: int = 1
    attempt: int = 0
    failures: int = 0
    bound: int | None = None
    window: int | None = None
    moved: bool = False  # by reschedule or flush, which max_wait does not bound
    claim: tuple[int, int] | None = None  # its place in line, once the queue knows that it is due
    begun: int | None = None
    due: datetime | None = None  # its eta as the wall clock had it when it began
    inside: bool = False
    interrupted: bool = False
    left: Outcome | None = None  # how its function ended
    left_at: int = 0
    cancelled: bool = False
    discarded: bool = False
    spared: bool = False  # it folded into a retry, which is not dropped, and stands in its place
    dropped: bool = False  # its rate had no room
    kept: bool = True
    follows: "Burst | None" = None
    seen: list[Outcome] = field(default_factory=list[Outcome])

    @property
    def newest(self) -> Handle[Any]:
        return self.handles[-1]

    @property
    def root(self) -> "Burst":
        return self if self.follows is None else self.follows.root

    @property
    def lane(self) -> tuple[str, str]:
        """The task and the key of its rate."""
        rate = self.call.kind.rate
        return self.call.kind.name, "" if rate is None else rate.key(self.user)

    @property
    def timed_out(self) -> bool:
        """Its time was up when its function ended: the clock goes to that time before jobs do."""
        limit = self.call.timeout
        return limit is not None and self.left_at >= (self.begun or 0) + limit

    def __repr__(self) -> str:
        return f"{self.key} {self.newest.id} (call {self.call.mark})"
