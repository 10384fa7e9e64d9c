"""`after`: a job waits until others have ended, and is told how."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from asyncdefer import (
    GiveUp,
    Handle,
    JobCancelled,
    Queue,
    QueueClosed,
    Retry,
    Snooze,
    State,
    current,
    sleep,
)
from asyncdefer.testing import VirtualClock, virtual

HOUR = 3_600


async def states() -> list[str]:
    """What a job is told of those that it has waited for."""
    return [str(state) for state in current().after.values()]


async def work(seconds: float = 0) -> str:
    await sleep(seconds)
    return "done"


async def fail() -> None:
    raise GiveUp("no")


async def outcome(handle: Handle[Any]) -> object:
    assert handle.done(), handle
    try:
        return await handle
    except Exception as error:
        return type(error)


async def test_it_runs_when_all_have_ended(queue: Queue, clock: VirtualClock) -> None:
    """In whatever order they end; it is told their states, in the order in which they were given."""

    async def told() -> dict[str, State]:
        return current().after

    long, short = await queue.enqueue(work, 20), await queue.enqueue(fail, delay=10)
    last = await queue.options(after=[long, short]).enqueue(told)
    assert last.state is State.HELD
    assert queue.stats().held == 1
    await clock.advance(19)
    assert last.state is State.HELD
    await clock.advance(1)
    found = await last
    assert found == {long.id: State.SUCCEEDED, short.id: State.FAILED}
    assert list(found) == [long.id, short.id]
    assert queue.stats().held == 0


async def cancelled(queue: Queue, clock: VirtualClock) -> Handle[Any]:
    handle = await queue.enqueue(work, delay=10)
    queue.clock.call_at(queue.clock.steady() + 10_000_000 - 1, lambda: cancel(handle))
    return handle


def cancel(handle: Handle[Any]) -> None:
    tasks.append(asyncio.ensure_future(handle.cancel()))


tasks: list[Any] = []


async def running_and_cancelled(queue: Queue, clock: VirtualClock) -> Handle[Any]:
    handle = await queue.enqueue(work, 100)
    queue.clock.call_at(queue.clock.steady() + 10_000_000, lambda: cancel(handle))
    return handle


async def succeeds(queue: Queue, clock: VirtualClock) -> Handle[Any]:
    return await queue.enqueue(work, delay=10)


async def fails(queue: Queue, clock: VirtualClock) -> Handle[Any]:
    return await queue.enqueue(fail, delay=10)


async def expires(queue: Queue, clock: VirtualClock) -> Handle[Any]:
    queue.pause(quiet)
    return await queue.options(expires=10).enqueue(quiet)


async def quiet() -> None: ...


async def dropped(queue: Queue, clock: VirtualClock) -> Handle[Any]:
    handle = await queue.enqueue(work, delay=20)

    def discard() -> None:
        tasks.append(asyncio.ensure_future(queue.discard(handle.id)))

    queue.clock.call_at(queue.clock.steady() + 10_000_000, discard)
    return handle


async def retries(queue: Queue, clock: VirtualClock) -> Handle[Any]:
    async def second() -> str:
        if current().attempt == 1:
            raise OSError("once")
        return "done"

    return await queue.options(retry=Retry(2, delay=10, jitter=False)).enqueue(second)


async def snoozes(queue: Queue, clock: VirtualClock) -> Handle[Any]:
    async def second() -> str:
        if current().attempt == 1:
            raise Snooze(delay=10)
        return "done"

    return await queue.enqueue(second)


async def waits_itself(queue: Queue, clock: VirtualClock) -> Handle[Any]:
    before = await queue.enqueue(work, delay=10)
    return await queue.options(after=[before]).enqueue(work)


Maker = Callable[..., Any]
ENDS: list[tuple[Maker, str]] = [
    (succeeds, "succeeded"),
    (fails, "failed"),
    (cancelled, "cancelled"),
    (running_and_cancelled, "cancelled"),
    (expires, "expired"),
    (dropped, "dropped"),
    (retries, "succeeded"),
    (snoozes, "succeeded"),
    (waits_itself, "succeeded"),
]


@pytest.mark.parametrize("failure", ["run", "cancel"])
@pytest.mark.parametrize(("make", "state"), ENDS)
async def test_however_they_end(
    queue: Queue, clock: VirtualClock, make: Maker, state: str, failure: Any
) -> None:
    """Each end is one; with "cancel" all but success cancels the job that waits, whatever the others do."""
    one = await make(queue, clock)
    other = await queue.enqueue(work, delay=30)
    both = await queue.options(after=[one, other], after_failure=failure).enqueue(states)
    alone = await queue.options(after=[one], after_failure=failure).enqueue(states)
    await clock.advance(9)
    assert both.state is alone.state is State.HELD
    await clock.advance(2)
    assert one.state == state
    if failure == "cancel" and state != "succeeded":
        assert both.state is alone.state is State.CANCELLED
        with pytest.raises(JobCancelled, match=f"{one.id} of .*{state}"):
            await both
        return
    assert await outcome(alone) == [state]
    assert both.state is State.HELD
    await clock.advance(20)
    assert await outcome(both) == [state, "succeeded"]


@pytest.mark.parametrize("failure", ["run", "cancel"])
@pytest.mark.parametrize(("make", "state"), ENDS)
async def test_those_that_have_ended_before(
    queue: Queue, clock: VirtualClock, make: Maker, state: str, failure: Any
) -> None:
    """They count as they ended: the job runs at once, or is cancelled at the call."""
    one = await make(queue, clock)
    await clock.advance(11)
    late = await queue.options(after=[one], after_failure=failure).enqueue(states)
    await clock.advance(0)
    cancels = failure == "cancel" and state != "succeeded"
    assert await outcome(late) == (JobCancelled if cancels else [state])


async def test_an_end_that_is_being_written(queue: Queue, clock: VirtualClock) -> None:
    """A call in any moment around the end of the other sees that end, and runs after it."""
    one = await queue.enqueue(work)
    calls: list[asyncio.Future[Handle[Any]]] = []
    for _ in range(40):
        call = queue.options(after=[one], after_failure="cancel").enqueue(states)
        calls.append(asyncio.ensure_future(call))
        await asyncio.sleep(0)
    await clock.advance(0)
    assert [await outcome(await call) for call in calls] == [["succeeded"]] * 40


async def test_a_job_that_is_given_twice(queue: Queue, clock: VirtualClock) -> None:
    """It is waited for once, and told once."""
    one = await queue.enqueue(work, delay=1)
    twice = await queue.options(after=[one, one, one]).enqueue(states)
    await clock.advance(1)
    assert await outcome(twice) == ["succeeded"]


async def test_a_diamond(queue: Queue, clock: VirtualClock) -> None:
    """One, two after it, and one after both."""
    ran: list[str] = []

    async def note(name: str, seconds: float) -> None:
        await sleep(seconds)
        ran.append(name)

    top = await queue.enqueue(note, "top", 1)
    left = await queue.options(after=[top]).enqueue(note, "left", 5)
    right = await queue.options(after=[top]).enqueue(note, "right", 2)
    end = await queue.options(after=[left, right]).enqueue(note, "end", 0)
    await clock.run_until_idle()
    assert end.state is State.SUCCEEDED
    assert ran == ["top", "right", "left", "end"]


@pytest.mark.parametrize("failure", ["run", "cancel"])
async def test_a_long_chain(queue: Queue, clock: VirtualClock, failure: Any) -> None:
    """Hundreds in a row run one after another, or fall with the first one: the stack does not grow."""
    handles: list[Handle[Any]] = [await queue.enqueue(fail, delay=1)]
    for _ in range(600):
        call = queue.options(after=[handles[-1]], after_failure=failure)
        handles.append(await call.enqueue(states))
    await clock.run_until_idle(patience=30)
    wanted = State.SUCCEEDED if failure == "run" else State.CANCELLED
    assert {handle.state for handle in handles[1:]} == {wanted}


async def test_hundreds_in_one_list(queue: Queue, clock: VirtualClock) -> None:
    """All of them are waited for, and told."""
    many: list[Handle[Any]] = [queue.enqueue_nowait(fail) for _ in range(50)]
    many += [queue.enqueue_nowait(work, n % 7) for n in range(700)]
    last = await queue.options(after=many).enqueue(states)
    some = await queue.options(after=many, after_failure="cancel").enqueue(states)
    await clock.advance(5)
    assert (last.state, some.state) == (State.HELD, State.CANCELLED)
    await clock.run_until_idle()
    assert await outcome(last) == ["failed"] * 50 + ["succeeded"] * 700


async def test_a_run_that_awaits_what_waits_for_it(queue: Queue, clock: VirtualClock) -> None:
    """Nothing would ever end: it is an error in the run, however long the way round."""
    mine: list[Handle[Any]] = []

    async def awaits() -> None:
        await mine[-1]

    one = await queue.enqueue(awaits, delay=1)
    two = await queue.options(after=[one]).enqueue(work)
    mine += [two, await queue.options(after=[two]).enqueue(work)]
    await clock.advance(1)
    with pytest.raises(RuntimeError, match="waits for it, by `after`"):
        await one
    await clock.advance(0)
    assert await outcome(mine[-1]) == "done"


async def test_a_run_that_awaits_a_held_job(queue: Queue, clock: VirtualClock) -> None:
    """That waits for others than the run: there is nothing wrong with it."""

    async def parent() -> list[str]:
        one = await queue.enqueue(work, 5)
        return await (await queue.options(after=[one]).enqueue(states))

    handle = await queue.enqueue(parent)
    await clock.advance(5)
    assert await outcome(handle) == ["succeeded"]


async def test_a_close_in_memory() -> None:
    """Held jobs are dropped, their waiters told, and none of them runs because of what the close ends."""
    queue = Queue()
    ran: list[int] = []

    async def note() -> None:
        ran.append(1)

    async with virtual(queue) as clock:
        runs = await queue.enqueue(work, 100)
        waits = await queue.enqueue(work, delay=100)
        held = await queue.options(after=[runs, waits]).enqueue(note)
        soon = await queue.options(after=[runs]).enqueue(note)
        strict = await queue.options(after=[soon], after_failure="cancel").enqueue(note)
        await clock.advance(1)
        waiters = [asyncio.ensure_future(handle.result()) for handle in (held, soon, strict)]
        await asyncio.sleep(0)
        await queue.close()
        found = await asyncio.wait_for(asyncio.gather(*waiters, return_exceptions=True), 5)
        assert [type(one) for one in found] == [QueueClosed] * 3
        assert ran == []


async def test_an_endless_chain_holds_nothing(queue: Queue, clock: VirtualClock) -> None:
    """Each job after the one before: what has ended is forgotten in its time, as ever."""
    last: Handle[Any] = await queue.enqueue(work, delay=1)
    first = weakref.ref(last._call)
    for _ in range(5):
        last = await queue.options(after=[last], result_ttl=0, delay=1).enqueue(work)
        await clock.advance(1)
    await clock.advance(2 * HOUR)
    await queue.enqueue(work)
    await clock.advance(2)
    gc.collect()
    assert first() is None
    assert await last == "done"
