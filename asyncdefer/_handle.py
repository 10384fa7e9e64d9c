"""The handle of a call: the future in the hands of the caller.

All calls of one key that wait at the same time share one answer. Every waiter has a future of
its own: cancelling one `asyncio.Future` that many await would cancel them all.
"""

import asyncio
from collections.abc import Generator
from datetime import datetime, timedelta
from typing import Any, Generic, TypeVar, cast

from msgspec import Struct

from asyncdefer._core.instant import duration, instant, moment
from asyncdefer._core.job import Answer, Call, running
from asyncdefer._core.lifecycle import State
from asyncdefer._core.report import Progress

_NOT_YET = "the job has not ended yet; it goes on"

R_co = TypeVar("R_co", covariant=True)


class Handle(Struct, Generic[R_co], eq=False):
    """A call that was accepted. `await handle` gives its result or raises the job's exception.

    The handle of a call that a newer one replaced shows the state, eta and outcome of the
    newer one, and keeps its own `id`. Any number of tasks may await it; cancelling one of them
    touches neither the job nor the others.
    """

    _scheduler: Any
    _call: Call

    @property
    def id(self) -> str:
        """The id of this call: digits, greater for a later call."""
        self._scheduler.books.name(self._call)
        return str(self._call.id)

    @property
    def key(self) -> str | None:
        return self._call.shown_key

    @property
    def task(self) -> str:
        """The name of the task."""
        return self._call.task.name

    @property
    def eta(self) -> datetime:
        """When the job is due, or was."""
        return moment(self._scheduler.books.eta(self._call))

    @property
    def state(self) -> State:
        return cast(State, self._scheduler.books.state(self._call))

    @property
    def attempt(self) -> int:
        """How many times the job was started."""
        return int(self._scheduler.books.attempt(self._call))

    @property
    def replaced(self) -> bool:
        """A newer call of the key took the place of this one."""
        return bool(self._scheduler.books.replaced(self._call))

    def done(self) -> bool:
        """The job has ended, well or not."""
        return self.state.ended

    async def accepted(self) -> "Handle[R_co]":
        """Wait until the call is as safe as the queue can make it; in memory it is at once.

        `JournalError` if it could not be recorded: then the call was not accepted.
        """
        entry = self._call.entry
        if entry is not None:
            self._scheduler.check_loop()
            await self._scheduler.journal.through(entry)
        return self

    def __await__(self) -> Generator[Any, None, R_co]:
        answer = self._call.answer
        if answer is None or answer.state != "succeeded" or answer.error is not None:
            return self.result().__await__()
        return self._value(answer)

    def _value(self, answer: Answer) -> Generator[Any, None, R_co]:
        value: R_co = answer.value
        return value
        yield

    async def result(self, timeout: float | timedelta | None = None) -> R_co:
        """The result, or the job's own exception.

        `timeout` in seconds of the queue's clock: `TimeoutError` after it, and the job goes on.
        """
        limit = None if timeout is None else duration(timeout, "timeout")
        answer: Answer = self._scheduler.books.answer(self._call)
        if answer.state is None:
            await self._wait(answer, limit)
            answer = answer.final()
        if answer.error is not None:
            raise answer.error.with_traceback(answer.traceback)
        return cast(R_co, answer.value)

    async def _wait(self, answer: Answer, limit: int | None) -> None:
        scheduler = self._scheduler
        scheduler.check_loop()
        run = running.get(None)
        if run is not None and run.scheduler.runs.get(run.call.key) is not run:
            run = None  # a task that outlived its run
        mine = run is not None and run.scheduler is scheduler
        if mine and run is not None and run.call.key == self._call.key:
            raise RuntimeError(
                f"{run!r} awaits the job of its own key, which cannot end or start before this"
                " run ends: return, and let the caller await"
            )
        if mine and run is not None and scheduler.waits_for(self._call, run):
            raise RuntimeError(
                f"{run!r} awaits a job that waits for it, by `after`: return, and let the caller await"
            )
        if limit == 0:
            raise TimeoutError(_NOT_YET)
        future: asyncio.Future[None] = scheduler.loop.create_future()
        alarm = None
        if limit is not None:
            alarm = scheduler.clock.call_at(
                scheduler.clock.steady() + limit, lambda: _time_out(answer, future)
            )
        answer.wait(future, run)
        if mine:
            scheduler.run_awaits(run, self._call)
        try:
            await future
        finally:
            if future.cancelled():
                answer.final().leave(future)
            if alarm is not None:
                alarm.cancel()
            if mine:
                scheduler.run_resumes(run, self._call)

    async def cancel(self) -> bool:
        """Cancel the job: before its start it never runs, during its run the run is cancelled.

        True if there was something to cancel. Waiters get `JobCancelled`; those of a run get it
        when the run has ended.
        """
        return await self._recorded(self._scheduler.cancel(self._call))

    def progress(self) -> Progress:
        """How far an iteration is; `TypeError` for a job that is none."""
        progress_of: Any = getattr(self._call.task, "progress_of", None)
        if progress_of is None:
            raise TypeError(f"{self.task} is no iteration: only `queue.iterate` gives a progress")
        progress: Progress = progress_of(self._call)
        return progress

    async def flush(self) -> bool:
        """Let the job run now; False if it runs already or has ended."""
        return await self._recorded(self._scheduler.flush(self._call))

    async def reschedule(
        self, *, eta: datetime | None = None, delay: float | timedelta | None = None
    ) -> bool:
        """Give the waiting job another eta; False if it runs already or has ended."""
        if (eta is None) == (delay is None):
            raise TypeError("reschedule needs either an eta or a delay")
        if eta is not None:
            moved = self._scheduler.reschedule(self._call, instant(eta), steady=False)
            return await self._recorded(moved)
        micros = duration(delay) if delay is not None else 0
        when = self._scheduler.clock.steady() + micros
        return await self._recorded(self._scheduler.reschedule(self._call, when, steady=True))

    async def _recorded(self, done: bool) -> bool:
        """What was done is safe when the caller is told."""
        if done:
            await self._scheduler.recorded()
        return done

    def __repr__(self) -> str:
        key = f" key={self.key!r}" if self.key is not None else ""
        return f"<Handle {self.id} of {self.task}{key} {self.state}>"


def _time_out(answer: Answer, future: "asyncio.Future[None]") -> None:
    if not future.done():
        answer.final().leave(future)
        future.set_exception(TimeoutError(_NOT_YET))
