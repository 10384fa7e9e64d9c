"""The queue: what a program holds in its hands. It wires the parts below and decides nothing."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import Context
from datetime import timedelta
from functools import partial
from os import PathLike
from types import TracebackType
from typing import Any, Literal, NoReturn, ParamSpec, Self, TypeVar, Unpack, overload

import anyio

from asyncdefer._after_commit import CommittedCalls
from asyncdefer._clock import Clock
from asyncdefer._core.checks import checked_key
from asyncdefer._core.job import Job, running
from asyncdefer._core.ledger import Stats
from asyncdefer._core.lifecycle import State
from asyncdefer._handle import Handle
from asyncdefer._iteration import Iterating
from asyncdefer._listing import listed
from asyncdefer._log import Events, Subscriber
from asyncdefer._opening import Opening, called_off
from asyncdefer._scheduler import Scheduler
from asyncdefer._settings import QueueOptions, Settings, settings_of
from asyncdefer._task import Accept, Task, Tasks
from asyncdefer._transaction import Transacting
from asyncdefer.errors import JournalLocked, NotStarted, QueueClosed
from asyncdefer.stores._base import Store

P = ParamSpec("P")
R = TypeVar("R")

CANCEL_GRACE: float = 5.0
"""Real seconds that a run may take to end after `close()` cancelled it."""


class Queue(Iterating, Transacting, CommittedCalls):
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
        super().__init__(Tasks())
        self._scheduler: Scheduler | None = None
        self._starting: asyncio.Task[None] | None = None
        self._closing: asyncio.Task[None] | None = None
        self.journal = None
        self._opening: Opening | None = None
        self._callables: dict[Any, Task[..., Any]] = {}
        self._events = Events()
        self._paused: set[Any] = set()
        self.accept: Accept = self._not_started
        """The one door for calls; not for programs, which have `enqueue`."""
        given = settings_of(
            journal=journal, concurrency=concurrency, threads=threads, result_ttl=result_ttl,
            drain_timeout=drain_timeout, on_locked=on_locked, clock=clock,
        )  # fmt: skip
        self._take(given)

    def configure(self, **options: Unpack[QueueOptions]) -> None:
        """Change options of the constructor, its journal too, while the queue is stopped."""
        if self._is_running():
            raise RuntimeError("configure a queue before its start or after its close")
        self._take(self.settings.but(**options))

    def _take(self, settings: Settings) -> None:
        self.settings = settings
        self._store = settings.journal
        self.keeps: bool = self._store is not None

    # -- life

    async def start(self) -> None:
        """Begin to accept and run jobs, in the running event loop.

        `JournalError` if the journal cannot be opened, or not take in a schedule that begins;
        `QueueClosed` if the queue is closed meanwhile.
        """
        if self._is_running():
            raise RuntimeError("the queue is started already")
        given, former = self.settings, self._scheduler
        self._closing = None
        scheduler = self._scheduler = Scheduler(
            given.clock,
            self._events,
            concurrency=given.concurrency,
            threads=given.threads,
            result_ttl=given.result_ttl,
            callables=self._callables,
            last=0 if former is None else former.last,  # no id comes twice
        )
        for identity in self._paused:
            scheduler.agenda.lanes.pause(identity)
        opening = self._open(scheduler, former)
        starting = self._starting = asyncio.Task(opening, loop=scheduler.loop, context=Context())
        try:
            await asyncio.wait([starting])
            if not starting.cancelled() or self._closing is None:
                starting.result()
            if self._closing is not None:
                raise QueueClosed("the queue was closed while it started")
        except BaseException:
            await self.close()
            raise

    async def _open(self, scheduler: Scheduler, former: Scheduler | None) -> None:
        if former is not None:
            await self._let_go_of(former)
        if self._store is not None:
            self._opening = Opening(self._store, scheduler)
            try:
                await self._opening.open(self._registry.named)
            except JournalLocked as locked:
                if self.settings.on_locked == "raise":
                    raise
                self.accept = partial(_refuse, locked)
                self._opening.stand_by(self._registry.named, partial(self._begin, scheduler))
                return
        self._begin(scheduler)
        for schedule in tuple(scheduler.schedules.values()):
            await Handle(scheduler, schedule).accepted()

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
        self._inside()
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
        if scheduler is None:
            return
        if scheduler.loop.is_closed():
            await self._let_go_of(scheduler)
            return
        scheduler.check_loop()
        cancelled: asyncio.CancelledError | None = None
        closing = self._shutting(scheduler)
        with anyio.CancelScope(shield=True):
            while not closing.done():
                try:
                    await asyncio.shield(closing)
                except asyncio.CancelledError as error:
                    cancelled = error
                    scheduler.stop_runs()
                    closing = self._shutting(scheduler)
        self._callables.clear()
        if cancelled is not None:
            raise cancelled
        closing.result()

    def _shutting(self, scheduler: Scheduler) -> asyncio.Task[None]:
        """The close under way; another one, if that was cancelled before its first step."""
        if self._closing is None or self._closing.cancelled():
            self._closing = scheduler.loop.create_task(self._shut(scheduler))
        return self._closing

    async def _shut(self, scheduler: Scheduler) -> None:
        if self._starting is not None:
            await called_off(self._starting)
        if self.standby and self._opening is not None:
            await self._opening.close()
            self.accept = scheduler.accept
        await scheduler.shut_down(self.settings.drain_timeout, CANCEL_GRACE)
        if self._opening is not None:
            await self._opening.close()
            self._opening = None

    async def _let_go_of(self, former: Scheduler) -> None:
        """Unless it was closed: its event loop has ended, and what it left is as after a crash."""
        former.closing = True
        former.shut_door()
        former.clock.detach(former)
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

    def _inside(self) -> Scheduler:
        """The same for those who ask from its own loop; `WrongLoop` for others."""
        scheduler = self._started()
        scheduler.check_loop()
        return scheduler

    def _not_started(self, *_: object, **__: object) -> NoReturn:
        raise NotStarted(
            "the queue has not been started: use `async with queue:`,"
            " `await queue.start()` or lifespan=queue.lifespan"
        )

    # -- tasks

    def include(self, tasks: Tasks) -> None:
        """Adopt the tasks of a registry."""
        for task in tasks:
            self._registry.check_name(task.name)
        tasks.adopt(self._register)

    def _register(self, task: Task[..., Any]) -> None:
        runs = self._is_running() and not self.standby
        if runs and task.declared.repeat:
            self._started().check_loop()
        self._registry._register(task)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its own registry
        task.home = self
        if runs:
            try:
                self._started().welcome(task)
            except BaseException:
                self._registry.forget(task)
                task.home = None
                raise

    # -- questions

    @property
    def clock(self) -> Clock:
        """The clock that the queue lives by."""
        return self.settings.clock

    async def handle(self, id: str) -> Handle[Any] | None:
        """The handle of an id; None if nothing is known of it (any more)."""
        scheduler = self._inside()
        call = await scheduler.look_up(_number(id))
        return None if call is None else Handle(scheduler, call)

    async def redrive(self, id: str) -> Handle[Any]:
        """Run a failed job again; its attempts are counted anew, its id stays.

        `ValueError` for a job that has not failed or whose key has a waiting call by now.
        """
        scheduler, number = self._inside(), _number(id)
        held = await scheduler.look_up_with_key(number)
        handle = scheduler.redrive(number)
        await scheduler.recorded()
        del held  # a call that is far in the future is known as long as somebody holds it
        return handle

    async def discard(self, id: str) -> bool:
        """Forget an ended job, or drop a waiting one (`JobDropped`); False if it is unknown.

        `ValueError` for a job that runs.
        """
        scheduler, number = self._inside(), _number(id)
        held = await scheduler.look_up(number)
        await scheduler.recorded()  # its end may be on its way
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
        scheduler = self._inside()
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
        """Every known job that fits, in eta order; each as it is when its turn comes.

        In memory, which jobs there are is settled when the iteration begins. A journal is read
        page by page: each job that keeps its eta meanwhile is shown once; one that gets another
        eta (a retry, a snooze, `reschedule`) may be shown twice or be missed, and one that is
        accepted meanwhile may be shown. What a newer call has replaced by then is left out.
        """
        scheduler = self._inside()
        name = task if task is None or isinstance(task, str) else self.task_of(task).name
        async for job in listed(scheduler, state, name, key_prefix):
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
        identity, scheduler = self._pausable(task)
        self._paused.add(identity)
        if scheduler is not None:
            scheduler.agenda.lanes.pause(identity)

    def resume(self, task: Callable[..., Any] | str | None = None) -> None:
        """Start them again, the overdue at once."""
        identity, scheduler = self._pausable(task)
        self._paused.discard(identity)
        if scheduler is not None:
            scheduler.agenda.lanes.resume(identity)
            scheduler.wake()

    def _pausable(self, task: Callable[..., Any] | str | None) -> tuple[Any, Scheduler | None]:
        scheduler = self._inside() if self._is_running() else None
        return None if task is None else self.task_of(task).identity, scheduler

    def __repr__(self) -> str:
        agenda = None if self._scheduler is None else self._scheduler.agenda
        return f"<Queue {agenda or 'not started'}>"


def _refuse(locked: JournalLocked, *_: object, **__: object) -> NoReturn:
    raise locked.with_traceback(None)


def _number(id: str) -> int:
    if not isinstance(id, str):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are type-checked
        raise TypeError(f"an id is a str, not {type(id).__name__}")
    return int(id) if id.isascii() and id.isdigit() else -1
