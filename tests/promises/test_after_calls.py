"""`after` and what else a call says: times and limits, its own cancel and listing, and what is refused."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncdefer import (
    Every,
    GiveUp,
    Handle,
    JobCancelled,
    JobDropped,
    JobExpired,
    Queue,
    RateLimit,
    State,
    current,
    sleep,
)
from asyncdefer.testing import VirtualClock

HOUR = 3_600


async def states() -> list[str]:
    """What a job is told of those that it has waited for."""
    return [str(state) for state in current().after.values()]


async def work(seconds: float = 0) -> str:
    await sleep(seconds)
    return "done"


async def fail() -> None:
    raise GiveUp("no")


async def quiet() -> None: ...


async def outcome(handle: Handle[Any]) -> object:
    assert handle.done(), handle
    try:
        return await handle
    except Exception as error:
        return type(error)


async def test_its_eta_counts_from_the_call(queue: Queue, clock: VirtualClock) -> None:
    """It runs at its eta or when the others have ended, whichever is later."""
    start = clock.now()
    one = await queue.enqueue(work, delay=10)

    async def when() -> tuple[float, float]:
        return (current().eta - start) / timedelta(seconds=1), current().lateness

    after = queue.options(after=[one])
    early = await queue.options(after=[one], delay=3).enqueue(when)
    late = await queue.options(after=[one], delay=30).enqueue(when)
    wall = await queue.options(after=[one], eta=start + timedelta(seconds=40)).enqueue(when)
    past = await queue.options(after=[one], eta=datetime(2001, 1, 1, tzinfo=UTC)).enqueue(when)
    plain = await after.enqueue(when)
    assert late.eta == start + timedelta(seconds=30)
    await clock.advance(10)
    assert late.state is wall.state is State.SCHEDULED
    assert [await outcome(handle) for handle in (early, past, plain)] == [(10, 0)] * 3
    await clock.advance(30)
    assert [await outcome(late), await outcome(wall)] == [(30, 0), (40, 0)]


async def test_it_is_moved_while_it_is_held(queue: Queue, clock: VirtualClock) -> None:
    """`reschedule` gives it another eta, and `flush` one that is now; it waits all the same."""
    start = clock.now()
    one = await queue.enqueue(work, delay=10)
    moved = await queue.options(after=[one]).enqueue(states)
    flushed = await queue.options(after=[one], delay=50).enqueue(states)
    assert await moved.reschedule(delay=20)
    assert await flushed.flush()
    assert moved.eta == start + timedelta(seconds=20)
    await clock.advance(5)
    assert moved.state is flushed.state is State.HELD
    await clock.advance(5)
    assert await outcome(flushed) == ["succeeded"]
    assert moved.state is State.SCHEDULED
    await clock.advance(10)
    assert await outcome(moved) == ["succeeded"]


async def test_it_is_cancelled_or_discarded_while_it_is_held(
    queue: Queue, clock: VirtualClock
) -> None:
    """It never runs, its waiters are told, and so are those that wait for it."""
    one = await queue.enqueue(work, delay=10)
    held = [await queue.options(after=[one]).enqueue(fail) for _ in range(2)]
    last = await queue.options(after=held).enqueue(states)
    waiter = asyncio.ensure_future(held[0].result())
    await asyncio.sleep(0)
    assert await held[0].cancel()
    assert await queue.discard(held[1].id)
    await clock.advance(0)
    with pytest.raises(JobCancelled):
        await asyncio.wait_for(waiter, 5)
    assert await outcome(held[1]) is JobDropped
    assert await outcome(last) == ["cancelled", "dropped"]
    assert not await held[0].cancel()
    await clock.advance(20)
    assert queue.stats().failed == 0


async def test_how_it_is_shown(queue: Queue, clock: VirtualClock) -> None:
    """`jobs(state="held")`, `handle(id)`, `stats().held` and its handle all know it."""
    one = await queue.enqueue(work, delay=10)
    held = await queue.options(after=[one], key="k", delay=5).enqueue(states)
    [job] = [job async for job in queue.jobs(state="held")]
    assert (job.id, job.key, job.state, job.eta) == (held.id, "k", State.HELD, held.eta)
    again = await queue.handle(held.id)
    assert again is not None
    assert again.state is State.HELD
    assert len([job async for job in queue.jobs()]) == 2
    assert (queue.stats().held, queue.stats().waiting) == (1, 1)
    await clock.advance(10)
    assert await again == ["succeeded"]
    assert [job async for job in queue.jobs(state="held")] == []


async def test_its_limits_count_from_the_release(clock: VirtualClock) -> None:
    """`expires`, `timeout`, retry, rate, priority and concurrency are those of any job."""
    queue = Queue(concurrency=1, clock=clock)
    ran: list[Any] = []

    @queue.task(rate_limit=RateLimit(1, per=10), concurrency=1)
    async def limited() -> None:
        ran.append(clock.monotonic() - start)

    async def name(text: str) -> None:
        ran.append(text)
        await sleep(1)

    async with queue:
        start = clock.monotonic()
        one = await queue.enqueue(work, 100)
        expiring = await queue.options(after=[one], expires=5).enqueue(name, "expiring")
        for text, ahead in (("second", 0), ("first", 100)):
            await queue.options(after=[one], priority=ahead).enqueue(name, text)
        slow = await queue.options(after=[one], timeout=2, retry=2).enqueue(work, 50)
        await clock.advance(100)
        assert ran == ["first"], "the one with a head start, of those released together"
        await clock.advance(150)
        assert expiring.state is State.SUCCEEDED
        assert slow.state is State.FAILED
        assert slow.attempt == 2
        for _ in range(3):
            await queue.options(after=[one]).enqueue(limited)
        ran.clear()
        await clock.advance(30)
        assert ran == [250, 260, 270]
        block = await queue.enqueue(work, 60)
        late = await queue.options(after=[one], expires=5).enqueue(name, "too late")
        await clock.advance(60)
        assert block.state is State.SUCCEEDED
        assert await outcome(late) is JobExpired


async def test_pause_and_resume(queue: Queue, clock: VirtualClock) -> None:
    """A paused task stands when it is released; one that is waited for is waited for."""
    one = await queue.enqueue(quiet, delay=10)
    held = await queue.options(after=[one]).enqueue(states)
    queue.pause(quiet)
    await clock.advance(20)
    assert held.state is State.HELD
    queue.pause(states)
    queue.resume(quiet)
    await clock.advance(1)
    assert held.state is State.SCHEDULED
    queue.resume(states)
    await clock.advance(0)
    assert await outcome(held) == ["succeeded"]


async def test_what_is_refused(queue: Queue, clock: VirtualClock) -> None:
    """Bad arguments are an error at the call that says what to do, and change nothing."""
    other = Queue(clock=clock)
    async with other:
        strange = await other.enqueue(work, delay=10)
        await strange.cancel()
    one = await queue.enqueue(work, delay=10)
    schedule = await queue.options(repeat=Every(HOUR), key="k").enqueue(work)
    before = queue.stats()
    bad: list[tuple[dict[str, Any], type[Exception], str]] = [
        ({"after": [strange]}, ValueError, "another queue"),
        ({"after": [one, schedule]}, ValueError, "repeats"),
        ({"after": [one, one.id]}, TypeError, "handles, not str"),
        ({"after": one.id}, TypeError, "handles, not str"),
        ({"after": one}, TypeError, "a list of handles, not Handle"),
        ({"after": 7}, TypeError, "a list of handles, not int"),
        ({"after": [None]}, TypeError, "handles, not NoneType"),
        ({"after": [one], "repeat": Every(5), "key": "x"}, ValueError, "repeat or after"),
        ({"after": [one], "after_failure": "stop"}, ValueError, '"run" or "cancel"'),
        ({"after": [one], "after_failure": True}, ValueError, '"run" or "cancel"'),
    ]
    for options, error, text in bad:
        with pytest.raises(error, match=text):
            await queue.options(**options).enqueue(work)
    with pytest.raises(TypeError):
        await queue.options(after=[one]).enqueue(work, 1, 2, 3)
    assert queue.stats() == before
    await schedule.cancel()
    await clock.advance(10)


async def test_a_handle_of_an_earlier_start(clock: VirtualClock) -> None:
    """Its job is another's by now: `queue.handle(id)` gives one that counts."""
    queue = Queue(clock=clock)
    async with queue:
        old = await queue.enqueue(work, delay=10)
        ended = await queue.enqueue(work)
        await clock.advance(0)
    async with queue:
        for handle in (old, ended):
            with pytest.raises(ValueError, match=r"started again.*queue\.handle"):
                await queue.options(after=[handle]).enqueue(work)
        assert queue.stats().accepted == 0


@pytest.mark.parametrize("none", [None, [], (), iter([])])
async def test_an_empty_list(queue: Queue, clock: VirtualClock, none: Any) -> None:
    """There is nothing to wait for: a call like any other."""
    handle = await queue.options(after=none, after_failure="cancel").enqueue(states)
    assert handle.state is not State.HELD
    await clock.advance(0)
    assert await outcome(handle) == []


async def test_redrive_and_discard_of_what_was_waited_for(
    queue: Queue, clock: VirtualClock
) -> None:
    """What a job was told stays as it was; one that is itself redriven is told the same again."""

    async def told() -> None:
        ran.append(await states())
        raise GiveUp("to be redriven")

    ran: list[Any] = []
    one, two = await queue.enqueue(fail), await queue.enqueue(work, delay=10)
    held = await queue.options(after=[one, two]).enqueue(told)
    await clock.advance(5)
    assert await queue.redrive(one.id)
    await clock.advance(1)
    assert await queue.discard(one.id)
    await clock.advance(10)
    assert ran == [["failed", "succeeded"]]
    await queue.redrive(held.id)
    await clock.advance(1)
    assert ran == [["failed", "succeeded"]] * 2
