"""One shard of an iteration: a job that goes through its items page by page.

Where it is stands in its *cursor*, which is written into its row after each item; while one such
write is on its way the items go on, and the next write has them all. What interrupts a shard
(a restart, an error, a used-up budget, a snooze) makes it go on behind the cursor.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, Final

from msgspec import Struct

from asyncdefer._books import job_error
from asyncdefer._codec import Codec
from asyncdefer._core.instant import SECOND
from asyncdefer._core.job import NO_KWARGS, Answer, Call, Running, running
from asyncdefer._core.report import Cursor, ItemFailure
from asyncdefer._core.retry import Retry
from asyncdefer._core.rules import presentable
from asyncdefer._log import DEBUG
from asyncdefer._scheduler import Scheduler
from asyncdefer._sources import PAGE, Source
from asyncdefer._task import Task
from asyncdefer.errors import Snooze

_TURN: Final = 0.005  # real seconds after which others may run
_CROWDED: Final = 0.05  # real seconds after which a slot is given up, if somebody waits for one
_STRIDE: Final = 16  # items between two looks at the time


def _hold(cursor: Cursor) -> None: ...


_CODEC: Final = Codec(_hold, "the cursor of a shard", limit=1 << 30)


def read_cursor(text: str) -> Cursor | None:
    """The cursor of a row; None if it has none yet."""
    return _CODEC.decode(text)[0][0] if text else None


class Live(Struct, eq=False):
    """An iteration in memory. `record`: the job of its handle, which waits for the shards.

    `cursors`: of the shards by index; those that have ended here or run. `bad`: the items that
    failed for good.
    """

    callback: Task[..., Any]
    args: tuple[Any, ...]
    budget: int | None
    max_failures: int
    record: Call
    answer: Answer
    shards: list[Call | None]
    cursors: list[Cursor | None]

    @property
    def is_cancelled(self) -> bool:
        """Its record has ended before its shards."""
        answer = self.answer.final()
        return answer.state is not None or answer.ending is not None

    @property
    def is_over(self) -> bool:
        """No shard is to go on: it was cancelled, or too many items have failed."""
        if self.is_cancelled:
            return True
        return sum(len(it.failed) for it in self.cursors if it is not None) > self.max_failures


class Shard:
    """A run of a shard."""

    def __init__(
        self, scheduler: Scheduler, live: Live, index: int, source: Source, upto: Any, start: Cursor
    ) -> None:
        self._scheduler = scheduler
        self._live = live
        self._index = index
        self._source = source
        self._upto = upto
        self._run: Running = running.get()
        self._run.shard = index
        self._cursor = read_cursor(self._run.call.more.progress) or start
        self._saving = False
        self._behind = False
        live.cursors[index] = self._cursor

    async def go(self) -> Cursor:
        """Go on from the cursor to the end, or until the iteration is over."""
        cursor = self._cursor
        try:
            while not self._live.is_over:
                pairs = await self._next()
                if not pairs:
                    break
                await self._through(pairs)
                self._tell()
        except BaseException:
            self._note()
            raise
        return cursor

    async def _next(self) -> Sequence[tuple[Any, Any]]:
        """A page; an error in it is an error of the item that is next."""
        after, cursor = self._cursor.after, self._cursor
        try:
            pairs = await self._source.page(after, self._upto, PAGE)
            if pairs:
                _check_order(after, [key for key, _ in pairs])
        except Exception as error:
            wait = _wait(self._live.callback, cursor.failures + 1, error)
            if wait is None:
                raise
            cursor.failures += 1
            raise Snooze(delay=wait / SECOND) from error
        return pairs

    async def _through(self, pairs: Sequence[tuple[Any, Any]]) -> None:
        """Each item in its turn."""
        live, cursor, scheduler = self._live, self._cursor, self._scheduler
        answer, callback, args = live.answer, live.callback, live.args
        call: Callable[..., Awaitable[Any]] = callback.fn
        limit = callback.declared.timeout or None
        if not callback.is_async or limit is not None:
            call = partial(attempt, scheduler, self._run, callback, limit)
        now = scheduler.loop.time
        keeps = scheduler.journal is not None
        begun = turn = now()
        ends = None if live.budget is None else scheduler.clock.steady() + live.budget
        left = _STRIDE
        for key, item in pairs:
            try:
                await call(item, *args)
            except Snooze:
                raise
            except BaseException as error:
                if not self._fails(key, error):
                    raise
                left = 1  # to look whether these are too many
            else:
                cursor.items += 1
            cursor.after = key
            cursor.failures = 0
            if keeps and not self._saving:
                self._save()
            self._behind = True
            if answer.ending is not None or answer.state is not None:
                return
            left -= 1
            if ends is not None or not left:
                left = _STRIDE
                if live.is_over:
                    return
                if now() - turn > _TURN:
                    await asyncio.sleep(0)
                    turn = now()
                    if turn - begun > _CROWDED and scheduler.is_crowded:
                        raise Snooze(delay=0)
                if ends is not None and scheduler.clock.steady() >= ends:
                    raise Snooze(delay=0)

    def _fails(self, key: Any, error: BaseException) -> bool:
        """Whether the shard goes on behind an item that failed: for good, then."""
        live, cursor = self._live, self._cursor
        if isinstance(error, KeyboardInterrupt | GeneratorExit) or _is_ours(error):
            return False
        shown = presentable(error)
        wait = _wait(live.callback, cursor.failures + 1, shown)
        if wait is not None:
            cursor.failures += 1
            raise Snooze(delay=wait / SECOND) from error
        cursor.failed = [*cursor.failed, ItemFailure(key, job_error(shown))]
        return True

    def _save(self) -> None:
        """Write the cursor; what is done meanwhile is written with the next."""
        self._saving = True
        self._note()
        self._behind = False
        self._scheduler.save(self._run, self._saved)

    def _saved(self, out: object) -> None:
        self._saving = False
        if (
            self._behind
            and out is not None
            and self._scheduler.runs.get(self._run.call.key) is self._run
        ):
            self._save()

    def _note(self) -> None:
        """Keep the cursor with the job."""
        text = _CODEC.encode((self._cursor,), NO_KWARGS)[0]
        self._scheduler.keep_progress(self._run.call, text)

    def _tell(self) -> None:
        items, index = self._cursor.items, self._index
        self._scheduler.tell(DEBUG, "iteration_page", self._live.record, shard=index, items=items)


async def attempt(
    scheduler: Scheduler, run: Running, task: Task[..., Any], limit: int | None, /, *args: Any
) -> Any:
    """Call a task's function within a run of another job; `limit`: microseconds to `TimeoutError`."""
    if not task.is_async:
        call: Awaitable[Any] = scheduler.in_thread(run, partial(task.fn, *args))
    else:
        call = task.fn(*args)
    if limit is None:
        return await call
    late = False
    inner = asyncio.ensure_future(call)

    def strike() -> None:
        nonlocal late
        late = True
        inner.cancel()

    timer = scheduler.clock.call_at(scheduler.clock.steady() + limit, strike)
    try:
        return await inner
    except asyncio.CancelledError:
        if late and not _is_cancelled():
            raise TimeoutError(f"{task.name} ran into its timeout") from None
        raise
    finally:
        timer.cancel()
        inner.cancel()


def _is_ours(error: BaseException) -> bool:
    """The run itself is to stop."""
    return isinstance(error, asyncio.CancelledError) and _is_cancelled()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _wait(task: Task[..., Any], failures: int, error: BaseException) -> int | None:
    """Microseconds until the next try, by the task's own rule; None if there is none."""
    retry = task.declared.retry
    return retry.wait(failures, error) if isinstance(retry, Retry) else None


def _check_order(after: Any, keys: list[Any]) -> None:
    if keys != sorted(keys) or (after is not None and not after < keys[0]):
        raise ValueError(
            f"the page behind {after!r} is not in order: its keys must increase, and be greater than that"
        )
