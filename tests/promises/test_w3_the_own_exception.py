"""W3: `await handle` raises the job's own exception."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

import pytest

import asyncdefer
from asyncdefer import GiveUp, Handle, JobCancelled, JobFailed, Queue, State
from asyncdefer.testing import VirtualClock


class Fussy(Exception):
    """Cannot be made again from its `args`, so a copy of it would not do."""

    def __init__(self, *, code: int, hint: str) -> None:
        super().__init__()
        self.code = code
        self.hint = hint


async def error_of(handle: Handle[Any]) -> BaseException:
    try:
        await handle
    except BaseException as error:
        return error
    raise AssertionError("the job was to fail")


def as_job(kind: str, make: Callable[[], BaseException]) -> Callable[[], Any]:
    """A job that raises, as a coroutine or as a plain function in a thread."""

    def plain() -> NoReturn:
        raise make()

    async def coroutine() -> NoReturn:
        raise make()

    return plain if kind == "plain" else coroutine


each_kind = pytest.mark.parametrize("kind", ["coroutine", "plain"])


@each_kind
@pytest.mark.parametrize(
    "make",
    [
        lambda: LookupError("missing"),
        lambda: Fussy(code=7, hint="left"),
        lambda: TimeoutError("its own"),
        lambda: ExceptionGroup("two", [KeyError("a"), OSError(5, "b")]),
        lambda: AssertionError("wrong"),
        lambda: GiveUp("for good"),
    ],
    ids=["LookupError", "Fussy", "TimeoutError", "ExceptionGroup", "AssertionError", "GiveUp"],
)
async def test_it_is_the_very_exception(
    queue: Queue, clock: VirtualClock, kind: str, make: Callable[[], BaseException]
) -> None:
    """Every waiter gets the exception that the job raised: the object, not a likeness."""
    raised: list[BaseException] = []

    def remember() -> BaseException:
        raised.append(make())
        return raised[-1]

    handle = await queue.enqueue(as_job(kind, remember), delay=1)
    waiters = [asyncio.create_task(error_of(handle)) for _ in range(3)]
    await asyncio.sleep(0)
    await clock.advance(1)
    assert handle.state is State.FAILED
    async with asyncio.timeout(5):
        errors = await asyncio.gather(*waiters)
    assert [error is raised[0] for error in errors] == [True] * 3
    assert await error_of(handle) is raised[0]
    assert len(raised) == 1


async def test_the_traceback_leads_into_the_job(queue: Queue, clock: VirtualClock) -> None:
    """The traceback that a waiter sees shows the line in the job that raised."""

    async def deep_inside() -> None:
        raise LookupError("missing")

    async def job() -> None:
        await deep_inside()

    handle = await queue.enqueue(job)
    waiter = asyncio.create_task(error_of(handle))
    await clock.advance(0)
    error = await waiter
    names = [frame.name for frame in traceback.extract_tb(error.__traceback__)]
    assert "job" in names
    assert "deep_inside" in names


@pytest.mark.parametrize(
    ("kind", "make"),
    [
        ("coroutine", lambda: SystemExit(3)),
        ("plain", lambda: SystemExit(3)),
        ("coroutine", lambda: asyncio.CancelledError("its own")),
        ("plain", lambda: asyncio.CancelledError("its own")),
        ("plain", lambda: StopIteration(5)),  # a coroutine turns it into a RuntimeError itself
    ],
    ids=["exit", "exit in a thread", "cancelled", "cancelled in a thread", "stop in a thread"],
)
async def test_what_would_upset_the_waiter_is_wrapped(
    queue: Queue, clock: VirtualClock, kind: str, make: Callable[[], BaseException]
) -> None:
    """`SystemExit`, `CancelledError` and `StopIteration` come as the cause of a `JobFailed`."""
    handle = await queue.enqueue(as_job(kind, make))
    waiter = asyncio.create_task(error_of(handle))
    await asyncio.sleep(0)
    await clock.advance(0)
    assert handle.state is State.FAILED
    async with asyncio.timeout(5):
        error = await waiter
    assert isinstance(error, JobFailed)
    assert type(error.__cause__) is type(make())
    assert error.__cause__.args == make().args


async def test_the_timeout_of_a_job_is_a_timeout_error(queue: Queue, clock: VirtualClock) -> None:
    """A job that exceeds its `timeout` fails with `TimeoutError`."""

    async def slow() -> None:
        await asyncdefer.sleep(60)

    handle = await queue.options(timeout=5).enqueue(slow)
    await clock.advance(4)
    assert handle.state is State.RUNNING
    await clock.advance(1)
    assert handle.state is State.FAILED
    assert isinstance(await error_of(handle), TimeoutError)


async def test_a_job_may_translate_its_timeout(queue: Queue, clock: VirtualClock) -> None:
    """A job that answers its timeout with an exception of its own fails with that one or it."""

    async def slow() -> None:
        try:
            await asyncdefer.sleep(60)
        finally:
            raise LookupError("while cleaning up")

    handle = await queue.options(timeout=5).enqueue(slow)
    await clock.advance(5)
    assert handle.state is State.FAILED
    assert isinstance(await error_of(handle), (LookupError, TimeoutError))


async def test_the_failure_of_another_job_is_an_ordinary_exception(
    queue: Queue, clock: VirtualClock
) -> None:
    """A job that awaited a cancelled job fails with `JobCancelled`; it was not cancelled."""

    async def far() -> None:
        pass

    inner = await queue.enqueue(far, delay=3600)

    async def job() -> None:
        await inner

    handle = await queue.enqueue(job)
    await clock.advance(1)
    await inner.cancel()
    await clock.advance(1)
    assert (inner.state, handle.state) == (State.CANCELLED, State.FAILED)
    assert isinstance(await error_of(handle), JobCancelled)


async def test_every_caller_of_the_burst_gets_it(queue: Queue, clock: VirtualClock) -> None:
    """The exception of the run reaches the callers whose calls were replaced, too."""

    async def fails(n: int) -> None:
        raise Fussy(code=n, hint="")

    handles = [await queue.enqueue(fails, n, key="k", delay=1) for n in range(3)]
    await clock.advance(1)
    errors = [await error_of(handle) for handle in handles]
    assert [type(error) for error in errors] == [Fussy] * 3
    assert errors[0] is errors[1] is errors[2]
    assert isinstance(errors[0], Fussy)
    assert errors[0].code == 2


async def test_the_record_tells_it_as_text(queue: Queue, clock: VirtualClock) -> None:
    """The job's record shows the type, the message and the traceback of its exception."""

    async def fails() -> None:
        raise LookupError("missing")

    handle = await queue.enqueue(fails)
    await clock.advance(0)
    found = [job async for job in queue.jobs(state="FAILED")]
    assert [job.id for job in found] == [handle.id]
    error = found[0].error
    assert error is not None
    assert "LookupError" in error.type
    assert error.message == "missing"
    assert "in fails" in error.traceback
