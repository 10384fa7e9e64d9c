"""`after` and keys: a call that waits for others counts for its key when it is released."""

from __future__ import annotations

import asyncio
import gc
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import Defer, Every, Handle, JobCancelled, Queue, Retry, State, current, sleep
from asyncdefer.testing import VirtualClock, check_conservation

HOUR = 3_600


async def states() -> list[str]:
    return [str(state) for state in current().after.values()]


async def work(seconds: float = 0) -> str:
    await sleep(seconds)
    return "done"


async def note(text: str) -> str:
    if text == "bad":
        raise ValueError(text)
    return text


async def test_one_that_is_replaced(queue: Queue, clock: VirtualClock) -> None:
    """What it waits for is the newer call then, under the id that it was given."""
    old = await queue.enqueue(note, "old", key="k", delay=10)
    held = await queue.options(after=[old], after_failure="cancel").enqueue(states)
    told = await queue.options(after=[old]).enqueue(lambda_after)
    new = await queue.enqueue(note, "bad", key="k", delay=30)
    await clock.advance(20)
    assert held.state is State.HELD
    await clock.advance(10)
    assert new.state is State.FAILED
    assert held.state is State.CANCELLED
    assert await told == {old.id: "failed"}


async def lambda_after() -> dict[str, str]:
    return {id: str(state) for id, state in current().after.items()}


async def test_a_replaced_one_that_is_given(queue: Queue, clock: VirtualClock) -> None:
    """Its handle stands for the newer call, here as elsewhere."""
    old = await queue.enqueue(note, "old", key="k", delay=10)
    new = await queue.enqueue(note, "new", key="k", delay=30)
    held = await queue.options(after=[old, new]).enqueue(lambda_after)
    await clock.advance(29)
    assert held.state is State.HELD
    await clock.advance(1)
    assert await held == {old.id: "succeeded", new.id: "succeeded"}


async def test_a_retry_that_gives_way(queue: Queue, clock: VirtualClock) -> None:
    """A run that would be tried again and gives way to a newer call has not ended before that has."""

    async def once(text: str) -> str:
        await sleep(5)
        if text == "old":
            raise OSError(text)
        return text

    retry = queue.options(retry=Retry(3, delay=1), key="k")
    old = await retry.enqueue(once, "old")
    held = await queue.options(after=[old]).enqueue(states)
    await clock.advance(1)
    await queue.options(key="k", delay=100).enqueue(once, "new")
    await clock.advance(50)
    assert held.state is State.HELD
    await clock.advance(100)
    assert await held == ["succeeded"]


async def test_a_held_call_replaces_nothing_and_is_not_replaced(
    queue: Queue, clock: VirtualClock
) -> None:
    """Until it is released, calls of its key come and go as if it were not there."""
    one = await queue.enqueue(work, delay=10)
    waits = await queue.enqueue(note, "waits", key="k", delay=5)
    held = await queue.options(after=[one], key="k").enqueue(note, "held")
    again = await queue.options(after=[one], key="other").enqueue(note, "held too")
    assert not waits.replaced
    await clock.advance(5)
    assert await waits == "waits"
    await clock.advance(5)
    assert [await held, await again] == ["held", "held too"]
    assert queue.stats().replaced == 0


async def test_an_older_call_waits_at_the_release(queue: Queue, clock: VirtualClock) -> None:
    """It is replaced, and its waiters get the outcome of the one that is newer."""
    one = await queue.enqueue(work, delay=10)
    older = await queue.enqueue(folded, "older", key="k", delay=60)
    held = await queue.options(after=[one], key="k", delay=30).enqueue(folded, "held")
    last = await queue.options(after=[older]).enqueue(states)
    waiter = asyncio.ensure_future(older.result())
    await clock.advance(10)
    assert older.replaced
    assert (older.eta, older.state) == (held.eta, State.SCHEDULED)
    await clock.advance(20)
    assert await waiter == await held == ("held", 2)
    assert await last == ["succeeded"]
    assert queue.stats().replaced == 1


async def folded(text: str) -> tuple[str, int]:
    return text, current().calls


async def test_a_newer_call_waits_at_the_release(queue: Queue, clock: VirtualClock) -> None:
    """The newest call of a key wins, and this one follows it, with all who wait for it."""
    one = await queue.enqueue(work, delay=10)
    held = await queue.options(after=[one], key="k").enqueue(note, "held")
    newer = await queue.enqueue(note, "newer", key="k", delay=60)
    last = await queue.options(after=[held]).enqueue(states)
    waiter = asyncio.ensure_future(held.result())
    await clock.advance(10)
    assert held.replaced
    assert not newer.replaced
    assert (held.state, held.eta) == (State.SCHEDULED, newer.eta)
    assert last.state is State.HELD
    await clock.advance(50)
    assert await waiter == await newer == "newer"
    assert await last == ["succeeded"]


