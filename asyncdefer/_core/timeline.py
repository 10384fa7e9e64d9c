"""Lines in order: a priority queue of plain tuples that start with (time, id, key).

The container knows nothing of jobs. A line is never taken out from the middle: its owner knows
whether it still means something, and counts the ones that do not in `stale`.

Lines that arrive in order (one constant delay for all, which is the common program) go to the
end of a deque and come off its front, both in constant time; only the others pay for the heap.
"""

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any

Line = tuple[Any, ...]


class Timeline:
    """A heap with a fast lane for lines that come in order."""

    __slots__ = ("_heap", "_row", "stale")

    def __init__(self) -> None:
        self._row: deque[Line] = deque()  # sorted
        self._heap: list[Line] = []
        self.stale = 0  # lines in here that mean nothing any more

    def __len__(self) -> int:
        return len(self._row) + len(self._heap)

    def __iter__(self) -> Iterator[Line]:
        yield from self._row
        yield from self._heap

    def push(self, line: Line) -> None:
        row = self._row
        if not row or line > row[-1]:
            row.append(line)
        else:
            heappush(self._heap, line)

    def first(self) -> Line | None:
        """The line that is next, which stays."""
        heap = self._heap
        row = self._row
        if not heap:
            return row[0] if row else None
        return row[0] if row and row[0] < heap[0] else heap[0]

    def pop(self) -> Line | None:
        """Take the line that is next."""
        heap = self._heap
        row = self._row
        if not heap:
            return row.popleft() if row else None
        if row and row[0] < heap[0]:
            return row.popleft()
        return heappop(heap)

    def compact(self, live: Callable[[Line], bool]) -> None:
        """Forget the stale lines once they are the greater half."""
        if self.stale * 2 <= len(self) or len(self) < 64:
            return
        self._row = deque(line for line in self._row if live(line))
        self._heap = [line for line in self._heap if live(line)]
        heapify(self._heap)
        self.stale = 0

    def _check(self) -> None:
        """The structure's own proof."""
        row = list(self._row)
        assert row == sorted(row)
        heap = self._heap
        assert all(heap[(at - 1) // 2] <= heap[at] for at in range(1, len(heap)))
        assert 0 <= self.stale <= len(self)
