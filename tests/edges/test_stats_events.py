"""Watching the queue: `stats()`, `subscribe`, and the log."""

import logging
from collections.abc import Iterator
from datetime import UTC, timedelta
from typing import Any

import pytest
import structlog

import asyncdefer
from asyncdefer import Queue, Snooze, Stats
from asyncdefer.testing import VirtualClock, virtual

SECRET = "correct horse battery staple"


async def work(seconds: float = 0, *secrets: object, **more: object) -> None:
    await asyncdefer.sleep(seconds)


async def fail() -> None:
    raise ZeroDivisionError


async def every_event(queue: Queue, clock: VirtualClock) -> None:
    """A history in which each kind of event happens, with a secret in every argument."""
    task = queue.task("jobs.work")(work)

    async def failing(secret: str) -> None:
        raise ZeroDivisionError

    async def snoozing(secret: str) -> None:
        if asyncdefer.current().attempt == 1:
            raise Snooze(delay=1)

    await task.enqueue(1, SECRET, secret=SECRET)
    await task.options(delay=5, key="k").enqueue(0, SECRET)
    await task.options(delay=5, key="k").enqueue(0, SECRET)
    await queue.enqueue(failing, SECRET)
    await queue.enqueue(snoozing, SECRET)
    waiting = await task.options(delay=5).enqueue(0, SECRET)
    await waiting.cancel()
    running = await task.enqueue(100, SECRET)
    await clock.advance(2)
    await running.cancel()
    await clock.advance(10)
    queue.pause(task)
    await task.options(expires=1).enqueue(0, SECRET)
    await clock.advance(5)
    queue.resume(task)


# stats


async def test_a_fresh_queue_has_counted_nothing(defer_queue: Queue) -> None:
    """Every count begins at 0."""
    stats = defer_queue.stats()

    assert isinstance(stats, Stats)
    counts = [
        "accepted",
        "claimed",
        "waiting",
        "running",
        "held",
        "succeeded",
        "failed",
        "cancelled",
        "replaced",
        "expired",
        "dropped",
    ]
    assert {name: getattr(stats, name) for name in counts} == dict.fromkeys(counts, 0)


