"""D2: the newest call wins: its arguments, its eta, its options."""

from contextvars import ContextVar
from datetime import timedelta

import pytest

import asyncdefer
from asyncdefer import JobExpired, Queue, Snooze, State
from asyncdefer.testing import VirtualClock, virtual


async def test_its_arguments(queue: Queue, clock: VirtualClock) -> None:
    """The run gets the newest call's positional and keyword arguments, and none of an older one."""
    runs: list[tuple[object, ...]] = []

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, text: str = "default", *, urgent: bool = False) -> None:
        runs.append((user, text, urgent))

    await note.enqueue(1, "old", urgent=True)
    await note.enqueue(1)
    await clock.advance(10)

    assert runs == [(1, "default", False)]


async def test_its_later_eta(queue: Queue, clock: VirtualClock) -> None:
    """Each call of a burst pushes the run away: it starts `delay` after the last one."""
    start, runs = clock.now(), list[float]()

    @queue.task(delay=10, defer=True)
    async def note() -> None:
        runs.append((clock.now() - start).total_seconds())

    for _ in range(5):
        handle = await note.enqueue()
        assert handle.eta == clock.now() + timedelta(seconds=10)
        await clock.advance(9)
    assert runs == []
    await clock.advance(1)

    assert runs == [46.0]


async def test_its_earlier_eta(queue: Queue, clock: VirtualClock) -> None:
    """A newer call with an earlier eta pulls the run near, and nothing runs at the old eta."""
    start, runs = clock.now(), list[tuple[float, str]]()

    @queue.task(defer=["user"])
    async def note(user: int, text: str) -> None:
        runs.append(((clock.now() - start).total_seconds(), text))

    first = await note.options(delay=3600).enqueue(1, "in an hour")
    await clock.advance(1)
    await note.options(delay=5).enqueue(1, "in five seconds")

    assert first.eta == start + timedelta(seconds=6)
    await clock.advance(7200)
    assert runs == [(6.0, "in five seconds")]


async def test_its_eta_on_the_other_clock(queue: Queue, clock: VirtualClock) -> None:
    """A call with an eta replaces one with a delay, and the other way round."""
    start, runs = clock.now(), list[float]()

    @queue.task(defer=["user"])
    async def note(user: int) -> None:
        runs.append((clock.now() - start).total_seconds())

    await note.options(delay=5).enqueue(1)
    await note.options(eta=start + timedelta(seconds=20)).enqueue(1)
    await note.options(eta=start + timedelta(seconds=5)).enqueue(2)
    await note.options(delay=30).enqueue(2)
    await clock.advance(100)

    assert runs == [20.0, 30.0]


async def test_its_options_take_away_those_of_the_older_call(
    queue: Queue, clock: VirtualClock
) -> None:
    """Options given with an older call do not stick to the newer one."""

    @queue.task(delay=10, defer=["user"])
    async def note(user: int) -> str:
        await asyncdefer.sleep(60)
        return "finished"

    await note.options(timeout=1).enqueue(1)
    handle = await note.enqueue(1)
    await clock.advance(70)

    assert await handle == "finished"


async def test_its_options_hold(queue: Queue, clock: VirtualClock) -> None:
    """Options given with the newer call hold for the run that all callers wait for."""

    @queue.task(delay=10, defer=["user"])
    async def note(user: int) -> None:
        await asyncdefer.sleep(60)

    older = await note.enqueue(1)
    await note.options(timeout=1).enqueue(1)
    await clock.advance(11)

    assert older.done()
    with pytest.raises(TimeoutError):
        await older


async def test_its_expiry() -> None:
    """`expires` is the newest call's: none of the older call's, counted from the newer eta."""
    queue = Queue(concurrency=1)

    @queue.task
    async def block() -> None:
        await asyncdefer.sleep(100)

    @queue.task(defer=["user"])
    async def note(user: int) -> str:
        return "ran"

    async with virtual(queue) as clock:
        await block.enqueue()
        await clock.advance(0)
        await note.options(expires=5).enqueue(1)
        patient = await note.enqueue(1)
        await note.enqueue(2)
        hasty = await note.options(expires=5).enqueue(2)
        await clock.advance(5)
        assert (patient.state, hasty.state) == (State.SCHEDULED, State.EXPIRED)
        with pytest.raises(JobExpired):
            await hasty
        await clock.advance(95)
        assert await patient == "ran"


async def test_its_context(queue: Queue, clock: VirtualClock) -> None:
    """The run sees the context variables of the newest caller."""
    request: ContextVar[str] = ContextVar("request", default="none")
    seen: list[str] = []

    @queue.task(delay=10, defer=True)
    async def note() -> None:
        seen.append(request.get())

    for name in ("first", "second"):
        token = request.set(name)
        await note.enqueue()
        request.reset(token)
    await clock.advance(10)

    assert seen == ["second"]


async def test_it_wins_over_a_job_that_waits_to_run_again(
    queue: Queue, clock: VirtualClock
) -> None:
    """A job that snoozed waits like any other: a newer call replaces it, arguments, eta and all."""
    start, runs = clock.now(), list[tuple[float, str]]()

    @queue.task(defer=["user"])
    async def note(user: int, text: str) -> str:
        runs.append(((clock.now() - start).total_seconds(), text))
        if text == "old":
            raise Snooze(delay=100)
        return text

    old = await note.enqueue(1, "old")
    await clock.advance(10)
    await note.options(delay=5).enqueue(1, "new")

    assert old.replaced
    await clock.advance(500)
    assert runs == [(0.0, "old"), (15.0, "new")]
    assert await old == "new"


async def test_a_new_call_has_a_new_and_greater_id(queue: Queue, clock: VirtualClock) -> None:
    """A replacement is a new job: each handle keeps the id of its own call."""

    @queue.task(delay=10, defer=True)
    async def note() -> str:
        return asyncdefer.current().id

    handles = [await note.enqueue() for _ in range(10)]
    ids = [handle.id for handle in handles]

    assert len(set(ids)) == 10
    assert [int(id) for id in ids] == sorted(int(id) for id in ids)
    await clock.advance(10)
    assert [await handle for handle in handles] == [ids[-1]] * 10
    assert [handle.id for handle in handles] == ids
