"""What a row says of a job, and the job that a row makes.

A row has times of the wall clock only: a steady time means nothing to the next process. What most
jobs do not need to say is in the body, as JSON; a job that has nothing to say has an empty one.
"""

from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from typing import Any, Final

from msgspec import UNSET, DecodeError, Raw, Struct, json, structs

from asyncdefer._books import job_error
from asyncdefer._codec import Codec, Unreadable
from asyncdefer._core.instant import SECOND, duration, within
from asyncdefer._core.job import (
    NO_CONTEXT,
    NO_KWARGS,
    NOTHING_MORE,
    Answer,
    Awaited,
    Call,
    JobError,
    More,
    Running,
    Schedule,
)  # fmt: skip
from asyncdefer._core.options import Defer, Options
from asyncdefer._core.recurrence import Cron, Every, Repeat
from asyncdefer._core.retry import Retry
from asyncdefer._plan import Record
from asyncdefer._task import Task
from asyncdefer.errors import (
    DeferError,
    IterationFailed,
    JobCancelled,
    JobDropped,
    JobExpired,
    JobFailed,
    ResultUnavailable,
)
from asyncdefer.stores._base import HELD, RUNNING, SCHEDULED, Row

NO_RESULT: Final = Raw(b"")
_ENDS: Final = {"cancelled": JobCancelled, "expired": JobExpired, "dropped": JobDropped}
_NAMES: Final = (
    "retry",
    "defer",
    "repeat",
    "timeout",
    "expires",
    "priority",
    "result_ttl",
    "after_failure",
)


class Body(Struct, omit_defaults=True):
    """The body of a row. Times are in microseconds of the wall clock.

    `options`: those given to this call. `repeat`: the rule by which this run of a schedule was
    placed. `crashes`: runs during which the process died. `cancelled`: the run was told to stop.
    `after`: the jobs that it waits for. `progress`: how far it is. The others are as in `More`, `Call` and `Answer`. `result` is absent where it could not be recorded.
    """

    calls: int = 1
    attempt: int = 0
    failures: int = 0
    crashes: int = 0
    bound: int | None = None
    window: int | None = None
    options: dict[str, Any] | None = None
    repeat: dict[str, Any] | None = None
    grid: int | None = None
    ends: int | None = None
    caught: int | None = None
    cancelled: bool = False
    after: tuple[Awaited, ...] = ()
    progress: str = ""
    started: int | None = None
    finished: int | None = None
    error: JobError | None = None
    result: Raw = NO_RESULT


_encode: Final = json.Encoder().encode
_decode: Final = json.Decoder(Body).decode


def waiting(call: Call, ahead: int, arguments: str = "") -> Row:
    """The row of a call that waits; `ahead`: wall clock minus steady."""
    at = call.eta + ahead if call.steady else call.eta
    task, more, key = call.task, call.more, call.key
    text = None if isinstance(key, int) else key[1]
    if more is NOTHING_MORE and call.calls == 1 and not task.declared.defer:
        return Row(call.id, task.name, text, SCHEDULED, at, None, False, arguments)
    body = "" if more is NOTHING_MORE and call.calls == 1 else _body(call, ahead, more.attempt)
    return Row(call.id, task.name, text, SCHEDULED, at, None, stays(call), arguments, body)


def held(call: Call, ahead: int, arguments: str = "") -> Row:
    """The row of a call that may not run yet."""
    return structs.replace(waiting(call, ahead, arguments), state=HELD, pinned=False)


def noted(row: Row, after: Iterable[Awaited]) -> Row:
    """A row that cannot be run here, and tells how the jobs ended that it waits for."""
    body = structs.replace(body_of(row), after=tuple(after))
    return structs.replace(row, body=_encode(body).decode())


def under_way(run: Running, ahead: int, *, cancelled: bool = False) -> Row:
    """The row of a run, or of one that was told to stop and has not yet."""
    call = run.call
    if call.more is NOTHING_MORE and call.calls == 1 and not cancelled:  # most of them
        body = f'{{"attempt":{run.attempt},"started":{run.started}}}'
    else:
        body = _body(call, ahead, run.attempt, started=run.started, cancelled=cancelled)
    return Row(call.id, call.task.name, call.shown_key, RUNNING, run.due, None, False, "", body)


