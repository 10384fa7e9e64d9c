"""Iterations: a callback for every item of a source, in shards, and then a finalize.

Nothing here is new to the heart. A shard is a job that keeps a cursor; the *record* is a job that is
held until all shards have ended, and the handle is its own. It is released by the set of them, so a
shard that runs twice changes nothing.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import partial
from typing import Any, NoReturn, TypeVar, cast, overload
from uuid import uuid4

from msgspec import UNSET, UnsetType, json, structs

from asyncdefer._calls import Calls
from asyncdefer._codec import Unreadable
from asyncdefer._core.checks import whole
from asyncdefer._core.instant import SECOND, duration, moment, positive
from asyncdefer._core.job import Awaited, Call, JobError, running
from asyncdefer._core.lifecycle import State
from asyncdefer._core.options import Options
from asyncdefer._core.report import Cursor, ItemFailure, Progress, Report, ShardReport
from asyncdefer._core.retry import Retry
from asyncdefer._core.rules import presentable
from asyncdefer._handle import Handle
from asyncdefer._log import WARNING
from asyncdefer._plan import (
    Given,
    Part,
    Plan,
    make_parts,
    make_plan,
    read_plan,
    source_of,
    source_of_part,
    split,
)
from asyncdefer._scheduler import Scheduler
from asyncdefer._shard import Live, Shard, attempt, read_cursor
from asyncdefer._sources import Source, Sources
from asyncdefer._task import AsyncTask, Task, Tasks
from asyncdefer.errors import IterationFailed, Snooze, UnknownTask

C = TypeVar("C", bound=type)
Items = Sequence[Any] | range | Source

_UNKNOWN: float = 60.0  # seconds after which it is looked again whether a task is registered


class Record(AsyncTask[..., Report]):
    """The task of all records; its jobs have a progress."""

    progress_of: Callable[[Call], Progress]


class Iterating(Calls):
    """What works through many items."""

    def __init__(self, registry: Tasks) -> None:
        self._registry = registry
        self._sources = Sources()
        self._live: dict[str, Live] = {}
        self._given: dict[str, Given] = {}
        never = Options()
        self._shards: Task[..., Cursor] = AsyncTask(
            self._shard, "asyncdefer.shard", never, "asyncdefer.shard"
        )
        self._records = Record(self._end, "asyncdefer.iteration", never, "asyncdefer.iteration")
        self._records.progress_of = self._progress
        for task in (self._shards, self._records):
            self._registry._register(task)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its own
            task.home = cast(Any, self)

    # -- what users call

    @overload
    def source(self, cls: C, /) -> C: ...
    @overload
    def source(self, name: str, /) -> Callable[[C], C]: ...
    def source(self, cls: Any, /) -> Any:
        """Register a class of sources: `@queue.source` or `@queue.source("name")`.

        A dataclass or a `msgspec.Struct`, so that its instances travel in a journal, with `async
        split(shards) -> list[(after, upto)]` and `async page(after, upto, limit) -> list[(key,
        item)]`: keys increase, after < key <= upto, and None is open.
        """
        if isinstance(cls, str):
            return partial(self._sources.register, name=cls)
        return self._sources.register(cls, None)

    async def iterate(
        self,
        source: Items,
        callback: Callable[..., Any],
        finalize: Callable[..., Any] | None = None,
        *,
        shards: int = 5,
        args: Sequence[Any] = (),
        budget: float | timedelta | None = None,
        max_failures: int = 0,
        result_ttl: float | timedelta | None | UnsetType = UNSET,
    ) -> Handle[Report]:
        """Call `callback(item, *args)` for every item, and then `finalize(report, *args)` once.

        `source`: a list, whose items go into the journal; a range; or an instance of a class with
        `@queue.source`. `shards`: how many jobs share the items, each in the order of its keys.
        `budget`: seconds or timedelta after which a shard lets other jobs run. An item that fails is
        tried again by the callback's `Retry`; more than `max_failures` that fail for good fail the
        iteration, and `finalize` does not run. `result_ttl`: how long the report can be looked up;
        None for ever. The handle gives the `Report`, or raises `IterationFailed`.
        """
        scheduler = self._started()
        scheduler.check_loop()
        whole(shards, "shards")
        if type(max_failures) is not int or max_failures < 0:
            raise ValueError(f"max_failures is a whole number of 0 or more, not {max_failures!r}")
        limit = None if budget is None else positive(budget, "budget")
        ttl: int | None | UnsetType = UNSET
        if not isinstance(result_ttl, UnsetType):
            ttl = None if result_ttl is None else duration(result_ttl, "result_ttl")
        each = self.task_of(callback)
        last = None if finalize is None else self.task_of(finalize)
        values = tuple(args)
        found = source_of(source)
        sources = self._sources if self.keeps else None
        plan, given = make_plan(each, last, values, found, limit, max_failures, sources=sources)
        parts = make_parts(given, await split(found, shards), keeps=self.keeps)
        if self.journal is not None and self.journal.is_full:
            await self.journal.room()
        token = uuid4().hex
        keep = Options(result_ttl=None)
        handles = [self.accept(self._shards, (token, plan, part), {}, given=keep) for part in parts]
        options = Options(after=tuple(handles), result_ttl=ttl)
        self._given[token] = given
        record = self.accept(self._records, (token, plan), {}, given=options)
        calls: list[Call | None] = [handle._call for handle in handles]  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - its own
        self._go_on(scheduler, token, plan, given, record._call, calls)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above
        try:
            for handle in (*handles, record):
                await handle.accepted()
        except BaseException:
            for handle in (record, *handles):
                scheduler.cancel(handle._call)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above
            raise
        return record

    # -- in memory

    def _read(self, plan: Plan) -> Given:
        return read_plan(plan, self._sources, self.task_of)

    def _go_on(
        self,
        scheduler: Scheduler,
        token: str,
        plan: Plan,
        given: Given,
        record: Call,
        shards: list[Call | None],
    ) -> Live:
        """The iteration of a token is in memory until its record has ended."""
        answer = record.shared()
        live = Live(
            given.callback, given.args, plan.budget, plan.max_failures,
            record, answer, shards, [_cursor_of(call) for call in shards],
        )  # fmt: skip
        self._live[token], self._given[token] = live, given
        ended = scheduler.loop.create_future()
        answer.wait(ended, None)

        def over(_: object) -> None:
            self._live.pop(token, None)
            self._given.pop(token, None)
            if not scheduler.closing:
                for call in live.shards:
                    if call is not None:
                        _leave(scheduler, call)

        ended.add_done_callback(over)
        return live

    def _found(self, scheduler: Scheduler, token: str, plan: Plan) -> Live | None:
        """The iteration of a shard that runs; None if its record has ended."""
        live = self._live.get(token)
        if live is not None:
            return live
        for held in scheduler.books.on_hold.values():
            call = held.call
            if call.task is self._records and call.args[0] == token:
                shards = [scheduler.books.find(one.id) for one in held.after]
                return self._go_on(scheduler, token, plan, self._read(plan), call, shards)
        return None

    def _progress(self, call: Call) -> Progress:
        scheduler = self._started()
        answer = scheduler.books.answer(call)
        report = (
            answer.value if answer.state == "succeeded" else getattr(answer.error, "report", None)
        )
        if isinstance(report, Report):
            shards = report.shards
            return Progress(report.items, len(report.failed), shards, len(shards))
        token, plan = call.args
        live = self._live.get(token)
        if live is None:
            with suppress(UnknownTask, Unreadable):
                live = self._found(scheduler, token, plan)
        if live is None:
            return Progress(0, 0, [], 0)
        pairs = zip(live.cursors, live.shards, strict=True)
        cursors = [_cursor_of(of) if it is None else it for it, of in pairs]
        each = [ShardReport(at, 0 if it is None else it.items) for at, it in enumerate(cursors)]
        failed = sum(len(it.failed) for it in cursors if it is not None)
        ended = sum(of is None or scheduler.books.state(of).ended for of in live.shards)
        return Progress(sum(it.items for it in each), failed, each, ended)

    # -- the tasks

    async def _shard(self, token: str, plan: Plan, part: Part) -> Cursor:
        scheduler = self._started()
        start = Cursor(part.after, scheduler.clock.wall())
        try:
            live = self._found(scheduler, token, plan)
            if live is None or live.is_cancelled:
                return _forgotten(running.get().call) or start
            source = source_of_part(part, self._given[token])
        except (UnknownTask, Unreadable) as error:
            self._wait_for_deploy(scheduler, error)
        cursor = await Shard(scheduler, live, part.index, source, part.upto, start).go()
        if live.is_cancelled:
            _forgotten(running.get().call)
        return cursor

    def _wait_for_deploy(self, scheduler: Scheduler, error: Exception) -> NoReturn:
        told = JobError(type(error).__name__, str(error), "")
        scheduler.tell(WARNING, "job_held", running.get().call, error=told)
        raise Snooze(delay=_UNKNOWN) from error

    async def _end(self, token: str, plan: Plan) -> Report:
        """All shards have ended: what became of the items, and the last word of the program."""
        scheduler = self._started()
        run = running.get()
        live = self._live.get(token)
        shards = run.call.more.after
        calls = [None] * len(shards) if live is None else live.shards
        ended = [await _ended(scheduler, *of) for of in zip(shards, calls, strict=True)]
        report = _report(run.call.id, scheduler.clock.wall(), ended)
        broken = any(error is not None for _, error in ended)
        if broken or len(report.failed) > plan.max_failures:
            raise IterationFailed(report)
        try:
            given = self._given.get(token) or self._read(plan)
        except (UnknownTask, Unreadable) as error:
            self._wait_for_deploy(scheduler, error)
        if given.finalize is not None:
            await self._finalize(scheduler, given.finalize, (report, *given.last))
        return report

    async def _finalize(
        self, scheduler: Scheduler, task: Task[..., Any], args: tuple[Any, ...]
    ) -> None:
        """Retried as its task says, as the items are."""
        run = running.get()
        failures = json.decode(run.call.more.progress or "0", type=int)
        limit = task.declared.timeout or None
        try:
            await attempt(scheduler, run, task, limit, *args)
        except Snooze:
            raise
        except Exception as error:
            retry = task.declared.retry
            shown = presentable(error)
            wait = retry.wait(failures + 1, shown) if isinstance(retry, Retry) else None
            if wait is None:
                raise
            scheduler.keep_progress(run.call, str(failures + 1))
            raise Snooze(delay=wait / SECOND) from error


async def _ended(
    scheduler: Scheduler, one: Awaited, call: Call | None
) -> tuple[Cursor | None, JobError | None]:
    """How far a shard came, and why it failed, if it did."""
    call = call or await scheduler.look_up(one.id)
    if call is None:
        return None, JobError("JobDropped", f"nothing is known of the shard {one.id}", "")
    answer = scheduler.books.answer(call)
    if isinstance(answer.value, Cursor):
        return answer.value, None
    error = answer.error
    return _cursor_of(call), JobError(type(error).__name__, str(error), "")


def _leave(scheduler: Scheduler, call: Call) -> None:
    """Nobody asks for a shard any more: one that waits ends now, and one that has ended goes."""
    state = scheduler.books.state(call)
    if state.ended:
        scheduler.discard(call.id)
    elif state is State.SCHEDULED:
        scheduler.flush(call)


def _forgotten(call: Call) -> Cursor | None:
    """Of a shard that ends after its iteration nothing is kept."""
    call.more = structs.replace(call.more, options=Options(result_ttl=0))
    return _cursor_of(call)


def _cursor_of(call: Call | None) -> Cursor | None:
    if call is None:
        return None
    answer = call.answer
    if answer is not None and isinstance(answer.final().value, Cursor):
        cursor: Cursor = answer.final().value
        return cursor
    return read_cursor(call.more.progress)


def _report(id: int, now: int, ended: list[tuple[Cursor | None, JobError | None]]) -> Report:
    failed: list[ItemFailure] = []
    shards: list[ShardReport] = []
    began = [(id >> 20) * 1000]
    for index, (cursor, error) in enumerate(ended):
        shards.append(ShardReport(index, 0 if cursor is None else cursor.items))
        if cursor is not None:
            failed += cursor.failed
            began.append(cursor.started)
        if error is not None:
            failed.append(ItemFailure(None, error))
    items = sum(shard.items for shard in shards)
    return Report(items, failed, shards, moment(min(began)), moment(now))
