"""A queue is started on what a power cut has left, and runs all that is due there.

What runs must be what was acknowledged and had not ended; nothing that was cancelled, replaced or
whose result was seen runs again. The clock is moved by hand, hours ahead, so all is due at once.
"""

import asyncio
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from asyncdefer import Queue, Retry
from asyncdefer.errors import DeferError
from asyncdefer.stores.sqlite import SQLiteStore
from asyncdefer.testing import VirtualClock, check_conservation
from tests.faults.power_story import Found, Story, Told, Wrong

LATER = timedelta(hours=3)
_LIVE = ("scheduled", "running")


def drained(path: Path) -> Counter[int] | Wrong:
    """How often which call was run by a queue that was started on the journal."""
    return asyncio.run(_drain(path))


async def _drain(path: Path) -> Counter[int] | Wrong:
    ran: Counter[int] = Counter()
    clock = VirtualClock(start=datetime.now(UTC) + LATER)
    queue = Queue(SQLiteStore(path), clock=clock, result_ttl=None)

    @queue.task("plain")
    async def plain(n: int) -> None:
        ran[n] += 1

    @queue.task("brief", result_ttl=0)
    async def brief(n: int) -> None:
        ran[n] += 1

    @queue.task("note", defer=["k"])
    async def note(k: str, n: int) -> None:
        ran[n] += 1

    @queue.task("flaky", retry=Retry(3, delay=0.004, jitter=False))
    async def flaky(n: int) -> None:
        ran[n] += 1

    try:
        async with queue:
            await clock.run_until_idle()
            check_conservation(queue)
    except (DeferError, AssertionError) as error:
        return Wrong("not started", repr(error))
    return ran


def judge(
    story: Story,
    before: dict[int, Found],
    ran: Counter[int],
    after: dict[int, Found],
    horizon: int,
    said: int,
) -> list[Wrong]:
    """What is not as it was promised before the horizon, given the rows before and after.

    `said`: up to which place things had been said at all.
    """
    wrongs: list[Wrong] = []
    waits: dict[str, int] = {}
    newest: dict[str, int] = {}
    for n, call in story.calls.items():
        if call.key and n in before:
            newest[call.key] = n
            if before[n].state == "scheduled":
                waits[call.key] = n
    for n, many in ran.items():
        call = story.calls[n]
        if many > 1:
            wrongs.append(Wrong("twice", f"{call} ran {many} times in one process"))
        if min(call.ended, call.cancelled) <= horizon:
            wrongs.append(Wrong("back", f"{call} had ended, and runs again"))
        if waits.get(call.key, 0) > n:  # its own run was interrupted, and gives way
            wrongs.append(Wrong("back", f"{call} runs, though a newer call of its key waits"))
    for n, row in before.items():
        call = story.calls[n]
        if row.state in _LIVE and not ran[n] and not _ended(call, after.get(n), newest, said):
            wrongs.append(Wrong("idle", f"{call} was due, and did not run"))
    wrongs += [
        Wrong("idle", f"{story.calls[n]} still waits")
        for n, row in after.items()
        if row.state in _LIVE
    ]
    return wrongs


def _ended(call: Told, row: Found | None, newest: dict[str, int], said: int) -> bool:
    """Without a run: it gave way to a newer call, the process died once too often under it, or while
    it was cancelled.
    """
    if call.key and newest[call.key] > call.n:
        return True
    if call.cancel <= said and (row is None or row.state == "cancelled"):
        return True
    return row is not None and row.state == "failed"
