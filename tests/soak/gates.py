"""Who may start, by records of who started and who runs: an own count of everything shut."""

from collections import defaultdict
from collections.abc import Iterable

from tests.soak.records import Burst, Key, Kind


class Gates:
    """What a job that is due has to find open. `running` is the model's, and only read."""

    def __init__(self, running: dict[Key, Burst]) -> None:
        self._running = running
        self._starts: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
        self._opens: dict[tuple[str, str], int] = {}

    def started(self, burst: Burst, now: int) -> None:
        rate = burst.call.kind.rate
        if rate is not None:
            starts = self._starts[burst.lane]
            starts.append(now)
            self._opens[burst.lane] = rate.opens(starts)

    def opens(self, burst: Burst) -> int:
        """When its rate has room, if nobody else of its rate key starts before."""
        return self._opens.get(burst.lane, 0)

    def running(self, kind: Kind) -> int:
        return sum(burst.call.kind is kind for burst in self._running.values())

    def shut(self, burst: Burst) -> bool:
        """Something else than time keeps it from starting."""
        kind = burst.call.kind
        full = kind.concurrency is not None and self.running(kind) >= kind.concurrency
        return kind.paused or full or burst.key in self._running

    def first(self, waiting: Iterable[Burst], now: int, wall: int) -> Burst | None:
        """Who is due, may start and has the first claim: the eta less the priority, then the id.

        A lane that opens sends its first, and looks again in the next turn when that one turns out
        to be unable. So those behind it do not count here.
        """
        held: list[Burst] = []
        for burst in sorted((b for b in waiting if b.claim), key=lambda b: b.claim or (0, 0)):
            shut = self.shut(burst) or self.opens(burst) > now or expired(burst, now, wall)
            if not shut and not any(share_a_lane(burst, other) for other in held):
                return burst
            if shut:
                held.append(burst)
        return None


def share_a_lane(burst: Burst, other: Burst) -> bool:
    """Both need a slot of the same task, or room in the same rate."""
    kind = burst.call.kind
    same = burst.lane == other.lane if kind.concurrency is None else kind is other.call.kind
    return same and not (kind.concurrency is None and kind.rate is None)


def expired(burst: Burst, now: int, wall: int) -> bool:
    """Its `expires` has run out, on the clock of its eta."""
    ends = burst.call.expires
    return ends is not None and (now if burst.steady else wall) >= burst.eta + ends
