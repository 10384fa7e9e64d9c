"""Finding jobs: `jobs()`, `handle(id)`, `pending`, and how long a finished one is kept."""

import gc
import re
from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Handle, Job, Queue, Snooze, State
from asyncdefer.testing import VirtualClock, virtual


async def work(seconds: float = 0, what: str = "done") -> str:
    await asyncdefer.sleep(seconds)
    if what == "fail":
        raise ValueError("no such user")
    return what


async def listed(queue: Queue, **filters: Any) -> list[Job]:
    return [job async for job in queue.jobs(**filters)]


# jobs


async def test_the_fields_of_a_job(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A job shows its whole life: when it came, started and ended, and with what arguments."""
    task = defer_queue.task("jobs.work")(work)
    start = defer_clock.now()
    handle = await task.options(delay=10, key="k").enqueue(5, what="seven")

    (job,) = await listed(defer_queue)
    assert (job.id, job.task, job.key, job.state) == (handle.id, "jobs.work", "k", State.SCHEDULED)
    assert (job.eta, job.attempt, job.calls) == (start + timedelta(seconds=10), 0, 1)
    assert (job.enqueued_at, job.started_at, job.finished_at) == (start, None, None)
    assert job.error is None
    assert "seven" in repr(job.arguments)

    await defer_clock.advance(12)
    (job,) = await listed(defer_queue)
    assert (job.state, job.attempt) == (State.RUNNING, 1)
    assert (job.started_at, job.finished_at) == (start + timedelta(seconds=10), None)

    await defer_clock.advance(10)
    (job,) = await listed(defer_queue)
    assert (job.state, job.attempt) == (State.SUCCEEDED, 1)
    assert job.started_at == start + timedelta(seconds=10)
    assert job.finished_at == start + timedelta(seconds=15)
    assert job.error is None


async def test_the_error_of_a_failed_job(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A failed job shows type, message and traceback as text."""
    await defer_queue.enqueue(work, 0, "fail")
    await defer_clock.advance(0)

    (job,) = await listed(defer_queue)
    assert job.state is State.FAILED
    assert job.error is not None
    assert "ValueError" in job.error.type
    assert job.error.message == "no such user"
    assert "in work" in job.error.traceback


async def test_calls_of_a_folded_job(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A burst is one job, which shows how many calls it stands for."""
    for _ in range(3):
        await defer_queue.enqueue(work, delay=10, key="k")

    assert [job.calls for job in await listed(defer_queue)] == [3]
    await defer_clock.advance(10)
    assert [job.calls for job in await listed(defer_queue)] == [3]


async def test_filters(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Jobs are found by state, by task, by the beginning of their key, and by all of them."""
    mail = defer_queue.task("mail")(work)
    push = defer_queue.task("push")(work)
    ids: dict[str, str] = {}
    for task in (mail, push):
        for key in ("user:1", "user:2", "order:1"):
            handle = await task.options(delay=10, key=key).enqueue()
            ids[f"{task.name} {key}"] = handle.id
    running = await mail.options(key="user:3").enqueue(100)
    await defer_clock.advance(0)

    async def names(**filters: Any) -> set[str]:
        found = {job.id for job in await listed(defer_queue, **filters)}
        return {name for name, id in {**ids, "running": running.id}.items() if id in found}

    everything = {*ids, "running"}
    assert await names() == everything
    assert await names(state=State.SCHEDULED) == set(ids)
    assert await names(state="SCHEDULED") == set(ids)
    assert await names(state=State.RUNNING) == {"running"}
    assert await names(state=State.SUCCEEDED) == set()
    assert await names(task=mail) == {name for name in everything if not name.startswith("push")}
    assert await names(task="push") == {name for name in ids if name.startswith("push")}
    assert await names(key_prefix="user:") == {name for name in everything if "order" not in name}
    assert await names(key_prefix="user:2") == {"mail user:2", "push user:2"}
    assert await names(key_prefix="%") == set()
    assert await names(state=State.SCHEDULED, task="mail", key_prefix="user:") == {
        "mail user:1",
        "mail user:2",
    }
    await defer_clock.advance(100)


async def test_jobs_without_a_key_have_no_prefix(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A key_prefix finds only jobs that have a key."""
    handle = await defer_queue.enqueue(work, delay=10)

    assert await listed(defer_queue, key_prefix=handle.id[:3]) == []


async def test_a_wrong_filter_is_an_error(defer_queue: Queue) -> None:
    """A state that does not exist is an error, not an empty list."""
    with pytest.raises(ValueError, match="sleeping"):
        await listed(defer_queue, state="sleeping")


async def test_jobs_come_in_eta_order(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Those that wait come in the order in which they are due, whichever clock they follow."""
    delays = [50, 10, 40, 20, 30]
    for delay in delays:
        await defer_queue.enqueue(work, delay=delay)
        await defer_queue.enqueue(work, eta=defer_clock.now() + timedelta(seconds=delay + 5))

    etas = [job.eta for job in await listed(defer_queue, state=State.SCHEDULED)]
    assert len(etas) == 10
    assert etas == sorted(etas)


async def test_many_jobs_are_listed_once_each(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Paging neither loses nor repeats a job, equal etas included."""
    handles = [await defer_queue.enqueue(work, delay=n % 7) for n in range(2500)]

    jobs = await listed(defer_queue)
    assert len(jobs) == 2500
    assert {job.id for job in jobs} == {handle.id for handle in handles}


async def test_the_queue_may_move_under_a_listing(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Enqueue, cancel and run while a listing goes on: what stays is listed exactly once."""
    handles = [await defer_queue.enqueue(work, delay=100 + n) for n in range(2000)]
    seen: list[str] = []
    n = 0
    async for job in defer_queue.jobs(state=State.SCHEDULED):
        seen.append(job.id)
        if n % 10 == 0:
            await handles[1000 + n // 10].cancel()
            await defer_queue.enqueue(work, delay=1)
        n += 1
    stayed = {handle.id for handle in handles if handle.state is State.SCHEDULED}

    assert len(seen) == len(set(seen))
    assert stayed <= set(seen)


async def test_a_job_is_a_picture_of_the_moment(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """What becomes of a job afterwards changes nothing in a record that was read before."""
    await defer_queue.enqueue(work, 0, "old", delay=10, key="k")
    (job,) = await listed(defer_queue)
    await defer_queue.enqueue(work, 0, "new", delay=10, key="k")

    assert (job.state, job.calls) == (State.SCHEDULED, 1)
    assert "old" in repr(job.arguments)
    (job,) = await listed(defer_queue)
    await defer_clock.advance(10)
    assert (job.state, job.attempt, job.finished_at) == (State.SCHEDULED, 0, None)
    assert "new" in repr(job.arguments)


async def test_times_of_the_past_stay_what_they_were(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Setting the wall clock does not rewrite when a job came, started and ended."""
    start = defer_clock.now()
    await defer_queue.enqueue(work, 5, delay=10)
    await defer_clock.advance(20)
    defer_clock.step(3600)

    (job,) = await listed(defer_queue)
    assert (job.enqueued_at, job.eta) == (start, start + timedelta(seconds=10))
    assert job.started_at == start + timedelta(seconds=10)
    assert job.finished_at == start + timedelta(seconds=15)


# handle


async def test_a_handle_by_id(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """By its id, a waiting, running and finished job is found, and its outcome with it."""
    id = (await defer_queue.enqueue(work, 5, "x", delay=10, key="k")).id

    for seconds, state in ((0, State.SCHEDULED), (10, State.RUNNING), (5, State.SUCCEEDED)):
        await defer_clock.advance(seconds)
        gc.collect()
        handle: Handle[Any] | None = await defer_queue.handle(id)
        assert handle is not None
        assert (handle.id, handle.key, handle.state) == (id, "k", state)
    assert await handle == "x"


async def test_a_failure_by_id(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """While this process has the exception, a handle found by id raises it."""
    id = (await defer_queue.enqueue(work, 0, "fail")).id
    await defer_clock.advance(0)

    handle = await defer_queue.handle(id)
    assert handle is not None
    with pytest.raises(ValueError, match="no such user"):
        await handle


@pytest.mark.parametrize("unknown", ["1", "0", "", "nonsense", "-5", "9" * 40])
async def test_an_unknown_id(defer_queue: Queue, unknown: str) -> None:
    """An id that names no job gives None, however odd it is."""
    assert await defer_queue.handle(unknown) is None


async def test_two_handles_of_one_job(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A handle found by id is as good as the caller's own: it can wait, and it can cancel."""
    own = await defer_queue.enqueue(work, delay=10)
    found = await defer_queue.handle(own.id)
    assert found is not None

    assert await found.cancel() is True
    assert (own.state, own.done()) == (State.CANCELLED, True)


async def test_the_id_of_a_replaced_call(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """The id of a replaced call finds the live job while somebody holds the handle."""
    old = await defer_queue.enqueue(work, 0, "old", delay=10, key="k")
    await defer_queue.enqueue(work, 0, "new", delay=20, key="k")

    found = await defer_queue.handle(old.id)
    assert found is not None
    assert found.eta == defer_clock.now() + timedelta(seconds=20)
    await defer_clock.advance(20)
    assert await found == "new"


async def test_the_id_of_a_replaced_call_that_nobody_holds(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """Replaced calls are not kept: with its handle gone, the id is unknown."""
    id = (await defer_queue.enqueue(work, delay=10, key="k")).id
    await defer_queue.enqueue(work, delay=20, key="k")
    gc.collect()

    assert await defer_queue.handle(id) is None
    assert [job.id for job in await listed(defer_queue)] != [id]


async def test_an_id_that_was_seen_elsewhere(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """It is the same if the id came from a listing or an event, and not from the handle."""
    old = await defer_queue.enqueue(work, 0, "old", delay=10, key="k")
    (job,) = await listed(defer_queue)
    new = await defer_queue.enqueue(work, 0, "new", delay=20, key="k")

    found = await defer_queue.handle(job.id)
    assert found is not None
    assert found.eta == new.eta
    assert old.id == job.id


# pending


async def test_pending_by_key(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`queue.pending(task, key)` is the call that waits under that key, and None when none does."""
    task = defer_queue.task("jobs.work")(work)
    await task.options(delay=10, key="k").enqueue()
    newest = await task.options(delay=10, key="k").enqueue(5)

    for name in (task, "jobs.work"):
        found = await defer_queue.pending(name, "k")
        assert found is not None
        assert found.id == newest.id
        assert await defer_queue.pending(name, "other") is None
    await defer_clock.advance(10)
    assert newest.state is State.RUNNING
    assert await defer_queue.pending(task, "k") is None
    await defer_clock.advance(5)
    assert await defer_queue.pending(task, "k") is None


async def test_pending_by_arguments(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`task.pending(…)` is the waiting call that these arguments would replace."""

    @defer_queue.task(delay=10, defer=["user", "document"])
    async def note(user: int, document: int = 7, text: str = "") -> str:
        return text

    handle = await note.enqueue(1, 7, "a")

    for found in (
        await note.pending(1, 7, "other text"),
        await note.pending(1),
        await note.pending(document=7, user=1),
        await defer_queue.pending(note, "[1,7]"),
    ):
        assert found is not None
        assert found.id == handle.id
    assert await note.pending(2) is None
    assert await note.pending(1, 8) is None
    assert defer_queue.stats().accepted == 1
    with pytest.raises(TypeError):
        await note.pending()  # type: ignore[call-arg]

    found = await note.pending(1)
    assert found is not None
    assert await found.flush() is True
    await defer_clock.advance(0)
    assert await handle == "a"


async def test_pending_while_the_key_runs(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A running job is not pending, the call that waits behind it is."""
    task = defer_queue.task("jobs.work", defer=True)(work)
    await task.enqueue(10)
    await defer_clock.advance(1)
    assert await task.pending(10) is None
    second = await task.enqueue(10)
    found = await task.pending(10)

    assert found is not None
    assert found.id == second.id
    await defer_clock.advance(60)


# result_ttl


@pytest.mark.parametrize("what", ["done", "fail"])
async def test_a_finished_job_is_kept_for_its_ttl(what: str) -> None:
    """`result_ttl` seconds after its end, a job can no longer be looked up."""
    queue = Queue(result_ttl=100)
    async with virtual(queue) as clock:
        id = (await queue.enqueue(work, 5, what, delay=5)).id
        await clock.advance(109)
        assert await queue.handle(id) is not None
        assert len(await listed(queue)) == 1
        await clock.advance(2)
        assert await queue.handle(id) is None
        assert await listed(queue) == []


async def test_the_holder_of_a_handle_keeps_the_result() -> None:
    """The ttl is about looking up: who holds a handle has the outcome as long as he likes."""
    queue = Queue(result_ttl=100)
    async with virtual(queue) as clock:
        handle = await queue.enqueue(work, 0, "x")
        await clock.advance(1000)
        assert await handle == "x"
        assert handle.state is State.SUCCEEDED


@pytest.mark.parametrize("ttl", [10, 10.0, timedelta(seconds=10)])
async def test_the_ttl_of_a_task_and_of_a_call(
    defer_queue: Queue, defer_clock: VirtualClock, ttl: float | timedelta
) -> None:
    """A task's `result_ttl` overrides the queue's, and a call's overrides the task's."""
    short = defer_queue.task("short", result_ttl=ttl)(work)
    long = defer_queue.task("long", result_ttl=3600 * 48)(work)
    ids = {
        "short": (await short.enqueue()).id,
        "short for long": (await short.options(result_ttl=500).enqueue()).id,
        "long for short": (await long.options(result_ttl=ttl).enqueue()).id,
        "long": (await long.enqueue()).id,
        "queue's": (await defer_queue.enqueue(work)).id,
    }

    async def kept() -> set[str]:
        return {name for name, id in ids.items() if await defer_queue.handle(id) is not None}

    await defer_clock.advance(9)
    assert await kept() == set(ids)
    await defer_clock.advance(2)
    assert await kept() == {"short for long", "long", "queue's"}
    await defer_clock.advance(500)
    assert await kept() == {"long", "queue's"}
    await defer_clock.advance(3600)
    assert await kept() == {"long"}


async def test_a_ttl_of_none_is_for_ever(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """`result_ttl=None` keeps the record for ever."""
    id = (await defer_queue.options(result_ttl=None).enqueue(work, 0, "x")).id
    await defer_clock.advance(timedelta(days=3650))

    handle = await defer_queue.handle(id)
    assert handle is not None
    assert await handle == "x"


async def test_a_ttl_of_zero_keeps_nothing() -> None:
    """`result_ttl=0` forgets a job when it has ended, its waiters excepted."""
    queue = Queue(result_ttl=0)
    async with virtual(queue) as clock:
        handle = await queue.enqueue(work, 0, "x")
        id = handle.id
        await clock.advance(1)
        assert await listed(queue) == []
        assert await handle == "x"
        del handle
        gc.collect()
        assert await queue.handle(id) is None


async def test_a_waiting_job_outlives_every_ttl() -> None:
    """The ttl begins at the end of the job: one that waits or snoozes is not forgotten."""
    queue = Queue(result_ttl=5)
    async with virtual(queue) as clock:
        id = (await queue.enqueue(work, 50, delay=1000)).id
        await clock.advance(1049)
        handle = await queue.handle(id)
        assert handle is not None
        assert handle.state is State.RUNNING
        await clock.advance(1)
        assert await handle == "done"


@pytest.mark.parametrize("how", ["reschedule", "snooze", "none"])
async def test_an_id_finds_the_live_call_while_a_handle_is_held(
    defer_queue: Queue, defer_clock: VirtualClock, how: str
) -> None:
    """Whatever became of the call before a newer one took its place."""

    async def job(n: int) -> None:
        if n == 1:
            raise Snooze(100)

    handle = await defer_queue.enqueue(job, 1, delay=5, key="k")
    id_ = handle.id
    if how == "reschedule":
        await handle.reschedule(delay=100)
    elif how == "snooze":
        await defer_clock.advance(6)
    newer = await defer_queue.enqueue(job, 2, delay=50, key="k")
    gc.collect()
    found = await defer_queue.handle(id_)
    assert found is not None
    assert found.eta == newer.eta
    assert handle.replaced


@pytest.mark.parametrize("how", ["reschedule", "snooze"])
async def test_an_id_outlives_its_handle(
    defer_queue: Queue, defer_clock: VirtualClock, how: str
) -> None:
    """A waiting job is found by an id that was told, however often it was moved."""

    async def job() -> None:
        raise Snooze(100)

    handle = await defer_queue.enqueue(job, delay=5, key="k")
    id_ = re.findall(r"\d{10,}", repr(handle))[0]
    if how == "reschedule":
        await handle.reschedule(delay=100)
    else:
        await defer_clock.advance(6)
    del handle
    gc.collect()
    found = await defer_queue.handle(id_)
    assert found is not None
    assert found.id == id_


async def test_a_listing_loses_no_id(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Also of a job that is moved while the listing is read."""
    handles = [await defer_queue.enqueue(abs, n, delay=50 + n, key=f"k{n}") for n in (0, 1)]
    ids = [handle.id for handle in handles]
    async for job in defer_queue.jobs():
        if job.id == ids[0]:
            await handles[1].reschedule(delay=500)
    del handles
    gc.collect()
    assert await defer_queue.handle(ids[1]) is not None


async def test_a_bare_function_is_not_held(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """Not even one that holds itself by a default."""

    class Connection:
        def __init__(self) -> None:
            def callback(me: Any = self) -> None: ...

            self.callback = callback

    handle = await defer_queue.enqueue(Connection().callback)
    await defer_clock.run_until_idle()
    await defer_queue.discard(handle.id)
    del handle
    gc.collect()
    assert not [thing for thing in gc.get_objects() if type(thing).__name__ == "Connection"]


async def test_a_listing_leaves_out_what_was_replaced_meanwhile(defer_queue: Queue) -> None:
    """Its arguments are gone, and the newer call was not there when the listing began."""
    task = defer_queue.task("t", delay=60)(abs)
    for n in range(3):
        await task.options(key=str(n)).enqueue(-n)
    seen: list[object] = []
    async for job in defer_queue.jobs():
        seen.append(job.arguments)
        await task.options(key="1").enqueue(-9)
    assert len(seen) == 2


async def test_jobs_of_a_bare_function(defer_queue: Queue) -> None:
    """It can be asked for by itself, as wherever a task is named."""
    await defer_queue.enqueue(abs, -1, delay=60)
    await defer_queue.enqueue(len, "ab", delay=60)
    assert [job.task async for job in defer_queue.jobs(task=len)] == ["builtins.len"]
    with pytest.raises(TypeError, match="callable"):
        [job async for job in defer_queue.jobs(task=5)]  # type: ignore[arg-type]