def ended(
    call: Call, state: str, answer: Answer, until: int | None, ahead: int, *, bare: bool = False
) -> Row:
    """The row of a job that has ended. `TypeError` or `ValueError` if it cannot be recorded.

    `bare`: without its result or error, so that it can.
    """
    error, result = None, NO_RESULT
    if bare:
        pass
    elif state == "failed" and answer.error is not None:
        error = job_error(answer.error)
        if isinstance(call.task, Record) and isinstance(answer.error, IterationFailed):
            result = Raw(codec_of(call).encode_result(answer.error.report).encode())
    elif state == "succeeded":
        text = codec_of(call).encode_result(answer.value)
        if call.more is NOTHING_MORE and call.calls == 1:  # as above
            body = (
                f'{{"attempt":{answer.attempt},"started":{answer.started},'
                f'"finished":{answer.finished},"result":{text}}}'
            )
            name, key = call.task.name, call.shown_key
            return Row(call.id, name, key, state, answer.eta, until, False, "", body)
        result = Raw(text.encode())
    body = _body(
        call, ahead, answer.attempt, started=answer.started, finished=answer.finished,
        error=error, result=result,
    )  # fmt: skip
    name, key = call.task.name, call.shown_key
    return Row(call.id, name, key, state, answer.eta, until, False, "", body)


def stays(call: Call) -> bool:
    """It has to be in memory however far its eta is: what comes next needs to know of it."""
    more = call.more
    if more.schedule is not None or more.bound is not None or more.window is not None:
        return True
    rule: Defer | None = call.option("defer") or None
    return rule is not None and not rule.plain


def codec_of(call: Call) -> Codec:
    task: Any = call.task
    codec: Codec = task.codec
    return codec


def _body(call: Call, ahead: int, attempt: int, **more_: Any) -> str:
    more, rule = call.more, call.repeat
    shift = ahead if rule is not None and rule.steady else 0
    ends = ahead if call.steady else 0
    body = Body(
        calls=call.calls,
        attempt=attempt,
        failures=more.failures,
        crashes=more.crashes,
        bound=None if more.bound is None else more.bound + ahead,
        window=None if more.window is None else more.window + ahead,
        options=None if more.options is None else portable(more.options),
        repeat=None if rule is None else _rule_fields(rule),
        grid=None if more.grid is None else more.grid + shift,
        ends=None if more.ends is None else more.ends + ends,
        caught=None if more.caught is None else more.caught + shift,
        after=more.after,
        progress=more.progress,
        **more_,
    )
    return _encode(body).decode()


# -- options as data


def portable(options: Options) -> dict[str, Any] | None:
    """The options of a call as a row can have them; `TypeError` for code in them."""
    found: dict[str, Any] = {}
    for name in _NAMES:
        value = getattr(options, name)
        if value is UNSET:
            continue
        if isinstance(value, Cron | Every):
            value = _rule_fields(value)
        elif isinstance(value, Retry | Defer):
            value = _fields(value, name)
        found[name] = value
    return found or None


def _fields(value: Retry | Defer, option: str) -> dict[str, Any]:
    """What differs from the defaults."""
    found: dict[str, Any] = {}
    defaults = dict(
        zip(
            value.__struct_fields__[-len(value.__struct_defaults__) :],
            value.__struct_defaults__,
            strict=True,
        )
    )
    for name in value.__struct_fields__:
        member = getattr(value, name)
        if name in defaults and member == defaults[name]:
            continue
        if callable(member) or (name in ("on", "unless") and member != ()):
            raise TypeError(
                f"{option}: {name}={member!r} is code, which a journal cannot keep for one call:"
                " give it on the task's decorator, where it is read at each run"
            )
        if isinstance(member, timedelta):
            member = member.total_seconds()
        found[name] = member
    return found


