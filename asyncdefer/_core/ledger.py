"""What became of every job: counts that must add up, and the ended jobs for `result_ttl`.

The conservation law: accepted + claimed = succeeded + failed + cancelled + replaced + expired
+ dropped + waiting + running + held.
"""

from collections import deque
from typing import Final

from msgspec import Struct

from asyncdefer._core.instant import seconds
from asyncdefer._core.job import Call
from asyncdefer._core.lifecycle import State
from asyncdefer._core.timeline import Timeline

KEPT: Final = 10_000  # ended jobs that can be looked up at most; the one that is purged first goes
_SAMPLES: Final = 1_024


class Lateness(Struct, frozen=True):
    """How late the last thousand runs started, in seconds."""

    p50: float
    p99: float
    max: float


class Stats(Struct, frozen=True):
    """Counts since the start, how many jobs are in each state now, and how late runs start."""

    accepted: int
    claimed: int
    waiting: int
    running: int
    held: int
    succeeded: int
    failed: int
    cancelled: int
    replaced: int
    expired: int
    dropped: int
    lateness: Lateness

    @property
    def balanced(self) -> bool:
        """The conservation law holds."""
        ended = self.succeeded + self.failed + self.cancelled
        gone = self.replaced + self.expired + self.dropped
        present = self.waiting + self.running + self.held
        return self.accepted + self.claimed == ended + gone + present


class Ledger:
    """Counts and the ended jobs."""

    def __init__(self) -> None:
        self.accepted = 0
        self.replaced = 0
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self.ended: dict[int, Call] = {}
        self._purge = Timeline()  # lines of (when to forget, id)
        self._late: deque[int] = deque(maxlen=_SAMPLES)

    def started(self, late: int) -> None:
        self._late.append(late)

    def keep(self, call: Call, until: int, now: int) -> None:
        """Keep an ended job until a time."""
        purge = self._purge
        first = purge.first()
        if first is not None and first[0] <= now:
            self.purge(now)
        if until > now:
            self.ended[call.id] = call
            purge.push((until, call.id))
            if len(self.ended) > KEPT:
                self.ended.pop(self._oldest(), None)

    def purge(self, now: int) -> None:
        """Forget the ended jobs whose time is over."""
        purge = self._purge
        while (line := purge.first()) is not None and line[0] <= now:
            self.ended.pop(self._oldest(), None)

    def _oldest(self) -> int:
        line = self._purge.pop()
        return -1 if line is None else int(line[1])

    def kept(self, now: int) -> list[Call]:
        self.purge(now)
        return list(self.ended.values())

    def stats(self, waiting: int, running: int) -> Stats:
        late = sorted(self._late) or [0]
        counts = self.counts
        return Stats(
            accepted=self.accepted,
            claimed=0,
            waiting=waiting,
            running=running,
            held=0,
            succeeded=counts[State.SUCCEEDED],
            failed=counts[State.FAILED],
            cancelled=counts[State.CANCELLED],
            replaced=self.replaced,
            expired=counts[State.EXPIRED],
            dropped=counts[State.DROPPED],
            lateness=Lateness(
                p50=seconds(late[len(late) // 2]),
                p99=seconds(late[len(late) * 99 // 100]),
                max=seconds(late[-1]),
            ),
        )
