"""The records: a call that waits, its run, and what becomes of it."""

from collections.abc import Callable, Hashable
from contextvars import Context, ContextVar
from datetime import datetime
from typing import Any, Final, Protocol

from msgspec import UNSET, Struct, structs

from asyncdefer._core.instant import moment, seconds
from asyncdefer._core.lifecycle import Event, State
from asyncdefer._core.options import Options
from asyncdefer._core.recurrence import Repeat

Key = int | tuple[Hashable, str]
"""A job without a key has its own id as its key, so that one dict serves all."""

NO_KWARGS: Final[dict[str, Any]] = {}
NO_CONTEXT: Final = Context()


class Declared(Protocol):
    """What the core knows of a task."""

    @property
    def name(self) -> str: ...
    @property
    def identity(self) -> Hashable: ...
    @property
    def declared(self) -> Options: ...


class Awaited(Struct, frozen=True, omit_defaults=True):
    """A job that another one waits for: its id, its task and key, by which the call that replaced
    it is found, and how it ended. `state` is a plain string, None until it has.
    """

    id: int
    task: str
    key: str | None = None
    state: str | None = None


class More(Struct, frozen=True):
    """What most calls do not need to say.

    `rate`: its key within the task's rate limit. `attempt`: starts so far. `failures`: those of
    them that failed. `bound`: the steady time at which `max_wait` ends the burst. `window`: the
    steady time at which the window of a leading call ends. `options`: those given to this call.
    `schedule`: the one that this is a run of. On the clock of its rule, `grid` is the instant in
    it that the run is for, and `seen` what that clock showed when it started; then
    `ends`, on the clock of the eta, when the run counts as missed, and `caught`, up to when its
    schedule catches up on all. `crashes`: runs of it during which the process died. `after`: the
    jobs that it waits for, or has waited for. `progress`: how far it is, in a text of its own.
    """

    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    rate: str = ""
    bound: int | None = None
    window: int | None = None
    options: Options | None = None
    schedule: "Schedule | None" = None
    grid: int | None = None
    seen: int | None = None
    ends: int | None = None
    caught: int | None = None
    after: tuple[Awaited, ...] = ()
    progress: str = ""


NOTHING_MORE: Final = More()


class Answer(Struct, eq=False):
    """What all waiters of one key share, from the first call of the burst to the outcome.

    `state` is None until the job ended; then a plain string, since an answer without a member of
    an Enum is none that the garbage collector has to look at. `ending` is the state that is shown
    while the journal does not have the end yet, and nobody is to see the value. `eta` is on the
    wall clock, as are `started` and `finished`; `until`, how long it can be looked up, is on the
    steady one.
    `waiters` maps a future to the run that waits on it, if it is a run that waits. `follows`: the
    answer this one gave way to. `far`: the call that it is the answer of, while that is known by
    those only who share the answer. `held`: ids of jobs that wait for the end, and the places that
    it has among those they wait for.
    """

    state: str | None = None
    id: int = 0
    eta: int = 0
    attempt: int = 0
    started: int | None = None
    finished: int = 0
    until: int = 0
    value: Any = None
    error: BaseException | None = None
    traceback: Any = None
    waiters: "dict[Any, Running | None] | None" = None
    follows: "Answer | None" = None
    ending: str | None = None
    far: "Call | None" = None
    held: list[tuple[int, int]] | None = None

    def final(self) -> "Answer":
        """The answer that counts."""
        answer = self
        while answer.follows is not None:
            answer = answer.follows
        return answer

    def wait(self, future: Any, run: "Running | None") -> None:
        """A future to wake at the end; the run that waits with it waits for the clock."""
        if self.waiters is None:
            self.waiters = {}
        self.waiters[future] = run
        if run is not None:
            run.waits += 1

    def leave(self, future: Any) -> None:
        """A future that nobody awaits any more."""
        if self.waiters and future in self.waiters:
            run = self.waiters.pop(future)
            if run is not None:
                run.waits -= 1

    def wake(self) -> None:
        """Wake all who wait."""
        waiters, self.waiters = self.waiters, None
        for future, run in (waiters or {}).items():
            if run is not None:
                run.waits -= 1
            if not future.done():
                future.set_result(None)

    def follow(self, other: "Answer") -> None:
        """This answer gives way to another; those who wait follow it."""
        self.follows, self.far = other, None
        for future, run in (self.waiters or {}).items():
            if other.waiters is None:
                other.waiters = {}
            other.waiters[future] = run
        self.waiters = None
        if self.held is not None:
            other.held = (other.held or []) + self.held
            self.held = None


