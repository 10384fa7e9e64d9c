"""Processes that want the same journal, and a reaper who kills whoever has it.

Whether there is one owner at a time is seen by a lock that has nothing to do with the library: an
owner takes a `flock` on a file beside the journal, which the system lets go of when it dies. That
file is opened before the journal, and the files of a dead process are closed in the order in which
they were opened: who comes in after a death finds it free.

    scripts/faults race --handovers 60
"""

import argparse
import asyncio
import fcntl
import logging
import os
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from asyncdefer import JournalLocked
from asyncdefer._scheduler import Scheduler
from tests.faults.kill import Complaints, Seed, watch_starts
from tests.faults.kill_callers import Callers
from tests.faults.kill_program import LIMIT, Life
from tests.faults.ledger import Ledger, judged
from tests.faults.workplace import MEMORY, ready_to_fork, say

CONTENDERS: Final = 8
GUARD: Final = 20.0  # seconds in which somebody has to become the owner
Plant = Callable[[], None]


async def contend(life: Life, book: Ledger, folder: Path, owners: int, *, standby: bool) -> None:
    """Get in, sooner or later, and work until the reaper comes."""
    oracle = os.open(folder / "oracle", os.O_RDWR | os.O_CREAT, 0o600)
    queue = life.queue
    if standby:
        queue.configure(on_locked="standby")
        await queue.start()
        await queue.ready()
    else:
        while True:
            try:
                await queue.start()
            except JournalLocked:
                await asyncio.sleep(life.random.random() / 20)
            else:
                break
    try:
        fcntl.flock(oracle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        book.tell("ended_badly", f"{os.getpid()} came in while another was there")
    os.write(owners, f"{os.getpid()}\n".encode())
    callers = Callers(queue, book.tell, life.random, life.boot, 1_000)
    await asyncio.gather(*(callers.act() for _ in range(2)))


class Race:
    """The reaper."""

    def __init__(self, seed: int, plant: Plant | None = None) -> None:
        self.random = Random(seed)
        self.seed = seed
        self.plant = plant
        self.folder = Path(tempfile.mkdtemp(prefix=f"asyncdefer-race-{seed}-", dir=MEMORY))
        self.book = str(self.folder / "ledger")
        self.boots: dict[int, int] = {}  # those that live, and their numbers
        self.owners, self._told = os.pipe()
        self.waits: list[float] = []  # seconds from a death to the next owner
        self.dying: dict[int, float] = {}

    def fork(self) -> None:
        """One more who wants the journal."""
        boot = len(self.dying) + len(self.boots)
        pid = os.fork()
        if pid:
            self.boots[pid] = boot
            return
        ledger = Ledger(self.book, boot)
        logging.getLogger().handlers = [Complaints(ledger)]
        try:
            if self.plant is not None:
                self.plant()
            watch_starts(ledger)
            life = Life(str(self.folder / "journal.db"), ledger, self.seed, boot)
            begin = life.queue._begin

            def begun(scheduler: Scheduler) -> None:
                ledger.tell("boot_begins", LIMIT)
                begin(scheduler)

            life.queue._begin = begun  # type: ignore[method-assign]
            standby = boot % 2 == 0
            work = contend(life, ledger, self.folder, self._told, standby=standby)
            asyncio.run(work)
        except BaseException:
            ledger.tell("ended_badly", traceback.format_exc())
        finally:
            os._exit(0)

    def run(self, handovers: int) -> list[str]:
        """Let them race; what is wrong in the end."""
        ledger, began = Ledger(self.book, 0), monotonic()
        for _ in range(CONTENDERS):
            self.fork()
        died = monotonic()
        for _ in range(handovers):
            readable, _, _ = select.select([self.owners], [], [], GUARD)
            if not readable:
                ledger.tell("ended_badly", f"nobody came in for {GUARD} seconds")
                break
            pid = int(os.read(self.owners, 100).split()[-1])
            self.waits.append(monotonic() - died)
            select.select([], [], [], self.random.random() / 20)
            ledger.boot = self.boots[pid]
            self.kill(pid)
            died = monotonic()
            ledger.tell("died", "")
            self.fork()
        for pid in list(self.boots):
            self.kill(pid)
        last = Seed(self.seed)
        shutil.rmtree(last.folder)
        last.folder, last.book = self.folder, self.book
        last.live(len(self.dying) + 1, last=True)
        judge = judged(self.book)
        if not judge.wrongs or self.plant is not None:
            shutil.rmtree(self.folder)
        slowest = max(self.waits[1:], default=0)
        say(
            f"race: {judge.boots - 1} owners one after the other of {CONTENDERS} processes, "
            f"{judge.kills} killed; {judge.acked} calls acknowledged, {len(judge.lost)} lost, "
            f"{len(judge.wrongs)} wrong; the slowest handover took {slowest:.2f} s; "
            f"{monotonic() - began:.0f} s"
        )
        return judge.wrongs

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        self.dying[pid] = self.boots.pop(pid)


def everybody_comes_in() -> None:
    """Nobody is locked out."""
    from asyncdefer.stores import _lock

    _lock.lock = lambda connection, journal: None  # the file is opened, and that is all


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/faults race", description=__doc__.split("\n")[0])
    parser.add_argument("--handovers", type=int, default=300, help="owners that are killed (300)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plant", action="store_true", help="nobody is locked out")
    given = parser.parse_args()
    ready_to_fork()
    race = Race(given.seed, everybody_comes_in if given.plant else None)
    wrongs = race.run(given.handovers)
    if wrongs:
        again = f"scripts/faults race --seed {given.seed}"
        say("\n".join([*wrongs[:10], f"see {race.folder}, and again with: {again}"]))
    return 1 if wrongs else 0


if __name__ == "__main__":
    sys.exit(main())
