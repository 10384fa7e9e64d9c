"""T8: an eta in the year 9999 is fine; what is out of range is a `ValueError`."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from asyncdefer import Queue, Snooze, State
from asyncdefer.testing import VirtualClock

LAST = datetime.max.replace(tzinfo=UTC)
BEYOND = datetime.max.replace(tzinfo=timezone(timedelta(hours=-12)))  # year 10000 in UTC
NOT_BEYOND = datetime.max.replace(tzinfo=timezone(timedelta(hours=12)))
TOO_LONG = [1e12, 1e300, 10**30, 10**400, timedelta.max]


async def noop() -> str:
    return "done"


@pytest.mark.parametrize("eta", [LAST, NOT_BEYOND, datetime(9999, 1, 1, tzinfo=UTC)], ids=str)
async def test_the_year_9999_is_accepted(queue: Queue, clock: VirtualClock, eta: datetime) -> None:
    """An eta in the year 9999 waits like any other, and does not disturb the others."""
    far = await queue.enqueue(noop, eta=eta)
    near = await queue.enqueue(noop, delay=5)
    assert far.eta == eta
    await clock.advance(timedelta(days=3650))
    assert (far.state, near.state) == (State.SCHEDULED, State.SUCCEEDED)
    assert [job.eta async for job in queue.jobs(state=State.SCHEDULED)] == [eta]
    assert await far.flush()
    await clock.advance(0)
    assert far.state is State.SUCCEEDED


async def test_the_last_instant_comes() -> None:
    """When the clock gets there, the job of the year 9999 runs."""
    clock = VirtualClock(start=datetime(9999, 12, 31, 23, 0, tzinfo=UTC))
    queue = Queue(clock=clock)
    async with queue:
        handle = await queue.enqueue(noop, eta=datetime(9999, 12, 31, 23, 59, tzinfo=UTC))
        await clock.advance(timedelta(minutes=58))
        assert handle.state is State.SCHEDULED
        await clock.advance(timedelta(minutes=1))
        assert handle.state is State.SUCCEEDED


async def test_an_expiry_beyond_the_last_year_does_no_harm(
    queue: Queue, clock: VirtualClock
) -> None:
    """A good eta stays good when its expiry falls beyond the year 9999."""
    far = await queue.options(eta=LAST, expires=timedelta(days=30)).enqueue(noop)
    near = await queue.enqueue(noop, delay=5)
    await clock.advance(10)
    assert (far.state, near.state) == (State.SCHEDULED, State.SUCCEEDED)
    await far.cancel()


async def test_an_eta_beyond_the_last_year_is_refused(queue: Queue) -> None:
    """An eta later than 9999-12-31 in UTC is a `ValueError`, not an `OverflowError`."""
    with pytest.raises(ValueError):
        await queue.enqueue(noop, eta=BEYOND)
    with pytest.raises(ValueError):
        await queue.options(eta=BEYOND).enqueue(noop)
    with pytest.raises(ValueError):
        queue.enqueue_nowait(noop, eta=BEYOND)
    assert queue.stats().accepted == 0


@pytest.mark.parametrize("delay", TOO_LONG, ids=lambda delay: repr(delay)[:12])
async def test_a_delay_beyond_the_last_year_is_refused(queue: Queue, delay: Any) -> None:
    """A delay that ends after the year 9999 is a `ValueError`, however large it is."""
    with pytest.raises(ValueError):
        await queue.enqueue(noop, delay=delay)
    with pytest.raises(ValueError):
        await queue.options(delay=delay).enqueue(noop)
    assert queue.stats().accepted == 0


@pytest.mark.parametrize("when", [{"eta": BEYOND}, {"delay": 1e12}, {"delay": 10**400}])
async def test_a_job_is_not_moved_out_of_range(queue: Queue, when: dict[str, Any]) -> None:
    """A reschedule out of range is a `ValueError` and leaves the job where it was."""
    handle = await queue.enqueue(noop, delay=60)
    eta = handle.eta
    with pytest.raises(ValueError):
        await handle.reschedule(**when)
    assert (handle.state, handle.eta) == (State.SCHEDULED, eta)
    await handle.cancel()


@pytest.mark.parametrize("when", [{"eta": BEYOND}, {"delay": 1e12}, {"delay": timedelta.max}])
async def test_a_snooze_out_of_range_fails_its_own_job_only(
    queue: Queue, clock: VirtualClock, when: dict[str, Any]
) -> None:
    """A snooze out of range is the `ValueError` of the job that asked for it, and no more."""

    async def sleepyhead() -> None:
        raise Snooze(**when)

    handle = await queue.enqueue(sleepyhead)
    other = await queue.enqueue(noop, delay=1)
    waiter = asyncio.gather(handle, return_exceptions=True)
    await clock.advance(1)
    assert (handle.state, other.state) == (State.FAILED, State.SUCCEEDED)
    assert isinstance((await waiter)[0], ValueError)


async def test_the_real_loop_can_wait_for_the_last_year() -> None:
    """On the system clock a timer of the year 9999 does not upset the event loop's own timers."""
    # Real time on purpose: event loops overflow when they are asked to sleep for 8,000 years.
    queue = Queue()
    async with queue:
        far = await queue.enqueue(noop, eta=LAST)
        await asyncio.sleep(0.01)
        near = await queue.enqueue(noop, delay=0.02)
        async with asyncio.timeout(5):
            assert await near == "done"
        assert far.state is State.SCHEDULED