async def test_two_of_a_key_are_released_at_once(queue: Queue, clock: VirtualClock) -> None:
    """They become one run, of the newer one, whichever is released first."""
    one = await queue.enqueue(work, delay=10)
    handles = [
        await queue.options(after=[one], key="k", delay=60).enqueue(folded, text) for text in "abc"
    ]
    await clock.advance(60)
    assert [await handle for handle in handles] == [("c", 3)] * 3
    assert queue.stats().replaced == 2


async def test_the_key_runs_at_the_release(queue: Queue, clock: VirtualClock) -> None:
    """It waits for that run, as any call of the key."""
    one = await queue.enqueue(work, delay=10)
    runs = await queue.enqueue(work, 50, key="k")
    held = await queue.options(after=[one], key="k").enqueue(work, 0)
    await clock.advance(20)
    assert (runs.state, held.state) == (State.RUNNING, State.SCHEDULED)
    await clock.advance(30)
    assert await held == "done"


async def test_after_a_call_of_its_own_key(queue: Queue, clock: VirtualClock) -> None:
    """That it waits for the call whose place it would take is no circle: it takes the next one."""
    one = await queue.enqueue(note, "one", key="k", delay=10)
    two = await queue.options(after=[one], key="k").enqueue(note, "two")
    three = await queue.options(after=[two], key="k").enqueue(note, "three")
    assert not one.replaced
    await queue.enqueue(note, "one again", key="k", delay=20)
    await clock.advance(15)
    assert two.state is three.state is State.HELD
    await clock.advance(5)
    assert [await one, await two, await three] == ["one again", "two", "three"]


async def test_it_is_cancelled_under_its_key(queue: Queue, clock: VirtualClock) -> None:
    """The cancel of a held call spares the one that waits under its key, and the other way round."""
    one = await queue.enqueue(work, delay=10)
    held = await queue.options(after=[one], key="k").enqueue(note, "held")
    waits = await queue.enqueue(note, "waits", key="k", delay=5)
    assert await held.cancel()
    assert waits.state is State.SCHEDULED
    held = await queue.options(after=[one], key="k").enqueue(note, "held again")
    assert await waits.cancel()
    await clock.advance(10)
    assert await held == "held again"
    with pytest.raises(JobCancelled):
        await waits


async def test_max_wait_counts_from_the_release(queue: Queue, clock: VirtualClock) -> None:
    """The burst begins there, if no call waits; else the bound is that of the burst."""
    start = clock.now()
    ran: list[float] = []

    @queue.task(defer=Defer(["name"], max_wait=20), delay=15)
    async def bounded(name: str) -> None:
        ran.append((clock.now() - start) / timedelta(seconds=1))

    one = await queue.enqueue(work, delay=10)
    await bounded.options(after=[one], delay=60).enqueue("alone")
    await bounded.options(after=[one]).enqueue("burst")
    await bounded.enqueue("joins")
    await bounded.options(after=[one], delay=60).enqueue("joins")
    await clock.advance(12)
    for _ in range(2):
        await bounded.enqueue("burst")
        await clock.advance(9)
    await clock.advance(100)
    assert ran == [20, 30, 30]


@pytest.mark.parametrize(
    "rule", [{"leading": True}, {"keep": "first"}, {"keep": lambda old, new: new}]
)
async def test_rules_that_come_too_late(queue: Queue, clock: VirtualClock, rule: Any) -> None:
    """`leading` and `keep` decide at the call, so with `after` they are refused there."""

    @queue.task(defer=Defer(["name"], **rule), delay=15)
    async def ruled(name: str) -> str:
        return name

    one = await queue.enqueue(work, delay=10)
    with pytest.raises(ValueError, match="after together with defer=None"):
        await ruled.options(after=[one]).enqueue("k")
    assert queue.stats().accepted == 1
    free = await ruled.options(after=[one], defer=None).enqueue("k")
    named = await ruled.options(after=[one], defer=["name"]).enqueue("k")
    await clock.advance(15)
    assert [await free, await named] == ["k", "k"]


async def test_a_released_call_in_the_window_of_a_leading_run(
    queue: Queue, clock: VirtualClock
) -> None:
    """It is a call like any that comes in the window, and waits for its own eta there."""
    ran: list[Any] = []

    @queue.task(defer=Defer(["name"], leading=True), delay=60)
    async def leads(name: str, text: str) -> None:
        ran.append((text, clock.monotonic() - start))

    start = clock.monotonic()
    one = await queue.enqueue(work, delay=10)
    await leads.enqueue("k", "a")
    await leads.options(after=[one], defer=["name"], delay=30).enqueue("k", "b")
    await clock.advance(100)
    assert ran == [("a", 0), ("b", 30)]


