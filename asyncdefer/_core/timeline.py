"""Lines in order: a priority queue of (time, id, key).

The container knows nothing of jobs. A line is never taken out from the middle: its owner knows
whether it still means something, and counts the ones that do not in `stale`.

Lines that arrive in order (one constant delay for all, which is the common program) go to the
end of a deque and come off its front, both in constant time; only the others pay for the heap.
The deque holds no tuples but their members, one after another: a million far timers are a
million tuples less, in memory and for the garbage collector.
"""

from collections import deque
from collections.abc import Callable, Iterator
from heapq import heapify, heappop, heappush
from typing import Any

Line = tuple[int, int, Any]


class Timeline:
    """A heap with a fast lane for lines that come in order."""

    __slots__ = ("_heap", "_row", "stale")

    def __init__(self) -> None:
        self._row: deque[Any] = deque()  # time, id, key, time, id, key, …: sorted
        self._heap: list[Line] = []
        self.stale = 0  # lines in here that mean nothing any more

    def __len__(self) -> int:
        return len(self._row) // 3 + len(self._heap)

    def __iter__(self) -> Iterator[Line]:
        yield from self._in_row()
        yield from self._heap

    def _in_row(self) -> Iterator[Line]:
        row = iter(self._row)
        return zip(row, row, row, strict=True)

    def push(self, line: Line) -> None:
        row = self._row
        if not row or line[0] > row[-3] or (line[0] == row[-3] and line[1] > row[-2]):
            row.extend(line)
        else:
            heappush(self._heap, line)

    def first(self) -> Line | None:
        """The line that is next, which stays."""
        heap = self._heap
        row = self._row
        if not row:
            return heap[0] if heap else None
        line = (row[0], row[1], row[2])
        return heap[0] if heap and heap[0] < line else line

    def pop(self) -> Line | None:
        """Take the line that is next."""
        heap = self._heap
        row = self._row
        if row and not (heap and heap[0] < (row[0], row[1], row[2])):
            take = row.popleft
            return take(), take(), take()
        return heappop(heap) if heap else None

    def compact(self, live: Callable[[Line], bool]) -> None:
        """Forget the stale lines once they are the greater half."""
        if self.stale * 2 <= len(self) or len(self) < 64:
            return
        self._row = deque(member for line in self._in_row() if live(line) for member in line)
        self._heap = [line for line in self._heap if live(line)]
        heapify(self._heap)
        self.stale = 0

    def _check(self) -> None:
        """The structure's own proof."""
        row = list(self._in_row())
        assert row == sorted(row)
        heap = self._heap
        assert all(heap[(at - 1) // 2] <= heap[at] for at in range(1, len(heap)))
        assert 0 <= self.stale <= len(self)
