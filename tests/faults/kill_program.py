"""The program that is killed: a queue with a journal, and callers who do whatever callers do.

Each *life* is one process. It opens the journal that the lives before have left, works for some
hundredths of a second and closes, if it gets so far. What it does comes from the seed and the
number of the life; what the clock and the system make of that does not.
"""

import asyncio
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final

from asyncdefer import Defer, Every, Job, LogEvent, Queue, Retry, Snooze, current
from asyncdefer.testing import check_conservation
from tests.faults.kill_callers import CHAIN, FAILURES, Callers, text_of
from tests.faults.ledger import Ledger

WAIT: Final = 0.01  # seconds before a retry, and of a nap
NAPS: Final = 2
LIMIT: Final = 4  # jobs at once
CHAINS: Final = ("tick", CHAIN)
SOON: Final = timedelta(seconds=0.1)
_ENDS: Final = ("job_succeeded", "job_failed", "job_cancelled")


class Life:
    """One process of a seed."""

    def __init__(self, path: str, ledger: Ledger, seed: int, boot: int) -> None:
        self.ledger = ledger
        self.tell = ledger.tell
        self.boot = boot
        self.random = Random(f"{seed} {boot}")
        self.ticked = {name: asyncio.Event() for name in CHAINS}
        ttl = Random(seed).choice((0, 0.05, 3_600, 3_600))
        self.queue = Queue(path, concurrency=LIMIT, result_ttl=ttl, drain_timeout=0.03)
        self.declare()
        chain = Random(seed).randrange(5, 60)
        self.callers = Callers(self.queue, self.tell, self.random, boot, chain)
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

        @queue.task("latest", defer=["name"])
        async def latest(n: int, text: str, name: str) -> int:
            return await self.run(n, text, 0.005)

        @queue.task("bounded", defer=Defer(["n"], max_wait=0.05))
        async def bounded(n: int, text: str) -> int:
            return await self.run(n, text)

        @queue.task("leading", defer=Defer(["n"], leading=True))
        async def leading(n: int, text: str) -> int:
            return await self.run(n, text)

        @queue.task("napping")
        async def napping(n: int, text: str) -> int:
            await self.run(n, text, how="snooze" if current().attempt <= NAPS else "ok")
            if current().attempt <= NAPS:
                raise Snooze(WAIT)
            return n

        @queue.task("failing", retry=retry)
        async def failing(n: int, text: str) -> int:
            raise ValueError(await self.run(n, text, how="fail"))

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

    def end(self, n: int, how: str) -> int:
        wait = WAIT if how in ("snooze", "fail") else 0
        self.tell("ended", n, current().attempt, how, int(wait * 1e6))
        return n

    async def run(self, n: int, text: str, seconds: float = 0, how: str = "ok") -> int:
        self.begin(n, text)
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            try:
                await asyncio.sleep(seconds / 3)  # it has something to put in order
            finally:  # also when it is cancelled twice
                self.end(n, "cancelled")
            raise
        return self.end(n, how)

    async def tick(self, name: str) -> None:
        self.tell("tick", name, current().id, current().attempt)
        self.ticked[name].set()
        try:
            await asyncio.sleep(0.001)
        finally:
            self.tell("tock", name)

    # -- what is told

    def hear(self, event: LogEvent) -> None:
        if event.name in _ENDS and event.task not in CHAINS:
            self.tell("settled", event.job_id, event.name)

    # -- its life

    async def live(self) -> None:
        """From the start to the close; callers go on to call while the queue closes."""
        random = self.random
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, found: self.wrong(f"{found}"))
        await self.queue.start()
        callers = self.callers
        actors = [asyncio.create_task(callers.act()) for _ in range(4)]
        await asyncio.sleep(random.choice((0, 0.01, 0.02, 0.03)))
        closing = asyncio.create_task(self.queue.close())
        if random.random() < 0.2:
            await asyncio.sleep(random.random() / 200)
            closing.cancel()
        with suppress(asyncio.CancelledError):
            await closing
        self.tell("closed")
        for actor in actors:
            actor.cancel()
        await asyncio.wait(actors)
        self.check()

    async def drain(self) -> None:
        """Let all that is left come to its end, and say what became of it."""
        self.queue.configure(drain_timeout=5)
        async with self.queue:
            callers = self.callers
            while left := [job async for job in self.queue.jobs() if not_ended(job)]:
                for job in left:
                    if job.state == "scheduled" and job.eta > datetime.now(UTC) + SOON:
                        await callers.flush(await self.queue.handle(job.id))
                await asyncio.sleep(0.005)
            self.tell("chain_begun", "tick")
            names = ["tick"]
            if await self.queue.pending(CHAIN, CHAIN) is not None:
                names.append(CHAIN)
            for name in names:  # if it does not come, the watch of the parent does
                await self.ticked[name].wait()
            async for job in self.queue.jobs():
                if job.task not in CHAINS:
                    error = "" if job.error is None else job.error.type
                    self.tell("final", job.arguments["n"], job.state.value, error)
            self.tell("drained")
        self.tell("closed")
        self.check()

    def check(self) -> None:
        """The books of the queue balance."""
        scheduler: Any = self.queue._scheduler
        try:
            check_conservation(self.queue)
            scheduler.agenda._check()
        except AssertionError as error:
            self.wrong(f"{error!r}")

    def wrong(self, text: str) -> None:
        self.tell("ended_badly", text)


def not_ended(job: Job) -> bool:
    return not job.state.ended and job.task not in CHAINS
