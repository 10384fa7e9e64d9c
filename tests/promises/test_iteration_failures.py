"""Iteration: an item that fails is tried again by the callback's own `Retry`, and then it is counted."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from asyncdefer import (
    GiveUp,
    IterationFailed,
    JobFailed,
    Queue,
    Report,
    Retry,
    Snooze,
    State,
)
from asyncdefer.testing import VirtualClock, check_conservation

Tried = list[tuple[int, float]]


def failing(
    queue: Queue, clock: VirtualClock, bad: set[int], error: Any = ValueError, **options: Any
) -> tuple[Any, Tried]:
    """A task that fails for these numbers, and what it was tried with, at which second."""
    tried: Tried = []
    begun = clock.now()

    @queue.task("callback", **options)
    async def callback(n: int) -> None:
        tried.append((n, (clock.now() - begun).total_seconds()))
        if n in bad:
            raise error("poison")

    return callback, tried


async def test_an_item_is_tried_as_often_as_any_job(queue: Queue, clock: VirtualClock) -> None:
    """After its last try the shard goes on behind it; the others have gone on all the time."""
    retry = Retry(4, delay=10, factor=2, jitter=False)
    callback, tried = failing(queue, clock, {2}, retry=retry)
    handle = await queue.iterate(range(10), callback, shards=2, max_failures=1)
    await clock.run_until_idle()
    report = await handle
    assert [at for n, at in tried if n == 2] == [0, 10, 30, 70]
    assert [at for n, at in tried if n == 3] == [70]
    assert {at for n, at in tried if n >= 5} == {0}
    assert (report.items, len(tried)) == (9, 13)
    [failed] = report.failed
    assert (failed.key, failed.error.type, failed.error.message) == (2, "ValueError", "poison")
    assert "in callback" in failed.error.traceback
    assert report.finished_at - report.started_at == timedelta(seconds=70)


async def test_the_next_item_begins_with_no_failure(queue: Queue, clock: VirtualClock) -> None:
    """Tries are counted for each item alone, also where the one before it has failed."""
    callback, tried = failing(queue, clock, {1, 2}, retry=Retry(2, delay=10, jitter=False))
    await queue.iterate(range(4), callback, shards=1, max_failures=9)
    await clock.run_until_idle()
    assert tried == [(0, 0), (1, 0), (1, 10), (2, 10), (2, 20), (3, 20)]


async def test_what_is_not_retried(queue: Queue, clock: VirtualClock) -> None:
    """`GiveUp`, and what `unless` names, fails for good at the first try."""
    retry = Retry(5, delay=10, unless=KeyError)
    callback, tried = failing(queue, clock, {1}, GiveUp, retry=retry)
    handle = await queue.iterate(range(3), callback, max_failures=1)
    await clock.run_until_idle()
    assert (await handle).failed[0].error.type == "GiveUp"
    assert len(tried) == 3


@pytest.mark.parametrize(("allowed", "fails"), [(0, True), (1, True), (2, False), (3, False)])
async def test_max_failures(
    queue: Queue, clock: VirtualClock, allowed: int, *, fails: bool
) -> None:
    """So many items may fail: finalize runs, and the report has them. One more, and it does not."""
    ended: list[Report] = []

    async def finalize(report: Report) -> None:
        ended.append(report)

    callback, _ = failing(queue, clock, {3, 13})
    handle = await queue.iterate(range(20), callback, finalize, shards=2, max_failures=allowed)
    await clock.run_until_idle()
    if fails:
        with pytest.raises(IterationFailed) as failed:
            await handle
        report = failed.value.report
        assert ended == []
        assert handle.state is State.FAILED
        assert report.items + len(report.failed) < 20 or allowed == 1
    else:
        report = await handle
        assert report.items == 18
        assert ended == [report]
    assert [one.key for one in report.failed] == ([3] if allowed == 0 else [3, 13])
    assert handle.progress().failed == len(report.failed)


async def test_too_many_failures_stop_all_shards(queue: Queue, clock: VirtualClock) -> None:
    """Once it is sure that the iteration fails, no shard goes on for long."""
    callback, tried = failing(queue, clock, set(range(1_000)))
    handle = await queue.iterate(range(100_000), callback, shards=4, max_failures=10)
    await clock.run_until_idle()
    with pytest.raises(IterationFailed, match=r"11 failed: 0: ValueError: poison; .*, and 8 more"):
        await handle
    assert len(tried) < 50_000


async def test_a_failed_iteration_after_a_restart(disk: Any, clock: VirtualClock) -> None:
    """Its handle raises the same error with the same report."""

    def program() -> tuple[Queue, Any]:
        queue = Queue(disk.store(), clock=clock)
        callback, _ = failing(queue, clock, {3, 5, 7})
        return queue, callback

    queue, callback = program()
    async with queue:
        handle = await queue.iterate(range(20), callback, shards=1, max_failures=2)
        await clock.run_until_idle()
        with pytest.raises(IterationFailed) as before:
            await handle
        disk.crash()
    queue, _ = program()
    async with queue:
        found = await queue.handle(handle.id)
        assert found is not None
        with pytest.raises(IterationFailed) as after:
            await found
        assert after.value.report == before.value.report
        assert str(after.value) == str(before.value)
        assert found.progress().failed == 3


async def test_failures_before_a_restart_count(disk: Any, clock: VirtualClock) -> None:
    """Those of shards that have ended too: the others stop as soon as there are too many."""
    tried: list[int] = []

    def program() -> tuple[Queue, Any]:
        queue = Queue(disk.store(), clock=clock)

        @queue.task("callback")
        async def callback(n: int) -> None:
            tried.append(n)
            if n < 2:
                raise ValueError(n)
            if n == 4 and len(tried) < 10:
                raise Snooze(100)
            if n == 5:
                raise ValueError(n)

        return queue, callback

    queue, callback = program()
    async with queue:
        handle = await queue.iterate(range(8), callback, shards=2, max_failures=2)
        await clock.advance(1)
        assert handle.progress().ended == 1
        disk.crash()
    tried += range(10)
    queue, _ = program()
    async with queue:
        await clock.advance(200)
        found = await queue.handle(handle.id)
        assert found is not None
        with pytest.raises(IterationFailed) as failed:
            await found
    assert [one.key for one in failed.value.report.failed] == [0, 1, 5]
    assert 6 not in tried[15:]


@pytest.mark.parametrize(
    "error", [SystemExit, asyncio.CancelledError, StopIteration, StopAsyncIteration]
)
@pytest.mark.parametrize("timeout", [None, 60])
async def test_nothing_that_an_item_raises_escapes(
    queue: Queue, clock: VirtualClock, error: type[BaseException], timeout: float | None
) -> None:
    """What would end a program or look like a cancellation is the failure of its item."""
    callback, tried = failing(queue, clock, {1}, error, timeout=timeout)
    handle = await queue.iterate(range(4), callback, shards=1, max_failures=1)
    await clock.run_until_idle()
    report = await handle
    assert [one.error.type for one in report.failed] == [error.__name__]
    assert [n for n, _ in tried] == [0, 1, 2, 3]


async def test_a_retry_whose_delay_fails(queue: Queue, clock: VirtualClock) -> None:
    """The error of the rule is that of the item; the shard goes on."""

    def delay(failures: int, error: BaseException) -> float:
        raise ZeroDivisionError("no delay")

    callback, _ = failing(queue, clock, {1}, retry=Retry(3, delay=delay))
    handle = await queue.iterate(range(3), callback, shards=1, max_failures=1)
    await clock.run_until_idle()
    assert (await handle).failed[0].error.type == "ZeroDivisionError"


async def test_snooze_in_a_callback(queue: Queue, clock: VirtualClock) -> None:
    """The item comes again later, and that counts as no failure."""
    tried: Tried = []
    begun = clock.now()

    @queue.task("callback", retry=Retry(2, delay=1))
    async def callback(n: int) -> None:
        tried.append((n, (clock.now() - begun).total_seconds()))
        if n == 1 and len(tried) < 5:
            raise Snooze(60)

    handle = await queue.iterate(range(3), callback, shards=1)
    await clock.run_until_idle()
    assert tried == [(0, 0), (1, 0), (1, 60), (1, 120), (1, 180), (2, 180)]
    assert (await handle).items == 3


async def test_many_failures_are_all_in_the_report(disk: Any, clock: VirtualClock) -> None:
    """Also after a restart and where they are more than fits a common result; of the first
    hundred of a shard the tracebacks are kept.
    """

    def program() -> tuple[Queue, Any]:
        queue = Queue(disk.store(), clock=clock)

        @queue.task("callback")
        async def callback(n: int) -> None:
            raise ValueError("x" * 1_000)

        return queue, callback

    queue, callback = program()
    async with queue:
        handle = await queue.iterate(range(1_500), callback, shards=2, max_failures=2_000)
        await clock.run_until_idle(patience=30)
        await handle
        disk.crash()
    queue, _ = program()
    async with queue:
        found = await queue.handle(handle.id)
        assert found is not None
        report: Report = await found
        assert [one.key for one in report.failed] == list(range(1_500))
        assert sum(bool(one.error.traceback) for one in report.failed) == 200


async def test_a_failure_that_nobody_awaits_is_logged(
    queue: Queue, clock: VirtualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """As with any job: once, as an error."""
    callback, _ = failing(queue, clock, {1})
    await queue.iterate(range(3), callback)
    await clock.run_until_idle()
    errors = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 1
    assert "IterationFailed" in errors[0]


async def test_a_job_that_passes_the_error_on(disk: Any, clock: VirtualClock) -> None:
    """A job that awaits an iteration and fails by its error is recorded like any other failure."""

    def program() -> Queue:
        queue = Queue(disk.store(), clock=clock)
        failing(queue, clock, {1})

        @queue.task("outer")
        async def outer() -> None:
            await (await queue.iterate(range(3), "callback"))

        return queue

    async with program() as queue:
        handle = await queue.enqueue(queue.task_of("outer"))
        await clock.run_until_idle()
        with pytest.raises(IterationFailed):
            await handle
        disk.crash()
    async with program() as queue:
        found = await queue.handle(handle.id)
        assert found is not None
        with pytest.raises(JobFailed, match=r"IterationFailed: \d items succeeded, 1 failed"):
            await found


async def test_an_iteration_cannot_be_redriven(queue: Queue, clock: VirtualClock) -> None:
    """Its shards are gone: it is begun again by another call."""
    callback, _ = failing(queue, clock, {1})
    handle = await queue.iterate(range(3), callback)
    await clock.run_until_idle()
    with pytest.raises(ValueError, match="iterate again"):
        await queue.redrive(handle.id)
    check_conservation(queue)