async def test_stats_are_a_picture_of_the_moment(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """What `stats()` returned does not change afterwards."""
    before = defer_queue.stats()
    await defer_queue.enqueue(work, delay=5)
    during = defer_queue.stats()
    await defer_clock.advance(5)

    assert (before.accepted, before.waiting) == (0, 0)
    assert (during.accepted, during.waiting, during.succeeded) == (1, 1, 0)
    assert (defer_queue.stats().waiting, defer_queue.stats().succeeded) == (0, 1)


async def test_lateness() -> None:
    """Seconds between eta and start: median, 99th percentile and greatest."""
    queue = Queue(concurrency=1)
    async with virtual(queue) as clock:
        for _ in range(11):
            await queue.enqueue(work, 1)
        await clock.advance(20)
        lateness = queue.stats().lateness
        assert lateness.max == pytest.approx(10, rel=0.1)
        assert lateness.p50 == pytest.approx(5, rel=0.25)
        assert lateness.p50 <= lateness.p99 <= lateness.max


async def test_lateness_of_jobs_on_time(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """On a virtual clock with free slots everything starts exactly on time."""
    for n in range(100):
        await defer_queue.enqueue(work, delay=n)
    await defer_clock.advance(100)

    lateness = defer_queue.stats().lateness
    assert lateness.max <= 0.001
    assert lateness.p50 <= lateness.p99 <= 0.001


# subscribe


async def test_the_events_of_a_job(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Accepted, started, succeeded: each with its time, job, task and key."""
    events: list[Any] = []
    defer_queue.subscribe(events.append)
    task = defer_queue.task("jobs.work")(work)
    start = defer_clock.now()
    handle = await task.options(delay=10, key="k").enqueue(5)
    await defer_clock.advance(15)

    assert [event.name for event in events] == ["job_accepted", "job_started", "job_succeeded"]
    assert [event.at for event in events] == [start + timedelta(seconds=n) for n in (0, 10, 15)]
    for event in events:
        assert event.at.tzinfo is UTC
        assert (event.job_id, event.task, event.key) == (handle.id, "jobs.work", "k")


async def test_every_ending_has_its_event(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Replaced, failed, snoozed, cancelled and expired jobs each say so, once."""
    events: list[str] = []
    defer_queue.subscribe(lambda event: events.append(event.name))
    await every_event(defer_queue, defer_clock)

    stats = defer_queue.stats()
    assert events.count("job_accepted") == stats.accepted == 8
    assert events.count("job_replaced") == stats.replaced == 1
    assert events.count("job_succeeded") == stats.succeeded == 3
    assert events.count("job_failed") == stats.failed == 1
    assert events.count("job_cancelled") == stats.cancelled == 2
    assert events.count("job_expired") == stats.expired == 1
    assert events.count("job_started") == 6


async def test_whose_event_a_replacement_is(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`job_replaced` names the call that went."""
    events: list[Any] = []
    first = await defer_queue.enqueue(work, delay=5, key="k")
    defer_queue.subscribe(events.append)
    second = await defer_queue.enqueue(work, delay=5, key="k")

    by_name = {event.name: event.job_id for event in events}
    assert by_name == {"job_accepted": second.id, "job_replaced": first.id}


async def test_dropped_jobs_have_their_event() -> None:
    """What close() cuts off is reported job by job."""
    queue = Queue()
    events: list[Any] = []
    async with virtual(queue):
        queue.subscribe(events.append)
        handle = await queue.enqueue(work, delay=5)
        await queue.close()

    assert [e.job_id for e in events if e.name == "job_dropped"] == [handle.id]


async def test_unsubscribe(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """What `subscribe` returns ends it, for this subscriber only; twice does no harm."""
    one: list[str] = []
    two: list[str] = []
    unsubscribe = defer_queue.subscribe(lambda event: one.append(event.name))
    defer_queue.subscribe(lambda event: two.append(event.name))
    await defer_queue.enqueue(work, delay=5)
    unsubscribe()
    unsubscribe()
    await defer_clock.advance(5)

    assert one == ["job_accepted"]
    assert two == ["job_accepted", "job_started", "job_succeeded"]


async def test_a_subscriber_that_fails_harms_nobody(
    defer_queue: Queue, defer_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken callback is logged; the job, the caller and the other subscribers go on."""
    seen: list[str] = []

    def broken(event: object) -> None:
        raise ZeroDivisionError("the subscriber's fault")

    defer_queue.subscribe(broken)
    defer_queue.subscribe(lambda event: seen.append(event.name))
    handle = await defer_queue.enqueue(work, delay=5)
    await defer_clock.advance(5)

    assert await handle is None
    assert seen == ["job_accepted", "job_started", "job_succeeded"]
    assert "the subscriber's fault" in caplog.text


async def test_a_subscriber_may_use_the_queue(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A callback that reads the books or enqueues a follow-up finds the queue in order."""
    follow: list[asyncdefer.Handle[Any]] = []

    def on(event: Any) -> None:
        stats = defer_queue.stats()
        assert stats.accepted >= stats.succeeded
        if event.name == "job_succeeded" and not follow:
            follow.append(defer_queue.enqueue_nowait(work, delay=5))

    defer_queue.subscribe(on)
    await defer_queue.enqueue(work, delay=5)
    await defer_clock.advance(10)

    assert [handle.done() for handle in follow] == [True]


async def test_events_never_carry_arguments(
    defer_queue: Queue, defer_clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """No argument of any call is in an event, whatever happens to the job."""
    caplog.set_level(logging.DEBUG)
    events: list[Any] = []
    defer_queue.subscribe(events.append)
    await every_event(defer_queue, defer_clock)

    assert len(events) > 15
    assert not [event for event in events if SECRET in repr(event)]
    for record in caplog.records:
        assert SECRET not in repr(vars(record))


async def test_a_step_of_the_clock_is_reported(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """`clock_jumped` tells of a wall clock that was set while something waits for it."""
    events: list[Any] = []
    defer_queue.subscribe(events.append)
    await defer_queue.enqueue(work, eta=defer_clock.now() + timedelta(days=2))
    defer_clock.step(3600)
    await defer_clock.advance(5)

    jumps = [event for event in events if event.name == "clock_jumped"]
    assert len(jumps) == 1
    assert jumps[0].job_id is None


# the log


@pytest.fixture
def structured() -> Iterator[list[structlog.types.EventDict]]:
    """The program has configured structlog: what goes through it is collected."""
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[capture])
    yield capture.entries
    structlog.reset_defaults()


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "asyncdefer"]


async def test_without_structlog_events_go_to_the_stdlib_logger(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """If structlog is not configured, events are records of the logger "asyncdefer"."""
    assert not structlog.is_configured()
    caplog.set_level(logging.DEBUG, logger="asyncdefer")
    queue = Queue()
    async with virtual(queue) as clock:
        await every_event(queue, clock)

    messages = "\n".join(record.getMessage() for record in ours(caplog))
    for name in ("accepted", "started", "succeeded", "replaced", "failed", "cancelled", "expired"):
        assert f"asyncdefer.job_{name}" in messages
    assert "jobs.work" in messages
    assert SECRET not in messages
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


async def test_with_structlog_events_go_there(
    structured: list[structlog.types.EventDict], caplog: pytest.LogCaptureFixture
) -> None:
    """If structlog is configured, events go through it, with their values as keys."""
    caplog.set_level(logging.DEBUG, logger="asyncdefer")
    queue = Queue()
    async with virtual(queue) as clock:
        await every_event(queue, clock)

    by_name = {entry["event"]: entry for entry in structured}
    for name in ("accepted", "started", "succeeded", "replaced", "failed", "cancelled", "expired"):
        assert f"asyncdefer.job_{name}" in by_name
    assert by_name["asyncdefer.job_replaced"]["task"] == "jobs.work"
    assert by_name["asyncdefer.job_replaced"]["key"] == "k"
    assert "job_id" in by_name["asyncdefer.job_replaced"]
    assert not [entry for entry in structured if SECRET in repr(entry)]
    assert ours(caplog) == []


async def test_a_failure_is_an_error_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """At the default level a failed job is seen, and ordinary life is not."""
    caplog.set_level(logging.WARNING, logger="asyncdefer")
    queue = Queue()
    async with virtual(queue) as clock:
        await queue.enqueue(work)
        await clock.advance(1)
        assert ours(caplog) == []
        await queue.enqueue(fail)
        await clock.advance(1)

    assert any("asyncdefer.job_failed" in record.getMessage() for record in ours(caplog))


async def test_nothing_is_printed(
    defer_queue: Queue, defer_clock: VirtualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    """A library does not write to the program's stdout."""
    await every_event(defer_queue, defer_clock)

    assert capsys.readouterr().out == ""
