"""The queue: what a program holds in its hands. It wires the parts below and decides nothing."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from os import PathLike
from types import TracebackType
from typing import (
    Any,
    Literal,
    NoReturn,
    ParamSpec,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    cast,
    overload,
)

import anyio

from asyncdefer._calls import Calls
from asyncdefer._clock import Clock, SystemClock
from asyncdefer._core.checks import checked_key, whole
from asyncdefer._core.instant import duration
from asyncdefer._core.job import Job, running
from asyncdefer._core.ledger import Stats
from asyncdefer._core.lifecycle import State
from asyncdefer._handle import Handle
from asyncdefer._listing import listed
from asyncdefer._log import Events, Subscriber
from asyncdefer._opening import Opening, store_of
from asyncdefer._scheduler import Scheduler
from asyncdefer._task import Accept, Task, Tasks
from asyncdefer.errors import JournalLocked, NotStarted, QueueClosed
from asyncdefer.stores._base import Store

P = ParamSpec("P")
R = TypeVar("R")

CANCEL_GRACE: float = 5.0
"""Real seconds that a run may take to end after `close()` cancelled it."""


class QueueOptions(TypedDict, total=False):
    """What `Queue(…)` and `configure(…)` take."""

    concurrency: int
    threads: int
    result_ttl: float | timedelta | None
    drain_timeout: float
    on_locked: Literal["raise", "standby"]
    clock: Clock | None


class Queue(Calls):
    """A scheduler that lives inside an asyncio program.

    `journal`: where accepted calls survive the end of the process: the path of a file, or a store;
    None keeps them in memory only. `on_locked`: what `start()` does if another process owns the
    journal: raise `JournalLocked`, or stand by until it lets go of it.
    `concurrency`: jobs that run at once. `threads`: threads for plain functions. `result_ttl`:
    seconds or timedelta for which an ended job can be looked up (10,000 of them at the most).
    `drain_timeout`: real seconds that `close()` waits for running jobs before it cancels them.
    """

    def __init__(
        self,
        journal: str | PathLike[str] | Store | None = None,
        *,
        concurrency: int = 100,
        threads: int = 40,
        result_ttl: float | timedelta | None = 3600,
        drain_timeout: float = 8,
        on_locked: Literal["raise", "standby"] = "raise",
        clock: Clock | None = None,
    ) -> None:
        self._scheduler: Scheduler | None = None
        self._closing: asyncio.Task[None] | None = None
        self._store: Store | None = None
        self.use_journal(journal)
        self.journal = None
        self._opening: Opening | None = None
        self._registry = Tasks()
        self._callables: dict[Any, Task[..., Any]] = {}
        self._events = Events()
        self._paused: set[Any] = set()
        self.accept: Accept = self._not_started
        """The one door for calls; not for programs, which have `enqueue`."""
        self._configure(
            concurrency=concurrency,
            threads=threads,
            result_ttl=result_ttl,
            drain_timeout=drain_timeout,
            on_locked=on_locked,
            clock=clock,
        )

    def configure(self, **options: Unpack[QueueOptions]) -> None:
        """Change options of the constructor while the queue is stopped."""
        if self._is_running():
            raise RuntimeError("configure a queue before its start or after its close")
        self._configure(**options)

    def use_journal(self, journal: str | PathLike[str] | Store | None) -> Store | None:
        """Take another journal while the queue is stopped; returns the store of the one before."""
        if self._is_running():
            raise RuntimeError("give a queue its journal before its start or after its close")
        before, self._store = self._store, store_of(journal)
        self.keeps: bool = self._store is not None
        return before

    def _configure(self, **options: Unpack[QueueOptions]) -> None:
        for name in options:
            if name not in QueueOptions.__annotations__:
                raise TypeError(f"a queue has no option {name!r}")
        for name in ("concurrency", "threads"):
            whole(options.get(name, 1), name)
        read: dict[str, Any] = dict(options)
        if options.get("result_ttl") is not None:
            read["result_ttl"] = duration(cast(float, options.get("result_ttl")), "result_ttl")
        if "drain_timeout" in options:
            read["drain_timeout"] = duration(options["drain_timeout"], "drain_timeout") / 1e6
        on_locked = options.get("on_locked", "raise")
        if on_locked not in ("raise", "standby"):
            raise ValueError(f'on_locked is "raise" or "standby", not {on_locked!r}')
        if "clock" in options:
            read["clock"] = options["clock"] or SystemClock()
        self._options: dict[str, Any] = {**getattr(self, "_options", {}), **read}

    # -- life

    async def start(self) -> None:
        """Begin to accept and run jobs, in the running event loop."""
        if self._is_running():
            raise RuntimeError("the queue is started already")
        options = self._options
        self._closing = None
        scheduler = self._scheduler = Scheduler(
            options["clock"],
            self._events,
            concurrency=options["concurrency"],
            threads=options["threads"],
            result_ttl=options["result_ttl"],
            strangers=self._callables,
            last=0 if self._scheduler is None else self._scheduler.last,  # no id comes twice
        )
        for identity in self._paused:
            scheduler.agenda.lanes.pause(identity)
        try:
            if self._store is not None:
                self._opening = Opening(self._store, scheduler, self._events)
                try:
                    await self._opening.open(self._registry.named)
                except JournalLocked as locked:
                    if options["on_locked"] == "raise":
                        raise
                    self.accept = partial(_refuse, locked)
                    self._opening.stand_by(self._registry.named, partial(self._begin, scheduler))
                    return
            self._begin(scheduler)
        except BaseException:
            await self.close()
            raise

    def _begin(self, scheduler: Scheduler) -> None:
        self.journal = scheduler.journal
        self.accept = scheduler.accept
        for task in self._registry:
            if task.declared.repeat:
                scheduler.begin(task)

    @property
    def standby(self) -> bool:
        """Another process owns the journal, and this queue waits until it is free."""
        return self._opening is not None and self._opening.standing_by is not None

    async def ready(self) -> None:
        """Wait until this queue owns its journal; `QueueClosed` if it is closed before."""
        self._started()
        if self._opening is not None and self._opening.standing_by is not None:
            await asyncio.wait([self._opening.standing_by])
        if not self._is_running() or self._closing is not None:
            raise QueueClosed("the queue was closed: start it again first")

    async def close(self) -> None:
        """Stop accepting, let running jobs end within `drain_timeout`, cancel the rest.

        Every waiter is settled when it returns. A `close()` that is cancelled cancels the runs
        at once, and still ends only when all of this is done.
        """
        scheduler = self._scheduler
        if scheduler is None or scheduler.loop.is_closed():
            return
        scheduler.check_loop()
        if self._closing is None:
            self._closing = scheduler.loop.create_task(self._shut(scheduler))
        cancelled: asyncio.CancelledError | None = None
        with anyio.CancelScope(shield=True):
            while not self._closing.done():
                try:
                    await asyncio.shield(self._closing)
                except asyncio.CancelledError as error:
                    cancelled = error
                    scheduler.stop_runs()
        self._callables.clear()
        if cancelled is not None:
            raise cancelled
        self._closing.result()

    async def _shut(self, scheduler: Scheduler) -> None:
        if self.standby and self._opening is not None:
            await self._opening.close()
            self.accept = scheduler.accept
        await scheduler.shut_down(self._options["drain_timeout"], CANCEL_GRACE)
        if self._opening is not None:
            await self._opening.close()
            self._opening = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncGenerator[None, None]:
        """An ASGI lifespan for Starlette, FastAPI and Litestar; sets `app.state.queue`."""
        async with self:
            if hasattr(app, "state"):
                app.state.queue = self
            yield

    def _is_running(self) -> bool:
        scheduler = self._scheduler
        if scheduler is None or scheduler.loop.is_closed():
            return False
        return self._closing is None or not self._closing.done()

    def _started(self) -> Scheduler:
        return self._scheduler or self._not_started()

    def _not_started(self, *_: object, **__: object) -> NoReturn:
        raise NotStarted(
            "the queue has not been started: use `async with queue:`,"
            " `await queue.start()` or lifespan=queue.lifespan"
        )

    # -- tasks

    def include(self, tasks: Tasks) -> None:
        """Adopt the tasks of a registry."""
        for task in tasks:
            self._check_name(task)
        tasks.adopt(self._register)

    def _check_name(self, task: Task[..., Any]) -> None:
        if any(known.name == task.name for known in self._registry):
            raise ValueError(f"two tasks are named {task.name!r}: give one of them another name")

    def _register(self, task: Task[..., Any]) -> None:
        begins = task.declared.repeat and self._is_running() and not self.standby
        if begins:
            self._started().check_loop()
        self._registry._register(task)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its own registry
        task.home = self
        if self.journal is not None and self._is_running():
            self._started().unpark(task.name)
        if begins:
            try:
                self._started().begin(task)
            except BaseException:
                self._registry.forget(task)
                task.home = None
                raise

    # -- questions

    @property
    def clock(self) -> Clock:
        """The clock that the queue lives by."""
        return cast(Clock, self._options["clock"])

    async def handle(self, id: str) -> Handle[Any] | None:  # noqa: A002 - the field's name
        """The handle of an id; None if nothing is known of it (any more)."""
        scheduler = self._started()
        call = await scheduler.look_up(_number(id))
        return None if call is None else Handle(scheduler, call)

    async def redrive(self, id: str) -> Handle[Any]:  # noqa: A002 - as above
        """Run a failed job again; its attempts are counted anew, its id stays.

        `ValueError` for a job that has not failed or whose key has a waiting call by now.
        """
        scheduler, number = self._started(), _number(id)
        held = await scheduler.look_up(number)
        handle = scheduler.redrive(number)
        await scheduler.recorded()
        del held  # a call that is far in the future is known as long as somebody holds it
        return handle

    async def discard(self, id: str) -> bool:  # noqa: A002 - as above
        """Forget an ended job, or drop a waiting one (`JobDropped`); False if it is unknown.

        `ValueError` for a job that runs.
        """
        scheduler, number = self._started(), _number(id)
        held = await scheduler.look_up(number)
        done = scheduler.discard(number)
        await scheduler.recorded()
        del held  # as above
        return done

    @overload
    async def pending(self, task: Task[P, R], key: str) -> Handle[R] | None: ...
    @overload
    async def pending(self, task: Callable[..., Any] | str, key: str) -> Handle[Any] | None: ...
    async def pending(self, task: Callable[..., Any] | str, key: str) -> Handle[Any] | None:
        """The handle of the call that waits under a key, or of the schedule that goes on under it."""
        scheduler = self._started()
        full = (self.task_of(task).identity, checked_key(key))
        call = scheduler.agenda.waiting.get(full)
        if call is None or not call.calls:
            schedule = scheduler.schedules.get(full)  # its run may be under way
            if schedule is not None:
                return Handle(scheduler, schedule)
            call = await scheduler.look_beyond(full)
        return None if call is None else Handle(scheduler, scheduler.books.held(call))

    async def jobs(
        self,
        state: State | str | None = None,
        task: Callable[..., Any] | str | None = None,
        key_prefix: str | None = None,
    ) -> AsyncIterator[Job]:
        """Every known job that fits, in eta order.

        Which jobs there are is settled when the iteration begins; each is shown as it is when its
        turn comes, and left out if a newer call has replaced it by then.
        """
        scheduler = self._started()
        wanted = None if state is None else State.named(state)
        name = task if task is None or isinstance(task, str) else self.task_of(task).name
        async for job in listed(scheduler, wanted, name, key_prefix):
            yield job

    def stats(self) -> Stats:
        """Counts since the start; they stay readable after the close."""
        return self._started().books.stats()

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every event, in the loop's thread; the result unsubscribes."""
        return self._events.subscribe(callback)

    async def join(self) -> None:
        """Wait until nothing is due and nothing runs."""
        if running.get(None) is not None and running.get().scheduler is self._scheduler:
            raise RuntimeError("a job cannot join its own queue: it would wait for itself")
        await self._started().join()

    # -- pause

    def pause(self, task: Callable[..., Any] | str | None = None) -> None:
        """Start no more jobs, or none of one task; what waits keeps its eta."""
        identity = None if task is None else self.task_of(task).identity
        self._paused.add(identity)
        if self._scheduler is not None:
            self._scheduler.agenda.lanes.pause(identity)

    def resume(self, task: Callable[..., Any] | str | None = None) -> None:
        """Start them again, the overdue at once."""
        identity = None if task is None else self.task_of(task).identity
        self._paused.discard(identity)
        if self._scheduler is not None:
            self._scheduler.agenda.lanes.resume(identity)
            self._scheduler.wake()

    def __repr__(self) -> str:
        agenda = None if self._scheduler is None else self._scheduler.agenda
        return f"<Queue {agenda or 'not started'}>"


def _refuse(locked: JournalLocked, *_: object, **__: object) -> NoReturn:
    raise locked.with_traceback(None)


def _number(id_: str) -> int:
    if not isinstance(id_, str):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are type-checked
        raise TypeError(f"an id is a str, not {type(id_).__name__}")
    return int(id_) if id_.isascii() and id_.isdigit() else -1
