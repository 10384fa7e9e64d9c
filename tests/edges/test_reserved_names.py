"""`enqueue` takes `eta`, `delay` and `key` for itself, and leaves every other name to the function."""

from datetime import timedelta
from typing import Any

import pytest

from asyncdefer import Queue
from asyncdefer.testing import VirtualClock

SOON: dict[str, Any] = {"delay": 5, "key": "k"}


async def with_eta(eta: object = None) -> object:
    return eta


async def with_delay(delay: object = None) -> object:
    return delay


async def with_key(*, key: object = None) -> object:
    return key


def plain_with_key(key: object = None) -> object:
    return key


COLLISIONS = [("eta", with_eta), ("delay", with_delay), ("key", with_key), ("key", plain_with_key)]


@pytest.mark.parametrize(("name", "fn"), COLLISIONS)
async def test_a_parameter_of_a_reserved_name_is_a_type_error(
    defer_queue: Queue, defer_clock: VirtualClock, name: str, fn: Any
) -> None:
    """Whose `key` would it be? The message names the parameter and points to `.options`."""
    value: Any = {"eta": defer_clock.now(), "delay": 5, "key": "k"}[name]

    with pytest.raises(TypeError, match=name) as error:
        await defer_queue.enqueue(fn, **{name: value})
    assert ".options" in str(error.value)
    with pytest.raises(TypeError, match=r"\.options"):
        defer_queue.enqueue_nowait(fn, **{name: value})
    assert defer_queue.stats().accepted == 0


async def test_a_collision_is_an_error_whether_or_not_the_name_is_used(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A program must not work until the day when somebody adds `key=`."""
    with pytest.raises(TypeError, match=r"key.*\.options"):
        await defer_queue.enqueue(with_key)
    with pytest.raises(TypeError, match=r"key.*\.options"):
        await defer_queue.enqueue(sorted, [2, 1])
    assert defer_queue.stats().accepted == 0


@pytest.mark.parametrize(("name", "fn"), COLLISIONS)
async def test_options_is_the_way_around(
    defer_queue: Queue, defer_clock: VirtualClock, name: str, fn: Any
) -> None:
    """In `queue.options(…).enqueue` all arguments are the function's, and the options the queue's."""
    eta = defer_clock.now() + timedelta(seconds=5)

    handle = await defer_queue.options(delay=5, key="mine").enqueue(fn, **{name: "the job's own"})

    assert (handle.eta, handle.key) == (eta, "mine")
    await defer_clock.advance(5)
    assert await handle == "the job's own"


@pytest.mark.parametrize(("name", "fn"), COLLISIONS)
async def test_a_tasks_own_enqueue_has_no_reserved_names(
    defer_queue: Queue, defer_clock: VirtualClock, name: str, fn: Any
) -> None:
    """`task.enqueue` and `task.options(…).enqueue` take the function's parameters and nothing else."""
    task: Any = defer_queue.task("the.task", delay=5)(fn)

    first = await task.enqueue(**{name: "a"})
    second = await task.options(delay=5).enqueue(**{name: "b"})
    await defer_clock.advance(5)

    assert (await first, await second) == ("a", "b")


@pytest.mark.parametrize(
    "option", [{"delay": 5}, {"key": "k"}, {"timeout": 5}, {"defer": True}], ids=repr
)
async def test_options_do_not_go_into_a_tasks_enqueue(
    defer_queue: Queue, defer_clock: VirtualClock, option: dict[str, Any]
) -> None:
    """`task.enqueue(1, delay=5)` is an unknown argument of the function: a TypeError."""

    @defer_queue.task
    async def note(user: int) -> None: ...

    with pytest.raises(TypeError, match=next(iter(option))):
        await note.enqueue(1, **option)
    with pytest.raises(TypeError, match=next(iter(option))):
        await note.options(delay=5).enqueue(1, **option)
    assert defer_queue.stats().accepted == 0


async def test_every_other_name_is_the_functions(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """The reserved names are exactly three: fn, self, task, retry and the rest pass through."""

    async def job(**given: object) -> dict[str, object]:
        return given

    given = {
        name: name
        for name in [
            "fn",
            "self",
            "cls",
            "func",
            "task",
            "name",
            "args",
            "kwargs",
            "queue",
            "defer",
            "retry",
            "timeout",
            "expires",
            "priority",
            "repeat",
            "after",
            "result_ttl",
            "concurrency",
            "rate_limit",
            "options",
            "id",
            "handle",
            "context",
            "clock",
        ]
    }

    handle = await defer_queue.enqueue(job, **given, **SOON)
    nowait = defer_queue.enqueue_nowait(job, **given)
    by_options = await defer_queue.options(**SOON, timeout=9).enqueue(job, **given, delay="mine")
    await defer_clock.advance(5)

    assert handle.replaced
    assert await handle == {**given, "delay": "mine"}
    assert await by_options == {**given, "delay": "mine"}
    assert await nowait == given


async def test_named_parameters_of_such_names(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A function may call its parameters `self`, `fn` or `timeout`."""

    async def job(self: int, fn: int, timeout: int) -> int:
        return self * 100 + fn * 10 + timeout

    handle = await defer_queue.enqueue(job, self=1, fn=2, timeout=3)
    await defer_clock.advance(0)

    assert await handle == 123


@pytest.mark.parametrize("name", ["self", "fn", "task", "name", "args", "kwargs", "options"])
async def test_a_task_passes_every_name(
    defer_queue: Queue, defer_clock: VirtualClock, name: str
) -> None:
    """None of the methods of a task keeps a name for itself, nor does the direct call."""

    @defer_queue.task(defer=True, delay=5)
    async def job(**given: int) -> dict[str, int]:
        return given

    first = await job.enqueue(**{name: 1})
    second = await job.options(delay=5).enqueue(**{name: 1})
    found = await job.pending(**{name: 1})

    assert first.replaced
    assert found is not None
    assert found.id == second.id
    assert await job(**{name: 1}) == {name: 1}
    await defer_clock.advance(5)
    assert await second == {name: 1}


async def test_with_var_keywords_the_reserved_names_are_the_queues(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """`**kwargs` is no parameter called `delay`: the queue takes its three, the function the rest."""

    async def job(**given: object) -> dict[str, object]:
        return given

    handle = await defer_queue.enqueue(job, colour="red", delay=5, key="k")
    assert (handle.key, handle.done()) == ("k", False)
    await defer_clock.advance(5)

    assert await handle == {"colour": "red"}
