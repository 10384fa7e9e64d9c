"""Iterations: a callback for every item of a source, in shards, and then a finalize.

Nothing here is new to the heart. A shard is a job that keeps a cursor; the *record* is a job that is
held until all shards have ended, and the handle is its own. It is released by the set of them, so a
shard that runs twice changes nothing.
"""

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final, NoReturn, TypeVar, cast, overload
from uuid import uuid4

from msgspec import UNSET, UnsetType, structs

from asyncdefer._books import job_error
from asyncdefer._calls import Calls
from asyncdefer._codec import Codec, Unreadable
from asyncdefer._core.checks import whole
from asyncdefer._core.instant import SECOND, duration, moment, positive
from asyncdefer._core.job import NO_KWARGS, Answer, Awaited, Call, JobError, Running, running
from asyncdefer._core.lifecycle import State
from asyncdefer._core.options import WHILE_AWAITED, Options
from asyncdefer._core.report import Cursor, Ending, ItemFailure, Progress, Report, ShardReport
from asyncdefer._handle import Handle
from asyncdefer._log import WARNING
from asyncdefer._plan import (
    RECORD,
    SHARD,
    Given,
    Part,
    Plan,
    Record,
    make_parts,
    make_plan,
    read_plan,
    source_of,
    source_of_part,
    split,
)
from asyncdefer._scheduler import Scheduler
from asyncdefer._shard import Live, Shard, attempt, read_cursor, wait_after
from asyncdefer._sources import Source, Sources
from asyncdefer._task import AsyncTask, Task, Tasks
from asyncdefer.errors import IterationFailed, JournalError, Snooze, UnknownTask

C = TypeVar("C", bound=type)
Items = Sequence[Any] | range | Source

_UNKNOWN: Final = 60.0  # seconds after which it is looked again whether a task is registered
_NONE: Final = Progress(0, 0, [], 0)


def _hold(ending: Ending) -> None: ...


_CODEC: Final = Codec(_hold, "the ending of an iteration")


