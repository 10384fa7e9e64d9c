"""Kill -9, again and again: lives of a program that are cut short, and a ledger that is judged.

A *seed* is one journal and the lives that open it one after the other. This process imports
everything and forks each life from itself; it has no event loop and no SQLite connection of its
own. It kills the life at a random instant, or the life kills itself at a moment of
`crash_points.py`, or it comes to its close. The last life lets everything come to its end.

    scripts/faults kill --cycles 10000
    scripts/faults kill --first 17 --seeds 1
"""

import argparse
import asyncio
import logging
import os
import re
import select
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from itertools import count
from pathlib import Path
from random import Random
from time import monotonic
from typing import Any, Final

from asyncdefer import _claims, _journal
from asyncdefer._jobs import Jobs
from asyncdefer.stores import sqlite
from tests.faults.crash_points import POINTS, Fate
from tests.faults.kill_planted import BUGS, MASKED
from tests.faults.kill_program import LIMIT, Life
from tests.faults.ledger import Judge, Ledger, judged
from tests.faults.workplace import MEMORY, checkpoint_every, progress, ready_to_fork, say

LIVES: Final = 50
WATCH: Final = 30.0  # seconds after which a life that should end hangs
Plant = Callable[[], None]


def conditions(seed: int) -> None:
    """Small numbers in place of the library's own, so that hours of work happen in a short life."""
    random = Random(f"conditions {seed}")
    _journal._RENEWAL = 0.01  # type: ignore[misc]
    _journal._PURGE = 10_000  # type: ignore[misc]
    checkpoint_every(random.choice((4, 20, 1_000)))
    if random.random() < 0.5:
        _claims.HORIZON = 200_000  # type: ignore[misc]
        _claims.PAGE = random.choice((3, 1_000))  # type: ignore[misc]
        _claims.IN_MEMORY = _claims.PAGE + 20  # type: ignore[misc]
    if random.random() < 0.4:
        slow_down(random)


def slow_down(random: Random) -> None:
    """Make every hop to the thread take a while, there and back: what can come between, does."""
    hop = sqlite._Desk.hop

    async def hopped(self: Any, step: Callable[[], Any]) -> Any:
        await asyncio.sleep(random.choice((0, 0, 0.001, 0.004)))
        result = await hop(self, step)
        await asyncio.sleep(random.choice((0, 0, 0.001, 0.004)))
        return result

    sqlite._Desk.hop = hopped  # type: ignore[method-assign]


class Complaints(logging.Handler):
    """What the library and asyncio log, where it has to do with the journal or is a mistake."""

    def __init__(self, ledger: Ledger) -> None:
        super().__init__(logging.WARNING)
        self._ledger = ledger

    def emit(self, record: logging.LogRecord) -> None:
        event = getattr(record, "event", "")
        if record.name == "asyncio" or event.startswith("journal_"):
            self._ledger.tell("ended_badly", record.getMessage())


def be_born(
    path: str, book: str, seed: int, boot: int, fate: Fate, plant: Plant | None, *, last: bool
) -> None:
    """All of a life, in the forked process."""
    ledger = Ledger(book, boot, fate.told)
    logger = logging.getLogger()
    logger.handlers = [Complaints(ledger)]
    try:
        conditions(seed)
        if plant is not None and not last:
            plant()
        watch_starts(ledger)
        fate.install()
        ledger.tell("boot_begins", LIMIT)
        life = Life(path, ledger, seed, boot)
        asyncio.run(life.drain() if last else life.live())
    except BaseException:
        ledger.tell("ended_badly", traceback.format_exc())


def watch_starts(ledger: Ledger) -> None:
    """Have the queue say when it is about to record that a run begins."""
    start = Jobs._start

    def started(self: Jobs, call: Any, steady: int, *, told: bool) -> Any:
        if call.args:  # the runs of schedules have none
            ledger.tell("taken", call.args[0], call.more.attempt + 1)
        return start(self, call, steady, told=told)

    Jobs._start = started  # type: ignore[method-assign]


