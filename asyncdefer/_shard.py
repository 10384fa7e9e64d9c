"""One shard of an iteration: a job that goes through its items page by page.

Where it is stands in its *cursor*, which is written into its row after each item; while one such
write is on its way the items go on, and the next write has them all. What interrupts a shard
(a restart, an error, a used-up budget, a snooze) makes it go on behind the cursor.
"""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final, cast

from msgspec import Struct

from asyncdefer._books import job_error
from asyncdefer._clock import real
from asyncdefer._codec import Codec
from asyncdefer._core.instant import SECOND
from asyncdefer._core.job import NO_KWARGS, Call, JobError, Running, running
from asyncdefer._core.report import Cursor, ItemFailure
from asyncdefer._core.retry import Retry
from asyncdefer._core.rules import presentable
from asyncdefer._log import DEBUG
from asyncdefer._plan import Given, Part, Plan
from asyncdefer._scheduler import Scheduler
from asyncdefer._sources import PAGE, Source
from asyncdefer._task import Task
from asyncdefer.errors import Snooze

_TURN: Final = 0.002  # real seconds after which others may run
_CROWDED: Final = 0.05  # real seconds after which a slot is given up, if somebody waits for one
_STRIDE: Final = 16  # items between two looks at the time, at the most
_TRACEBACKS: Final = 100  # that are kept of a shard; its row is written with all of them


def _hold(cursor: Cursor) -> None: ...


_CODEC: Final = Codec(_hold, "the cursor of a shard", limit=1 << 30)


def read_cursor(text: str) -> Cursor | None:
    """The cursor of a row; None if it has none yet."""
    return _CODEC.decode(text)[0][0] if text else None


def _text(cursor: Cursor) -> str:
    return _CODEC.encode((cursor,), NO_KWARGS)[0]


class Live(Struct, eq=False):
    """An iteration in memory, from the call or the restart until its record has ended.

    `record`: the job of its handle, which waits for the shards. `given`: None after a restart, until
    a shard or the record runs. `cursors`: of the shards by index, as far as they have begun.
    `stopped`: the record has ended before the shards. `ready`: set when all of them are safe.
    """

    record: Call
    plan: Plan
    shards: list[Call | None]
    cursors: list[Cursor | None]
    given: Given | None
    ready: asyncio.Event
    stopped: bool = False

    @property
    def is_over(self) -> bool:
        """No shard is to go on: it was cancelled, or too many items have failed."""
        failed = sum(len(it.failed) for it in self.cursors if it is not None)
        return self.stopped or failed > self.plan.max_failures


