"""Calls that wait for the commit of a database which is not the journal's.

It knows of SQLAlchemy's sessions what their events tell, and imports SQLAlchemy when somebody comes
with a session. What a call may be is known elsewhere.
"""

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack
from weakref import ref

from msgspec import Struct

from asyncdefer._books import job_error
from asyncdefer._calls import Calls
from asyncdefer._core.options import CallOptions, Options, read_options
from asyncdefer._door import running_loop
from asyncdefer._handle import Handle
from asyncdefer._log import ERROR
from asyncdefer._scheduler import Scheduler
from asyncdefer._task import Task

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
    from sqlalchemy.orm import Session, SessionTransaction, scoped_session


class CommittedCalls(Calls):
    """Calls, and those that a transaction has to commit first."""

    def after_commit(
        self,
        session: "Session | AsyncSession | scoped_session[Any] | async_scoped_session[Any]",
    ) -> "AfterCommit":
        """What collects calls, and makes them when the transaction of `session` has committed.

        `session`: one of SQLAlchemy 2, plain, async or scoped; anything else is a `TypeError`.
        The same session gets the same collector, for all of its transactions. A crash between the
        commit and the call loses the call.
        """
        own = _own_session(session)
        calls: AfterCommit | None = own.info.get(self)
        if calls is None:
            calls = own.info[self] = AfterCommit(self, own, self._started)
        return calls


class _Collected(Struct):
    """A call that waits for a commit. `given` is what `accept` takes, `key` is for the log."""

    context: Context
    key: str | None
    given: tuple[Any, ...]


_Placed = list[tuple[_Collected, Handle[Any]]]


class AfterCommit:
    """Calls that are made when the session's outermost transaction has committed, in order.

    When it is rolled back, or the session is closed before, they are gone; those of a savepoint
    that is rolled back are gone with it. `queue.after_commit(session)` gives it.
    """

    def __init__(self, queue: Calls, session: "Session", started: Callable[[], Scheduler]) -> None:
        from sqlalchemy import event  # noqa: PLC0415 - not everybody has it

        self._queue = queue
        self._session = ref(session)
        self._started = started
        self._collected: list[_Collected] = []
        self._starts: dict[int, int] = {}  # where the calls of an open savepoint begin
        self._committed = False  # and its end not told yet
        self._watching: set[asyncio.Task[_Placed]] = set()
        self._error: Exception | None = None
        event.listen(session, "after_transaction_create", self._on_begin)
        event.listen(session, "after_commit", self._on_commit)
        event.listen(session, "after_transaction_end", self._on_end)

    def enqueue(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        **kwargs: Any,
    ) -> None:
        """Call `queue.enqueue` with the same arguments when the transaction has committed.

        What `queue.enqueue` would refuse now is refused now. `delay` counts from the commit. If
        the session has no transaction yet one begins, as it does with `session.add`.
        """
        self._collect(self._queue.task_beside(fn), args, kwargs, eta, delay, key)

    def options(self, **options: Unpack[CallOptions]) -> "AfterCommitCall":
        """Options for one call: `calls.options(expires=60).enqueue(fn, …)`."""
        return AfterCommitCall(self._queue, self._collect, read_options(options, CallOptions))

    async def accepted(self) -> None:
        """Wait until the calls of all commits so far are as safe as the queue can make them.

        Raises the first error of a call that could not be made since it was last asked:
        `QueueClosed`, `JournalError` or what else `queue.enqueue` may raise.
        """
        self._started().check_loop()
        if self._watching:
            await asyncio.wait(self._watching)
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _collect(
        self,
        task: Task[..., Any],
        args: Any,
        kwargs: Any,
        eta: datetime | None = None,
        delay: float | timedelta | None = None,
        key: str | None = None,
        given: Options | None = None,
    ) -> None:
        shown, args, kwargs = self._queue.checked(task, args, kwargs, eta, delay, key, given)
        session = self._session()
        if session is None:
            raise RuntimeError("the session is gone, and no transaction of it will ever commit")
        if not session.in_transaction():
            if not session.autobegin:
                raise RuntimeError("there is nothing to commit: call session.begin() first")
            session.begin()
        whole = task, args, kwargs, eta, delay, key, given
        self._collected.append(_Collected(copy_context(), shown, whole))
        if self._committed:  # by somebody else who is told of the commit, and later than we are
            self._make()

    # -- what the session tells

    def _on_begin(self, session: "Session", transaction: "SessionTransaction") -> None:
        if transaction.nested:
            self._starts[id(transaction)] = len(self._collected)
        elif transaction.parent is None:
            self._forget()  # a transaction whose end failed is not told to have ended

    def _on_commit(self, session: "Session") -> None:
        savepoint = session.get_nested_transaction()
        if savepoint is None:
            self._committed = True
            self._make()
        else:  # it is released: its calls are its parent's now
            self._starts[id(savepoint)] = len(self._collected)

    def _on_end(self, session: "Session", transaction: "SessionTransaction") -> None:
        if transaction.nested:  # one that is not known was open before anything was collected
            del self._collected[self._starts.pop(id(transaction), 0) :]
        elif transaction.parent is None:
            self._forget()

    def _forget(self) -> None:
        self._collected, self._starts, self._committed = [], {}, False

    # -- after the commit: no error may reach the session, which would take it for its own

    def _make(self) -> None:
        collected, self._collected = self._collected, []
        if not collected:
            return
        loop = self._started().loop
        place = partial(self._place, collected)
        if running_loop() is loop:
            placed = place()
            if self._queue.journal is not None:
                watching = loop.create_task(self._watch(placed), context=Context())
                self._watching.add(watching)
                watching.add_done_callback(self._watching.discard)
            return
        try:
            self._queue.from_thread(place, self._watch)
        except Exception as error:  # noqa: BLE001 - as above
            for call in collected:
                self._tell(call, error)

    def _place(self, collected: list[_Collected]) -> _Placed:
        placed: _Placed = []
        for call in collected:
            try:
                handle = call.context.run(self._queue.accept, *call.given)
            except Exception as error:  # noqa: BLE001 - as above; the others are made all the same
                self._tell(call, error)
            else:
                placed.append((call, handle))
        return placed

    async def _watch(self, placed: _Placed) -> _Placed:
        for call, handle in placed:
            try:
                await handle.accepted()
            except Exception as error:  # noqa: BLE001 - as above
                self._tell(call, error)
        return placed

    def _tell(self, call: _Collected, error: Exception) -> None:
        if self._error is None:
            self._error = error
        task, told = call.given[0].name, job_error(error)
        self._started().tell(
            ERROR, "after_commit_failed", None, task=task, key=call.key, error=told
        )


class AfterCommitCall:
    """A collector together with options for one call."""

    __slots__ = ("_collect", "_options", "_queue")

    def __init__(self, queue: Calls, collect: Callable[..., None], options: Options) -> None:
        self._queue = queue
        self._collect = collect
        self._options = options

    def enqueue(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """The same; every keyword argument is the function's own."""
        self._collect(self._queue.task_of(fn), args, kwargs, given=self._options)


def _own_session(session: Any) -> "Session":
    """The one that bears the events."""
    scope = getattr(session, "registry", None)
    inner = scope() if callable(scope) else session
    inner = getattr(inner, "sync_session", inner)
    try:
        from sqlalchemy.orm import Session  # noqa: PLC0415 - as above
    except ImportError:
        pass
    else:
        if isinstance(inner, Session):
            return inner
    raise TypeError(
        f"after_commit takes a session of SQLAlchemy 2 (Session or AsyncSession),"
        f" not {type(session).__name__}"
    )
