"""R4: a failing job is tried exactly `attempts` times, with growing waits, behind one handle."""

import time
from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import (
    Defer,
    GiveUp,
    JobCancelled,
    JobExpired,
    JobFailed,
    LogEvent,
    Queue,
    Retry,
    Snooze,
    State,
    current,
)
from asyncdefer.testing import VirtualClock


class Flaky:
    """A job that fails so many times, and knows when it ran."""

    def __init__(
        self, clock: VirtualClock, failures: int, error: BaseException | None = None
    ) -> None:
        self.clock = clock
        self.start = clock.monotonic()
        self.failures = failures
        self.error = error or ValueError("not yet")
        self.at: list[float] = []
        self.attempts: list[int] = []

    async def __call__(self, *args: Any) -> str:
        self.at.append(self.clock.monotonic() - self.start)
        self.attempts.append(current().attempt)
        if len(self.at) <= self.failures:
            raise self.error
        return f"after {len(self.at)}"


@pytest.mark.parametrize("attempts", [1, 2, 5])
async def test_no_attempt_more_and_none_less(
    queue: Queue, clock: VirtualClock, attempts: int
) -> None:
    """A job that always fails runs `attempts` times, the first run too, and then is FAILED."""
    job = Flaky(clock, 99)
    handle = await queue.options(retry=attempts).enqueue(job)
    await clock.advance(timedelta(days=1))
    assert job.attempts == list(range(1, attempts + 1))
    assert (handle.state, handle.attempt) == (State.FAILED, attempts)
    with pytest.raises(ValueError, match="not yet"):
        await handle


async def test_the_waits(queue: Queue, clock: VirtualClock) -> None:
    """`min(delay * factor ** (n - 1), max_delay)` between the end of one run and the next."""
    job = Flaky(clock, 4)
    retry = Retry(9, delay=2, factor=3, max_delay=20, jitter=False)
    handle = await queue.options(retry=retry).enqueue(job)
    await clock.advance(100)
    assert job.at == [0, 2, 8, 26, 46]
    assert await handle == "after 5"


async def test_jitter_comes_from_where_the_rule_says(
    defer_queue: Queue, clock: VirtualClock
) -> None:
    """A source of one's own makes the waits of a test repeatable."""
    queue = defer_queue
    job, source = Flaky(clock, 3), iter([0.5, 0.0, 1.0])
    retry = Retry(5, delay=4, jitter=lambda: next(source))
    await queue.options(retry=retry).enqueue(job)
    await clock.advance(100)
    assert job.at == [0, 2, 2, 18]


async def test_a_function_says_how_long_to_wait(defer_queue: Queue, clock: VirtualClock) -> None:
    """It gets the number of failures and the error, as an API that says Retry-After needs it."""
    queue = defer_queue

    class Busy(Exception):
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

    def wait(failures: int, error: BaseException) -> float:
        return failures * error.seconds if isinstance(error, Busy) else 1

    job = Flaky(clock, 3, Busy(10))
    await queue.options(retry=Retry(5, delay=wait)).enqueue(job)
    await clock.advance(100)
    assert job.at == [0, 10, 30, 60]


async def test_the_handle_stays_pending(queue: Queue, clock: VirtualClock) -> None:
    """Who waits sees one outcome, the last; in between the job is scheduled, with an eta."""
    begin = clock.now()
    job = Flaky(clock, 1)
    handle = await queue.options(retry=Retry(2, delay=30, jitter=False)).enqueue(job)
    await clock.advance(10)
    assert (handle.state, handle.done(), handle.attempt) == (State.SCHEDULED, False, 1)
    assert handle.eta == begin + timedelta(seconds=30)
    with pytest.raises(TimeoutError):
        await handle.result(timeout=0)
    await clock.advance(20)
    assert await handle == "after 2"
    assert queue.stats().failed == 0


async def test_a_newer_call_takes_over(queue: Queue, clock: VirtualClock) -> None:
    """A job that waits for a retry is a waiting job: a call of its key replaces it."""
    runs: list[str] = []

    @queue.task(defer=["doc"], retry=Retry(3, delay=60, jitter=False))
    async def save(doc: str, text: str) -> str:
        runs.append(text)
        if text == "bad":
            raise ValueError(text)
        return text

    first = await save.enqueue("a", "bad")
    await clock.advance(10)
    second = await save.enqueue("a", "good")
    await clock.advance(1)
    assert (await first, await second) == ("good", "good")
    assert runs == ["bad", "good"]
    assert first.replaced


async def test_a_call_that_came_during_the_run_takes_over(
    queue: Queue, clock: VirtualClock
) -> None:
    """The failing run gives way to the newer call: no retry, and its waiters follow."""
    runs: list[str] = []

    @queue.task(defer=Defer(params=["doc"]), retry=5)
    async def save(doc: str, text: str) -> str:
        runs.append(text)
        await asyncdefer.sleep(5)
        if text == "bad":
            raise ValueError(text)
        return text

    first = await save.enqueue("a", "bad")
    await clock.advance(1)
    second = await save.enqueue("a", "good")
    await clock.advance(20)
    assert (await first, await second) == ("good", "good")
    assert runs == ["bad", "good"]


