"""The program whose clock is set: it does what it is told on its standard input, and tells.

    python -m tests.faults.syscalls_clock FOLDER HOW

A process of its own in real time. `HOW`: `system`, the clock of the system, which others may set;
`shifted`, a clock of which the wall is set by the word `shift`. And two that must be found out:
`deaf` does not read the wall again, and of `dragged` the steady clock is set with the wall.

    start | close | shift SECONDS | eta N SECONDS | delay N SECONDS | cpu

Each is answered by a line; and each run is a line `ran N WALL ETA MONOTONIC`, in microseconds.
"""

import asyncio
import resource
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from asyncdefer import Queue, SystemClock, current


class Shifted(SystemClock):
    """Its wall clock can be set, for this process only."""

    shift = 0
    drags = False

    def wall(self) -> int:
        return super().wall() + self.shift

    def steady(self, *given: Any) -> int:
        return super().steady(*given) + self.shift * self.drags


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


class Program:
    def __init__(self, folder: Path, how: str) -> None:
        self.clock = SystemClock() if how == "system" else Shifted()
        if isinstance(self.clock, Shifted):
            self.clock.drags = how == "dragged"
        if how == "deaf":
            self.clock.reread = None
        self.queue = Queue(folder / "timers.db", clock=self.clock)

        @self.queue.task("job")
        async def job(n: int) -> None:
            eta = int(current().eta.timestamp() * 1_000_000)
            say("ran", n, self.clock.wall(), eta, time.monotonic_ns() // 1000)

    async def do(self, what: str, *words: str) -> None:
        began = time.monotonic_ns() // 1000
        match what:
            case "start":
                await self.queue.start()
            case "close":
                await self.queue.close()
            case "shift":
                assert isinstance(self.clock, Shifted)
                self.clock.shift += int(words[0]) * 1_000_000
            case "eta":
                eta = self.clock.now() + timedelta(seconds=float(words[1]))
                await self.queue.enqueue(self.queue.task_of("job"), int(words[0]), eta=eta)
            case "delay":
                await self.queue.enqueue(
                    self.queue.task_of("job"), int(words[0]), delay=float(words[1])
                )
            case "cpu":
                used = resource.getrusage(resource.RUSAGE_SELF)
                say("cpu", used.ru_utime + used.ru_stime)
                return
        say("done", what, began)


async def main(folder: Path, how: str) -> None:
    program = Program(folder, how)
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        await program.do(*line.decode().split())
    await program.queue.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
