"""An iteration whose process is killed again and again, at random instants.

Each life tells a ledger, a file of its own, before it works on an item, when the journal has a
cursor, and when finalize begins and the iteration has ended. What was recorded as done is never begun
again, no item is missed, and finalize ends once.

scripts/faults iteration --first 17 --seeds 1
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any, Final

from asyncdefer import Handle, Queue, Report
from asyncdefer._recording import Recording
from asyncdefer._shard import Shard
from tests.faults.workplace import say, workplace

ROOT: Final = Path(__file__).parents[2]
SHARDS: Final = 4


class Teller:
    """Lines that are in the file when `tell` returns, whoever dies then."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_APPEND | os.O_CREAT | os.O_WRONLY, 0o600)

    def tell(self, *words: object) -> None:
        os.write(self._file, (" ".join(map(str, words)) + "\n").encode())


def plant(name: str) -> None:
    """A bug that the harness has to find."""
    if name == "forget":  # rows say that they were written, and have no cursor

        def keep_progress(self: Recording, call: Any, text: str) -> None: ...

        Recording.keep_progress = keep_progress  # type: ignore[method-assign]
    elif name == "skip":  # an item counts as done before it is

        async def page(self: Any, after: int, upto: int, limit: int) -> Any:
            return [(n + 1, n) for n in range(after + 1, min(upto, after + limit) + 1)]

        from asyncdefer._sources import Span

        Span.page = page  # type: ignore[method-assign]


async def live(folder: Path, items: int) -> None:
    """Work until it is killed, or all is done."""
    ledger = Teller(folder / "ledger")
    queue = Queue(folder / "timers.db", drain_timeout=0)

    @queue.task("callback")
    async def callback(n: int) -> None:
        ledger.tell("item", n)
        await asyncio.sleep(0.001)

    @queue.task("finalize")
    async def finalize(report: Report) -> None:
        ledger.tell("finalize", report.items)

    saved = Shard._saved

    def told(self: Shard, out: object) -> None:
        if out is not None:
            ledger.tell("recorded", self._index, self._saved_at)
        saved(self, out)

    Shard._saved = told  # type: ignore[method-assign]
    async with queue:
        found = folder / "id"
        handle: Handle[Report] | None
        if found.exists():
            handle = await queue.handle(found.read_text())
            assert handle is not None
        else:
            handle = await queue.iterate(range(items), callback, finalize, shards=SHARDS)
            found.write_text(handle.id)
        ledger.tell("up")
        report = await handle
        ledger.tell("ended", report.items)


def judge(lines: list[str], items: int) -> list[str]:
    """What the ledger says against the promises."""
    wrong: list[str] = []
    recorded = [items * at // SHARDS - 1 for at in range(SHARDS)]
    ends = [items * (at + 1) // SHARDS for at in range(SHARDS)]
    seen: set[int] = set()
    ended = False
    for line in lines:
        kind, *words = line.split()
        numbers = [int(word) for word in words]
        if ended and kind != "up" and kind != "ended":
            wrong.append(f"{line} after the end")
        if kind == "item":
            [n] = numbers
            seen.add(n)
            shard = next(at for at in range(SHARDS) if n < ends[at])
            if n <= recorded[shard]:
                wrong.append(f"item {n} again: shard {shard} was recorded up to {recorded[shard]}")
        elif kind == "recorded":
            recorded[numbers[0]] = max(recorded[numbers[0]], numbers[1])
        elif kind == "finalize" and (numbers[0] != items or len(seen) != items):
            wrong.append(f"finalize of {numbers[0]} items, after {len(seen)}")
        elif kind == "ended":
            ended = True
    if not ended:
        wrong.append("it never ended")
    if len(seen) != items:
        wrong.append(f"{items - len(seen)} items were missed")
    return wrong


def run(seed: int, kills: int, items: int, planted: str = "") -> tuple[int, int, list[str]]:
    """How many were killed, how many items were repeated, and what was wrong."""
    random = Random(seed)
    command = [sys.executable, "-m", "tests.faults.kill_iteration", "--items", str(items)]
    with workplace() as folder:
        ledger = folder / "ledger"
        killed = 0
        while killed < kills:
            before = ledger.read_text().count("up\n") if ledger.exists() else 0
            life = subprocess.Popen(
                [*command, "--live", str(folder), "--plant", planted], cwd=ROOT, stderr=sys.stderr
            )
            while life.poll() is None:  # in the middle of its work, and not while it starts
                if ledger.exists() and ledger.read_text().count("up\n") > before:
                    break
                time.sleep(0.002)
            time.sleep(0.01 + random.random() / 15)
            if life.poll() is not None:
                break
            life.send_signal(signal.SIGKILL)
            life.wait()
            killed += 1
        subprocess.run([*command, "--live", str(folder)], cwd=ROOT, check=False, timeout=120)
        lines = ledger.read_text().splitlines()
    worked = [line for line in lines if line.startswith("item")]
    return killed, len(worked) - len(set(worked)), judge(lines, items)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--items", type=int, default=6_000)
    parser.add_argument("--plant", default="")
    parser.add_argument("--live", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.live is not None:
        plant(given.plant)
        asyncio.run(live(given.live, given.items))
        return 0
    deaths = repeated = 0
    for seed in range(given.first, given.first + given.seeds):
        killed, again, wrong = run(seed, given.kills, given.items, given.plant)
        deaths, repeated = deaths + killed, repeated + again
        if wrong:
            say("\n".join(wrong[:10]))
            say(f"scripts/faults iteration --first {seed} --seeds 1 --plant '{given.plant}'")
            return 1
    say(f"iteration: {deaths} kills, {given.seeds} iterations, {repeated} items repeated")
    return 0


if __name__ == "__main__":
    sys.exit(main())
