"""What time it is, and waiting for a time. Nothing else in the library asks the system.

Two clocks run side by side. The wall clock is the one people mean, and may be set or stand
still in suspend. The steady clock is the wall clock of the start plus the monotonic seconds
since: nobody can set it. Both count microseconds.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextvars import Context
from datetime import datetime, timedelta
from typing import Protocol

from asyncdefer._core.instant import SECOND, duration, moment
from asyncdefer._core.job import Running, running

real: Callable[[], float] = time.monotonic
"""Real seconds, whatever the clock of a queue is; the time of a loop may be cached."""


class Alarm(Protocol):
    """A call that the clock will make, unless it is cancelled."""

    def cancel(self) -> object: ...


class Clocked(Protocol):
    """What a clock that is moved by hand has to know of a queue that lives by it."""

    def busy(self) -> str | None:
        """What is under way and does not wait for the clock, in words; None if nothing."""

    def one_shots(self) -> bool:
        """Some job waits or runs that is not a recurrence."""
        ...

    def wake(self) -> None:
        """Read the clock again."""


class Clock(ABC):
    """The two times, and waiting for one of them."""

    reread: int | None = None
    """Microseconds after which the wall clock is read again while something waits for it."""

    moves = True
    """It moves by itself."""

    @abstractmethod
    def wall(self) -> int:
        """Microseconds since 1970 in UTC, as the wall clock has it."""

    @abstractmethod
    def steady(self) -> int:
        """Microseconds that never jump, on the scale of the wall clock at the start."""

    @abstractmethod
    def call_at(self, when: int, callback: Callable[[], object]) -> Alarm:
        """Call back at a steady time or a little later, in an empty context."""

    def now(self) -> datetime:
        """The wall clock as an aware datetime in UTC."""
        return moment(self.wall())

    def monotonic(self) -> float:
        """The steady clock in seconds."""
        return self.steady() / SECOND

    def attach(self, client: Clocked) -> None:
        """A queue begins to live by this clock."""

    def detach(self, client: Clocked) -> None:
        """A queue has ended."""


class SystemClock(Clock):
    """The clocks of the system.

    CLOCK_MONOTONIC stands still in suspend and the wall clock may be set at any time, so while
    an eta is waited for the wall clock is read again every second.
    """

    reread: int | None = SECOND

    def __init__(self) -> None:
        self._start = (time.time_ns() - time.monotonic_ns()) // 1000

    def wall(self) -> int:
        return time.time_ns() // 1000

    def steady(self, _read: Callable[[], int] = time.monotonic_ns) -> int:
        return self._start + _read() // 1000

    def call_at(self, when: int, callback: Callable[[], object]) -> Alarm:
        # One microsecond more, since both readings are rounded down.
        delay = (when - self.steady() + 1) / SECOND
        loop = asyncio.get_running_loop()
        # uvloop counts in milliseconds and turns in circles for what is nearer than one.
        shortest = 0 if isinstance(loop, asyncio.BaseEventLoop) else 0.001
        return loop.call_later(max(delay, shortest), callback, context=Context())


async def wait_until(clock: Clock, when: int, run: Running) -> None:
    """Wait inside a run for a steady time; the run's books say that it waits for the clock."""
    future = asyncio.get_running_loop().create_future()

    def wake() -> None:
        if not future.done():
            run.waits -= 1
            future.set_result(None)

    run.waits += 1
    alarm = clock.call_at(when, wake)
    try:
        await future
    finally:
        alarm.cancel()
        if future.cancelled():
            run.waits -= 1


async def sleep(seconds: float | timedelta) -> None:
    """Sleep: in a job on the queue's clock, elsewhere it is `asyncio.sleep`."""
    run = running.get(None)
    span = seconds.total_seconds() if isinstance(seconds, timedelta) else seconds
    if run is None or span <= 0:
        await asyncio.sleep(span)
        return
    clock: Clock = run.scheduler.clock
    await wait_until(clock, clock.steady() + duration(span), run)
