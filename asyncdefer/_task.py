"""Functions that can be scheduled: what a decorator says about one, and registries of them."""

import functools
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Hashable, Iterator
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, Unpack, overload
from weakref import WeakKeyDictionary

from asyncdefer._codec import Codec
from asyncdefer._core.checks import checked_key
from asyncdefer._core.defer import KeyMaker, key_maker
from asyncdefer._core.options import (
    CallOptions,
    Defer,
    Options,
    TaskOptions,
    read_options,
)  # fmt: skip
from asyncdefer._core.signature import Binder, compile_binder, signature_of
from asyncdefer._handle import Handle

P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

RESERVED = ("eta", "delay", "key")

Accept = Callable[..., Handle[Any]]
"""How a queue takes a call in: see `Scheduler.accept`."""

TaskOf = Callable[[str], "Task[..., Any] | None"]
"""How a queue finds the task of a name."""


class Backlog(Protocol):
    """The journal, as who enqueues sees it."""

    @property
    def is_full(self) -> bool: ...
    async def room(self) -> None: ...


class Recorder(Protocol):
    """What takes calls in and may write them down."""

    @property
    def accept(self) -> Accept: ...
    @property
    def journal(self) -> Backlog | None: ...


class Home(Recorder, Protocol):
    """The queue of a task, as the task sees it."""

    async def pending(self, task: "Task[P, R]", key: str) -> Handle[R] | None: ...


async def recorded(home: "Recorder", *args: Any, **kwargs: Any) -> Handle[Any]:
    """Hand a call over and wait until the journal has it, and before that until it has room."""
    if home.journal is not None and home.journal.is_full:
        await home.journal.room()
    return await home.accept(*args, **kwargs).accepted()


