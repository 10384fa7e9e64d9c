"""Schedules: jobs that run again and again.

A schedule is a chain of runs under one key. Each run is a job of its own, with an id and an
outcome; when it has ended, whatever its outcome was, the next one is placed. What the handles of
a schedule hold stands for the run that is next.
"""

from contextvars import Context
from typing import Any, Final, cast

from msgspec import UNSET, structs

from asyncdefer import _rows as rows
from asyncdefer._core.instant import moment, within
from asyncdefer._core.job import (
    NO_CONTEXT,
    NO_KWARGS,
    Answer,
    Call,
    Key,
    More,
    Outcome,
    Running,
    Schedule,
)  # fmt: skip
from asyncdefer._core.lifecycle import State
from asyncdefer._core.options import Options
from asyncdefer._core.recurrence import Occurrence, Repeat, first_occurrence
from asyncdefer._core.rules import ends_schedule, following, is_closing, is_missed
from asyncdefer._core.signature import bound_arguments, signature_of
from asyncdefer._handle import Handle
from asyncdefer._jobs import Jobs
from asyncdefer._log import INFO
from asyncdefer._task import Task
from asyncdefer.stores._base import Drop, Row

KEY: Final = "@repeat"  # of the schedule that stands on a decorator


class Recurring(Jobs):
    """The beginning, the next run and the end of a schedule."""

    def begin(self, task: Task[..., Any]) -> None:
        """Start the schedule that stands on a task's decorator."""
        rate = "" if task.make_rate_key is None else task.make_rate_key()
        self.repeat(task, (), NO_KWARGS, KEY, More(rate=rate), NO_CONTEXT)

    def repeat(
        self,
        task: Task[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        key: str | None,
        more: More,
        context: Context,
    ) -> Handle[Any]:
        """Begin a schedule, whose rule is in the options of the call or of the task.

        The same schedule again changes nothing. One by the same rule with other arguments or
        options takes over the time of the one it replaces.
        """
        key = keyed(key)
        given = more.options or Options()
        rule = cast(Repeat, given.repeat or task.declared.repeat)
        full: Key = (task.identity, key)
        known = self.schedules.get(full)
        live = None if known is None else self.books.live(known)
        going = live.call if isinstance(live, Running) else live
        # It may be another call, behind the schedule's run or far in the future.
        waits = self.agenda.waiting.get(full) or self.books.far.get(full)
        alone = waits is None or waits is going
        if going is not None and alone and _same(going, rule, args, kwargs, given):
            return Handle(self, self.schedules[full])
        now = self._now()
        if isinstance(given.eta, int):
            when, steady, grid, ends = given.eta, False, None, None
        elif isinstance(given.delay, int):
            when, steady, grid, ends = within(now + given.delay), True, None, None
        elif isinstance(live, Call) and live.repeat == rule:
            when, steady, grid, ends = live.eta, live.steady, live.more.grid, live.more.ends
        else:
            found = self._first(rule, live, now)
            if found is None:
                raise ValueError(f"{rule!r} names no time that is still to come")
            when, steady, grid, ends = found.eta, rule.steady, found.eta, found.ends
        number = self._next_id(now)
        schedule = Schedule(number, task, full, when, steady, (), NO_KWARGS, NO_CONTEXT)
        more = structs.replace(more, schedule=schedule, grid=grid, ends=ends)
        call = Call(number, task, full, when, steady, args, kwargs, context, 1, more)
        arguments = ""
        if self.journal is not None:
            rows.portable(given)
            arguments, call.args, call.kwargs = task.codec.encode(args, kwargs)
        self.schedules[full] = schedule  # before anybody is told, and begins another
        if self.journal is not None:
            self._log_call(call, arguments, waits)
            schedule.entry = call.entry
        self._enter(call, now)
        if isinstance(live, Running):  # its run goes on, and nothing of its schedule follows
            self._end_schedule(live.call, call.shared(), replaced=True)
        return Handle(self, schedule)

    def _first(self, rule: Repeat, live: Call | Running | None, now: int) -> Occurrence | None:
        """The first run; one that comes while a run by this rule is under way keeps its grid."""
        ahead = self.books.ahead()
        if isinstance(live, Running) and live.call.repeat == rule:
            return following(live.call, now, ahead)
        return first_occurrence(rule, now if rule.steady else now + ahead)

    def _follow(self, call: Call, context: Context, outcome: Outcome, now: int) -> Call | None:
        """A run of a schedule has ended: place the next one, unless the schedule has ended too."""
        had = call.more
        if had.schedule is None or had.schedule.answer is not None:
            return None  # another one has taken its key
        newer = self.agenda.waiting.get(call.key)
        if newer is not None:
            self._end_schedule(call, newer.shared(), replaced=True)
            return None
        found = None if ends_schedule(outcome) else following(call, now, self.books.ahead())
        if found is None:
            kept = self.journal is not None and is_closing(outcome)
            self._end_schedule(call, call.shared().final(), told=not kept)
            return None
        more = More(
            rate=had.rate, options=had.options, schedule=had.schedule,
            grid=found.eta, ends=found.ends, caught=found.caught,
        )  # fmt: skip
        number, steady = self._id_after(call, now), cast(Repeat, call.repeat).steady
        again = Call(
            number, call.task, call.key, found.eta, steady, call.args, call.kwargs, context, 1, more
        )
        self._enter(again, now)
        self._tell_missed(again, found.left_out)
        return again

    def _id_after(self, call: Call, now: int) -> int:
        """The id of the run that follows."""
        return self._next_id(now)

    def _revive(self, call: Call) -> None:
        """The schedule that a refused call had ended is none that has ended."""
        former = self._former.pop(call.key, None)
        if former is not None and call.more.schedule is not None:
            former.answer, former.replaced = None, False
            call.more = structs.replace(call.more, schedule=former)

    def _goes_on(self, call: Call, row: Row) -> bool:
        """False for the run of a schedule whose rule has changed: it ends here."""
        assert self.journal is not None
        schedule = call.more.schedule
        if schedule is None:
            return True
        placed_by = rows.body_of(row).repeat
        if placed_by is not None and call.repeat == rows.rule_of(placed_by):
            self.schedules[call.key] = schedule
            return True
        self.ledger.counts[State.DROPPED] += 1
        self.journal.log(Drop(call.id, row.state))
        call.shared().state = State.DROPPED.value
        self._end_schedule(call, call.shared())
        return False

    def _skip(self, call: Call, now: int) -> bool:
        """Move a run that was missed and is to be left out to the next time of its schedule."""
        found = following(call, now, self.books.ahead()) if is_missed(call) else None
        if found is None:
            return False
        more = structs.replace(call.more, grid=found.eta, ends=found.ends)
        again = call.again(found.eta, steady=call.steady, more=more)
        self.agenda.place(again)
        self._log_again(again)
        self._tell_missed(again, call.more.grid)
        return True

    def _tell_missed(self, call: Call, first: int | None) -> None:
        """Times that are left out are told, from the first one to the run that comes instead."""
        if first is not None and self._heard(INFO):
            shift = self.books.ahead() if call.steady else 0
            until = moment(call.eta + shift)
            self.tell(INFO, "job_missed", call, eta=moment(first + shift), until=until)

    def _end_schedule(
        self, call: Call, answer: Answer, *, replaced: bool = False, told: bool = True
    ) -> None:
        """No run follows this one; those who hold the schedule's handle get this answer."""
        schedule = call.more.schedule
        if schedule is None or schedule.answer is not None:
            return
        schedule.answer, schedule.replaced = answer, replaced
        if self.schedules.get(call.key) is schedule:
            del self.schedules[call.key]
        if replaced and self.journal is not None:
            self._former[call.key] = schedule
        if told:
            self.tell(INFO, "schedule_ended", call)


def keyed(key: str | None) -> str:
    """The key of a schedule; `ValueError` without one."""
    if key is None:
        raise ValueError(
            "a schedule needs a key, by which it is found again: options(repeat=…, key=…)"
        )
    return key


def _same(
    going: Call, rule: Repeat, args: tuple[Any, ...], kwargs: dict[str, Any], given: Options
) -> bool:
    """The same schedule and call, whatever the time of the first run was to be."""
    signature = signature_of(cast("Task[..., Any]", going.task).fn)
    had = going.more.options or Options()
    try:
        return bool(
            going.repeat == rule
            and _without_time(had) == _without_time(given)
            and bound_arguments(signature, going.args, going.kwargs)
            == bound_arguments(signature, args, kwargs)
        )
    except Exception:  # noqa: BLE001 - whatever the comparison of a user's objects may raise
        return False


def _without_time(options: Options) -> Options:
    return structs.replace(options, eta=UNSET, delay=UNSET, key=UNSET)
