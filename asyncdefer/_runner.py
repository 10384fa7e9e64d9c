"""One run: call the function, in the loop or in a thread, and say what happened."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from asyncdefer._core.job import Outcome, Running, running
from asyncdefer._core.lifecycle import Event
from asyncdefer._task import Task
from asyncdefer._threads import ThreadPool
from asyncdefer.errors import JobCancelled, QueueClosed, Snooze

_SUCCEED = Event.SUCCEED  # a member of an Enum is slow to look up


def closed_text(in_journal: bool) -> str:
    """What the waiters of a job are told whose queue closes."""
    if in_journal:
        return "the queue was closed, and the job is in the journal: it runs when the queue is started again"
    return "the queue was closed, and the job is in no journal, so it is lost"


async def perform(
    run: Running,
    task: Task[..., Any],
    threads: ThreadPool,
    conclude: Callable[[Running, Outcome], None],
) -> None:
    """Run the job's function and say how it ended, whatever that was."""
    run.begun = True
    running.set(run)
    call = run.call
    try:
        if task.is_async:
            value = await task.fn(*call.args, **call.kwargs)
        else:
            run.thread = True
            function = functools.partial(task.fn, *call.args, **call.kwargs)
            value = await threads.run(function, lambda: run.asked)
            if inspect.iscoroutine(value):
                value = await value
        outcome = Outcome(_SUCCEED, value)
    except Snooze as signal:
        outcome = Outcome(Event.SNOOZE, error=signal)
    except BaseException as error:
        if isinstance(error, GeneratorExit) and not run.scheduler.loop.is_running():
            raise  # the loop is gone, and the collector tidies up: there is nobody to tell
        # Our own frame would keep the run alive for as long as the error is kept.
        trace = error.__traceback__
        outcome = Outcome(Event.FAIL, None, error.with_traceback(trace.tb_next if trace else None))
        if isinstance(error, KeyboardInterrupt):
            conclude(run, outcome)
            raise
    conclude(run, outcome if run.stop is None else judged(run, outcome))


def judged(run: Running, outcome: Outcome) -> Outcome:
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
            text = closed_text(run.scheduler.journal is not None)
            return Outcome(Event.DROP, error=QueueClosed(text))
        case _:
            late = TimeoutError(f"{run!r} ran into its timeout")
            late.__cause__ = outcome.error
            return Outcome(Event.FAIL, error=late)
