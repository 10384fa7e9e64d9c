"""What the queue knows of every job: those that wait, those that run, and those that ended."""

import traceback
from collections.abc import Iterator
from functools import partial
from typing import Any

from asyncdefer._clock import Clock
from asyncdefer._core.agenda import Agenda
from asyncdefer._core.instant import moment
from asyncdefer._core.job import Answer, Call, Job, JobError, Key, Run
from asyncdefer._core.ledger import Ended, Ledger, Stats
from asyncdefer._core.lifecycle import State
from asyncdefer._core.signature import bound_arguments, signature_of


def job_error(error: BaseException) -> JobError:
    """An exception as text."""
    shown = error.__cause__ if error.__cause__ is not None and hasattr(error, "type") else error
    text = "".join(traceback.format_exception(shown))
    return JobError(type=type(shown).__name__, message=str(shown), traceback=text)


class Books:
    """Questions about jobs; nothing here changes one."""

    def __init__(self, clock: Clock, agenda: Agenda, ledger: Ledger, runs: dict[Key, Run]) -> None:
        self.clock = clock
        self.agenda = agenda
        self.ledger = ledger
        self.runs = runs

    def live(self, call: Call) -> Call | Run | None:
        """The waiting call or the run that a call has become; None if it has ended."""
        mine = call.answer.final() if call.answer is not None else None
        if mine is not None and mine.state is not None:
            return None
        waiting = self.agenda.waiting.get(call.key)
        if waiting is not None and _one(call, waiting, mine):
            return waiting
        run = self.runs.get(call.key)
        return run if run is not None and _one(call, run.call, mine) else None

    def answer(self, call: Call) -> Answer:
        return call.shared().final()

    def state(self, call: Call) -> State:
        live = self.live(call)
        if live is None:
            return self.answer(call).state or State.DROPPED
        return State.RUNNING if isinstance(live, Run) else State.SCHEDULED

    def eta(self, call: Call) -> int:
        """Microseconds on the wall clock."""
        live = self.live(call)
        if live is None:
            return self.answer(call).eta or self.wall_eta(call)
        return live.due if isinstance(live, Run) else self.wall_eta(live)

    def attempt(self, call: Call) -> int:
        live = self.live(call)
        if live is None:
            return self.answer(call).attempt
        return live.attempt if isinstance(live, Run) else live.more.attempt

    def newest(self, call: Call) -> int:
        """The id of the call that counts."""
        live = self.live(call)
        if live is None:
            return self.answer(call).id or call.id
        return live.call.id if isinstance(live, Run) else live.id

    def wall_eta(self, call: Call) -> int:
        """The eta of a waiting call on the wall clock."""
        return call.eta + self.ahead() if call.steady else call.eta

    def ahead(self) -> int:
        """How far the wall clock is ahead of the steady one."""
        return self.clock.wall() - self.clock.steady()

    def find(self, id_: int) -> Call | None:
        """The call of an id, as far as anything is known of it."""
        call = self.agenda.find(id_)
        if call is not None:
            return call if call.calls else None
        for run in self.runs.values():
            if run.call.id == id_:
                return run.call
        self.ledger.purge(self.clock.steady())
        ended = self.ledger.ended.get(id_)
        return None if ended is None else ended.call

    def jobs(self) -> list[tuple[int, int, Call | Run | Ended]]:
        """Every known job as (eta, id, what it is), in eta order."""
        found: list[tuple[int, int, Call | Run | Ended]] = [
            (self.wall_eta(call), call.id, call) for call in self.agenda.waiting.values() if call.calls
        ]
        found += [(run.due, run.call.id, run) for run in self.runs.values()]
        found += [
            (self.answer(ended.call).eta, ended.call.id, ended)
            for ended in self.ledger.kept(self.clock.steady())
        ]
        found.sort(key=lambda line: line[:2])
        return found

    def view(self, eta: int, what: Call | Run | Ended) -> Job:
        """A job as the public record shows it."""
        call = what if isinstance(what, Call) else what.call
        ahead = self.ahead()
        answer = call.answer.final() if isinstance(what, Ended) and call.answer else None
        started = None if isinstance(what, Call) else what.started
        error = answer.error if answer is not None and answer.state is State.FAILED else None
        state = State.RUNNING if isinstance(what, Run) else State.SCHEDULED
        return Job(
            id=str(call.id),
            task=call.task.name,
            key=call.shown_key,
            state=state if answer is None or answer.state is None else answer.state,
            eta=moment(eta),
            attempt=self.attempt(call),
            calls=call.calls,
            enqueued_at=moment(call.id // (1 << 20) * 1000 + ahead),
            started_at=None if started is None else moment(started + ahead),
            finished_at=moment(what.finished + ahead) if isinstance(what, Ended) else None,
            error=None if error is None else job_error(error),
            read_arguments=partial(_arguments, call),
        )

    def stats(self) -> Stats:
        return self.ledger.stats(len(self.agenda), len(self.runs))

    def busy(self) -> Iterator[Run]:
        """The runs that do not wait for the clock."""
        return (run for run in self.runs.values() if not run.waits)


def _one(call: Call, other: Call, mine: Answer | None) -> bool:
    """Both are the same call, or share their answer."""
    if other is call:
        return True
    return mine is not None and other.answer is not None and other.answer.final() is mine


def _arguments(call: Call) -> dict[str, Any]:
    task: Any = call.task
    return bound_arguments(signature_of(task.fn), call.args, call.kwargs)
