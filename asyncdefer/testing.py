"""Time for tests: a clock that moves when it is told to, and a program's own queue on it."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import UTC, datetime, timedelta
from heapq import heapify, heappop, heappush
from itertools import count
from os import PathLike
from typing import Final

from asyncdefer._clock import Alarm, Clock, Clocked
from asyncdefer._core.instant import SECOND, duration, instant
from asyncdefer._queue import Queue
from asyncdefer.stores._base import Store

__all__ = ["VirtualClock", "check_conservation", "virtual"]

_PASSES: Final = 10  # turns of the loop without anything to do that count as rest
_SPINS: Final = 50  # turns before a busy job is waited for in real time
_START: Final = datetime(2027, 1, 1, tzinfo=UTC)


class _Alarm:
    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], object]) -> None:
        self.callback: Callable[[], object] | None = callback

    def cancel(self) -> None:
        self.callback = None


class VirtualClock(Clock):
    """A clock for tests. Wall and steady time move together; nothing is patched.

    It goes from eta to eta and lets every job that starts there settle before the next: until
    no turn is due, and every running job waits for the clock (`asyncdefer.sleep`, a handle).
    A job that awaits anything else, or runs in a thread, is busy: it is waited for in real time
    up to `patience` seconds, and then named in a `TimeoutError`.
    """

    moves = False

    def __init__(self, start: datetime = _START) -> None:
        self._steady = instant(start)
        self._shift = 0  # the wall clock against the steady one
        self._alarms: list[tuple[int, int, _Alarm]] = []
        self._full = 64
        self._number = count()
        self._clients: list[Clocked] = []
        self._moving = False

    def wall(self) -> int:
        return self._steady + self._shift

    def steady(self) -> int:
        return self._steady

    def call_at(self, when: int, callback: Callable[[], object]) -> Alarm:
        alarm = _Alarm(callback)
        if len(self._alarms) >= self._full:  # of those that were cancelled, most likely
            self._alarms = [line for line in self._alarms if line[2].callback is not None]
            heapify(self._alarms)
            self._full = 2 * len(self._alarms) + 64
        heappush(self._alarms, (when, next(self._number), alarm))
        return alarm

    def attach(self, client: Clocked) -> None:
        self._clients.append(client)

    def detach(self, client: Clocked) -> None:
        if client in self._clients:
            self._clients.remove(client)

    def step(self, seconds: float | timedelta) -> None:
        """Set the wall clock alone, forward or (negative) back, as an administrator would."""
        span = seconds if isinstance(seconds, timedelta) else timedelta(seconds=seconds)
        self._shift += duration(abs(span), "step") * (1 if span >= timedelta() else -1)
        for client in self._clients:
            client.wake()

    async def advance(self, seconds: float | timedelta, *, patience: float = 5) -> None:
        """Let time pass, from eta to eta. `patience=0` does not wait for busy jobs."""
        target = self._steady + duration(seconds, "advance")
        async with self._mover():
            await self._settle(patience)
            while (when := self._next()) is not None and when <= target:
                self._fire(when)
                await self._settle(patience)
            self._steady = target

    async def run_until_idle(self, *, patience: float = 5) -> None:
        """Let time pass until no job waits or runs; recurrences do not count."""
        async with self._mover():
            await self._settle(patience)
            while any(client.one_shots() for client in self._clients):
                when = self._next()
                if when is None:
                    return  # what is left waits for something else, such as a resume
                self._fire(when)
                await self._settle(patience)

    @asynccontextmanager
    async def _mover(self) -> AsyncGenerator[None, None]:
        if self._moving:
            raise RuntimeError("two tasks move this clock at once: let one of them do it")
        self._moving = True
        try:
            yield
        finally:
            self._moving = False

    def _next(self) -> int | None:
        alarms = self._alarms
        while alarms and alarms[0][2].callback is None:
            heappop(alarms)
        return alarms[0][0] if alarms else None

    def _fire(self, when: int) -> None:
        """Go to a time and make the calls that are due there."""
        self._steady = max(self._steady, when)
        while (when_ := self._next()) is not None and when_ <= self._steady:
            callback = heappop(self._alarms)[2].callback
            if callback is not None:
                Context().run(callback)

    async def _settle(self, patience: float) -> None:
        """Wait until the queues are at rest; the rest of the program gets its turns too."""
        loop = asyncio.get_running_loop()
        deadline: float | None = None
        rest = spins = 0
        while rest < _PASSES:
            await asyncio.sleep(0 if spins < _SPINS else 0.001)
            busy = [text for client in self._clients if (text := client.busy()) is not None]
            if not busy or (patience == 0 and spins >= _PASSES):
                rest += 1
                continue
            rest = 0
            spins += 1
            if deadline is None:
                deadline = loop.time() + patience
            elif loop.time() > deadline and patience > 0:
                raise TimeoutError(
                    f"after {patience} real seconds still busy: {', '.join(busy)}. A job on a"
                    " virtual clock should wait with asyncdefer.sleep(); to go on all the same,"
                    " give patience=0"
                )

    def __repr__(self) -> str:
        return f"<VirtualClock {self.now().isoformat()} +{self._shift / SECOND}s>"


def check_conservation(queue: Queue) -> None:
    """`AssertionError` if a job was lost or counted twice."""
    stats = queue.stats()
    if not stats.balanced:
        raise AssertionError(f"jobs were lost or counted twice: {stats}")


@asynccontextmanager
async def virtual(
    queue: Queue,
    journal: str | PathLike[str] | Store | None = None,
    *,
    start: datetime = _START,
) -> AsyncGenerator[VirtualClock, None]:
    """Run a program's own queue, with its registered tasks, on a virtual clock and another journal."""
    clock, own = VirtualClock(start), queue.settings
    queue.configure(journal=journal, clock=clock)
    try:
        async with queue:
            yield clock
        check_conservation(queue)
    finally:
        queue.configure(journal=own.journal, clock=own.clock)
