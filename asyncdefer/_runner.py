"""One run: call the function, in the loop or in a thread, and say what happened."""

import asyncio
import functools
import inspect
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread

from asyncdefer._core.job import Outcome, Run, running
from asyncdefer._core.lifecycle import Event
from asyncdefer._task import Task
from asyncdefer.errors import JobCancelled, QueueClosed, Snooze

_CLOSED = "the queue closed during the run; it keeps nothing, so the job is lost"


async def perform(run: Run, task: Task[..., Any], threads: anyio.CapacityLimiter) -> Outcome:
    """Run the job's function. Only KeyboardInterrupt passes through."""
    call = run.call
    running.set(run)
    try:
        if task.is_async:
            value = await task.fn(*call.args, **call.kwargs)
        else:
            value = await _in_thread(
                functools.partial(task.fn, *call.args, **call.kwargs), run, threads
            )
            if inspect.isawaitable(value):
                value = await value
    except Snooze as signal:
        return Outcome(Event.SNOOZE, error=signal)
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # Our own frame would keep the run alive for as long as the error is kept.
        trace = error.__traceback__
        return Outcome(Event.FAIL, error=error.with_traceback(trace.tb_next if trace else None))
    return Outcome(Event.SUCCEED, value=value)


def judged(run: Run, outcome: Outcome) -> Outcome:
    """The outcome in the light of a stop that was asked for while the job ran.

    A job that was told to stop and returns all the same has stopped, with one exception: a
    thread cannot be told, so what it returns while the queue closes is its honest result.
    """
    match run.stop:
        case None:
            return outcome
        case Event.CANCEL:
            return Outcome(Event.CANCEL, error=JobCancelled(f"{run!r} was cancelled"))
        case Event.DROP:
            if run.thread and outcome.event is Event.SUCCEED:
                return outcome
            return Outcome(Event.DROP, error=QueueClosed(_CLOSED))
        case _:
            late = TimeoutError(f"{run!r} ran into its timeout")
            late.__cause__ = outcome.error
            return Outcome(Event.FAIL, error=late)


async def _in_thread(
    function: Callable[[], Any], run: Run, threads: anyio.CapacityLimiter
) -> Any:
    """Call in a thread and stay until it returns, whoever cancels.

    A thread cannot be stopped, and a run that seemed over while its thread goes on would let
    the next run of its key overlap it.
    """
    run.thread = True
    inner = asyncio.ensure_future(anyio.to_thread.run_sync(_caught(function), limiter=threads))
    while True:
        try:
            value, error = await asyncio.shield(inner)
        except asyncio.CancelledError:
            if inner.done():
                raise
        else:
            break
    if error is not None:
        raise error
    return value


def _caught(function: Callable[[], Any]) -> Callable[[], tuple[Any, BaseException | None]]:
    """A StopIteration or SystemExit must not travel through a future."""

    def call() -> tuple[Any, BaseException | None]:
        try:
            return function(), None
        except BaseException as error:  # noqa: BLE001 - it is raised again in the loop
            return None, error

    return call
