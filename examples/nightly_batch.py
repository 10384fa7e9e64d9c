"""A batch at local midnight, for shops in three places.

Each shop has a schedule of its own, by the clocks of its place. What failed is tried again, the
next night comes whatever became of this one, and the nights of a clock change are nights too. The
clock is a virtual one, so that a week of nights takes no time; a program has `async with queue`.
"""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from asyncdefer import Cron, Queue, Retry, State, current
from asyncdefer.testing import virtual

queue = Queue()
logging.getLogger("asyncdefer").setLevel(logging.ERROR)  # a retry is no news here
SHOPS = {"Oslo": "Europe/Oslo", "New York": "America/New_York", "Tokyo": "Asia/Tokyo"}


@queue.task(retry=Retry(3, delay=60, jitter=False))
async def close_the_day(shop: str) -> str:
    """Add up what the shop sold."""
    run = current()
    if shop == "Tokyo" and run.eta.day == 4 and run.attempt < 3:  # a bad night
        raise ConnectionError("the till does not answer")
    return f"{shop} is closed"


@queue.task(repeat=Cron("@weekly"))
async def weekly_report() -> None:
    """Count the nights of the week, at midnight in UTC between Saturday and Sunday."""
    nights = [job async for job in queue.jobs(State.SUCCEEDED, close_the_day)]
    again = [job for job in nights if job.attempt > 1]
    print(f"{len(nights)} nights, {len(again)} of them not at the first attempt")


async def main() -> None:
    start = datetime(2027, 10, 31, tzinfo=UTC)  # the night in which Europe sets its clocks back
    queue.configure(result_ttl=timedelta(days=8))
    async with virtual(queue, start=start) as clock:
        for shop, tz in SHOPS.items():
            midnight = Cron("@daily", tz=tz)
            handle = await close_the_day.options(repeat=midnight, key=shop).enqueue(shop)
            print(f"{shop}: {midnight.explain()}, first at {handle.eta:%a %H:%M} UTC")
        oslo = await queue.pending(close_the_day, "Oslo")
        assert oslo is not None
        first = asyncio.create_task(oslo.result())
        await clock.advance(timedelta(days=1))
        print(await first)
        await clock.advance(timedelta(days=6))
        await oslo.cancel()  # this shop moves out: its schedule ends
        print(len([job async for job in queue.jobs(State.SCHEDULED, close_the_day)]), "shops left")


asyncio.run(main())
