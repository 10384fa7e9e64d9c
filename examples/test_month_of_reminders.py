"""A month of reminders, tested in milliseconds: `pytest examples/test_month_of_reminders.py`.

The fixtures come with the library. `defer_queue` is a started queue in memory, and `defer_clock`
is the clock that it follows: nothing here waits for real time, and nothing is patched.
"""

from datetime import UTC, datetime, time, timedelta

import pytest

from asyncdefer import Queue, Snooze, current
from asyncdefer.testing import VirtualClock

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """The queue lives on asyncio."""
    return "asyncio"


async def test_a_reminder_each_morning(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Thirty-one reminders go out at eight o'clock, each on its own day."""
    rang: list[datetime] = []

    async def remind() -> None:
        rang.append(defer_clock.now())

    tomorrow = defer_clock.now().date() + timedelta(days=1)
    mornings = [
        datetime.combine(tomorrow + timedelta(days=n), time(8), tzinfo=UTC) for n in range(31)
    ]
    for morning in reversed(mornings):
        await defer_queue.enqueue(remind, eta=morning)

    await defer_clock.advance(timedelta(days=32))
    assert rang == mornings


async def test_reports_are_folded(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Calls in a row become one mail: three a day, an hour apart, and one mail in the evening."""
    mails: list[tuple[int, int]] = []

    @defer_queue.task(delay=timedelta(hours=6), defer=["user_id"])
    async def mail_digest(user_id: int, newest: int) -> None:
        mails.append((newest, current().calls))

    for day in range(31):
        for visit in range(3):
            await mail_digest.enqueue(1, 10 * day + visit)
            await defer_clock.advance(timedelta(hours=1))
        await defer_clock.advance(timedelta(hours=21))
    assert mails == [(10 * day + 2, 3) for day in range(31)]


async def test_the_sleeper(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A reminder that finds nobody awake comes back every ten minutes, and its caller gets the answer."""
    start = defer_clock.now()

    async def ring() -> timedelta:
        if (slept := defer_clock.now() - start) < timedelta(days=30, minutes=35):
            raise Snooze(delay=timedelta(minutes=10))
        return slept

    handle = await defer_queue.enqueue(ring, delay=timedelta(days=30))
    await defer_clock.run_until_idle()
    assert await handle == timedelta(days=30, minutes=40)


async def test_a_clock_set_forward(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """An administrator sets the clock: an `eta` follows the wall clock, a `delay` does not."""
    by_wall = await defer_queue.enqueue(str, "eta", eta=defer_clock.now() + timedelta(hours=2))
    by_delay = await defer_queue.enqueue(str, "delay", delay=timedelta(hours=2))

    defer_clock.step(3600)
    await defer_clock.advance(timedelta(hours=1))
    assert (by_wall.done(), by_delay.done()) == (True, False)
