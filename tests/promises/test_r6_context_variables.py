"""R6: a job sees the context variables of its newest caller; the queue's own tasks see none."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Coroutine
from contextvars import Context, ContextVar, copy_context
from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Clock, Queue, Snooze, SystemClock, current
from asyncdefer.testing import VirtualClock, virtual

request: ContextVar[object] = ContextVar("request", default="nobody's")


class Body:
    """Something large that a request keeps in its context."""


async def seen() -> object:
    return request.get()


def seen_in_a_thread() -> object:
    return request.get()


async def in_context(context: Context, work: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.get_running_loop().create_task(work, context=context)


async def as_caller(value: object, work: Coroutine[Any, Any, Any]) -> Any:
    """Do some work as a request of its own would, with its own variable."""
    context = Context()
    context.run(request.set, value)
    return await in_context(context, work)


async def test_a_job_sees_its_callers_variables(queue: Queue, clock: VirtualClock) -> None:
    """A job sees the variables as they were at its call, not as they are at its run."""
    request.set("first")
    first = await queue.enqueue(seen, delay=10)
    request.set("second")
    second = await queue.enqueue(seen, delay=5)
    request.set("later")
    await clock.advance(10)
    assert (await first, await second) == ("first", "second")


async def test_a_plain_function_sees_them_too(queue: Queue, clock: VirtualClock) -> None:
    """A function in a thread sees the variables of its caller."""
    handle = await as_caller("caller", queue.enqueue(seen_in_a_thread, delay=5))
    await clock.advance(5)
    assert await handle == "caller"


async def test_the_newest_caller_counts(queue: Queue, clock: VirtualClock) -> None:
    """When calls of a key fold into one run, it is the newest caller's variables that it sees."""
    for name in ("first", "second", "newest"):
        handle = await as_caller(name, queue.enqueue(seen, key="k", delay=10))
        await clock.advance(1)
    await clock.advance(10)
    assert await handle == "newest"


async def test_the_newest_caller_counts_in_the_line() -> None:
    """A newer call of a job that already waits for a slot brings its own variables."""
    queue = Queue(concurrency=1)

    async def busy() -> None:
        await asyncdefer.sleep(60)

    async with virtual(queue) as clock:
        await queue.enqueue(busy)
        await as_caller("older", queue.enqueue(seen, key="k"))
        await clock.advance(5)
        handle = await as_caller("newest", queue.enqueue(seen, key="k"))
        await clock.advance(60)
        assert await handle == "newest"


async def test_every_door_carries_them(queue: Queue, clock: VirtualClock) -> None:
    """The variables travel by `enqueue_nowait`, by `options`, by a task, and from a thread."""
    task = queue.task(name="seen")(seen)

    async def nowait() -> Any:
        return queue.enqueue_nowait(seen, delay=1)

    async def thread() -> Any:
        return await asyncio.to_thread(queue.enqueue_from_thread, seen, delay=1)

    handles = [
        await as_caller("nowait", nowait()),
        await as_caller("options", queue.options(delay=1).enqueue(seen)),
        await as_caller("task", task.enqueue()),
        await as_caller("thread", thread()),
    ]
    await clock.advance(2)
    assert [await handle for handle in handles] == ["nowait", "options", "task", "thread"]


async def test_a_jobs_own_changes_stay_in_it(queue: Queue, clock: VirtualClock) -> None:
    """What a job sets is seen neither by its caller nor by other calls of the same caller."""
    request.set("caller")

    async def sets() -> None:
        request.set("job")

    first = await queue.enqueue(sets, delay=1)
    second = await queue.enqueue(seen, delay=2)
    await clock.advance(3)
    await first
    assert await second == "caller"
    assert request.get() == "caller"


async def test_two_runs_of_one_caller_at_once(queue: Queue, clock: VirtualClock) -> None:
    """Jobs of one caller may run at once: each has the variables, none blocks the other."""
    request.set("caller")

    async def slow(n: int) -> tuple[object, int]:
        before = request.get()
        request.set(n)
        await asyncdefer.sleep(10)
        assert request.get() == n
        return before, n

    handles = [await queue.enqueue(slow, n) for n in range(10)]
    await clock.advance(10)
    assert [await handle for handle in handles] == [("caller", n) for n in range(10)]


