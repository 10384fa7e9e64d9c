"""The program on a small disk: it fills it, works on what is there, and goes on when there is room.

    python -m tests.faults.syscalls_disk FOLDER ACKS HOW END

It is a process of its own, since the room is that of its mount (`HOW`: `mount`) or its own limit
(`limit`). `bare` is a mount where the library can keep no reserve, and must be found wanting. What
it does and what it is told are lines in the file `ACKS`, in the words of `power_story`; `ACKS` is
on another disk. `END` is `close`, or `kill` (-9) on the full disk.
"""

import asyncio
import logging
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any, Final

from asyncdefer import Handle, JournalError, JournalFull, Queue

GROUP: Final = 50
MOST: Final = 40_000  # calls that no small disk has room for
BALLAST: Final = 512 << 10  # bytes, which are given back; a mount has 2 MiB, the reserve one
LIMIT: Final = 1536 << 10  # bytes of one file
PATIENCE: Final = 20  # real seconds for each thing it does
SOME: Final = 60  # jobs that are run, and that are cancelled, on the full disk


class Program:
    def __init__(self, folder: Path, acks: Path) -> None:
        self._acks = os.open(acks, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self.accepted: list[tuple[int, Handle[Any]]] = []
        self.number = 0
        self.queue = Queue(folder / "timers.db", result_ttl=None, drain_timeout=2)

        @self.queue.task("plain")
        async def plain(n: int) -> int:
            self.say("run", n, 1)
            return n

    def say(self, *words: object) -> None:
        os.write(self._acks, (" ".join(map(str, words)) + "\n").encode())

    async def group(self, size: int) -> int:
        """Call so often, in one group; how many were refused."""
        handles: list[tuple[int, Handle[Any]]] = []
        for _ in range(size):
            self.number += 1
            self.say("call", self.number, "plain")
            handle = self.queue.enqueue_nowait(self.queue.task_of("plain"), self.number, delay=3600)
            handles.append((self.number, handle))
        refused = 0
        for n, handle in handles:
            try:
                await handle.accepted()
            except JournalFull:
                self.say("refused", n, "JournalFull")
                refused += 1
            except JournalError as error:
                self.say("refused", n, type(error).__name__)
                refused += 1
            else:
                self.say("accepted", n)
                self.accepted.append((n, handle))
        return refused

    async def fill(self) -> None:
        while not await self.group(GROUP):
            if self.number > MOST:
                raise AssertionError("the disk does not fill")
        while not await self.group(1):  # to the last byte
            pass

    async def work(self) -> None:
        """What was accepted is run or cancelled; each of it has to be recorded."""
        for _, handle in self.accepted[:SOME]:
            await handle.flush()
            self.say("ended", await handle)
        for n, handle in self.accepted[SOME : 2 * SOME]:
            self.say("cancel", n)
            assert await handle.cancel()
            self.say("cancelled", n)

    async def go_on(self) -> None:
        """There is room again: calls are accepted, at once or a little later."""
        while await self.group(1):  # noqa: ASYNC110 - the disk sets no event
            await asyncio.sleep(0.05)
        assert not await self.group(GROUP)


async def main(folder: Path, acks: Path, how: str, end: str) -> None:
    logging.getLogger("asyncdefer").setLevel(logging.CRITICAL + 1)
    ballast = folder / "ballast"
    if how == "bare":
        (folder / "timers.db-reserve").mkdir()  # where this stands, no file can
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    if how != "limit":
        ballast.write_bytes(bytes(BALLAST))
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, hard))
    program = Program(folder, acks)
    await program.queue.start()
    for what in (program.fill, program.work, program.go_on):
        if what == program.go_on:
            if end == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            if how != "limit":
                ballast.unlink()
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        program.say("doing", what.__name__)
        async with asyncio.timeout(PATIENCE):
            await what()
    async with asyncio.timeout(PATIENCE):
        await program.queue.close()
    program.say("closed")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