async def test_under_the_key_of_a_schedule(queue: Queue, clock: VirtualClock) -> None:
    """The run that waits is newer or older: the newest wins, and an older schedule ends."""
    one = await queue.enqueue(work, delay=10)
    schedule = await queue.options(repeat=Every(HOUR), key="k").enqueue(note, "each hour")
    held = await queue.options(after=[one], key="k").enqueue(note, "held")
    await clock.advance(10)
    assert await held == "held"
    assert schedule.replaced
    assert await schedule == "held"


async def test_one_run_of_a_schedule(queue: Queue, clock: VirtualClock) -> None:
    """A schedule does not end; the run that is next does, and has an id to get its handle by."""
    schedule = await queue.options(repeat=Every(HOUR), key="k").enqueue(note, "each hour")
    run = await queue.handle(schedule.id)
    assert run is not None
    held = await queue.options(after=[run]).enqueue(states)
    await clock.advance(HOUR - 1)
    assert held.state is State.HELD
    await clock.advance(1)
    assert await held == ["succeeded"]
    await schedule.cancel()


def far(path: Path, clock: VirtualClock) -> Queue:
    queue = Queue(path, clock=clock)
    for fn in (work, note, states):
        queue.task(fn.__name__)(fn)
    return queue


@pytest.mark.parametrize("key", [None, "k"])
async def test_what_is_beyond_the_horizon(
    defer_clock: VirtualClock, tmp_path: Path, key: str | None
) -> None:
    """It is waited for however far it is, and whoever forgets its handle; so is one that replaces it."""
    clock = defer_clock
    async with far(tmp_path / "timers.db", clock) as queue:
        one = await queue.enqueue(queue.task_of("note"), "far", delay=5 * HOUR, key=key)
        held = await queue.options(after=[one], delay=9 * HOUR).enqueue(queue.task_of("states"))
        del one
        gc.collect()
        if key is not None:
            await queue.enqueue(queue.task_of("note"), "newer", delay=6 * HOUR, key=key)
            gc.collect()
        await clock.advance(6 * HOUR - 1)
        assert held.state is (State.HELD if key else State.SCHEDULED)
        await clock.advance(1)
        assert held.state is State.SCHEDULED
        await clock.advance(3 * HOUR)
        assert await held == ["succeeded"]
        check_conservation(queue)


@pytest.mark.parametrize("newer", [False, True])
async def test_a_far_call_of_the_key_that_is_only_a_row(
    defer_clock: VirtualClock, tmp_path: Path, newer: bool
) -> None:
    """The newest of a key wins though nobody knows of the other one before the journal tells."""
    clock = defer_clock
    async with far(tmp_path / "timers.db", clock) as queue:
        text = queue.task_of("note")
        one = await queue.enqueue(queue.task_of("work"), delay=10)
        if not newer:
            await queue.enqueue(text, "row", delay=5 * HOUR, key="k")
        held = await queue.options(after=[one], key="k", delay=10).enqueue(text, "held")
        if newer:
            await queue.enqueue(text, "row", delay=5 * HOUR, key="k")
        gc.collect()
        waiter = asyncio.ensure_future(held.result())
        await clock.advance(20)
        assert waiter.done() is not newer
        await clock.advance(5 * HOUR)
        assert await waiter == ("row" if newer else "held")
        assert queue.stats().succeeded == 2
        check_conservation(queue)


async def test_what_gives_way_to_a_far_call_that_nobody_holds(
    defer_clock: VirtualClock, tmp_path: Path
) -> None:
    """W1: its waiters get the outcome of that call, though its own caller has forgotten it."""
    clock = defer_clock

    async def again(text: str) -> str:
        await sleep(5)
        if text == "old":
            raise OSError(text)
        return text

    async with far(tmp_path / "timers.db", clock) as queue:
        task = queue.task("again", retry=Retry(3, delay=1))(again)
        old = await queue.enqueue(task, "old", key="k")
        waiter = asyncio.ensure_future(old.result())
        await clock.advance(1)
        newer: list[Handle[str]] = [await queue.enqueue(task, "far", key="k", delay=5 * HOUR)]
        await clock.advance(10)
        newer.clear()
        gc.collect()
        await clock.advance(6 * HOUR)
        assert await asyncio.wait_for(waiter, 5) == "far"
        check_conservation(queue)