class Incomparable:
    """Cannot be compared, as an array cannot."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("the truth of a comparison is ambiguous")

    __hash__ = None  # type: ignore[assignment]


async def test_equal_is_not_the_same(queue: Queue, clock: VirtualClock) -> None:
    """Callers whose variables are equal, or cannot be compared, each have their own."""
    values: list[object] = [1, True, 1.0, [], [], {}, {}, Incomparable(), Incomparable()]
    handles = []
    for value in values:
        context = Context()
        context.run(request.set, value)
        # All in one breath, as a loop over many requests would be.
        handles.append(context.run(queue.enqueue_nowait, seen, delay=1))
    await clock.advance(1)
    for handle, value in zip(handles, values, strict=True):
        assert (await handle) is value


async def test_a_snooze_keeps_them(queue: Queue, clock: VirtualClock) -> None:
    """The next run of a job that snoozed sees its caller's variables again."""
    observed: list[object] = []

    async def snoozer() -> None:
        observed.append(request.get())
        if current().attempt < 3:
            raise Snooze(delay=5)

    await as_caller("caller", queue.enqueue(snoozer))
    await clock.advance(20)
    assert observed == ["caller"] * 3


async def test_the_starters_variables_reach_no_job() -> None:
    """A job whose caller set nothing sees nothing of the task that started the queue."""
    context = copy_context()
    context.run(request.set, "starter")
    clock = VirtualClock()
    queue = Queue(clock=clock)
    await in_context(context, queue.start())
    try:
        await as_caller("first caller", queue.enqueue(seen, delay=1))
        coroutine = await in_context(Context(), queue.enqueue(seen, delay=2))
        plain = await in_context(Context(), queue.enqueue(seen_in_a_thread, delay=2))
        await clock.advance(3)
        assert await coroutine == "nobody's"
        assert await plain == "nobody's"
    finally:
        await queue.close()


async def test_the_queue_holds_nobodys_context() -> None:
    """Whoever starts the queue, its tasks run in an empty context and keep nothing alive."""
    queue = Queue(clock=VirtualClock())
    body = Body()
    gone = weakref.ref(body)
    context = Context()
    context.run(request.set, body)
    await in_context(context, queue.start())
    del body, context
    for _ in range(10):
        await asyncio.sleep(0)
    gc.collect()
    kept = gone()
    await queue.close()
    assert kept is None, "the queue's own task runs in its starter's context"


@pytest.mark.parametrize("mine", [60, 3600], ids=["the next", "a later one"])
@pytest.mark.parametrize("clock", [VirtualClock, SystemClock])
async def test_the_wait_for_a_timer_holds_nobodys_context(clock: type[Clock], mine: float) -> None:
    """The queue, while it waits for the next timer, does not hold the context of a past caller."""
    # With the system clock no time is spent: what counts is what the armed timer holds.
    queue = Queue(result_ttl=0, clock=clock())
    async with queue:
        body = Body()
        gone = weakref.ref(body)
        if mine > 600:
            await in_context(Context(), queue.enqueue(seen, delay=600))
        for _ in range(5):
            await asyncio.sleep(0)  # the queue waits for that one now
        handle = await as_caller(body, queue.enqueue(seen, delay=mine))
        for _ in range(5):
            await asyncio.sleep(0)
        if mine < 600:
            await in_context(Context(), queue.enqueue(seen, delay=600))
        assert await handle.cancel() is True
        del body, handle
        for _ in range(5):
            await asyncio.sleep(0)
        gc.collect()
        assert gone() is None


async def test_what_the_queue_tells_it_tells_in_nobodys_context(
    queue: Queue, clock: VirtualClock
) -> None:
    """Events of the queue's own turns come in an empty context, not in some caller's."""
    told: list[tuple[str, object]] = []
    own = {"job_started", "job_expired"}
    unsubscribe = queue.subscribe(
        lambda event: told.append((event.name, request.get())) if event.name in own else None
    )
    await as_caller("caller", queue.enqueue(seen))
    await clock.advance(1)
    stale = queue.options(eta=clock.now() - timedelta(seconds=10), expires=1)
    await as_caller("caller", stale.enqueue(seen))
    await clock.advance(1)
    assert told == [(name, "nobody's") for name in ("job_started", "job_expired")]
    unsubscribe()


async def test_a_job_that_has_ended_holds_nobodys_context(
    queue: Queue, clock: VirtualClock
) -> None:
    """What can still be looked up of an ended job is its record, not its caller's context."""
    body = Body()
    gone = weakref.ref(body)

    async def noop() -> None:
        pass

    handle = await as_caller(body, queue.enqueue(noop, delay=1))
    await clock.advance(2)
    assert handle.done()
    del body, handle
    gc.collect()
    assert gone() is None