def _rule_fields(rule: Repeat) -> dict[str, Any]:
    if isinstance(rule, Cron):
        return {"cron": rule.expr, "tz": rule.tz, "missed": rule.missed}
    return {"every": duration(rule.period) / SECOND, "missed": rule.missed}


def rule_of(fields: dict[str, Any]) -> Repeat:
    """The rule of a schedule from its data."""
    if "cron" in fields:
        return Cron(fields["cron"], tz=fields["tz"], missed=fields["missed"])
    return Every(fields["every"], missed=fields["missed"])


def _options_of(found: dict[str, Any]) -> Options:
    read = dict(found)
    if read.get("retry"):
        read["retry"] = Retry(**read["retry"])
    if read.get("defer") is not None:
        read["defer"] = Defer(**read["defer"])
    if read.get("repeat"):
        read["repeat"] = rule_of(read["repeat"])
    return Options(**read)


# -- back


def body_of(row: Row) -> Body:
    """What the body of a row says; `Unreadable` if it says nothing that we know."""
    try:
        return _decode(row.body) if row.body else Body()
    except DecodeError as error:
        raise Unreadable(f"the body of the row {row.id} cannot be read: {error}") from None


def call_of(row: Row, task: Task[..., Any], ahead: int) -> Call:
    """The call that waits, from its row, on the wall clock; `Unreadable` if it cannot be made."""
    body = body_of(row)
    args, kwargs = task.codec.decode(row.arguments)
    key = row.id if row.key is None else (task.identity, row.key)
    try:
        rate = "" if task.make_rate_key is None else task.make_rate_key(*args, **kwargs)
        options = None if body.options is None else _options_of(body.options)
        if body.repeat is not None:
            rule_of(body.repeat)
        within(row.at)
    except Exception as error:
        raise Unreadable(f"the row {row.id} does not fit its task: {error}") from error
    call = Call(row.id, task, key, row.at, False, args, kwargs or NO_KWARGS, NO_CONTEXT, body.calls)
    if row.body or rate:
        schedule = None
        if body.repeat is not None:
            schedule = Schedule(row.id, task, key, row.at, False, (), NO_KWARGS, NO_CONTEXT)
        call.more = More(rate=rate, options=options, schedule=schedule)
        rule = call.repeat
        shift = ahead if rule is not None and rule.steady else 0
        call.more = More(
            attempt=body.attempt,
            failures=body.failures,
            crashes=body.crashes,
            rate=rate,
            bound=None if body.bound is None else body.bound - ahead,
            window=None if body.window is None else body.window - ahead,
            options=options,
            schedule=schedule,
            grid=None if body.grid is None else body.grid - shift,
            ends=body.ends,
            caught=None if body.caught is None else body.caught - shift,
            after=body.after,
            progress=body.progress,
        )
    return call


class Stranger(Struct, frozen=True):
    """What stands for a task that this program does not know."""

    name: str
    declared: Options = Options()

    @property
    def identity(self) -> str:
        return self.name


def answer_of(row: Row, task: Task[..., Any] | Stranger) -> Answer:
    """What became of a job, out of its row."""
    body = body_of(row)
    value: Any = None
    error: DeferError | None = None
    if row.state == "succeeded":
        try:
            if body.result is NO_RESULT or isinstance(task, Stranger):
                raise Unreadable("it was not recorded")
            value = task.codec.decode_result(bytes(body.result).decode())
        except Unreadable as unreadable:
            text = f"the job {row.id} of {row.task} succeeded, but its result is not to be had"
            error = ResultUnavailable(f"{text}: {unreadable}")
    elif row.state == "failed":
        told = body.error or JobError("Exception", "it was not recorded why", "")
        error = JobFailed(told.type, told.message, told.traceback)
        if isinstance(task, Record) and told.type == IterationFailed.__name__:
            with suppress(Unreadable):
                error = IterationFailed(task.codec.decode_result(bytes(body.result).decode()))
    else:
        error = _ENDS[row.state](f"the job {row.id} of {row.task} was {row.state}")
    return Answer(
        row.state, row.id, row.at, body.attempt, body.started, body.finished or 0, 0, value, error
    )
