"""Everything that can be called can be enqueued, and runs where it should."""

import asyncio
import dataclasses
import functools
import gc
import math
import operator
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Queue, UnknownTask
from asyncdefer.testing import VirtualClock, virtual


async def on_loop(a: int, b: int = 0, *, c: int = 0) -> tuple[str, int]:
    asyncio.get_running_loop()
    return "loop", a + b + c


def in_thread(a: int, b: int = 0, *, c: int = 0) -> tuple[str, int]:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    assert threading.current_thread() is not threading.main_thread()
    return "thread", a + b + c


class Methods:
    n = 100

    async def bound(self, a: int) -> tuple[str, int]:
        return await on_loop(self.n, a)

    def bound_plain(self, a: int) -> tuple[str, int]:
        return in_thread(self.n, a)

    @classmethod
    async def of_class(cls, a: int) -> tuple[str, int]:
        return await on_loop(cls.n, a)

    @classmethod
    def of_class_plain(cls, a: int) -> tuple[str, int]:
        return in_thread(cls.n, a)

    @staticmethod
    async def static(a: int) -> tuple[str, int]:
        return await on_loop(a)

    @staticmethod
    def static_plain(a: int) -> tuple[str, int]:
        return in_thread(a)


class Async:
    async def __call__(self, a: int) -> tuple[str, int]:
        return await on_loop(a, 1)


class Plain:
    def __call__(self, a: int) -> tuple[str, int]:
        return in_thread(a, 1)


def wrapped(fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Awaitable[Any]:
        return fn(*args, **kwargs)

    return wrapper


@dataclasses.dataclass
class Record:
    """Equal by value and therefore unhashable, as dataclasses are."""

    n: int

    async def __call__(self, a: int) -> tuple[str, int]:
        return await on_loop(self.n, a)


CALLABLES: dict[str, tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], object]] = {
    "async def": (on_loop, (1, 2), {"c": 3}, ("loop", 6)),
    "def": (in_thread, (1, 2), {"c": 3}, ("thread", 6)),
    "partial of async def": (functools.partial(on_loop, 1, c=5), (2,), {}, ("loop", 8)),
    "partial of def": (functools.partial(in_thread, 1, c=5), (2,), {}, ("thread", 8)),
    "partial of partial": (
        functools.partial(functools.partial(on_loop, 1), 2),
        (),
        {"c": 4},
        ("loop", 7),
    ),
    "partial of bound method": (functools.partial(Methods().bound, 5), (), {}, ("loop", 105)),
    "partial of async object": (functools.partial(Async(), 5), (), {}, ("loop", 6)),
    "partial of object": (functools.partial(Plain(), 5), (), {}, ("thread", 6)),
    "bound async method": (Methods().bound, (1,), {}, ("loop", 101)),
    "bound method": (Methods().bound_plain, (), {"a": 1}, ("thread", 101)),
    "async class method": (Methods.of_class, (1,), {}, ("loop", 101)),
    "class method": (Methods.of_class_plain, (1,), {}, ("thread", 101)),
    "class method of an object": (Methods().of_class, (1,), {}, ("loop", 101)),
    "async static method": (Methods.static, (1,), {}, ("loop", 1)),
    "static method": (Methods.static_plain, (1,), {}, ("thread", 1)),
    "unbound method": (Methods.bound, (Methods(), 1), {}, ("loop", 101)),
    "object with async __call__": (Async(), (1,), {}, ("loop", 2)),
    "object with __call__": (Plain(), (1,), {}, ("thread", 2)),
    "bound __call__": (Async().__call__, (1,), {}, ("loop", 2)),
    "lambda": (lambda a, b=1: in_thread(a, b), (1,), {}, ("thread", 2)),
    "lambda returning a coroutine": (lambda a, b=1: on_loop(a, b), (1,), {}, ("loop", 2)),
    "wraps around async def": (wrapped(on_loop), (1,), {"b": 2}, ("loop", 3)),
    "dataclass with async __call__": (Record(5), (1,), {}, ("loop", 6)),
    "builtin": (len, ([1, 2],), {}, 2),
    "builtin with keyword": (sum, ([2, 1],), {"start": 10}, 13),
    "builtin without signature": (max, (1, 3, 2), {}, 3),
    "C function": (math.hypot, (3, 4), {}, 5.0),
    "bound builtin": ("a,b".split, (",",), {}, ["a", "b"]),
    "class": (dict, (), {"a": 1}, {"a": 1}),
    "type": (int, ("ff", 16), {}, 255),
    "itemgetter": (operator.itemgetter(1), ("abc",), {}, "b"),
    "methodcaller": (operator.methodcaller("upper"), ("abc",), {}, "ABC"),
    "cached function": (functools.lru_cache(in_thread), (1,), {}, ("thread", 1)),
}


