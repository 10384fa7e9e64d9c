"""As `transactions.py`, with one call in each transaction."""

from __future__ import annotations

from stage import Figures, Job, main
from transactions import by_hand, by_queue


async def floor(job: Job) -> Figures:
    return await by_hand(job, 1)


async def ours(job: Job) -> Figures:
    return await by_queue(job, 1)


if __name__ == "__main__":
    main({"floor": floor, "ours": ours})
