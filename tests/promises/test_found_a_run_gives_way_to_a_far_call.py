"""A bug that a kill at a random moment has found, by its smallest program."""

import asyncio
from pathlib import Path

import pytest

from asyncdefer import Handle, Queue, Retry, Snooze, current
from asyncdefer.testing import VirtualClock, check_conservation

HOUR = 3_600


@pytest.mark.parametrize("how", ["retry", "snooze"])
async def test_a_run_gives_way_to_a_call_beyond_the_horizon(
    how: str, defer_clock: VirtualClock, tmp_path: Path
) -> None:
    """W1, "its callers follow that call": a retry gives way to a newer call, however far that is.

    `_run_again` looks for the newer call in the agenda only. Beyond the horizon it is in
    `books.far`, so the retry is placed, the journal lets it give way, and the waiters of the older
    call get `JournalError: the journal does not have job any more`, though nothing is wrong.
    """
    clock = defer_clock
    queue = Queue(tmp_path / "timers.db", clock=clock)
    started, go_on = asyncio.Event(), asyncio.Event()

    @queue.task("job", retry=Retry(3, delay=1, jitter=False))
    async def job(n: int) -> int:
        if n == 1 and current().attempt == 1:
            started.set()
            await go_on.wait()
            raise Snooze(1) if how == "snooze" else ValueError("again")
        return n

    async with queue:
        older: Handle[int] = await queue.enqueue(job, 1, key="k")
        waiter = asyncio.ensure_future(older.result())
        await started.wait()
        newer = await queue.enqueue(job, 2, key="k", delay=10 * HOUR)
        await asyncio.sleep(0)
        go_on.set()
        await clock.advance(10)
        assert not waiter.done() or waiter.exception() is None, repr(waiter.exception())
        await clock.advance(10 * HOUR)
        assert await newer == 2
        assert await waiter == 2
        check_conservation(queue)