class Shard:
    """A run of a shard."""

    def __init__(
        self, scheduler: Scheduler, live: Live, given: Given, part: Part, source: Source
    ) -> None:
        self._scheduler = scheduler
        self._live = live
        self._callback = given.callback
        self._args = given.args
        self._index = part.index
        self._source = source
        self._upto = part.upto
        self._run: Running = running.get()
        self._run.shard = part.index
        self._cursor = live.cursors[part.index] or Cursor(part.after, scheduler.clock.wall())
        live.cursors[part.index] = self._cursor
        self._keeps = scheduler.journal is not None
        self._saving = False
        self._saved_at: Any = None  # the key up to which it is written
        self._alone = self._run.call.more.crashes > 0
        """The process died while it ran, so others that did wait until it ends: after one item."""
        self._stride = 1
        self._begun = self._turn = real()
        budget = live.plan.budget
        self._ends = None if budget is None else scheduler.clock.steady() + budget

    async def go(self) -> None:
        """Go on from the cursor to the end, or until the iteration is over."""
        try:
            while not (self._live.is_over or self._run.asked) and (pairs := await self._next()):
                await self._through(pairs)
                self._tell()
        finally:
            if self._keeps:
                self._note()

    async def _next(self) -> Sequence[tuple[Any, Any]]:
        """A page; an error in it is an error of the item that is next."""
        after, cursor = self._cursor.after, self._cursor
        try:
            pairs = await self._source.page(after, self._upto, PAGE)
            check_page(after, self._upto, pairs)
            if self._keeps and pairs:
                _text(Cursor(pairs[-1][0], 0))  # a key that cannot be written down is found here
        except Exception as error:
            wait = None if self._is_told() else wait_after(self._callback, cursor.failures, error)
            if wait is None:
                raise
            cursor.failures += 1
            raise Snooze(delay=wait / SECOND) from error
        return pairs

    async def _through(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Each item in its turn."""
        live, cursor, scheduler, run = self._live, self._cursor, self._scheduler, self._run
        callback, args, keeps, ends = self._callback, self._args, self._keeps, self._ends
        call: Callable[..., Awaitable[Any]] = callback.fn
        limit = callback.declared.timeout or None
        if not callback.is_async or limit is not None:
            call = partial(attempt, scheduler, run, callback, limit)
        left = self._stride
        retried = cursor.failures > 0
        for key, item in pairs:
            try:
                await (call(item, *args) if args else call(item))
            except Snooze:
                raise
            except BaseException as error:
                if not self._fails(key, error):
                    raise
                left = 1  # to look whether these are too many
            else:
                cursor.items += 1
            cursor.after = key
            if retried:
                cursor.failures, retried = 0, False
            if keeps and not self._saving:
                self._save()
            if live.stopped:
                return
            left -= 1
            if not left:
                left = await self._look()
                if live.is_over or run.asked:
                    return
            if ends is not None and scheduler.clock.steady() >= ends:
                raise Snooze(delay=0)

    async def _look(self) -> int:
        """Let others run if it is time to; how many items there are to the next look."""
        if self._alone or self._scheduler.closing:
            raise Snooze(delay=0)
        if real() - self._turn <= _TURN:
            self._stride = min(2 * self._stride, _STRIDE)
            return self._stride
        await asyncio.sleep(0)
        self._turn = real()
        if self._turn - self._begun > _CROWDED and self._scheduler.is_crowded:
            raise Snooze(delay=0)
        self._stride = 1
        return 1

    def _fails(self, key: Any, error: BaseException) -> bool:
        """Whether the shard goes on behind an item that failed: for good, then."""
        cursor = self._cursor
        if isinstance(error, KeyboardInterrupt | GeneratorExit) or self._is_told():
            return False
        try:
            wait = wait_after(self._callback, cursor.failures, error)
        except Exception as invalid:  # noqa: BLE001 - the user's `delay` function
            invalid.__cause__ = error
            error, wait = invalid, None
        if wait is not None:
            cursor.failures += 1
            raise Snooze(delay=wait / SECOND) from error
        told = job_error(presentable(error))
        if len(cursor.failed) >= _TRACEBACKS:
            told = JobError(told.type, told.message, "")
        cursor.failed.append(ItemFailure(key, told))
        return True

    def _is_told(self) -> bool:
        """The run itself is to stop; what a callback raises then says nothing of its item."""
        task = asyncio.current_task()
        return self._run.asked > 0 or (task is not None and task.cancelling() > 0)

    def _save(self) -> None:
        """Write the cursor; what is done meanwhile is written with the next."""
        self._saving = True
        self._note()
        self._saved_at = self._cursor.after
        self._scheduler.save(self._run, self._saved)

    def _saved(self, out: object) -> None:
        self._saving = False
        goes_on = self._scheduler.runs.get(self._run.call.key) is self._run
        is_behind = self._cursor.after is not self._saved_at
        if is_behind and out is not None and goes_on:
            self._save()

    def _note(self) -> None:
        """Keep the cursor with the job."""
        self._scheduler.keep_progress(self._run.call, _text(self._cursor))

    def _tell(self) -> None:
        items, index = self._cursor.items, self._index
        self._scheduler.tell(DEBUG, "iteration_page", self._live.record, shard=index, items=items)


async def attempt(
    scheduler: Scheduler, run: Running, task: Task[..., Any], limit: int | None, /, *args: Any
) -> Any:
    """Call a task's function within a run of another job; `limit`: microseconds to `TimeoutError`.

    As with any job, a thread is waited for, and what was told to stop and returns has not succeeded.
    """
    if limit is None:
        return await _called(scheduler, task, args, lambda: run.asked)
    late = 0
    call = _called(scheduler, task, args, lambda: late + run.asked)
    inner = asyncio.Task(_kept_in(call), loop=scheduler.loop)

    def strike() -> None:
        nonlocal late
        late = 1
        inner.cancel()

    timer = scheduler.clock.call_at(scheduler.clock.steady() + limit, strike)
    try:
        value, error = await inner
    except asyncio.CancelledError as cancelled:
        value, error = None, cancelled
    finally:
        timer.cancel()
    if late and not run.asked:
        raise TimeoutError(f"{task.name} ran into its timeout") from error
    if error is not None:
        raise error
    return value


async def _kept_in(call: Awaitable[Any]) -> tuple[Any, BaseException | None]:
    """What a call returns or raises: a SystemExit that leaves a task ends the loop."""
    try:
        return await call, None
    except asyncio.CancelledError:
        raise
    except BaseException as error:  # noqa: BLE001 - it is raised again in the task of the run
        return None, error


async def _called(
    scheduler: Scheduler, task: Task[..., Any], args: tuple[Any, ...], asked: Callable[[], int]
) -> Any:
    if task.is_async:
        return await task.fn(*args)
    value = await scheduler.in_thread(partial(task.fn, *args), asked)
    return await value if inspect.iscoroutine(value) else value


def wait_after(task: Task[..., Any], failures: int, error: BaseException) -> int | None:
    """Microseconds to the next try after one more failure, by the task's own rule; None: no more."""
    retry = task.declared.retry
    return retry.wait(failures + 1, error) if isinstance(retry, Retry) else None


def check_page(after: Any, upto: Any, pairs: Any) -> None:
    """An error unless these are pairs in order, with after < key <= upto."""
    if not isinstance(pairs, Sequence):
        raise TypeError(f"page gives a list of (key, item), not {type(pairs).__name__}")
    if not pairs:
        return
    found = cast(Sequence[tuple[Any, Any]], pairs)
    key, last, wrong = after, after, False
    try:
        for key, _ in found:
            wrong = last is not None and not last < key
            if wrong:
                break
            last = key
    except (TypeError, ValueError) as error:
        raise TypeError(f"page gives (key, item) pairs with keys that compare: {error}") from None
    if wrong:
        raise ValueError(
            f"the page behind {after!r} is not in order: {key!r} comes after {last!r}, and each key"
            " is to be greater than the one before"
        )
    if upto is not None and upto < last:
        raise ValueError(
            f"the page behind {after!r} goes on to {last!r}, and was to end at {upto!r}"
        )
