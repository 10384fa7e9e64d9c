"""The ways to hand a call over, all to the one door `accept`."""

import asyncio
import concurrent.futures
import os
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar, Unpack, cast, overload

from msgspec import UNSET

from asyncdefer import _rows as rows
from asyncdefer._core.checks import checked_key
from asyncdefer._core.instant import duration, instant, within
from asyncdefer._core.options import CallOptions, Options, read_options
from asyncdefer._door import check_outside, running_loop
from asyncdefer._handle import Handle
from asyncdefer._journal import Journal
from asyncdefer._recurring import keyed
from asyncdefer._scheduler import Scheduler
from asyncdefer._task import (
    Accept,
    Task,
    TaskDecorator,
    Tasks,
    make_task,
    name_of,
    recorded,
    schedulable,
)  # fmt: skip
from asyncdefer.errors import QueueClosed, UnknownTask, WrongLoop

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])


def _typed_as(_: F) -> Callable[[Any], F]:
    """To type checkers the decorated function has the overloads of another; nothing else is done."""
    return lambda function: function


class Calls(TaskDecorator):
    """What schedules a call: from the loop, from a callback, from a thread, with options."""

    _registry: Tasks
    _callables: dict[Any, Task[..., Any]]
    accept: Accept
    """The one door; not for programs."""
    journal: Journal | None
    """Where calls are written down while the queue runs; None in memory."""
    keeps: bool
    """It is to have a journal."""

    @abstractmethod
    def _started(self) -> Scheduler: ...

    def _taking(self) -> Scheduler:
        """What takes calls, in any thread; if nothing does now, the error that says why."""
        owner = getattr(self.accept, "__self__", None)
        if not isinstance(owner, Scheduler):
            self.accept()  # of a queue that takes no calls
            raise AssertionError(self.accept)
        owner.check_not_closed()
        return owner

    @overload
    async def enqueue(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]: ...
    @overload
    async def enqueue(
        self,
        fn: Callable[..., R],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]: ...
    async def enqueue(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[Any]:
        """Schedule a call of `fn` and return its handle once it is accepted.

        `fn`: a task or any callable. `eta`: an aware datetime; `delay`: seconds or a timedelta,
        from now; with neither the task's own delay counts, or none. `key`: calls of one task
        and key that wait at the same time fold into one run. The other arguments are those of
        `fn`; if `fn` itself has a parameter named eta, delay or key, use `.options(…)`.
        """
        journal = self.journal
        if journal is not None and journal.is_full:
            await journal.room()
        try:
            task = self._callables[fn]
        except (KeyError, TypeError):  # one that is new, or has no hash
            handle = self._hand_over(fn, args, kwargs, eta, delay, key)
        else:
            handle = self.accept(task, args, kwargs, eta, delay, key)
        return handle if journal is None else await handle.accepted()

    @overload
    def enqueue_nowait(
        self,
        fn: Callable[..., Coroutine[Any, Any, R]],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]: ...
    @overload
    def enqueue_nowait(
        self,
        fn: Callable[..., R],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[R]: ...
    def enqueue_nowait(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> Handle[Any]:
        """The same from a callback of the loop, without waiting until the call is safe."""
        try:
            task = self._callables[fn]
        except (KeyError, TypeError):  # as above
            return self._hand_over(fn, args, kwargs, eta, delay, key)
        return self.accept(task, args, kwargs, eta, delay, key)

    @_typed_as(enqueue_nowait)
    def enqueue_from_thread(self, fn: Any, /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """The same from another thread, which waits until the call is accepted."""
        if self.journal is not None:
            check_outside(self.journal)
        return self.from_thread(partial(self.enqueue_nowait, fn, *args, **kwargs), _accepted)

    def from_thread(self, begin: Callable[[], R], safe: Callable[[R], Coroutine[Any, Any, R]]) -> R:
        """Begin something in the queue's loop, and block this thread until it is safe; not for programs."""
        scheduler = self._started()
        loop = scheduler.loop
        if scheduler.pid != os.getpid():
            raise WrongLoop("this process was forked, and the loop of the queue does not run in it")
        if running_loop() is loop:
            raise RuntimeError("this is the queue's own thread: use `await queue.enqueue(…)`")
        answer: concurrent.futures.Future[R] = concurrent.futures.Future()

        def accept() -> None:
            try:
                begun = begin()
            except BaseException as error:  # noqa: BLE001 - it is raised in the calling thread
                answer.set_exception(error)
                return
            if self.journal is None:
                answer.set_result(begun)
            else:
                answering = loop.create_task(safe(begun))
                answering.add_done_callback(partial(_pass_on, answer))

        try:
            loop.call_soon_threadsafe(accept, context=copy_context())
        except RuntimeError:
            raise QueueClosed("the event loop of the queue is closed") from None
        while not answer.done():
            concurrent.futures.wait([answer], timeout=1)
            if not answer.done() and loop.is_closed():
                raise QueueClosed("the event loop of the queue has ended: start the queue again")
        return answer.result()

    def options(self, **options: Unpack[CallOptions]) -> "QueueCall":
        """Options for one call: `queue.options(expires=60).enqueue(fn, …)`."""
        return QueueCall(self, read_options(options, CallOptions))

    def task_of(self, fn: Callable[..., Any] | str) -> Task[..., Any]:
        """The task of a name, of itself, or the one that stands for a bare function."""
        if isinstance(fn, str):
            found = self._registry.named(fn)
            if found is None:
                raise UnknownTask(f"no task named {fn!r} is registered in this queue")
            return found
        if isinstance(fn, Task):
            home: Any = fn.home
            if home is not self:
                raise UnknownTask(f"{fn.name} is not registered in this queue: include its Tasks")
            return cast("Task[..., Any]", fn)
        function = schedulable(fn)
        if self.keeps:
            raise TypeError(
                f"{name_of(function)} is no task of this queue: its journal finds functions by their"
                " names after a restart, so register it with @queue.task"
            )
        identity = function if _is_hashable(function) else id(function)
        return make_task(function, name_of(function), Options(), identity)

    def task_beside(self, fn: Callable[..., Any]) -> Task[..., Any]:
        """The same for a call with `eta`, `delay` and `key` beside the function's own arguments."""
        task = self.task_of(fn)
        if task.collides is not None:
            raise TypeError(
                f"{task.name} has a parameter {task.collides!r}, a name that enqueue keeps for"
                " itself: use queue.options(delay=…).enqueue(fn, …) or task.enqueue(…)"
            )
        return task

    def checked(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        given: Options | None = None,
    ) -> tuple[str | None, tuple[Any, ...], dict[str, Any]]:
        """The key and the arguments of a call, if `accept` would take it now; not for programs.

        Else the error that `accept` raises. In any thread, and nothing is changed. The tests are
        those of `Scheduler.accept`, in its order; that one is too hot to share them.
        """
        owner = self._taking()
        make_key, span, when = task.make_key, task.delay, None
        if given is not None:
            if given.defer is not UNSET:
                make_key = None if given.defer is None else task.key_maker(given.defer)
            key = given.key or None
            when = given.eta or None
            span = span if given.delay is UNSET else given.delay or 0
        if make_key is not None and key is None:
            key = make_key(*args, **kwargs)
        else:
            if task.check is not None:
                task.check(*args, **kwargs)
            if key is not None:
                checked_key(key)
        if task.make_rate_key is not None:
            task.make_rate_key(*args, **kwargs)
        if given is not None and given.repeat:
            key = keyed(key)
        if self.journal is not None:
            if given is not None:
                rows.portable(given)
            _, args, kwargs = task.codec.encode(args, kwargs)
        if delay is not None:
            if eta is not None:
                raise TypeError("give eta or delay, not both")
            span = duration(delay)
        elif eta is not None:
            instant(eta)
        if eta is None and when is None:
            within(owner.clock.steady() + span)
        return key, args, kwargs

    def _hand_over(
        self, fn: Any, args: Any, kwargs: Any, eta: Any, delay: Any, key: Any
    ) -> Handle[Any]:
        hashable = _is_hashable(fn)
        task = self._callables.get(fn) if hashable else None
        if task is None:
            task = self.task_beside(fn)
        handle = self.accept(task, args, kwargs, eta, delay, key)
        if hashable:
            self._callables[fn] = task  # only now: a call that is refused leaves nothing behind
        return handle


def _accepted(handle: Handle[Any]) -> Coroutine[Any, Any, Handle[Any]]:
    return handle.accepted()


def _pass_on(answer: concurrent.futures.Future[R], done: asyncio.Task[R]) -> None:
    if done.cancelled():
        answer.set_exception(QueueClosed("the event loop of the queue has ended"))
    elif (error := done.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())


def _is_hashable(fn: Any) -> bool:
    try:
        hash(fn)
    except TypeError:
        return False
    return True


class QueueCall:
    """A queue together with options for one call."""

    __slots__ = ("_options", "_queue")

    def __init__(self, queue: Calls, options: Options) -> None:
        self._queue = queue
        self._options = options

    @overload
    async def enqueue(
        self, fn: Callable[..., Coroutine[Any, Any, R]], /, *args: Any, **kwargs: Any
    ) -> Handle[R]: ...
    @overload
    async def enqueue(self, fn: Callable[..., R], /, *args: Any, **kwargs: Any) -> Handle[R]: ...
    async def enqueue(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Handle[Any]:
        """Schedule a call; every keyword argument is the function's own."""
        task = self._queue.task_of(fn)
        if self._queue.journal is not None:
            return await recorded(self._queue, task, args, kwargs, given=self._options)
        return self._queue.accept(task, args, kwargs, given=self._options)