class Call(Struct, eq=False, weakref=True):
    """A call that waits. `eta` counts on the steady clock or on the wall clock (`steady`).

    `first`: the object that this id had at first, which handles hold, if this is a later one.
    `calls`: how many calls were folded into this one; 0 is the empty call that keeps the window
    of a leading call open. `answer` exists once somebody shares it. `entry`: what the journal has
    yet to write of it. A call is a value until it has ended or was replaced; then it only lets go
    of what it held.
    """

    id: int
    task: Declared
    key: Key
    eta: int
    steady: bool
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    context: Context
    calls: int = 1
    more: More = NOTHING_MORE
    answer: Answer | None = None
    first: "Call | None" = None
    entry: Any = None

    def shared(self) -> Answer:
        """The answer, made now if nobody asked before."""
        if self.answer is None:
            self.answer = Answer()
        return self.answer

    def let_go(self) -> None:
        """Hold nothing of the caller's: a handle may keep a replaced call for long."""
        for call in (self, self.first or self):
            call.args = ()
            call.kwargs = NO_KWARGS
            call.context = NO_CONTEXT

    @property
    def repeat(self) -> Repeat | None:
        """The rule of the schedule that this is a run of."""
        return None if self.more.schedule is None else self.option("repeat") or None

    @property
    def shown_key(self) -> str | None:
        return None if isinstance(self.key, int) else self.key[1]

    def option(self, name: str) -> Any:
        """An option of this call where it was given one, of its task where not."""
        given = self.more.options
        if given is not None and (value := getattr(given, name)) is not UNSET:
            return value
        return getattr(self.task.declared, name)

    def again(self, eta: int, *, steady: bool, more: More | None = None) -> "Call":
        """The same call at another time: same id, same answer."""
        answer = self.shared()
        return structs.replace(
            self,
            eta=eta,
            steady=steady,
            more=self.more if more is None else more,
            answer=answer,
            first=self.first or self,
        )


class Schedule(Call, eq=False):
    """What the handles of a recurrence hold: it stands for the run that waits or is under way.

    It has an answer only when the schedule has ended: that of its last run, or of the call that
    replaced it.
    """

    replaced: bool = False


class Unread(Call, eq=False):
    """A job that has ended, and whose arguments cannot be read here. `why`: the reason."""

    why: str = ""


class Held(Struct, eq=False):
    """A job that may not run yet. `after`: the jobs that it waits for; `left`: how many of them have
    not ended. `entry`: what the journal has yet to write of that. `calls`: those of them that were
    found after a restart; beyond the horizon nobody else may hold them.
    """

    call: Call
    after: list[Awaited]
    left: int
    entry: Any = None
    calls: list[Call] = []


class Run(Struct, frozen=True):
    """One run of a job, as `asyncdefer.current()` gives it to the job.

    `lateness` is in seconds, `calls` says how many calls were folded into this run, `shard` is
    the index of an iteration's shard and None elsewhere. `after`: how the jobs ended that it
    waited for, by their ids.
    """

    id: str
    task: str
    key: str | None
    attempt: int
    eta: datetime
    lateness: float
    calls: int
    shard: int | None = None
    after: dict[str, State] = {}


class Running(Struct, eq=False):
    """A run under way. Times are in microseconds: `started` and `due` (the eta) on the wall clock,
    `late` a span.

    `stop`: why it was told to stop; `asked`: how many times. `waits`: how many of its tasks wait
    for the queue's clock; `awaits`: the calls whose handles they await.
    """

    call: Call
    attempt: int
    started: int
    late: int
    due: int
    scheduler: Any
    task_of_loop: Any = None
    timer: Any = None
    stop: Event | None = None
    asked: int = 0
    begun: bool = False
    thread: bool = False
    waits: int = 0
    awaits: list[Call] | None = None
    shard: int | None = None

    def shown(self) -> Run:
        call = self.call
        return Run(
            id=str(call.id),
            task=call.task.name,
            key=call.shown_key,
            attempt=self.attempt,
            eta=moment(self.due),
            lateness=seconds(self.late),
            calls=call.calls,
            shard=self.shard,
            after={str(one.id): State(one.state or State.HELD) for one in call.more.after},
        )

    def __repr__(self) -> str:
        return f"<Run {self.call.id} of {self.call.task.name} attempt={self.attempt}>"


running: Final[ContextVar[Running]] = ContextVar("asyncdefer_run")


def current() -> Run:
    """The run this code is part of; `LookupError` outside a job."""
    try:
        return running.get().shown()
    except LookupError:
        raise LookupError("current() is known inside a job only") from None


class Outcome(Struct, frozen=True):
    """What happened to a run: how it ended, with its value or its error."""

    event: Event
    value: Any = None
    error: BaseException | None = None


class Again(Struct, frozen=True):
    """The job is to run again at an eta."""

    event: Event
    eta: int
    steady: bool = True
    failures: int = 0


Verdict = Outcome | Again
"""What follows for the job: it has ended with an outcome, or it runs again."""


class JobError(Struct, frozen=True):
    """A failure as text, so that it can be kept and shown."""

    type: str
    message: str
    traceback: str


class Job(Struct, frozen=True):
    """A job as it was at the moment somebody asked. Times are aware datetimes in UTC."""

    id: str
    task: str
    key: str | None
    state: State
    eta: datetime
    attempt: int
    calls: int
    enqueued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    error: JobError | None
    read_arguments: Callable[[], dict[str, Any]]

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by the names of the function's parameters."""
        return self.read_arguments()

    def __repr__(self) -> str:
        key = f" key={self.key!r}" if self.key is not None else ""
        return f"<Job {self.id} of {self.task}{key} {self.state} eta={self.eta.isoformat()}>"
