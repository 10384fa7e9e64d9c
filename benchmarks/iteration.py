"""A callback for every item of a source, in eight shards: pages of a thousand keys, and a callback that does nothing.

The floor reads the same pages in a plain loop and awaits the callback for each item.
"""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from pathlib import Path

import disk
from stage import Figures, Job, Stopwatch, main

SHARDS = 8
PAGE = 1_000


@dataclasses.dataclass
class Numbers:
    count: int

    async def split(self, shards: int) -> list[tuple[int, int]]:
        cuts = [self.count * at // shards - 1 for at in range(shards + 1)]
        return list(pairwise(cuts))

    async def page(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
        return [(n, n) for n in range(after + 1, min(upto, after + limit) + 1)]


async def callback(n: int) -> None:
    pass


async def floor(job: Job) -> Figures:
    numbers = Numbers(job.n)
    with Stopwatch() as watch:
        for after, upto in await numbers.split(SHARDS):
            while pairs := await numbers.page(after, upto, PAGE):
                for key, n in pairs:
                    await callback(n)
                    after = key  # noqa: PLW2901 - where the next page begins
    return watch.rates(job.n)


async def ours(job: Job, path: Path | None = None) -> Figures:
    from asyncdefer import Queue

    queue = Queue(path)
    queue.source(Numbers)
    task = queue.task("callback")(callback)
    async with queue:
        with Stopwatch() as watch:
            handle = await queue.iterate(Numbers(job.n), task, shards=SHARDS)
            report = await handle
        if report.items != job.n:
            raise AssertionError(f"{report.items} of {job.n} items")
        return watch.rates(job.n)


async def ours_journal(job: Job) -> Figures:
    with disk.folder() as path:
        return await ours(job, path / "timers.db")


if __name__ == "__main__":
    main({"floor": floor, "ours": ours, "ours_journal": ours_journal})
