"""Work that is due, read by range of time, as one does with a sorted set in Redis. Nobody polls.

There the score of a member is the time at which it is due, and workers ask every second for those
due by now. Here the members are calls with a key, and each runs at its time. So the range is left
for what people ask: what goes out this week?

    ZADD due 1798900000 acme:7       remind.options(key="acme:7", eta=…).enqueue("acme", 7)
    ZADD, the same member again      the same again: the newer call takes the place of the older
    ZSCORE due acme:7                (await queue.pending(remind, "acme:7")).eta
    ZREM due acme:7                  (await queue.pending(remind, "acme:7")).cancel()
    ZRANGEBYSCORE due since before   queue.jobs(task=remind, state="scheduled"), in eta order
    … 0 now, in a loop with a sleep  nothing: the queue wakes up when one is due
    ZREM, to see who was first       nothing: a call runs once

`queue.jobs` looks at all jobs there are: it is for a page that somebody opens, not for a loop. And
this queue is in memory: what Redis would keep ends with the process.
"""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta

from asyncdefer import Job, Queue, current
from asyncdefer.testing import VirtualClock, virtual

queue = Queue()
DAY = timedelta(days=1)
INVOICES = [("acme", 7, 2), ("bolt", 8, 12), ("acme", 9, 4), ("acme", 10, 6), ("core", 11, 3)]


@queue.task
async def remind(customer: str, invoice: int) -> None:
    print(f"{current().eta:%a %d}  to {customer}: invoice {invoice} is due")


async def due(since: datetime, before: datetime, prefix: str = "") -> AsyncIterator[Job]:
    """The reminders that go out from one time up to another, the next one first."""
    async for job in queue.jobs(task=remind, state="scheduled", key_prefix=prefix):
        if job.eta >= before:
            break  # in eta order: all that follow are later still
        if job.eta >= since:
            yield job


async def show(clock: VirtualClock, title: str, prefix: str = "") -> None:
    now = clock.now()
    keys = [f"{job.key} on {job.eta:%a %d}" async for job in due(now, now + 7 * DAY, prefix)]
    print(f"{now:%a %d}  {title}: {', '.join(keys) or 'nothing'}")


async def main() -> None:
    async with virtual(queue) as clock:  # in a program: async with queue
        began = clock.now()
        for customer, invoice, days in INVOICES:
            call = remind.options(key=f"{customer}:{invoice}", eta=began + days * DAY)
            await call.enqueue(customer, invoice)
        await show(clock, "this week")
        await show(clock, "this week, to acme", "acme:")

        if (paid := await queue.pending(remind, "acme:9")) is not None:
            await paid.cancel()
        await remind.options(key="acme:7", eta=began + 9 * DAY).enqueue("acme", 7)
        await show(clock, "9 is paid, 7 was put off")

        await clock.advance(5 * DAY)
        await show(clock, "the week from here")
        await clock.run_until_idle()
        await show(clock, "and now")


if __name__ == "__main__":
    asyncio.run(main())
