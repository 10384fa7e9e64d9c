"""W5: an exception that nobody awaited is logged, once."""

from __future__ import annotations

import asyncio
import gc
import logging
from contextlib import suppress

import pytest

import asyncdefer
from asyncdefer import GiveUp, Handle, Queue
from asyncdefer.testing import VirtualClock

EVENT = "asyncdefer.job_failed"


async def fails() -> None:
    await asyncdefer.sleep(1)
    raise LookupError("a telling message")


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The failures that were logged; nothing else of weight may stand beside them."""
    gc.collect()  # a future with an exception that nobody took would speak up now
    loud = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record.name for record in loud] == ["asyncdefer"] * len(loud)
    assert all(EVENT in record.getMessage() for record in loud)
    return loud


async def swallow(handle: Handle[None]) -> None:
    with suppress(LookupError):
        await handle


async def test_nobody_waits(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure for which nobody waits is logged once, at ERROR, with its traceback."""
    handle = await queue.enqueue(fails)
    await clock.advance(2)
    assert handle.done()
    del handle
    await clock.advance(7200)
    logged = failures(caplog)
    assert len(logged) == 1
    assert "a telling message" in caplog.text
    assert "in fails" in caplog.text, "the traceback shows the line that raised"


async def test_it_stays_at_once_when_asked_later(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks after the failure was logged gets the exception, and no second line."""
    handle = await queue.enqueue(fails)
    await clock.advance(2)
    for _ in range(3):
        await swallow(handle)
    del handle
    assert len(failures(caplog)) == 1


async def test_somebody_waits(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure that somebody awaited is theirs: it is not logged as an error."""
    handle = await queue.enqueue(fails)
    waiters = [asyncio.create_task(swallow(handle)) for _ in range(2)]
    await asyncio.sleep(0)
    await clock.advance(2)
    await asyncio.gather(*waiters)
    del handle, waiters
    assert failures(caplog) == []


async def test_somebody_waits_with_a_timeout(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """`result(timeout)` is a wait like any other as long as it lasts."""
    handle = await queue.enqueue(fails)
    waiter = asyncio.create_task(handle.result(timeout=60))
    await asyncio.sleep(0)
    await clock.advance(2)
    with pytest.raises(LookupError):
        await waiter
    assert failures(caplog) == []


async def test_the_only_waiter_left(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A waiter that was cancelled before the failure did not await it: it is logged."""
    handle = await queue.enqueue(fails, delay=10)
    waiter = asyncio.create_task(swallow(handle))
    hasty = asyncio.create_task(handle.result(timeout=5))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.wait([waiter], timeout=5)
    await clock.advance(6)
    with pytest.raises(TimeoutError):
        await hasty
    assert failures(caplog) == []
    await clock.advance(10)
    assert len(failures(caplog)) == 1


async def test_one_of_the_burst_waits(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever of the burst waits, the failure of its run is awaited."""
    replaced = await queue.enqueue(fails, key="k", delay=10)
    waiter = asyncio.create_task(swallow(replaced))
    await asyncio.sleep(0)
    await queue.enqueue(fails, key="k", delay=10)
    await clock.advance(20)
    assert waiter.done()
    assert failures(caplog) == []


async def test_a_burst_fails_once(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A burst of calls that nobody awaits is one run, one failure and one line."""
    handles = [await queue.enqueue(fails, key="k", delay=10) for _ in range(5)]
    await clock.advance(20)
    assert all(handle.done() for handle in handles)
    del handles
    assert len(failures(caplog)) == 1


async def test_each_failure_has_its_line(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten jobs that fail unawaited are ten lines; ten that succeed are none."""

    async def works() -> None:
        await asyncdefer.sleep(1)

    for _ in range(10):
        await queue.enqueue(fails)
        await queue.enqueue(works)
    await clock.advance(5)
    assert len(failures(caplog)) == 10


async def test_giving_up_and_timing_out_are_failures(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """`GiveUp`, a timeout, a `SystemExit` and a failure in a thread are logged like any other."""

    async def gives_up() -> None:
        raise GiveUp("for good")

    async def leaves() -> None:
        raise SystemExit(3)

    def plain() -> None:
        raise LookupError("in a thread")

    await queue.enqueue(gives_up)
    await clock.advance(1)
    assert len(failures(caplog)) == 1
    await queue.options(timeout=0.5).enqueue(fails)
    await clock.advance(1)
    assert len(failures(caplog)) == 2
    await queue.enqueue(leaves)
    await clock.advance(1)
    assert len(failures(caplog)) == 3
    await queue.enqueue(plain)
    await clock.advance(1)
    assert len(failures(caplog)) == 4


async def test_other_ends_are_no_failures(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A job that was cancelled or expired with nobody waiting is not an error in the log."""
    waiting = await queue.enqueue(fails, delay=10)
    await waiting.cancel()
    running = await queue.enqueue(fails)
    await clock.advance(0.5)
    await running.cancel()
    await clock.advance(1)
    queue.pause()
    expired = await queue.options(expires=1).enqueue(fails)
    await clock.advance(5)
    queue.resume()
    assert waiting.done() and running.done() and expired.done()
    del waiting, running, expired
    assert failures(caplog) == []


async def test_the_line_never_shows_arguments(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A failure is logged with its task and its id, never with the arguments of the call."""
    caplog.set_level(logging.DEBUG, logger="asyncdefer")

    @queue.task(name="payments.charge")
    async def charge(card: str) -> None:
        raise LookupError("declined")

    handle = await charge.enqueue("4000-" + "0000-0000-0002")
    await clock.advance(1)
    assert len(failures(caplog)) == 1
    assert "payments.charge" in caplog.text
    assert handle.id in caplog.text
    assert "4000-0000-0000-0002" not in caplog.text