async def test_a_newer_call_has_all_its_attempts(queue: Queue, clock: VirtualClock) -> None:
    """The failures of the replaced call are not counted against it."""
    job = Flaky(clock, 99)
    call = queue.options(retry=Retry(3, delay=10, jitter=False), key="k")
    await call.enqueue(job)
    await clock.advance(15)
    assert len(job.at) == 2
    await call.enqueue(job)
    await clock.advance(100)
    assert len(job.at) == 2 + 3


async def test_a_timeout_is_a_failure_like_others(queue: Queue, clock: VirtualClock) -> None:
    """An attempt that ran into its timeout is tried again."""
    runs: list[int] = []

    @queue.task(timeout=5, retry=Retry(3, delay=1, jitter=False))
    async def slow() -> int:
        runs.append(current().attempt)
        await asyncdefer.sleep(60 if len(runs) < 3 else 1)
        return len(runs)

    handle = await slow.enqueue()
    await clock.advance(60)
    assert await handle == 3
    assert runs == [1, 2, 3]


async def test_a_snooze_burns_no_attempt(queue: Queue, clock: VirtualClock) -> None:
    """It counts as a start, and not as one of the attempts."""
    attempts: list[int] = []

    @queue.task(retry=Retry(2, delay=1, jitter=False))
    async def poll() -> None:
        attempts.append(current().attempt)
        if len(attempts) in (1, 2, 4):
            raise Snooze(10)
        raise ValueError(len(attempts))

    handle = await poll.enqueue()
    await clock.advance(100)
    assert attempts == [1, 2, 3, 4, 5]
    with pytest.raises(ValueError, match="5"):
        await handle


async def test_giving_up_ends_at_once(queue: Queue, clock: VirtualClock) -> None:
    """Whatever attempts are left; the waiters get the GiveUp itself."""
    job = Flaky(clock, 99, GiveUp("no such user"))
    handle = await queue.options(retry=5).enqueue(job)
    await clock.advance(1000)
    assert len(job.at) == 1
    with pytest.raises(GiveUp, match="no such user"):
        await handle


@pytest.mark.parametrize(("error", "runs"), [(OSError(), 3), (KeyError(), 1), (TimeoutError(), 1)])
async def test_which_errors(
    defer_queue: Queue, clock: VirtualClock, error: Exception, runs: int
) -> None:
    """Errors of the kinds `on` are tried again, except those of the kinds `unless`."""
    queue = defer_queue
    job = Flaky(clock, 99, error)
    handle = await queue.options(retry=Retry(3, on=OSError, unless=TimeoutError)).enqueue(job)
    await clock.advance(100)
    assert len(job.at) == runs
    with pytest.raises(type(error)):
        await handle


async def test_a_system_exit_is_not_tried_again(defer_queue: Queue, clock: VirtualClock) -> None:
    """Unless the rule asks for it: the default is `Exception`."""
    queue = defer_queue
    for on, runs in ((Exception, 1), (BaseException, 2)):
        job = Flaky(clock, 99, SystemExit(1))
        handle = await queue.options(retry=Retry(2, on=on)).enqueue(job)
        await clock.advance(100)
        assert len(job.at) == runs
        with pytest.raises(JobFailed):
            await handle


async def test_a_plain_function_is_tried_again(queue: Queue, clock: VirtualClock) -> None:
    """Threads or not makes no difference."""
    runs: list[int] = []

    @queue.task(retry=Retry(3, delay=1))
    def flaky() -> int:
        runs.append(1)
        time.sleep(0)
        return 10 // (len(runs) - 1)

    handle = await flaky.enqueue()
    await clock.advance(10)
    assert await handle == 10


async def test_cancelled_between_two_attempts(queue: Queue, clock: VirtualClock) -> None:
    """It never runs again."""
    job = Flaky(clock, 99)
    handle = await queue.options(retry=Retry(5, delay=60, jitter=False)).enqueue(job)
    await clock.advance(10)
    assert await handle.cancel()
    await clock.advance(1000)
    assert len(job.at) == 1
    with pytest.raises(JobCancelled):
        await handle


async def test_a_run_that_is_cancelled_is_not_tried_again(
    defer_queue: Queue, clock: VirtualClock
) -> None:
    """To cancel is not to fail."""
    queue = defer_queue
    runs: list[int] = []

    async def slow() -> None:
        runs.append(1)
        await asyncdefer.sleep(100)

    handle = await queue.options(retry=Retry(5, on=BaseException)).enqueue(slow)
    await clock.advance(1)
    assert await handle.cancel()
    await clock.advance(1000)
    assert runs == [1]
    assert handle.state is State.CANCELLED


