"""A program that forks while its journal is being written, and children that end in every way.

The queue lives in a loop of its own thread, as it does beside a server that forks, or in the main
thread; other threads hand calls over all the while. No child may write to the journal, and none may
hurt it by the way it ends.

    scripts/faults forks --how exec --forks 20 --inside
"""

import argparse
import asyncio
import os
import select
import shutil
import signal
import sqlite3
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any, Final

from asyncdefer import DeferError, Queue
from tests.faults.workplace import MEMORY, say

GUARD: Final = 10.0  # seconds in which a child has to end
WRITERS: Final = 3
ENDS: Final = ("_exit", "exec", "exit", "return", "close")
INSIDE: Final = ("_exit", "exec", "close")
"""In the thread of the loop; what leaves the loop there is asyncio's own matter."""


class Child(BaseException):
    """It leaves every frame of the child, down to the main one."""


class Program:
    """The owner."""

    def __init__(self, path: str, *, plant: bool = False) -> None:
        self.path = path
        self.plant = plant
        self.queue = Queue(path)
        self.acked: set[int] = set()
        self.stop = threading.Event()
        self.loop = asyncio.new_event_loop()
        self.pid = os.getpid()
        self.wrongs: list[str] = []

        @self.queue.task("note")
        async def note(n: int) -> None:
            return

        self.note = note

    def write(self, first: int) -> None:
        """One of the threads that hand calls over."""
        for n in range(first, first + 1_000_000, WRITERS):
            if self.stop.is_set():
                return
            self.queue.enqueue_from_thread(self.note, n, delay=3_600)
            self.acked.add(n)

    def run(self, how: str, forks: int, *, inside: bool) -> None:
        """Fork in the main thread, or in the thread of the loop (`inside`)."""
        runner = threading.Thread(target=self.loop.run_forever, daemon=True)
        runner.start()
        self.wait(self.queue.start())
        writers = [threading.Thread(target=self.write, args=(n,)) for n in range(WRITERS)]
        for writer in writers:
            writer.start()
        for _ in range(forks):
            before = len(self.acked)
            while len(self.acked) < before + 10:  # the writers are at it
                pass
            pid = self.wait(self.fork_inside(how)) if inside else self.fork(how)
            self.reap(pid, how)
        self.stop.set()
        for writer in writers:
            writer.join()
        self.wait(self.queue.enqueue(self.note, -1, delay=3_600))
        self.acked.add(-1)
        self.wait(self.queue.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        runner.join()

    def wait(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    async def fork_inside(self, how: str) -> int:
        return self.fork(how)

    def fork(self, how: str) -> int:
        pid = os.fork()
        if pid:
            return pid
        signal.alarm(int(GUARD) * 2)
        self.try_to_write()
        if how == "_exit":
            os._exit(0)
        if how == "exec":
            os.execv(sys.executable, [sys.executable, "-c", ""])
        if how == "close":
            self.try_to_close()
            os._exit(0)
        if how == "exit":
            sys.exit(0)
        raise Child  # and main returns

    def try_to_write(self) -> None:
        """A child that calls is told that it cannot."""
        if self.plant:
            self.write_anyway()
        try:
            self.queue.enqueue_nowait(self.note, -2, delay=3_600)
        except DeferError:
            pass
        else:
            os._exit(3)
        desk: Any = self.queue._store._desk  # type: ignore[union-attr]
        try:
            asyncio.new_event_loop().run_until_complete(desk.hop(lambda: None))
        except DeferError:
            pass
        except RuntimeError:
            pass  # a loop runs here, as the child sees it
        else:
            os._exit(4)

    def write_anyway(self) -> None:
        """By a connection of the child's own, as a careless library would."""
        db = sqlite3.connect(self.path, timeout=GUARD)
        db.execute(
            "INSERT INTO asyncdefer_jobs (id, task, state, at, pinned, arguments, body) "
            f"VALUES ({os.getpid()}, 'note', 'scheduled', 1 << 52, 0, '{{\"n\":-3}}', '')"
        )
        db.commit()

    def try_to_close(self) -> None:
        """What a library does that closes all it knows, in a loop of the child's own."""

        async def close() -> None:
            await asyncio.wait_for(self.queue.close(), GUARD / 2)

        with suppress(DeferError, RuntimeError, TimeoutError):
            asyncio.run(close())

    def reap(self, pid: int, how: str) -> None:
        """The child ends by itself, with nothing to say."""
        descriptor = os.pidfd_open(pid)
        ended = bool(select.select([descriptor], [], [], GUARD)[0])
        os.close(descriptor)
        if not ended:
            os.kill(pid, signal.SIGKILL)
            self.wrongs.append(f"a child ({how}) does not end")
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if ended and status:
            self.wrongs.append(f"a child ({how}) ended with {status}")

    def look(self) -> None:
        """The journal afterwards, by SQLite and by a new queue."""
        db = sqlite3.connect(self.path)
        (sound,) = db.execute("PRAGMA integrity_check").fetchone()
        db.close()
        if sound != "ok":
            self.wrongs.append(f"the journal is damaged: {sound}")

        async def waiting() -> set[int]:
            queue = Queue(self.path)
            queue.task("note")(self.note.fn)
            async with queue:
                return {job.arguments["n"] async for job in queue.jobs()}

        found = asyncio.run(waiting())
        if found != self.acked:
            lost, more = self.acked - found, found - self.acked
            there = "1 is there by itself" if len(more) == 1 else f"{len(more)} by themselves"
            self.wrongs.append(f"{len(lost)} calls are lost, {there}")


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/faults forks", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--how", choices=ENDS, help="how the children end (all ways)")
    parser.add_argument("--forks", type=int, default=50, help="of each way (50)")
    parser.add_argument("--inside", action="store_true", help="fork in the thread of the loop")
    parser.add_argument("--plant", action="store_true", help="a child that writes all the same")
    given = parser.parse_args()
    ways = [(how, given.inside) for how in ([given.how] if given.how else ENDS)]
    if given.how is None and not given.inside:
        ways += [(how, True) for how in INSIDE]
    began, acked, wrong = monotonic(), 0, 0
    for how, inside in ways:
        folder = Path(tempfile.mkdtemp(prefix="asyncdefer-forks-", dir=MEMORY))
        program = Program(str(folder / "timers.db"), plant=given.plant)
        try:
            program.run(how, given.forks, inside=inside)
        except Child:
            return 0
        program.look()
        shutil.rmtree(folder)
        acked += len(program.acked)
        wrong += bool(program.wrongs)
        for text in program.wrongs:
            say(f"{how}{' inside' * inside}: {text}")
    say(
        f"forks: {given.forks * len(ways)} forks in {len(ways)} programs, {acked} calls "
        f"acknowledged, {wrong} programs wrong; {monotonic() - began:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
