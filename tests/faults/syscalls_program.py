"""The program whose system calls fail: two lives of a queue in one process, each thing said.

    python -m tests.faults.syscalls_program FOLDER PATIENCE [early]

A process of its own in real time: the faults are put into its system calls from outside. What it
is about to do and what it was told are lines in `FOLDER/acks`, in the words of `power_story`. It
ends with 0 whatever the disk does; only an error that is no `JournalError` ends it otherwise.
What it waits for it waits for `PATIENCE` real seconds, and says if that was not enough: no outcome
is told to anybody as long as the disk takes none. `early`: it says "accepted" before the commit.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path
from typing import Any, Final

from asyncdefer import (
    Handle,
    JobCancelled,
    JournalError,
    Queue,
    QueueClosed,
    Retry,
    State,
    _queue,
    current,
)
from tests.faults.workplace import checkpoint_every

CLOSE: Final = 10  # real seconds, within which a queue is closed whatever the disk does
GRACE: Final = 0.5  # real seconds in which a run that was cancelled has to end; five in real life
PAGES: Final = 24  # of the -wal, after which it is checkpointed: that is to be hit too
Waits = list[asyncio.Task[None]]


class Program:
    """What it does, in the same order every time."""

    def __init__(self, folder: Path, patience: float, *, early: bool) -> None:
        self.number = 0
        self.patience = patience
        self.early = early
        self._acks = os.open(folder / "acks", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.queue = queue = Queue(folder / "timers.db", result_ttl=None, drain_timeout=0.3)
        self.waits: Waits = []

        async def work(n: int) -> int:
            self.say("run", n, current().attempt)
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
            if current().attempt == 1:
                raise ValueError("again")
            return n

    def say(self, *words: object) -> None:
        os.write(self._acks, (" ".join(map(str, words)) + "\n").encode())

    async def live(self) -> None:
        """From a start to a close; a start that fails says so, and the next may succeed."""
        try:
            await self.queue.start()
        except JournalError as error:
            self.say("unstarted", type(error).__name__)
            return
        try:
            async with asyncio.timeout(self.patience):
                await self.use()
                await self.queue.join()
                await asyncio.gather(*self.waits)
        except TimeoutError:
            self.say("waited", "too", "long")
        finally:
            async with asyncio.timeout(CLOSE):
                await self.queue.close()
            await asyncio.gather(*self.waits, return_exceptions=True)
            self.waits.clear()

    async def use(self) -> None:
        for task in ("plain", "brief", "flaky"):
            await self.call(task)
        await self.call("note", "k", delay=3600)
        await self.call("note", "k", delay=0.005)  # replaces the one before
        far = await self.call("plain", delay=3600)
        await asyncio.gather(*(self.call("plain", delay=0.002 * some) for some in range(5)))
        await self.cancel(*far)
        await self.call("note", "far", delay=3600)

    async def call(self, task: str, *args: Any, delay: float = 0) -> tuple[int, Handle[Any] | None]:
        self.number = n = self.number + 1
        self.say("call", n, task, *args)
        handle = self.queue.enqueue_nowait(self.queue.task_of(task), *args, n, delay=delay)
        if self.early:
            self.say("accepted", n)
        try:
            await handle.accepted()
        except JournalError as error:
            self.say("refused", n, type(error).__name__)
            return n, None
        self.say("accepted", n)
        if delay < 1:
            self.waits.append(asyncio.ensure_future(self.wait(n, handle)))
        return n, handle

    async def wait(self, n: int, handle: Handle[Any]) -> None:
        try:
            self.say("ended", await handle)
        except JobCancelled:
            if not handle.replaced:
                self.say("cancelled", n)
        except (QueueClosed, JournalError) as error:
            self.say("unsettled", n, type(error).__name__)

    async def cancel(self, n: int, handle: Handle[Any] | None) -> None:
        if handle is None:
            return
        self.say("cancel", n)
        waits = handle.state is State.SCHEDULED
        try:
            if await handle.cancel() and waits:
                self.say("cancelled", n)
        except JournalError as error:
            self.say("uncancelled", n, type(error).__name__)


async def main(folder: Path, patience: float, *early: str) -> None:
    logging.getLogger("asyncdefer").setLevel(logging.CRITICAL + 1)
    checkpoint_every(PAGES)
    _queue.CANCEL_GRACE = GRACE
    program = Program(folder, patience, early=bool(early))
    await program.live()
    program.say("again")
    await program.live()
    program.say("closed")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]))
