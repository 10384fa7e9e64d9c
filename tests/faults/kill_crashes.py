"""Jobs that take the process down, each time they run, and neighbours that only were there.

scripts/faults crashes --first 17 --seeds 1
"""

import argparse
import asyncio
import logging
import os
import shutil
import signal
import sys
import tempfile
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from time import monotonic
from typing import Final

from asyncdefer import Queue, _claims, current
from tests.faults.ledger import CRASHES, Event, Ledger, read
from tests.faults.workplace import MEMORY, ready_to_fork, say

LIVES: Final = 40  # more than any number of crashes that is allowed
NEIGHBOURS: Final = 12


async def live(path: str, ledger: Ledger, random: Random, killers: int, *, first: bool) -> None:
    """Run until nothing is left; in the first life the calls are made."""
    queue = Queue(path, concurrency=4)

    @queue.task("killer")
    async def killer(n: int) -> None:
        ledger.tell("started", n, current().attempt)
        await asyncio.sleep(random.random() / 200)
        os.kill(os.getpid(), signal.SIGKILL)

    @queue.task("neighbour")
    async def neighbour(n: int) -> None:
        ledger.tell("started", n, current().attempt)
        await asyncio.sleep(random.random() / 100)
        ledger.tell("ended", n)

    async with queue:
        if first:
            queue.pause()
            tasks = [killer] * killers + [neighbour] * NEIGHBOURS
            random.shuffle(tasks)
            soon = datetime.now(UTC) + timedelta(seconds=0.02)
            for n, task in enumerate(tasks):
                ledger.tell("calling", n, task.name)
                eta = soon + timedelta(seconds=random.random() / 50)
                await queue.options(eta=eta).enqueue(task, n)
            queue.resume()
        await queue.join()
        # Of what is not due yet there is no event.
        while [job async for job in queue.jobs() if not job.state.ended]:  # noqa: ASYNC110
            await asyncio.sleep(0.002)
        async for job in queue.jobs():
            error = None if job.error is None else job.error.type
            ledger.tell("final", job.arguments["n"], job.state.value, error)


def judge(events: list[Event], killers: int) -> list[str]:
    """What is wrong."""
    tasks = {values[0]: values[1] for _, _, word, values in events if word == "calling"}
    finals = {values[0]: values[1:] for _, _, word, values in events if word == "final"}
    wrongs = [values[0] for _, _, word, values in events if word == "ended_badly"]
    if len(finals) < len(tasks) or len(tasks) < NEIGHBOURS + killers:
        wrongs.append(f"of {len(tasks)} calls {len(finals)} came to an end")
    for n, final in finals.items():
        starts = [
            values[1] for _, _, word, values in events if word == "started" and values[0] == n
        ]
        if starts != sorted(set(starts)):
            wrongs.append(f"call {n} is started as the attempts {starts}")
        if tasks[n] == "neighbour" and final != ["succeeded", None]:
            wrongs.append(f"neighbour {n} is {final} after {len(starts)} starts")
        if tasks[n] == "killer" and (final != ["failed", "Crashed"] or len(starts) > CRASHES):
            wrongs.append(f"killer {n} is {final} after {len(starts)} starts")
        if tasks[n] == "killer" and killers == 1 and len(starts) != CRASHES:
            wrongs.append(f"killer {n} has killed {len(starts)} times")
    return wrongs


def run(seed: int, killers: int) -> tuple[int, list[str]]:
    """One journal, opened again after each death until a life comes to its end.

    How often it died, and what is wrong.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"asyncdefer-crashes-{seed}-", dir=MEMORY))
    book, path = str(folder / "ledger"), str(folder / "journal.db")
    deaths = 0
    for boot in range(LIVES):
        pid = os.fork()
        if not pid:
            ledger = Ledger(book, boot)
            logging.disable(logging.CRITICAL)
            try:
                random = Random(f"{seed} {boot}")
                asyncio.run(live(path, ledger, random, killers, first=not boot))
            except BaseException:
                ledger.tell("ended_badly", traceback.format_exc())
            finally:
                os._exit(0)
        if not os.WIFSIGNALED(os.waitpid(pid, 0)[1]):
            break
        deaths += 1
    wrongs = judge(read(book), killers)
    shutil.rmtree(folder)
    return deaths, wrongs


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/faults crashes", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--seeds", type=int, default=500, help="how many journals (500)")
    parser.add_argument("--first", type=int, default=0, help="the seed of the first (0)")
    parser.add_argument("--killers", type=int, default=0, help="how many (by the seed: 1 or 2)")
    parser.add_argument("--allowed", type=int, default=CRASHES, help="another number is a bug")
    given = parser.parse_args()
    _claims.CRASHES = given.allowed  # type: ignore[misc]
    ready_to_fork()
    began, wrong, deaths, jobs = monotonic(), 0, 0, 0
    for seed in range(given.first, given.first + given.seeds):
        killers = given.killers or 1 + seed % 2
        died, wrongs = run(seed, killers)
        deaths += died
        jobs += killers
        if wrongs:
            wrong += 1
            again = f"scripts/faults crashes --first {seed} --seeds 1"
            say("\n".join([f"seed {seed}:", *wrongs[:10], f"again with: {again}"]))
    say(
        f"crashes: {deaths} killed by {jobs} jobs in {given.seeds} journals, "
        f"beside {NEIGHBOURS * given.seeds} neighbours, {wrong} journals wrong; "
        f"{monotonic() - began:.0f} s"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