async def test_a_retry_may_be_flushed_and_moved(queue: Queue, clock: VirtualClock) -> None:
    """It is a waiting job like any other."""
    job = Flaky(clock, 2)
    handle = await queue.options(retry=Retry(5, delay=1000, jitter=False)).enqueue(job)
    await clock.advance(5)
    assert await handle.flush()
    await clock.advance(5)
    assert job.at == [0, 5]
    assert await handle.reschedule(delay=10)
    await clock.advance(10)
    assert job.at == [0, 5, 20]
    assert await handle == "after 3"


async def test_a_retry_holds_no_slot(queue: Queue, clock: VirtualClock) -> None:
    """While one waits for its next attempt, others run."""
    job = Flaky(clock, 1)
    await queue.options(retry=Retry(2, delay=100, jitter=False)).enqueue(job)
    await clock.advance(1)
    assert queue.stats().running == 0
    assert await (await queue.enqueue(abs, -3)) == 3


async def test_expires_counts_from_the_eta_of_the_retry(queue: Queue, clock: VirtualClock) -> None:
    """A retry that finds no slot in time expires as a first attempt would."""
    job = Flaky(clock, 99)
    retry = Retry(5, delay=10, jitter=False)
    handle = await queue.options(retry=retry, expires=20).enqueue(job)
    await clock.advance(1)
    queue.pause()
    await clock.advance(28)
    assert not handle.done()
    await clock.advance(1)
    assert handle.state is State.EXPIRED
    with pytest.raises(JobExpired):
        await handle
    queue.resume()


async def test_each_failure_is_told(queue: Queue, clock: VirtualClock) -> None:
    """A retry says what went wrong, which attempt it was and when the next one is."""
    told: list[LogEvent] = []
    queue.subscribe(told.append)
    begin = clock.now()
    job = Flaky(clock, 1)
    await queue.options(retry=Retry(2, delay=30, jitter=False)).enqueue(job)
    await clock.advance(100)
    (event,) = [event for event in told if event.name == "job_retried"]
    assert event.error is not None
    assert (event.error.type, event.error.message) == ("ValueError", "not yet")
    assert (event.attempt, event.eta) == (1, begin + timedelta(seconds=30))
    assert [event.name for event in told].count("job_started") == 2


# -- what failed for good


async def test_what_failed_for_good_is_listed(queue: Queue, clock: VirtualClock) -> None:
    """With the type of the error, its message, its traceback and the attempts."""
    job = Flaky(clock, 99)
    handle = await queue.options(retry=3).enqueue(job, "x")
    await queue.enqueue(abs, -1)
    await clock.advance(100)
    (dead,) = [dead async for dead in queue.jobs(state=State.FAILED)]
    assert (dead.id, dead.attempt) == (handle.id, 3)
    assert dead.error is not None
    assert (dead.error.type, dead.error.message) == ("ValueError", "not yet")
    assert "in __call__" in dead.error.traceback
    with pytest.raises(ValueError, match="not yet"):
        await handle


async def test_redrive_begins_anew(queue: Queue, clock: VirtualClock) -> None:
    """All attempts again, under the same id; `discard` forgets it instead."""
    job = Flaky(clock, 99)
    handle = await queue.options(retry=Retry(3, delay=1)).enqueue(job)
    await clock.advance(100)
    again = await queue.redrive(handle.id)
    await clock.advance(100)
    assert job.attempts == [1, 2, 3, 1, 2, 3]
    assert again.id == handle.id
    assert await queue.discard(handle.id)
    assert [dead async for dead in queue.jobs(state=State.FAILED)] == []
    for each in (handle, again):
        with pytest.raises(ValueError, match="not yet"):
            await each


# -- where the rule stands


async def test_a_call_s_rule_counts_before_the_task_s(queue: Queue, clock: VirtualClock) -> None:
    """`retry=None` for one call is none at all."""
    job = Flaky(clock, 99)
    task = queue.task("flaky", retry=4)(job)
    for retry, runs in ((None, 1), (2, 2), (Retry(3), 3)):
        del job.at[:]
        handle = await task.options(retry=retry).enqueue()
        await clock.advance(1000)
        assert len(job.at) == runs
        assert handle.state is State.FAILED
        with pytest.raises(ValueError, match="not yet"):
            await handle


@pytest.mark.parametrize("retry", [0, -1, 1.5, True, "3"])
async def test_a_bad_rule_is_refused_at_once(queue: Queue, clock: VirtualClock, retry: Any) -> None:
    """On the decorator and at the call; nothing is accepted."""
    with pytest.raises(ValueError, match="attempts"):
        queue.task("bad", retry=retry)(abs)
    with pytest.raises(ValueError, match="attempts"):
        queue.options(retry=retry)
    assert queue.stats().accepted == 0
