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
        """Who is due, may start and has the first claim: the eta less the priority, then the id."""
        able = [
            burst
            for burst in waiting
            if burst.claim is not None
            and self.opens(burst) <= now
            and not self.shut(burst)
            and not expired(burst, now, wall)
        ]
        return min(able, key=lambda burst: burst.claim or (0, 0), default=None)


def expired(burst: Burst, now: int, wall: int) -> bool:
    """Its `expires` has run out, on the clock of its eta."""
    ends = burst.call.expires
    return ends is not None and (now if burst.steady else wall) >= burst.eta + ends
