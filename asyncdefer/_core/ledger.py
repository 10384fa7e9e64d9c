"""What became of every job: counts that must add up, and the ended jobs for `result_ttl`.

The conservation law: accepted + claimed = succeeded + failed + cancelled + replaced + expired
+ dropped + waiting + running + held.
"""

from collections import OrderedDict, deque
from typing import Final

from msgspec import Struct

from asyncdefer._core.instant import seconds
from asyncdefer._core.job import Call
from asyncdefer._core.lifecycle import State

KEPT: Final = 10_000  # ended jobs that can be looked up at most; the one that ended first goes
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
        self.claimed = 0
        self.replaced = 0
        self.counts: dict[State, int] = dict.fromkeys(State, 0)
        self._ended: OrderedDict[int, Call] = OrderedDict()
        self._late: deque[int] = deque(maxlen=_SAMPLES)
        self.started = self._late.append

    def keep(self, call: Call) -> None:
        """Keep an ended job until the time in its answer, or until 10,000 others have ended."""
        ended = self._ended
        ended[call.id] = call
        if len(ended) > KEPT:
            ended.popitem(last=False)

    def purge(self, now: int) -> None:
        """Let go of those at the front whose time is over."""
        ended = self._ended
        while ended and next(iter(ended.values())).shared().final().until <= now:
            ended.popitem(last=False)

    def find(self, id: int, now: int) -> Call | None:
        """The ended job of an id, as long as it is kept."""
        call = self._ended.get(id)
        if call is not None and call.shared().final().until <= now:
            self.forget(id)
            return None
        return call

    def forget(self, id: int) -> None:
        self._ended.pop(id, None)

    def kept(self, now: int) -> list[Call]:
        """All of them."""
        return [call for id in tuple(self._ended) if (call := self.find(id, now)) is not None]

    def stats(self, waiting: int, running: int, held: int = 0) -> Stats:
        late = sorted(self._late) or [0]
        counts = self.counts
        return Stats(
            accepted=self.accepted,
            claimed=self.claimed,
            waiting=waiting,
            running=running,
            held=held,
            succeeded=counts[State.SUCCEEDED],
            failed=counts[State.FAILED],
            cancelled=counts[State.CANCELLED],
            replaced=self.replaced,
            expired=counts[State.EXPIRED],
            dropped=counts[State.DROPPED],
            lateness=Lateness(
                p50=seconds(_percentile(late, 50)),
                p99=seconds(_percentile(late, 99)),
                max=seconds(late[-1]),
            ),
        )


def _percentile(ranked: list[int], percent: int) -> int:
    """The nearest rank: the least value that so many percent of all do not exceed."""
    return ranked[-(-len(ranked) * percent // 100) - 1]
