"""How large the journal's files are after so many timers came, ran and were purged, against the size while a tenth of them waits.

Results are kept for nothing (`result_ttl=0`), so that what is left is the file's own.
"""

from __future__ import annotations

from pathlib import Path

import disk
from durable_calls import make
from stage import Figures, Job, main

ROUND = 10_000


def size(path: Path) -> float:
    return sum(file.stat().st_size for file in path.iterdir()) / 1e6


async def ours(job: Job) -> Figures:
    with disk.folder() as path:
        queue, fn = make(path)
        queue.configure(result_ttl=0, concurrency=1_000)
        async with queue:
            for turn in range(job.n // ROUND):
                handles = [queue.enqueue_nowait(fn, i) for i in range(ROUND)]
                for handle in handles:
                    await handle
                if turn == 0:
                    first = size(path)
            last = size(path)
        return {"first": first, "mb": last, "closed": size(path)}


if __name__ == "__main__":
    main({"ours": ours})
