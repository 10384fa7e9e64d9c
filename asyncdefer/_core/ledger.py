"""What became of every job: counts that must add up, and the ended jobs for `result_ttl`.

The conservation law: accepted + claimed = succeeded + failed + cancelled + replaced + expired
+ dropped + waiting + running + held.
"""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from msgspec import Struct

from asyncdefer._core.instant import seconds
from asyncdefer._core.job import Call
from asyncdefer._core.lifecycle import State

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


class Ended(Struct):
    """A job that has ended; its outcome stands in the call's answer. Times are steady."""

    call: Call
    started: int | None
    finished: int


class Ledger:
    """Counts and the ended jobs."""

    def __init__(self) -> None:
        self.accepted = 0
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self.ended: dict[int, Ended] = {}
        self._purge: list[tuple[int, int]] = []  # (when to forget, id)
        self._late: deque[int] = deque(maxlen=_SAMPLES)

    def started(self, late: int) -> None:
        self._late.append(late)

    def keep(self, ended: Ended, until: int | None, now: int) -> None:
        """Keep an ended job until a time, for ever with None."""
        self.purge(now)
        if until is not None and until <= now:
            return
        id_ = ended.call.id
        self.ended[id_] = ended
        heappush(self._purge, (until if until is not None else 1 << 62, id_))
        if len(self._purge) > KEPT:
            self.ended.pop(heappop(self._purge)[1], None)

    def purge(self, now: int) -> None:
        """Forget the ended jobs whose time is over."""
        purge = self._purge
        while purge and purge[0][0] <= now:
            self.ended.pop(heappop(purge)[1], None)

    def kept(self, now: int) -> Iterator[Ended]:
        self.purge(now)
        return iter(list(self.ended.values()))

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
            replaced=counts[State.REPLACED],
            expired=counts[State.EXPIRED],
            dropped=counts[State.DROPPED],
            lateness=Lateness(
                p50=seconds(late[len(late) // 2]),
                p99=seconds(late[len(late) * 99 // 100]),
                max=seconds(late[-1]),
            ),
        )