@pytest.mark.parametrize("kind", CALLABLES)
async def test_every_kind_of_callable(
    defer_queue: Queue, defer_clock: VirtualClock, kind: str
) -> None:
    """Coroutine functions run on the loop, all others in a thread; the handle has the result."""
    fn, args, kwargs, expected = CALLABLES[kind]

    handle = await defer_queue.enqueue(fn, *args, delay=5, **kwargs)
    await defer_clock.advance(4)
    assert not handle.done()
    await defer_clock.advance(1)

    assert handle.done()
    assert await handle == expected


@pytest.mark.parametrize("kind", CALLABLES)
async def test_every_kind_of_callable_as_a_task(
    defer_queue: Queue, defer_clock: VirtualClock, kind: str
) -> None:
    """Whatever can be enqueued can be registered, under a name of its own."""
    fn, args, kwargs, expected = CALLABLES[kind]

    task: Any = defer_queue.task("the.task", delay=5)(fn)
    handle = await task.enqueue(*args, **kwargs)
    await defer_clock.advance(5)

    assert await handle == expected
    assert handle.task == task.name == "the.task"


async def test_a_returned_coroutine_runs_as_the_job(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """What a plain function returns to be awaited is the job still: current, timeout and failure."""

    async def inner(seconds: float) -> str:
        await asyncdefer.sleep(seconds)
        return asyncdefer.current().id

    async def broken(error: type[Exception]) -> None:
        raise error

    good = await defer_queue.enqueue(lambda: inner(3))
    slow = await defer_queue.options(timeout=1).enqueue(lambda: inner(3))
    bad = await defer_queue.enqueue(lambda: broken(ZeroDivisionError))
    await defer_clock.advance(3)

    assert await good == good.id
    with pytest.raises(TimeoutError):
        await slow
    with pytest.raises(ZeroDivisionError):
        await bad


async def test_an_exception_in_a_thread_is_the_jobs_own(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """The waiter gets what the plain function raised, as it was."""

    class OddError(Exception): ...

    error = OddError("odd")

    def job() -> None:
        raise error

    handle = await defer_queue.enqueue(job)
    await defer_clock.advance(0)

    with pytest.raises(OddError) as caught:
        await handle
    assert caught.value is error


async def agen(n: int) -> AsyncIterator[int]:
    yield n


class AgenObject:
    async def __call__(self) -> AsyncIterator[int]:
        yield 1


@pytest.mark.parametrize(
    "fn", [agen, functools.partial(agen, 1), AgenObject()], ids=["function", "partial", "object"]
)
async def test_an_async_generator_is_a_type_error(
    defer_queue: Queue, defer_clock: VirtualClock, fn: Any
) -> None:
    """What yields has no result to wait for: refused at the call and at the decoration."""
    with pytest.raises(TypeError, match="generator"):
        await defer_queue.enqueue(fn)
    with pytest.raises(TypeError, match="generator"):
        defer_queue.task("the.task")(fn)
    assert defer_queue.stats().accepted == 0


@pytest.mark.parametrize("thing", [None, 3, b"name", object()], ids=repr)
async def test_what_cannot_be_called_is_a_type_error(
    defer_queue: Queue, defer_clock: VirtualClock, thing: Any
) -> None:
    """Anything that is not callable is refused at the call."""
    with pytest.raises(TypeError):
        await defer_queue.enqueue(thing)
    with pytest.raises(TypeError):
        defer_queue.enqueue_nowait(thing)
    assert defer_queue.stats().accepted == 0


async def test_a_coroutine_is_a_type_error_that_says_how_to_write_it(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """`enqueue(fn(1))` is a common slip: the message says to hand over the function."""
    coroutine: Coroutine[Any, Any, Any] = on_loop(1)

    with pytest.raises(TypeError, match=r"enqueue\(on_loop|enqueue\(send"):
        await defer_queue.enqueue(coroutine)  # type: ignore[call-overload,arg-type]
    coroutine.close()
    assert defer_queue.stats().accepted == 0


@pytest.mark.parametrize(
    ("fn", "args", "kwargs"),
    [
        (on_loop, (), {}),
        (on_loop, (1, 2, 3), {}),
        (on_loop, (1,), {"d": 1}),
        (on_loop, (1,), {"a": 1}),
        (functools.partial(on_loop, 1, 2), (3,), {}),
        (Methods().bound, (), {}),
        (Async(), (1, 2), {}),
        (len, ((), ()), {}),
    ],
)
async def test_wrong_arguments_are_a_type_error_at_the_call(
    defer_queue: Queue, defer_clock: VirtualClock, fn: Any, args: Any, kwargs: Any
) -> None:
    """Arguments that the function cannot take are refused where the mistake is, not in the run."""
    with pytest.raises(TypeError):
        await defer_queue.enqueue(fn, *args, delay=5, **kwargs)
    assert defer_queue.stats().accepted == 0


@pytest.mark.parametrize("call", ["finished", "cancelled", "replaced", "refused"])
async def test_a_function_is_let_go_with_its_jobs(call: str) -> None:
    """A function that was handed over once lives no longer than its jobs and their results."""
    queue = Queue(result_ttl=0)
    async with virtual(queue) as clock:

        def job() -> None: ...

        match call:
            case "finished":
                await queue.enqueue(job)
            case "cancelled":
                await (await queue.enqueue(job, delay=60)).cancel()
            case "replaced":
                await queue.enqueue(job, delay=5, key="k")
                await queue.enqueue(job, delay=5, key="k")
            case "refused":
                with pytest.raises(ValueError, match="delay"):
                    await queue.enqueue(job, delay=-1)
        ref = weakref.ref(job)
        del job
        await clock.advance(60)
        gc.collect()
        assert ref() is None


async def test_a_task_can_be_enqueued_through_the_queue(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """`queue.enqueue(task, …)` is the same call as `task.enqueue(…)`, options of the task included."""

    @defer_queue.task(delay=10, defer=["a"])
    async def note(a: int, b: int) -> int:
        return a + b

    first = await note.enqueue(1, 2)
    second = await defer_queue.enqueue(note, 1, b=3)

    assert first.replaced
    assert second.eta == first.eta
    await defer_clock.advance(10)
    assert await first == 4


async def test_a_task_can_be_named(defer_queue: Queue, defer_clock: VirtualClock) -> None:
    """A registered task may be given by its name; a name that is unknown is an UnknownTask."""
    defer_queue.task("jobs.add", delay=10)(on_loop)

    handle = await defer_queue.enqueue("jobs.add", 1, b=2)
    with pytest.raises(UnknownTask, match=r"jobs\.sub"):
        await defer_queue.enqueue("jobs.sub", 1, b=2)
    await defer_clock.advance(10)

    assert await handle == ("loop", 3)
    assert defer_queue.stats().accepted == 1


async def test_calling_a_task_runs_the_function_unscheduled(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A task is the function still: a direct call is a plain call, and the queue never hears of it."""

    @defer_queue.task(delay=10)
    async def later(a: int) -> int:
        return a + 1

    @defer_queue.task(delay=10)
    def plain(a: int) -> int:
        return a + 2

    assert await later(1) == 2
    assert plain(1) == 3
    assert defer_queue.stats().accepted == 0


async def test_a_task_looks_like_its_function(defer_queue: Queue) -> None:
    """Name, doc and signature are those of the function, so that tools and readers find them."""
    import inspect

    @defer_queue.task(delay=10)
    async def later(a: int) -> int:
        """Say it later."""
        return a

    assert later.__name__ == "later"
    assert later.__doc__ == "Say it later."
    assert list(inspect.signature(later).parameters) == ["a"]
    assert "later" in repr(later)
