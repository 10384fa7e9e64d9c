"""The program that is recorded: it uses its journal in every way, and says what it was promised.

    python -m tests.faults.power_program FOLDER FIRST SEED KIND END

It is a process of its own in real time, since what is recorded are its system calls. Each thing
that it is about to do, and each thing that it was told, is one line and one `os.write` to
`FOLDER/acks`, so the recording has them in their order among the writes of the journal.

`KIND`: `full`, `normal`; and the programs that must be found wanting: `off` (no sync at all),
`early` (says "accepted" before the commit). `END`: `close`, or `kill` (-9).
"""

import asyncio
import logging
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any, Final

from asyncdefer import Handle, JobCancelled, Queue, QueueClosed, Retry, State, current
from asyncdefer.stores import sqlite
from asyncdefer.stores.sqlite import SQLiteStore
from tests.faults.workplace import checkpoint_every

STEPS: Final = 100
GROUPS: Final = (2, 4, 8, 16, 64)  # calls in one; the store writes many rows by one statement
KEYS: Final = 8
PAGES: Final = 48  # of the -wal, after which it is checkpointed; 1,000 in real life


class Program:
    """One process: a queue from its start to its close or its death."""

    def __init__(self, folder: Path, first: int, seed: int, kind: str) -> None:
        self.random = random.Random(seed)
        self.number = first
        self.early = kind == "early"
        self.latest: dict[str, tuple[int, Handle[Any]]] = {}
        self.loose: list[tuple[int, Handle[Any]]] = []
        self.waiting: set[asyncio.Task[None]] = set()
        self._acks = os.open(folder / "acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        synchronous: Any = "NORMAL" if kind == "normal" else "FULL"
        self.queue = Queue(
            SQLiteStore(folder / "timers.db", synchronous=synchronous),
            result_ttl=None,
            drain_timeout=0.01,
        )
        self._register(self.queue)

    def say(self, *words: object) -> None:
        os.write(self._acks, (" ".join(map(str, words)) + "\n").encode())

    def _register(self, queue: Queue) -> None:
        async def work(n: int) -> int:
            self.say("run", n, current().attempt)
            await asyncio.sleep(0.002 * (n % 3))
            return n

        @queue.task("plain")
        async def plain(n: int) -> int:
            return await work(n)

        @queue.task("brief", result_ttl=0)
        async def brief(n: int) -> int:
            return await work(n)

        @queue.task("note", defer=["k"])
        async def note(k: str, n: int) -> int:
            return await work(n)

        @queue.task("flaky", retry=Retry(3, delay=0.004, jitter=False))
        async def flaky(n: int) -> int:
            await work(n)
            if current().attempt % 3:
                raise ValueError("again")
            return n

    # -- what it does

    async def live(self, steps: int) -> None:
        for _ in range(steps):
            act = self.random.choices(
                (self.one, self.group, self.cancel, self.move, self.rest), (6, 2, 3, 1, 3)
            )[0]
            await act()

    def call(self) -> tuple[int, Handle[Any]]:
        """Hand one call over; it is not accepted yet."""
        self.number = n = self.number + 1
        task = self.random.choice(("plain", "brief", "note", "note", "note", "flaky"))
        delay = self.random.choice((0, 0.002, 0.01, 60, 3600))
        args: tuple[Any, ...] = (n,)
        key = ""
        if task == "note":
            key = f"k{self.random.randrange(KEYS)}"
            args = (key, n)
        self.say("call", n, task, key)
        handle = self.queue.enqueue_nowait(self.queue.task_of(task), *args, delay=delay)
        if key:
            self.latest[key] = n, handle
        else:
            self.loose.append((n, handle))
        waiting = asyncio.ensure_future(self.wait(n, handle))
        self.waiting.add(waiting)
        waiting.add_done_callback(self.waiting.discard)
        return n, handle

    async def acknowledge(self, n: int, handle: Handle[Any]) -> None:
        if not self.early:
            await handle.accepted()
        self.say("accepted", n)

    async def wait(self, n: int, handle: Handle[Any]) -> None:
        """What a waiter saw: whose result, or that there will be none."""
        try:
            self.say("ended", await handle)
        except JobCancelled:
            if not handle.replaced:
                self.say("cancelled", n)
        except (QueueClosed, ValueError):
            return

    async def one(self) -> None:
        await self.acknowledge(*self.call())

    async def group(self) -> None:
        calls = [self.call() for _ in range(self.random.choice(GROUPS))]
        await asyncio.gather(*(self.acknowledge(n, handle) for n, handle in calls))

    def somebody(self) -> tuple[int, Handle[Any]] | None:
        known = [*self.latest.values(), *self.loose[-20:]]
        return self.random.choice(known) if known else None

    async def cancel(self) -> None:
        found = self.somebody()
        if found is not None and not found[1].done():
            n, handle = found
            self.say("cancel", n)
            waits = handle.state is State.SCHEDULED  # of a run the waiters are told when it ended
            if await handle.cancel() and waits:
                self.say("cancelled", n)

    async def move(self) -> None:
        found = self.somebody()
        if found is not None:
            await found[1].reschedule(delay=self.random.choice((0, 30, 7200)))

    async def rest(self) -> None:
        await asyncio.sleep(self.random.choice((0, 0.001, 0.006)))


async def main(folder: Path, first: int, seed: int, kind: str, end: str) -> None:
    checkpoint_every(PAGES)
    if kind == "off":
        sqlite._SYNCHRONOUS["FULL"] = 0
    logging.getLogger("asyncdefer").setLevel(logging.CRITICAL)  # jobs fail on purpose here
    program = Program(folder, first, seed, kind)
    async with program.queue:
        await program.live(STEPS)
        if end == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
    program.say("closed")


if __name__ == "__main__":
    folder_, first_, seed_, kind_, end_ = sys.argv[1:]
    asyncio.run(main(Path(folder_), int(first_), int(seed_), kind_, end_))