class Seed:
    """One journal, from its making to the judgement."""

    def __init__(self, seed: int, lives: int = LIVES, plant: Plant | None = None) -> None:
        self.seed = seed
        self.lives = lives
        self.plant = plant
        self.folder = Path(tempfile.mkdtemp(prefix=f"asyncdefer-kill-{seed}-", dir=MEMORY))
        self.book = str(self.folder / "ledger")

    def run(self) -> Judge:
        """Live all lives; the folder stays if anything is wrong."""
        for boot in range(self.lives):
            self.live(boot)
        self.live(self.lives, last=True)
        judge = judged(self.book)
        if not judge.wrongs:
            shutil.rmtree(self.folder)
        return judge

    def live(self, boot: int, *, last: bool = False) -> None:
        random = Random(f"fate {self.seed} {boot}")
        choice, point, until = random.random(), None, WATCH
        if last:
            pass
        elif choice < 0.5:
            until = random.random() * random.choice((0.02, 0.04, 0.08))
        elif choice < 0.94:
            point = random.choice(list(POINTS))
            until = 0.1 + random.random() / 10
        fate = Fate(point, random.randint(1, POINTS.get(point or "", 1)))
        parent = Ledger(self.book, boot)
        pid = os.fork()
        if not pid:
            try:
                path = str(self.folder / "journal.db")
                be_born(path, self.book, self.seed, boot, fate, self.plant, last=last)
            finally:
                os._exit(0)
        if self.kill(pid, until):
            if until >= WATCH:
                parent.tell("ended_badly", f"it has not ended after {WATCH} seconds")
            parent.tell("died", point or "")
        parent.close()

    def kill(self, pid: int, until: float) -> bool:
        """End a life in so many seconds, if it has not ended by then; whether it was killed."""
        ended = select.poll()
        descriptor = os.pidfd_open(pid)
        ended.register(descriptor, select.POLLIN)
        if not ended.poll(until * 1_000):
            os.kill(pid, signal.SIGKILL)
        os.close(descriptor)
        return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def again(given: argparse.Namespace, seed: int) -> str:
    """The command that has one seed live again."""
    plant = f" --plant {given.plant}" if given.plant else ""
    return f"scripts/faults kill --first {seed} --seeds 1 --lives {given.lives}{plant}"


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/faults kill", description=__doc__.split("\n")[0])
    parser.add_argument("--cycles", type=int, default=10_000, help="deaths at the least (10,000)")
    parser.add_argument("--seeds", type=int, help="so many journals instead")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first (0)")
    parser.add_argument("--lives", type=int, default=LIVES, help=f"of each ({LIVES})")
    parser.add_argument("--plant", choices=BUGS | MASKED, help="a bug that is to be found")
    given = parser.parse_args()
    plant, law = (BUGS | MASKED).get(given.plant, (None, ""))
    ready_to_fork()
    began, wrong, seeds = monotonic(), 0, 0
    total = Judge()
    for seed in count(given.first):
        if total.kills >= given.cycles if given.seeds is None else seeds >= given.seeds:
            break
        here = Seed(seed, given.lives, plant)
        judge = here.run()
        total.add(judge)
        seeds += 1
        if seeds % 25 == 0:
            progress(f"{seeds} journals, {total.kills} killed, {monotonic() - began:.0f} s")
        wrongs = [text for text in judge.wrongs if re.search(law, text)]
        if wrongs:
            wrong += 1
            say("\n".join([f"seed {seed}:", *wrongs[:10]]))
            say(f"see {here.folder}, and again with: {again(given, seed)}\n")
        if plant is not None:
            shutil.rmtree(here.folder, ignore_errors=True)
            if wrongs:
                say(f"found after {total.boots} lives")
                break
    progress(f"never at: {', '.join(sorted(POINTS.keys() - total.points)) or 'none'}")
    say(
        f"kill: {total.kills} killed of {total.boots} lives of {seeds} journals, "
        f"at {len(total.points)} of {len(POINTS) + 1} points; {total.acked} calls acknowledged, "
        f"{len(total.lost)} lost, {wrong} journals wrong; {total.starts} starts; "
        f"{monotonic() - began:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