class Iterating(Calls):
    """What works through many items."""

    def __init__(self, registry: Tasks) -> None:
        self._registry = registry
        self._sources = Sources()
        self._live: dict[str, Live] = {}
        never = Options()
        self._shards: Task[..., None] = AsyncTask(self._shard, SHARD, never, SHARD)
        self._records = Record(self._end, RECORD, never, RECORD)
        self._records.codec = Codec(self._end, RECORD, limit=1 << 30)  # it has all failures
        self._records.progress_of = self._progress
        self._records.taken_in = self._take_in
        self._records.ending = self._ending
        self._records.ended = self._ended
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
        split(shards) -> list[(after, upto)]`, in order and without a key in common, and `async
        page(after, upto, limit) -> list[(key, item)]`: keys increase, after < key <= upto, and None
        is open. An empty page is the end. `ValueError` for a name that is taken.
        """
        if isinstance(cls, str):
            return partial(self._sources.register, name=cls)
        return self._sources.register(cls, None)

    async def iterate(
        self,
        source: Items,
        callback: Callable[..., Any] | str,
        finalize: Callable[..., Any] | str | None = None,
        *,
        shards: int = 5,
        args: Sequence[Any] = (),
        budget: float | timedelta | None = None,
        max_failures: int = 0,
        result_ttl: float | timedelta | None | UnsetType = UNSET,
    ) -> Handle[Report]:
        """Call `callback(item, *args)` for every item, and then `finalize(report, *args)` once.

        `source`: a list, whose items go into the journal; a range; or an instance of a class with
        `@queue.source`. `callback`, `finalize`: tasks, their names, or without a journal any functions.
        `shards`: how many jobs share the items, each in the order of its keys. `budget`: seconds or
        timedelta after which a shard lets other jobs run. An item that fails is tried again by the
        callback's `Retry`; more than `max_failures` that fail for good fail the iteration, and
        `finalize` does not run. `result_ttl`: how long the report can be looked up; None: for as
        long as there is room. The handle gives the `Report`, or raises `IterationFailed`.

        `TypeError` or `ValueError` for what is wrong with an argument, what `split` raises, and
        `JournalError` if the journal refuses a part: then nothing has begun.
        """
        scheduler = self._started()
        scheduler.check_loop()
        whole(shards, "shards")
        if type(max_failures) is not int or max_failures < 0:
            raise ValueError(f"max_failures is a whole number of 0 or more, not {max_failures!r}")
        if not isinstance(args, list | tuple):
            raise TypeError(f"args takes a list or a tuple, not {type(args).__name__}")
        limit = None if budget is None else positive(budget, "budget")
        ttl: int | None | UnsetType = UNSET
        if not isinstance(result_ttl, UnsetType):
            ttl = None if result_ttl is None else duration(result_ttl, "result_ttl")
        each = self.task_of(callback)
        last = None if finalize is None else self.task_of(finalize)
        found = source_of(source)
        sources = self._sources if self.keeps else None
        plan, given = make_plan(
            each, last, tuple(args), found, limit, max_failures, sources=sources
        )
        parts = make_parts(given, await split(found, shards), keeps=self.keeps)
        token = uuid4().hex
        if self.keeps:
            for part in parts:  # before the first is accepted, since one may be refused
                self._check_size(token, plan, part)
        if self.journal is not None and self.journal.is_full:
            await self.journal.room()
        return await self._accept_all(scheduler, token, plan, given, parts, ttl)

    def _check_size(self, token: str, plan: Plan, part: Part) -> None:
        try:
            self._shards.codec.encode((token, plan, part), {})
        except ValueError as error:
            raise ValueError(
                f"a shard does not fit into one row: pass keys, give more shards or a source; {error}"
            ) from None

    async def _accept_all(
        self,
        scheduler: Scheduler,
        token: str,
        plan: Plan,
        given: Given,
        parts: list[Part],
        ttl: int | None | UnsetType,
    ) -> Handle[Report]:
        """All shards and the record, or none of them: none begins before the last one is safe."""
        keep = Options(result_ttl=WHILE_AWAITED)
        handles = [self.accept(self._shards, (token, plan, part), {}, given=keep) for part in parts]
        options = Options(after=tuple(handles), result_ttl=ttl)
        record = self.accept(self._records, (token, plan), {}, given=options)
        call = _call_of(record)
        live = self._live[token] = Live(
            call, plan, [*map(_call_of, handles)], [None] * len(parts), given, asyncio.Event()
        )
        try:
            for handle in (*handles, record):
                await handle.accepted()
        except BaseException:
            scheduler.cancel(call)
            self._ended(call)  # if it was refused
            raise
        finally:
            live.ready.set()
        return record

    # -- in memory

    async def _take_in(self, record: Call) -> Live:
        """An iteration is in memory again, after a restart: at once, for a shard may run any moment,
        and `ready` when the shards are known.
        """
        token, plan = record.args
        live = self._live.get(token)
        if live is None:
            count = len(record.more.after)
            live = Live(record, plan, [None] * count, [None] * count, None, asyncio.Event())
            self._live[token] = live
            try:
                await self._read_shards(live)
            except BaseException:
                self._live.pop(token, None)
                raise
            finally:
                live.ready.set()
        await live.ready.wait()
        if self._live.get(token) is not live and not live.stopped:
            raise JournalError("the shards of an iteration could not be read")
        return live

    async def _read_shards(self, live: Live) -> None:
        scheduler = self._started()
        for at, one in enumerate(live.record.more.after):
            call = scheduler.books.find(one.id) or await scheduler.look_up(one.id)
            live.shards[at] = call
            live.cursors[at] = None if call is None else read_cursor(call.more.progress)

    async def _found(self, scheduler: Scheduler, token: str) -> Live | None:
        """The iteration of a shard that runs; None if its record has ended."""
        live = self._live.get(token)
        record = live.record if live is not None else None
        for held in scheduler.books.on_hold.values() if record is None else ():
            if held.call.task is self._records and held.call.args[0] == token:
                record = held.call
        try:
            return None if record is None else await self._take_in(record)
        except JournalError as error:
            raise Snooze(delay=1) from error

    def _given(self, live: Live) -> Given:
        """`UnknownTask` or `Unreadable` if they are not to be had."""
        if live.given is None:
            live.given = read_plan(live.plan, self._sources, self.task_of)
        return live.given

    def _ending(self, record: Call) -> None:
        """No shard goes on; how far they are is written into the row of the record."""
        live = self._live.get(record.args[0])
        answer = self._started().books.answer(record)
        if live is not None:
            live.stopped = True
            if _report_of(answer) is None:
                at = self._progress_in(live)
                _keep(record, structs.replace(_ending_of(record), progress=at))

    def _ended(self, record: Call) -> None:
        """Shards that wait end now, and those that have ended are forgotten."""
        live = self._live.pop(record.args[0], None)
        scheduler = self._started()
        if live is None or scheduler.closing:
            return
        live.stopped = True
        for call in live.shards:
            state = None if call is None else scheduler.books.state(call)
            if call is None or state is State.RUNNING:
                continue
            if not scheduler.cancel(call):
                scheduler.ledger.forget(call.id)

    def _progress(self, call: Call) -> Progress:
        scheduler = self._started()
        report = _report_of(scheduler.books.answer(call))
        if report is not None:
            shards = report.shards
            return Progress(report.items, len(report.failed), shards, len(shards))
        live = self._live.get(call.args[0]) if call.args else None
        if live is not None:
            return self._progress_in(live)
        found = scheduler.books.find(call.id) or call
        return _ending_of(found).progress or _NONE

    def _progress_in(self, live: Live) -> Progress:
        books = self._started().books
        each = [
            ShardReport(at, 0 if it is None else it.items) for at, it in enumerate(live.cursors)
        ]
        failed = sum(len(it.failed) for it in live.cursors if it is not None)
        ended = sum(of is None or books.state(of).ended for of in live.shards)
        return Progress(sum(it.items for it in each), failed, each, ended)

    # -- the tasks

    async def _shard(self, token: str, plan: Plan, part: Part) -> None:
        scheduler = self._started()
        live = await self._found(scheduler, token)
        if live is None:  # its record has ended: nothing of it is kept
            parked = scheduler.books.parked.values()
            if any(row.task == RECORD for row in parked):
                self._wait_for_deploy(scheduler, Unreadable("its record cannot be read"))
            return
        try:
            given = self._given(live)
            source = source_of_part(part, given)
        except (UnknownTask, Unreadable) as error:
            self._wait_for_deploy(scheduler, error)
        try:
            await Shard(scheduler, live, given, part, source).go()
        except Exception:
            if not live.stopped:
                raise

    def _wait_for_deploy(self, scheduler: Scheduler, error: Exception) -> NoReturn:
        told = JobError(type(error).__name__, str(error), "")
        scheduler.tell(WARNING, "job_held", running.get().call, error=told)
        raise Snooze(delay=_UNKNOWN) from error

    async def _end(self, token: str, plan: Plan) -> Report:
        """All shards have ended: what became of the items, and the last word of the program."""
        scheduler, run = self._started(), running.get()
        live = await self._take_in(run.call)
        errors = [
            _error_of(scheduler, *of) for of in zip(run.call.more.after, live.shards, strict=True)
        ]
        report = _report(run.call.id, scheduler.clock.wall(), live.cursors, errors)
        if any(errors) or len(report.failed) > plan.max_failures:
            raise IterationFailed(report)
        try:
            given = self._given(live)
        except (UnknownTask, Unreadable) as error:
            self._wait_for_deploy(scheduler, error)
        if given.finalize is not None:
            await self._finalize(scheduler, run, given.finalize, (report, *given.last))
        return report

    async def _finalize(
        self, scheduler: Scheduler, run: Running, task: Task[..., Any], args: tuple[Any, ...]
    ) -> None:
        """Retried as its task says, as the items are."""
        failures = _ending_of(run.call).failures
        try:
            await attempt(scheduler, run, task, task.declared.timeout or None, *args)
        except Snooze:
            raise
        except Exception as error:
            wait = None if run.asked else wait_after(task, failures, error)
            if wait is None:
                raise
            _keep(run.call, Ending(failures=failures + 1))
            raise Snooze(delay=wait / SECOND) from error


def _call_of(handle: Handle[Any]) -> Call:
    return handle._call  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - two halves of one idea


def _keep(record: Call, ending: Ending) -> None:
    text = _CODEC.encode((ending,), NO_KWARGS)[0]
    record.more = structs.replace(record.more, progress=text)


def _ending_of(record: Call) -> Ending:
    text = record.more.progress
    found: Ending = _CODEC.decode(text)[0][0] if text else Ending()
    return found


def _report_of(answer: Answer) -> Report | None:
    """The report of an iteration that has one."""
    error = answer.error
    found = error.report if isinstance(error, IterationFailed) else answer.value
    return found if isinstance(found, Report) else None


def _error_of(scheduler: Scheduler, one: Awaited, call: Call | None) -> JobError | None:
    """Why a shard did not come to its end, if it did not."""
    if call is None:
        return JobError("JobDropped", f"nothing is known of the shard {one.id}", "")
    error = scheduler.books.answer(call).error
    return None if error is None else job_error(error)


def _report(
    id: int, now: int, cursors: list[Cursor | None], errors: list[JobError | None]
) -> Report:
    failed: list[ItemFailure] = []
    shards: list[ShardReport] = []
    began = [(id >> 20) * 1000]
    for index, (cursor, error) in enumerate(zip(cursors, errors, strict=True)):
        shards.append(ShardReport(index, 0 if cursor is None else cursor.items))
        if cursor is not None:
            failed += cursor.failed
            began.append(cursor.started)
        if error is not None:
            failed.append(ItemFailure(None, error))
    items = sum(shard.items for shard in shards)
    return Report(items, failed, shards, moment(min(began)), moment(now))