class Task(Generic[P, R_co]):
    """A function with a name and options. Called like a function it runs the function, at once."""

    def __init__(
        self, fn: Callable[P, Any], name: str, declared: Options, identity: Hashable
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn: Callable[P, Any] = fn
        self.name = name
        self.declared = declared
        self.identity = identity
        self.home: Home | None = None
        traits = _read(fn, name)
        self.is_async: bool = traits[0]
        self.collides: str | None = traits[1]
        self.check: Binder | None = traits[2]
        self.delay: int = declared.delay or 0
        rule: Defer | None = declared.defer or None
        self.make_key: KeyMaker | None = None if rule is None else self.key_maker(rule)
        rate = declared.rate_limit or None
        self.make_rate_key: KeyMaker | None = None
        if rate is not None and rate.key is not None:
            by = Defer(key=rate.key) if callable(rate.key) else Defer(params=rate.key)
            self.make_rate_key = self.key_maker(by, "RateLimit key")
        self.folding: Defer | None = None if rule is None or rule.plain else rule

    def key_maker(self, rule: Defer, option: str = "defer") -> KeyMaker:
        """The function that checks the arguments of a call and makes its key by this rule."""
        make = key_maker(self.fn, rule, self.name, option)
        check = self.check
        if rule.key is None or check is None:
            return make  # it binds the arguments itself

        def checked(*args: Any, **kwargs: Any) -> str:
            check(*args, **kwargs)
            return make(*args, **kwargs)

        return checked

    def _home(self) -> Home:
        if self.home is None:
            raise RuntimeError(
                f"the task {self.name} belongs to no queue yet: call queue.include(tasks) first"
            )
        return self.home

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Schedule a call, with the task's own options."""
        home = self.home or self._home()
        if home.journal is not None:
            return await recorded(home, self, args, kwargs)
        return home.accept(self, args, kwargs)

    @functools.cached_property
    def codec(self) -> Codec:
        """How arguments and results travel through a journal."""
        return Codec(self.fn, self.name)

    def options(self, **options: Unpack[CallOptions]) -> "TaskCall[P, R_co]":
        """Options for one call: `task.options(delay=5).enqueue(…)`."""
        return TaskCall(self, read_options(options, CallOptions))

    async def pending(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co] | None:
        """The waiting call that these arguments would replace."""
        if self.make_key is None:
            raise TypeError(f"the task {self.name} has no defer rule, so no call replaces another")
        return await self._home().pending(self, self.make_key(*args, **kwargs))

    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self.fn(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


class AsyncTask(Task[P, R_co]):
    """A task made of a coroutine function."""

    if TYPE_CHECKING:

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R_co]: ...


class SyncTask(Task[P, R_co]):
    """A task made of a plain function, which runs in a thread."""

    if TYPE_CHECKING:

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class TaskCall(Generic[P, R_co]):
    """A task together with options for one call."""

    __slots__ = ("_options", "_task")

    def __init__(self, task: Task[P, R_co], options: Options) -> None:
        self._task = task
        self._options = options

    async def enqueue(self, /, *args: P.args, **kwargs: P.kwargs) -> Handle[R_co]:
        """Schedule the call."""
        task = self._task
        home = task.home or task._home()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - two halves of one idea
        if home.journal is not None:
            return await recorded(home, task, args, kwargs, given=self._options)
        return home.accept(task, args, kwargs, given=self._options)


_Traits = tuple[bool, str | None, Binder | None]
_traits: "WeakKeyDictionary[Any, tuple[str, _Traits]]" = WeakKeyDictionary()


def _read(fn: Callable[..., Any], name: str) -> _Traits:
    """Whether it is async, which reserved name it uses, and the check of its arguments.

    Remembered of plain functions, since a bare one is a task anew after each pause in its calls.
    """
    # The check holds the defaults, and a default may hold the function: then it would live for ever.
    plain = isinstance(fn, FunctionType) and not (fn.__defaults__ or fn.__kwdefaults__)
    known = _traits.get(fn) if plain else None
    if known is None or known[0] != name:
        signature = signature_of(fn)
        names = () if signature is None else signature.parameters
        collides = next((reserved for reserved in RESERVED if reserved in names), None)
        check = None if signature is None else compile_binder(signature, name)
        known = name, (is_async(fn), collides, check)
        if plain:
            _traits[fn] = known
    return known[1]


def make_task(
    fn: Callable[..., Any], name: str, declared: Options, identity: Hashable
) -> Task[..., Any]:
    """The task of a function, of the kind that fits it."""
    if is_async(fn):
        return AsyncTask(fn, name, declared, identity)
    return SyncTask(fn, name, declared, identity)


def _check_repeats(task: Task[..., Any]) -> None:
    """`ValueError` unless it can be called without arguments, as its schedule will."""
    try:
        if task.check is not None:
            task.check()
        if task.make_rate_key is not None:
            task.make_rate_key()
    except TypeError as error:
        raise ValueError(
            f"a task that repeats is called without arguments, but {error}. Give them defaults,"
            " or give the schedule its arguments: task.options(repeat=…, key=…).enqueue(…)"
        ) from None


def schedulable(fn: object) -> Callable[..., Any]:
    """The function itself; `TypeError` for what cannot be called later."""
    if inspect.isawaitable(fn) and not callable(fn):
        if inspect.iscoroutine(fn):
            fn.close()
        raise TypeError(
            "that is a call already made: give the function and its arguments apart,"
            " as in enqueue(send, 1, 2) and not enqueue(send(1, 2))"
        )
    if not callable(fn):
        raise TypeError(f"a task must be callable, not {type(fn).__name__}")
    if any(inspect.isasyncgenfunction(f) or inspect.isgeneratorfunction(f) for f in _inner(fn)):
        raise TypeError(f"{name_of(fn)} is a generator function: nobody would iterate over it")
    return fn


def _inner(fn: object) -> tuple[object, object]:
    """What is inside of partials, and the `__call__` of its type."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn, getattr(type(fn), "__call__", None)  # noqa: B004 - its kind is asked, not whether it is there


def is_async(fn: object) -> bool:
    """Calling it gives a coroutine."""
    return any(map(inspect.iscoroutinefunction, _inner(fn)))


def name_of(fn: object) -> str:
    """`module.qualname`; a program started as a script has the name of its spec or file."""
    bare, _ = _inner(fn)
    named = bare if hasattr(bare, "__qualname__") else type(bare)
    module = getattr(named, "__module__", None) or "builtins"
    if module == "__main__":
        main = sys.modules["__main__"]
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        if spec is not None:
            module = spec.name
        elif file is not None:
            module = Path(file).stem
    return f"{module}.{getattr(named, '__qualname__', '')}"


class Decorator(Protocol):
    """What `queue.task(…)` returns."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload] - the first that fits is meant
    @overload
    def __call__(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...


class TaskDecorator(ABC):
    """The decorator `task`, which queues and registries share."""

    @abstractmethod
    def _register(self, task: Task[..., Any]) -> None: ...

    def _prefixed(self, name: str) -> str:
        return name

    @overload
    def task(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...  # type: ignore[overload-overlap]  # pyright: ignore[reportOverlappingOverload] - as above
    @overload
    def task(self, fn: Callable[P, R], /) -> SyncTask[P, R]: ...
    @overload
    def task(self, name: str | None, /, **options: Unpack[TaskOptions]) -> Decorator: ...
    @overload
    def task(self, /, *, name: str | None = None, **options: Unpack[TaskOptions]) -> Decorator: ...
    def task(self, fn: Any = None, /, name: Any = None, **options: Unpack[TaskOptions]) -> Any:
        """Register a function as a task: `@queue.task`, `@queue.task("name", delay=60)`.

        `name`: stable, unique in the queue; `module.qualname` if not given. `delay`: seconds or
        timedelta from the call. `defer`: what makes the key, see `Defer`. `retry`: how often a
        job that fails is tried, see `Retry`. `rate_limit`: how often the task may start, see
        `RateLimit`. `concurrency`: how many of it run at once. `repeat`: a schedule that starts
        with the queue, see `Cron` and `Every`. `priority`: seconds or timedelta
        of head start among the jobs that are due and wait for a slot. `timeout`: for one run,
        which then ends with `TimeoutError`. `expires`: a job that has not started this long
        after its eta ends with `JobExpired`. `result_ttl`: how long the ended job can be looked
        up. Two tasks of one name are a `ValueError`.
        """
        if isinstance(fn, str):
            fn, name = None, fn

        def decorate(function: Any) -> Any:
            if isinstance(function, Task):
                raise TypeError(f"{function.name} is a task already")
            declared = read_options(options, TaskOptions)
            own = name if name is not None else name_of(schedulable(function))
            full = self._prefixed(checked_key(own, "name"))
            task = make_task(schedulable(function), full, declared, full)
            if declared.repeat:
                _check_repeats(task)
            self._register(task)
            return task

        return decorate if fn is None else decorate(fn)


class Tasks(TaskDecorator):
    """A registry of tasks for programs of many modules; `queue.include(tasks)` adopts it."""

    def __init__(self, prefix: str = "") -> None:
        self._prefix = prefix
        self._tasks: dict[str, Task[..., Any]] = {}
        self._adopted: Callable[[Task[..., Any]], None] | None = None

    def _prefixed(self, name: str) -> str:
        return self._prefix + name

    def _register(self, task: Task[..., Any]) -> None:
        self.check_name(task.name)
        if self._adopted is not None:
            self._adopted(task)
        self._tasks[task.name] = task

    def check_name(self, name: str) -> None:
        """`ValueError` if a task has the name."""
        if name in self._tasks:
            raise ValueError(f"two tasks are named {name!r}: give one of them another name")

    def forget(self, task: Task[..., Any]) -> None:
        """Take a task out that could not be registered after all."""
        del self._tasks[task.name]

    def adopt(self, register: Callable[[Task[..., Any]], None]) -> None:
        """Hand all tasks, and those that come later, to one queue."""
        if self._adopted is not None:
            raise ValueError("these tasks are included in a queue already")
        for task in self:
            register(task)
        self._adopted = register

    def named(self, name: str) -> Task[..., Any] | None:
        """The task of a name."""
        return self._tasks.get(name)

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(tuple(self._tasks.values()))

    def __len__(self) -> int:
        return len(self._tasks)
