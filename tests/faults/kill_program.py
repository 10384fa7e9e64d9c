"""The program that is killed: a queue with a journal, and callers who do whatever callers do.

Each *life* is one process. It opens the journal that the lives before have left, works for some
hundredths of a second and closes, if it gets so far. What it does comes from the seed and the
number of the life; what the clock and the system make of that does not.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from asyncdefer import (
    Defer,
    Every,
    Handle,
    JobFailed,
    LogEvent,
    Queue,
    QueueClosed,
    Retry,
    Snooze,
    current,
)
from asyncdefer._core.job import Running
from asyncdefer._journal import Journal
from asyncdefer.stores._base import Set
from asyncdefer.testing import check_conservation
from tests.faults.ledger import Ledger

WAIT: Final = 0.01  # seconds before a retry, and of a nap
FAILURES: Final = 3  # attempts of the task that fails
NAPS: Final = 2
LIMIT: Final = 4  # jobs at once
HOUR: Final = 3_600.0
CHAIN: Final = "chain"
_ENDS: Final = ("job_succeeded", "job_failed", "job_cancelled")
_KEYED: Final = ("latest", "bounded", "leading", "napping", "failing")
_PLAIN: Final = ("note", "long", "thread")


def microseconds() -> int:
    return time.time_ns() // 1000


class Life:
    """One process of a seed."""

    def __init__(self, path: str, ledger: Ledger, seed: int, boot: int) -> None:
        self.ledger = ledger
        self.tell = ledger.tell
        self.boot = boot
        self.random = Random(f"{seed} {boot}")
        self.calls = 0
        self.waiters: list[asyncio.Task[None]] = []
        self.handles: list[Handle[Any]] = []
        ttl = Random(seed).choice((0, 0.05, HOUR, HOUR))
        self.queue = Queue(path, concurrency=LIMIT, result_ttl=ttl, drain_timeout=0.05)
        self.declare()
        if self.random.random() < 0.5:  # to be heard costs another way through the library
            self.queue.subscribe(self.hear)

    # -- the jobs

    def declare(self) -> None:
        queue, retry = self.queue, Retry(FAILURES, delay=WAIT, factor=1, jitter=False)

        @queue.task("note")
        async def note(n: int, text: str) -> int:
            return await self.run(n, text)

        @queue.task("long")
        async def long(n: int, text: str) -> int:
            return await self.run(n, text, 0.03)

        @queue.task("thread")
        def thread(n: int, text: str) -> int:
            self.begin(n, text)
            time.sleep(0.002)
            return self.end(n, "ok")

        @queue.task("latest", defer=True)
        async def latest(n: int, text: str) -> int:
            return await self.run(n, text, 0.005)

        @queue.task("bounded")
        async def bounded(n: int, text: str) -> int:
            return await self.run(n, text)

        @queue.task("leading")
        async def leading(n: int, text: str) -> int:
            return await self.run(n, text)

        @queue.task("napping")
        async def napping(n: int, text: str) -> int:
            self.begin(n, text)
            await asyncio.sleep(0)
            if current().attempt <= NAPS:
                self.end(n, "snooze", WAIT)
                raise Snooze(WAIT)
            return self.end(n, "ok")

        @queue.task("failing", retry=retry)
        async def failing(n: int, text: str) -> int:
            self.begin(n, text)
            await asyncio.sleep(0)
            self.end(n, "fail", WAIT)
            raise ValueError(n)

        @queue.task("tick", repeat=Every(timedelta(seconds=0.02)))
        async def tick() -> None:
            await self.tick("tick")

        @queue.task(CHAIN)
        async def chain() -> None:
            await self.tick(CHAIN)

    def begin(self, n: int, text: str) -> None:
        if text != text_of(n):
            self.tell("ended_badly", f"call {n} got {text!r}")
        self.tell("started", n, current().id, current().attempt)

    def end(self, n: int, how: str, wait: float = 0) -> int:
        self.tell("ended", n, current().attempt, how, int(wait * 1e6))
        return n

    async def run(self, n: int, text: str, seconds: float = 0) -> int:
        self.begin(n, text)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            self.end(n, "cancelled")
            raise
        return self.end(n, "ok")

    async def tick(self, name: str) -> None:
        self.tell("tick", name, current().id, current().attempt)
        try:
            await asyncio.sleep(0.001)
        finally:
            self.tell("tock", name)

    # -- what is told

    def hear(self, event: LogEvent) -> None:
        if event.name in _ENDS and event.task not in ("tick", CHAIN):
            self.tell("settled", event.job_id, event.name)

    async def wait(self, n: int, handle: Handle[Any]) -> None:
        """What a waiter sees, of the call that has run in the end."""
        try:
            self.tell("seen", await handle, "its result")
        except QueueClosed:
            return
        except ValueError as error:
            self.tell("seen", error.args[0], "its error")
        except JobFailed:
            if not handle.replaced:
                self.tell("seen", n, "that it crashed")
        except Exception:
            if not handle.replaced:
                self.tell("seen", n, "that it was cancelled")

    # -- what callers do

    def number(self) -> int:
        self.calls += 1
        return self.boot * 1_000 + self.calls

    def announce(self) -> tuple[int, Any, dict[str, Any]]:
        """A call of some kind: its number, its task and its options."""
        random, n = self.random, self.number()
        keyed = random.random() < 0.6
        name = random.choice(_KEYED if keyed else _PLAIN)
        delay = random.choice((0, 0, 0.005, 0.02, random.random() / 10, 0.3, HOUR))
        key = f"k{random.randrange(3)}" if keyed else None
        early = name in ("bounded", "leading")
        options: dict[str, Any] = {"key": key}
        if name == "bounded":
            options["defer"] = Defer(key=fixed, max_wait=0.05)
        elif name == "leading":
            options["defer"] = Defer(key=fixed, leading=True)
        if random.random() < 0.2 and not early:
            eta = datetime.now(UTC) + timedelta(seconds=delay)
            options["eta"] = eta
        else:
            options["delay"] = delay
        floor = microseconds() + (0 if early else int(delay * 1e6))
        attempts = FAILURES if name == "failing" else 1
        self.tell("calling", n, name, key, floor, attempts)
        return n, self.queue.task_of(name), options
