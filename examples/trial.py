"""Trials that end by themselves after 14 days, can be made longer, and are over when somebody pays.

There is no table of trials and no nightly search through it: a trial *is* the call that will end
it, found by its key. Like `accounts`, this queue is in memory, and ends with the process. It is
played on a virtual clock, so that a month is over at once.
"""

import asyncio
from datetime import datetime, timedelta

from asyncdefer import Handle, Queue, current
from asyncdefer.testing import VirtualClock, virtual

queue = Queue()
accounts: dict[str, str] = {}


def note(at: datetime, text: str) -> None:
    print(f"{at:%d %B}  {text}")


@queue.task
async def expire(user: str) -> None:
    """End a trial."""
    accounts[user] = "expired"
    note(current().eta, f"the trial of {user} has ended")


async def begin(user: str, now: datetime, days: int = 14) -> Handle[None]:
    """Begin a trial, or begin it anew: a call that comes again takes the place of the first."""
    accounts[user] = "trial"
    until = now + timedelta(days=days)
    return await expire.options(key=f"trial:{user}", eta=until).enqueue(user)


async def extend(user: str, days: int) -> bool:
    """Add days to a trial; false if there is none, or none any more."""
    handle = await queue.pending(expire, f"trial:{user}")
    return handle is not None and await handle.reschedule(eta=handle.eta + timedelta(days=days))


async def pay(user: str) -> bool:
    """Make a customer of a user; true if that was in time, during the trial."""
    accounts[user] = "customer"
    handle = await queue.pending(expire, f"trial:{user}")
    return handle is not None and await handle.cancel()


async def play(clock: VirtualClock) -> None:
    """Four users, four endings."""
    for user in ("ada", "grace", "linus", "mary"):
        handle = await begin(user, clock.now())
        note(clock.now(), f"{user} begins, until {handle.eta:%d %B}")

    await clock.advance(timedelta(days=5))
    handle = await begin("mary", clock.now(), days=20)
    note(clock.now(), f"mary begins anew, until {handle.eta:%d %B}")
    await clock.advance(timedelta(days=4))
    note(clock.now(), f"grace pays, in time: {await pay('grace')}")
    await clock.advance(timedelta(days=4))
    note(clock.now(), f"linus gets another week: {await extend('linus', days=7)}")
    await clock.run_until_idle()
    note(clock.now(), f"ada asks for a week, too late: {await extend('ada', days=7)}")
    print(accounts)


async def main() -> None:
    async with virtual(queue) as clock:  # in a program: async with queue
        await play(clock)


if __name__ == "__main__":
    asyncio.run(main())
