from collections.abc import Callable
from contextvars import copy_context
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from msgspec import UNSET

from asyncdefer._core.instant import SECOND, moment
from asyncdefer._core.job import (
    NO_CONTEXT,
    NO_KWARGS,
    Answer,
    Call,
    Job,
    JobError,
    More,
    Running,
    current,
    running,
)
from asyncdefer._core.lifecycle import State
from asyncdefer._core.options import Options

MakeCall = Callable[..., Call]


class Future:
    """As much of a future as an answer needs."""

    def __init__(self, *, done: bool = False) -> None:
        self.woken = 0
        self._done = done

    def done(self) -> bool:
        return self._done

    def set_result(self, result: None) -> None:
        assert not self._done
        self._done = True
        self.woken += 1


def run_of(call: Call) -> Running:
    return Running(call, attempt=2, started=5, late=3 * SECOND // 2, due=7 * SECOND, scheduler=None)


# -- the shared answer


def test_an_answer_wakes_everybody_once(make_call: MakeCall) -> None:
    """All waiters are woken, those who have gone are not, and runs stop waiting."""
    answer = Answer()
    answer.wake()
    first, second, gone = Future(), Future(), Future(done=True)
    run = run_of(make_call())
    for future, waits in ((first, None), (second, run), (gone, None)):
        answer.wait(future, waits)
    assert run.waits == 1
    answer.wake()
    answer.wake()
    assert (first.woken, second.woken, gone.woken) == (1, 1, 0)
    assert run.waits == 0
    assert answer.waiters is None


def test_a_waiter_that_leaves_touches_nobody_else(make_call: MakeCall) -> None:
    """Who was detached is not woken; who was not there cannot leave."""
    answer = Answer()
    stays, leaves = Future(), Future()
    run = run_of(make_call())
    answer.leave(leaves)
    answer.wait(stays, None)
    answer.wait(leaves, run)
    answer.leave(leaves)
    answer.leave(leaves)
    assert run.waits == 0
    answer.leave(stays)
    answer.wait(stays, None)
    answer.wake()
    assert (stays.woken, leaves.woken) == (1, 0)


def test_waiters_follow_the_call_that_theirs_gave_way_to() -> None:
    """An answer that follows another hands its waiters over, however long the chain."""
    answers = [Answer() for _ in range(4)]
    futures = [Future() for _ in answers]
    for answer, future in zip(answers, futures, strict=True):
        answer.wait(future, None)
    empty = Answer()
    empty.follow(answers[0])
    for answer, newer in pairwise(answers):
        answer.follow(newer)
    assert {id(answer.final()) for answer in (*answers, empty)} == {id(answers[-1])}
    answers[-1].wake()
    assert [future.woken for future in futures] == [1] * 4
    late = Answer()
    late.wait(future := Future(), None)
    late.follow(last := Answer())
    last.wake()
    assert future.woken == 1


# -- a call


def test_an_answer_is_made_when_somebody_asks(make_call: MakeCall) -> None:
    """And is the same from then on."""
    call = make_call()
    assert call.answer is None
    assert call.shared() is call.shared() is call.answer


def test_the_key_is_shown_as_given(make_call: MakeCall) -> None:
    """A call without a key of its own shows none."""
    assert make_call(key="k").shown_key == "k"
    assert make_call().shown_key is None


def test_a_call_that_lets_go_holds_nothing_of_its_caller(make_call: MakeCall) -> None:
    """Arguments and context are free while a handle is kept."""
    call = make_call(args=(1,), kwargs={"x": 2})
    call.let_go()
    assert (call.args, call.kwargs, call.context) == ((), NO_KWARGS, NO_CONTEXT)


def test_the_options_of_a_call_lie_over_those_of_its_task(make_call: MakeCall) -> None:
    """What the call says counts, also when it says None; the rest is the task's, as it is by then."""
    plain = make_call(expires=3)
    given = make_call(expires=3, more=More(options=Options(expires=None, timeout=2)))
    other = make_call(expires=3, more=More(options=Options(timeout=2)))
    assert [call.option("expires") for call in (plain, given, other)] == [3, None, 3]
    assert [call.option("timeout") for call in (plain, given, other)] == [UNSET, 2, 2]


def test_the_same_call_at_another_time(make_call: MakeCall) -> None:
    """Same id, same arguments, same answer; what else there was to say stays, or is said anew."""
    call = make_call(5, "k", args=(1,), calls=3, more=More(bound=9))
    again = call.again(50, steady=False)
    assert (again.eta, again.steady) == (50, False)
    assert (again.id, again.key, again.args, again.calls) == (call.id, call.key, (1,), 3)
    assert again.answer is call.answer is not None
    assert again.more is call.more
    assert (call.eta, call.steady) == (5, True)
    assert call.again(50, steady=True, more=More(attempt=1)).more == More(attempt=1)


# -- a run


def test_a_job_knows_its_run(make_call: MakeCall) -> None:
    """`current()` shows the run, with times as datetimes and seconds."""
    run = run_of(make_call(key="k", id=12, calls=4))

    def within() -> None:
        running.set(run)
        shown = current()
        assert (shown.id, shown.task, shown.key, shown.calls) == ("12", "task", "k", 4)
        assert (shown.attempt, shown.lateness, shown.shard) == (2, 1.5, None)
        assert shown.eta == datetime(1970, 1, 1, 0, 0, 7, tzinfo=UTC)

    copy_context().run(within)
    assert repr(run) == "<Run 12 of task attempt=2>"


def test_there_is_no_run_outside_a_job() -> None:
    """`current()` is a LookupError there."""
    with pytest.raises(LookupError, match="inside a job only"):
        current()


# -- what is shown


def test_a_job_reads_its_arguments_when_asked() -> None:
    """The record is a value; its arguments are decoded on demand."""
    asked: list[int] = []

    def read() -> dict[str, Any]:
        asked.append(1)
        return {"x": 5}

    eta = moment(0)
    error = JobError("ValueError", "x", "Traceback")
    values = ("12", "task", "k", State.FAILED, eta, 1, 1, eta, eta, eta, error, read)
    job = Job(*values)
    assert not asked
    assert job.arguments == {"x": 5}
    assert repr(job) == "<Job 12 of task key='k' failed eta=1970-01-01T00:00:00+00:00>"
    other = Job("13", "task", None, State.SCHEDULED, eta, 0, 1, eta, None, None, None, read)
    assert repr(other) == "<Job 13 of task scheduled eta=1970-01-01T00:00:00+00:00>"


def test_those_that_wait_for_the_end_follow() -> None:
    """What hangs on an answer that gives way hangs on the other one, beside what did before."""
    old, new = Answer(held=[(1, 0), (2, 5)]), Answer(held=[(3, 1)])
    old.follow(new)
    assert (old.held, new.held) == (None, [(3, 1), (1, 0), (2, 5)])
    alone = Answer()
    new.follow(alone)
    assert alone.held == [(3, 1), (1, 0), (2, 5)]
