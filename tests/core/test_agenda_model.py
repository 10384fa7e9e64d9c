"""The agenda against a plain list of calls, by hypothesis and by a seeded driver.

`Model` says in the plainest words what the agenda promises. `Pair` does every operation to both
and compares. Two players move a pair: a hypothesis state machine, which finds small examples and
lets the agenda prove itself after every step, and a seeded driver, which goes far. The planted
bugs at the end show that both would notice.
"""

from collections.abc import Callable, Hashable
from contextvars import Context
from dataclasses import dataclass
from random import Random
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from msgspec import UNSET, structs

from asyncdefer._core.agenda import Agenda
from asyncdefer._core.job import NO_KWARGS, NOTHING_MORE, Call, Key, More
from asyncdefer._core.lane import Slots
from asyncdefer._core.options import Options
from asyncdefer._core.rate import RateLimit

EVERYTHING = 1 << 30  # lines to look at in one turn
CONTEXT = Context()


@dataclass(frozen=True)
class Declared:
    name: str
    declared: Options

    @property
    def identity(self) -> Hashable:
        return self.name


PLAIN = Declared("plain", Options())
BRIEF = Declared("brief", Options(expires=7))
ALONE = Declared("alone", Options(concurrency=1, priority=3))
SPACED = Declared("spaced", Options(rate_limit=RateLimit(1, per=30e-6, burst=2)))
DROPS = Declared("drops", Options(rate_limit=RateLimit(2, per=50e-6, drop=True)))
BOTH = Declared("both", Options(concurrency=2, rate_limit=RateLimit(3, per=20e-6)))
TASKS = (PLAIN, BRIEF, ALONE, SPACED, DROPS, BOTH)
BY_NAME = {task.name: task for task in TASKS}


Lane = tuple[str, ...]
READY: Lane = ("ready",)
BUSY: Lane = ("busy",)
PAUSED: Lane = ("paused",)
OPENED: Lane = ("opened",)  # was paused, and has been resumed


@dataclass(slots=True)
class Entry:
    """A waiting call. `lane` is None before its eta, then says where it stands; `claim` is its
    place among those who stand: (order, id). `sent`: the lane that sent it on when it opened.
    """

    call: Call
    ends: int | None
    lane: Lane | None
    claim: tuple[int, int]
    sent: Lane | None = None

    def stand(self, lane: Lane | None, order: int | None = None) -> None:
        """Go elsewhere; with an `order` it is a new place in line."""
        self.lane, self.sent = lane, None
        if order is not None:
            self.claim = (order - (option_of(self.call, "priority") or 0), self.call.id)


def option_of(call: Call, name: str) -> Any:
    """What a call says itself, or else its task."""
    given = getattr(call.more.options, name, UNSET)
    value = getattr(call.task.declared, name) if given is UNSET else given
    return None if value is UNSET else value


def ends_of(call: Call) -> int | None:
    """When a call expires, on the clock of its eta."""
    expires = option_of(call, "expires")
    return None if expires is None else call.eta + expires


@dataclass(slots=True)
class Bucket:
    """A rate as a bucket with a hole: each start pours in `space`, and no more than `burst` fit.

    `empty`: when all has run out. Times are in parts of a microsecond, `limit` of them to one.
    """

    rate: RateLimit
    empty: int = 0

    @property
    def space(self) -> int:
        assert isinstance(self.rate.per, float)
        return round(self.rate.per * 1e6)

    def pour(self, now: int) -> None:
        self.empty = max(self.empty, now * self.rate.limit) + self.space

    def room(self, now: int) -> int:
        free = (self.rate.burst or 1) * self.space - max(0, self.empty - now * self.rate.limit)
        return max(0, free // self.space)

    def opens(self, before: int) -> int | None:
        """When there is room for one more than so many."""
        free = (self.rate.burst or 1) - before - 1
        return None if free < 0 else -(-(self.empty - free * self.space) // self.rate.limit)


class Model:
    """The promises of the agenda, kept by looking through a list."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.entries: list[Entry] = []
        self.running: dict[Key, Call] = {}
        self.buckets: dict[Lane, Bucket] = {}
        self.shut = False
        self.paused: set[Hashable] = set()

    def entry(self, key: Key) -> Entry | None:
        for entry in self.entries:
            if entry.call.key == key:
                return entry
        return None

    def place(self, call: Call, due: bool, order: int) -> Call | None:
        """The newest call of a key waits; in a lane it takes the place of the older one."""
        entry = self.entry(call.key)
        if entry is None:
            entry = Entry(call, ends_of(call), None, (0, 0))
            self.entries.append(entry)
            if due:
                entry.stand(READY, order)
            return None
        old, entry.call, entry.ends = entry.call, call, ends_of(call)
        if not due:
            entry.stand(None)
        elif entry.lane is None or old.more.rate != call.more.rate:
            entry.stand(READY, order)
        return old

    def remove(self, key: Key) -> Call | None:
        entry = self.entry(key)
        if entry is None:
            return None
        self.entries.remove(entry)
        return entry.call

    def surfaces(self, entry: Entry, steady: int, wall: int) -> int | None:
        """When something is due for a call, in steady terms; None while nothing is due."""
        now = steady if entry.call.steady else wall
        time = entry.call.eta if entry.lane is None else entry.ends
        return None if time is None or time > now else time - now + steady

    def due(self, steady: int, wall: int) -> list[tuple[Entry, int]]:
        found: list[tuple[Entry, int]] = []
        for entry in self.entries:
            time = self.surfaces(entry, steady, wall)
            if time is not None:
                found.append((entry, time))
        return found

    def come(self, found: list[tuple[Entry, int]], steady: int, wall: int) -> list[Call]:
        """What is due stands in a lane, or has expired and is gone, wherever it stood.

        An empty call, which stands for nobody, is gone at its eta without a word.
        """
        expired: list[Call] = []
        for entry, order in found:
            call = entry.call
            if not call.calls:
                self.entries.remove(entry)
            elif entry.ends is not None and entry.ends <= (steady if call.steady else wall):
                self.entries.remove(entry)
                expired.append(call)
            else:
                entry.stand(READY, order)
        return expired

    # -- lanes that open

    def room(self, lane: Lane, now: int) -> int:
        """How many of those who have to pass a lane of their task may start at once."""
        if lane[0] == "rate":
            return self.bucket(lane).room(now)
        most = BY_NAME[lane[1]].declared.concurrency
        assert isinstance(most, int)
        return most - sum(call.task.name == lane[1] for call in self.running.values())

    def bucket(self, lane: Lane) -> Bucket:
        if lane not in self.buckets:
            rate = BY_NAME[lane[1]].declared.rate_limit
            assert isinstance(rate, RateLimit)
            self.buckets[lane] = Bucket(rate)
        return self.buckets[lane]

    def gates(self, call: Call) -> list[Lane]:
        """What a call has to find open: the slots of its task, and the rate of its rate key."""
        declared, name = call.task.declared, call.task.name
        slots: list[Lane] = [("full", name)] if declared.concurrency else []
        return slots + ([("rate", name, call.more.rate)] if declared.rate_limit else [])

    def movable(self, now: int) -> list[tuple[Entry, Lane]]:
        """Who may come back to the first lane, and whence.

        A lane sends as many as it has room for, those counted who are still on their way.
        """
        found: list[tuple[Entry, Lane]]
        found = [(entry, OPENED) for entry in self.entries if entry.lane == OPENED]
        for lane in {entry.lane for entry in self.entries}:
            if lane is not None and lane[0] in ("full", "rate"):
                sent = sum(entry.sent == lane for entry in self.entries)
                here = [entry for entry in self.entries if entry.lane == lane]
                here.sort(key=lambda entry: entry.claim)
                found += [(entry, lane) for entry in here[: max(0, self.room(lane, now) - sent)]]
        return found

    def reopen(self, now: int) -> None:
        """Those whose lane has opened come back to the first lane, with their old claims."""
        for entry, lane in self.movable(now):
            entry.lane, entry.sent = READY, lane

    def opening(self) -> int | None:
        """When the next rate has room for somebody who stands there."""
        sent = [entry.sent for entry in self.entries]
        lanes = {entry.lane for entry in self.entries if entry.lane and entry.lane[0] == "rate"}
        times = [self.bucket(lane).opens(sent.count(lane)) for lane in lanes]
        return min((time for time in times if time is not None), default=None)

    # -- who may start

    def take(self, steady: int, wall: int, expired: list[Call], dropped: list[Call]) -> Call | None:
        """The first who stands and whose key and task are free, while there is a slot.

        Those of them who have expired meanwhile go to `expired`. Who finds no room in a rate that
        drops goes to `dropped`, unless it has run before. If the lane of its task had sent the one
        who cannot start, the next of that lane comes before anybody else is looked at.
        """
        while len(self.running) < self.concurrency and not self.shut:
            entry = None
            for other in self.entries:
                if other.lane == READY and (entry is None or other.claim < entry.claim):
                    entry = other
            if entry is None:
                return None
            call = entry.call
            gates = self.gates(call)
            shut = [lane for lane in gates if self.room(lane, steady) < 1]
            drops = self._drops(call, shut)
            sent = entry.sent
            if call.key in self.running:
                entry.stand(BUSY)
            elif call.task.identity in self.paused:
                entry.stand(PAUSED)
            elif shut and not drops:
                entry.stand(shut[0])
            else:
                self.entries.remove(entry)
                if entry.ends is not None and entry.ends <= (steady if call.steady else wall):
                    expired.append(call)
                elif drops:
                    dropped.append(call)
                else:
                    self.running[call.key] = call
                    for lane in gates:
                        if lane[0] == "rate":
                            self.bucket(lane).pour(steady)
                    return call
            if sent is not None:
                self.reopen(steady)
        return None

    def _drops(self, call: Call, shut: list[Lane]) -> bool:
        rate = call.task.declared.rate_limit
        first = bool(shut) and shut[0][0] == "rate" and not call.more.attempt
        return first and isinstance(rate, RateLimit) and rate.drop

    def release(self, key: Key) -> None:
        del self.running[key]
        entry = self.entry(key)
        if entry is not None and entry.lane == BUSY:
            entry.stand(READY)

    def pause(self, identity: Hashable | None) -> None:
        if identity is None:
            self.shut = True
        else:
            self.paused.add(identity)

    def resume(self, identity: Hashable | None) -> None:
        if identity is None:
            self.shut = False
        elif identity in self.paused:
            self.paused.remove(identity)
            for entry in self.entries:
                if entry.lane == PAUSED and entry.call.task.identity == identity:
                    entry.stand(OPENED)

    def next_time(self, *, steady: bool) -> int | None:
        times = [
            entry.call.eta if entry.lane is None else entry.ends
            for entry in self.entries
            if entry.call.steady is steady
        ]
        return min((time for time in times if time is not None), default=None)


class Pair:
    """An agenda and its model. Every operation is done to both, and both must agree."""

    def __init__(self, agenda: Agenda) -> None:
        self.agenda = agenda
        self.model = Model(agenda.concurrency)
        self.steady = 1_000
        self.ahead = 5_000  # of the wall clock over the steady one
        self.last = 0
        self.accepted = self.gone = self.started = 0

    @property
    def wall(self) -> int:
        return self.steady + self.ahead

    # -- operations

    def enqueue(
        self,
        task: Declared,
        name: str | None,
        span: int,
        *,
        steady: bool = True,
        expires: int | None = 0,
        priority: int | None = 0,
        rate: str = "",
        empty: bool = False,
        renew: bool = True,
    ) -> None:
        """A new call, as a queue hands it over. `expires`, `priority`: 0 leaves it to the task."""
        self.last += 1
        key: Key = self.last if name is None else (task.name, name)
        entry = self.model.entry(key)
        calls = 1
        if empty and name is not None and entry is None:
            # A queue places the empty call of a leading window when the leading run starts.
            calls, span, steady = 0, max(span, 1), True
        now = self.steady if steady else self.wall
        given: dict[str, Any] = {"expires": expires, "priority": priority}
        given = {option: value for option, value in given.items() if value != 0}
        more = More(rate=rate, options=Options(**given) if given else None)
        more = NOTHING_MORE if more == NOTHING_MORE else more
        call = Call(
            self.last, task, key, now + span, steady, (), NO_KWARGS, CONTEXT, calls, more
        )  # fmt: skip
        self.accepted += 1
        if span > 0 and renew and entry is not None:
            self.agenda.renew(call, entry.call)
            assert self.model.place(call, False, 0) is not None
            self.gone += 1
        else:
            self._place(call, due=span <= 0, order=self.steady + span)

    def again(self, at: int, span: int, *, running: bool, **values: Any) -> None:
        """Another call of a key that waits or runs."""
        calls = self.agenda.running if running else self.agenda.waiting
        keyed = [call for call in calls.values() if call.shown_key is not None]
        if keyed:
            call = keyed[at % len(keyed)]
            self.enqueue(BY_NAME[call.task.name], call.shown_key, span, **values)

    def move(self, at: int, span: int, *, steady: bool) -> None:
        """A reschedule: the same call with the same id at another time, on either clock."""
        entry = self.model.entries[at % len(self.model.entries)]
        if not entry.call.calls:
            return  # nobody has a handle of it
        now = self.steady if steady else self.wall
        again = structs.replace(entry.call, eta=now + span, steady=steady)
        self.accepted += 1
        self._place(again, due=span <= 0, order=self.steady + span)

    def snooze(self, at: int, span: int, *, steady: bool) -> None:
        """A run ends and is to run again, also at an eta that has passed."""
        key, call = list(self.model.running.items())[at % len(self.model.running)]
        self.release(at)
        entry = self.model.entry(key)
        if entry is None or not entry.call.calls:
            now = self.steady if steady else self.wall
            self.started -= 1
            more = structs.replace(call.more, attempt=call.more.attempt + 1)
            again = structs.replace(call, eta=now + span, steady=steady, more=more)
            self._place(again, due=False, order=0)

    def _place(self, call: Call, *, due: bool, order: int) -> None:
        old = None
        if (
            type(call.key) is int
            and call.more.options is None
            and call.key not in self.agenda.waiting
        ):
            self.agenda.add(call, due, order)
        else:
            old = self.agenda.place(call, due, order)
        assert old is self.model.place(call, due, order)
        self.gone += old is not None

    def remove(self, at: int) -> None:
        """A cancel; of a key that does not wait too."""
        entries = self.model.entries
        key = entries[at % len(entries)].call.key if entries else at
        removed = self.agenda.remove(key)
        assert removed is self.model.remove(key)
        assert self.agenda.remove(key) is None
        self.gone += removed is not None

    def tick(self, span: int, limit: int = EVERYTHING) -> None:
        """Time passes and a turn comes."""
        self.steady += span
        steady, wall, model = self.steady, self.wall, self.model
        if model.movable(steady):
            limit = EVERYTHING
        found = model.due(steady, wall)
        expired = self.agenda.take_due(steady, wall, limit)
        if limit != EVERYTHING:
            found = self._looked_at(found, limit)
        waited = len(model.entries)
        ended = model.come(found, steady, wall)
        assert {call.id for call in expired} == {call.id for call in ended}
        assert len(expired) == len(ended)
        self.gone += waited - len(model.entries)
        if limit == EVERYTHING:
            model.reopen(steady)
            # Who comes back at once to a time that is over would turn in circles.
            times = zip(self.agenda.next_times(), (steady, wall), strict=True)
            assert all(time is None or time > now for time, now in times)
            assert self.agenda.is_due(steady, wall) == any(e.lane for e in model.entries)
            ahead = {entry.call.id for entry in model.entries if entry.lane is None}
            assert {call.id for call in self.agenda.waiting_for_time()} == ahead

    def _looked_at(self, found: list[tuple[Entry, int]], limit: int) -> list[tuple[Entry, int]]:
        """A short turn comes to some of those that are due: to the earliest, and not to more."""
        stands = self.agenda.standing
        come: list[tuple[Entry, int]] = []
        left: list[tuple[Entry, int]] = []
        for entry, time in found:
            key = entry.call.key
            gone = key not in self.agenda.waiting or (entry.lane is None and stands(key))
            (come if gone else left).append((entry, time))
        assert len(come) <= limit
        if come and left:
            assert max(time for _, time in come) <= min(time for _, time in left)
        return come

    def step(self, span: int, late: int) -> None:
        """Somebody sets the wall clock, or time passes without a turn."""
        self.ahead += span
        self.steady += late

    def take(self) -> Call | None:
        """A slot is filled, if somebody may start."""
        might = self.agenda.startable()
        expired: list[Call] = []
        ended: list[Call] = []
        dropped: list[Call] = []
        call = self.agenda.take(self.steady, self.wall, expired)
        assert call is self.model.take(self.steady, self.wall, ended, dropped)
        assert expired == ended
        assert self.agenda.dropped == dropped
        self.agenda.dropped.clear()
        self.gone += len(ended) + len(dropped)
        if call is not None or ended or dropped:
            assert might
        if call is not None:
            self.started += 1
        elif not self.model.movable(self.steady):
            self.agenda.take_due(-1, -1, EVERYTHING)  # forgets lanes that opened and are empty
            assert not self.agenda.startable()
            opening = self.model.opening()
            if opening is not None:
                when = self.agenda.next_times()[0]
                assert when is not None
                assert when <= opening
        return call

    def release(self, at: int) -> None:
        """A run ends."""
        running = self.model.running
        key = list(running)[at % len(running)]
        self.agenda.release(key)
        self.model.release(key)

    def pause(self, identity: Hashable | None) -> None:
        self.agenda.lanes.pause(identity)
        self.model.pause(identity)

    def resume(self, identity: Hashable | None) -> None:
        self.agenda.lanes.resume(identity)
        self.model.resume(identity)

    # -- agreement

    def agree(self) -> None:
        """Cheap enough for every step: the same calls wait, the same run."""
        waiting, entries = self.agenda.waiting, self.model.entries
        assert len(waiting) == len(entries)
        for entry in entries:
            assert waiting[entry.call.key] is entry.call
        assert self.agenda.running == self.model.running

    def check(self) -> None:
        """All that can be said from outside, and the agenda's own proof."""
        agenda, model = self.agenda, self.model
        self.agree()
        agenda._check()
        assert len(agenda) == sum(entry.call.calls > 0 for entry in model.entries)
        for entry in model.entries:
            assert agenda.standing(entry.call.key) == (entry.lane is not None)
            assert agenda.waiting[entry.call.key] is entry.call
        for time, steady in zip(agenda.next_times(), (True, False), strict=True):
            wanted = model.next_time(steady=steady)
            assert wanted is None or (time is not None and time <= wanted)
            assert wanted is not None or time is None or (steady and agenda.lanes.opening)
        if any(entry.lane for entry in model.entries) or model.due(self.steady, self.wall):
            assert agenda.is_due(self.steady, self.wall)
        waiting = len(model.entries)
        assert self.accepted == self.gone + self.started + waiting

    def finish(self) -> None:
        """Everybody who waits gets a turn, in the order of the model, and nothing is left."""
        for identity in (None, *(task.name for task in TASKS)):
            self.resume(identity)
        for _ in range(10_000):
            while self.model.running:
                self.release(0)
            if not self.model.entries:
                break
            self.tick(100)
            while self.take() is not None:
                pass
        self.tick(10_000)
        self.check()
        assert not self.agenda.waiting
        assert not self.agenda.running
        assert self.agenda.lines() == 0
        assert self.agenda.next_times() == (None, None)
        assert not self.agenda.is_due(self.steady, self.wall)
        assert not self.agenda.startable()


# -- hypothesis

SPANS = st.sampled_from([-3, -1, 0, 0, 1, 2, 3, 5, 8, 12])
NAMES = st.sampled_from(["x", "x", "y", None])
WHO = st.sampled_from([None, *BY_NAME, "unknown"])
AT = st.integers(0, 9)


class AgendaMachine(RuleBasedStateMachine):
    """Whatever is done to an agenda, it does what the list of calls would."""

    make: ClassVar[Callable[[int], Agenda]] = Agenda

    def __init__(self) -> None:
        super().__init__()
        self.pair = Pair(type(self).make(3))

    @rule(
        task=st.sampled_from(TASKS),
        name=NAMES,
        span=SPANS,
        steady=st.booleans(),
        expires=st.sampled_from([0, 0, None, 1, 5]),
        priority=st.sampled_from([0, 0, None, 4, 30]),
        rate=st.sampled_from(["", "", "r"]),
        empty=st.sampled_from([False, False, True]),
        renew=st.booleans(),
    )
    def enqueue(self, task: Declared, name: str | None, span: int, **values: Any) -> None:
        self.pair.enqueue(task, name, span, **values)

    @rule(name=NAMES, span=SPANS)
    def call(self, name: str | None, span: int) -> None:
        self.pair.enqueue(PLAIN, name, span)

    @rule(at=AT, span=SPANS, running=st.booleans())
    def again(self, at: int, span: int, running: bool) -> None:
        self.pair.again(at, span, running=running)

    @precondition(lambda self: self.pair.model.entries)
    @rule(at=AT, span=SPANS, steady=st.booleans(), move=st.booleans())
    def change(self, at: int, span: int, steady: bool, move: bool) -> None:
        if move:
            self.pair.move(at, span, steady=steady)
        else:
            self.pair.remove(at)

    @precondition(lambda self: self.pair.model.running)
    @rule(at=AT, span=SPANS, steady=st.booleans(), snooze=st.booleans())
    def end(self, at: int, span: int, steady: bool, snooze: bool) -> None:
        if snooze:
            self.pair.snooze(at, span, steady=steady)
        else:
            self.pair.release(at)

    @rule(span=st.integers(0, 8), starts=st.integers(0, 3))
    def turn(self, span: int, starts: int) -> None:
        self.pair.tick(span)
        for _ in range(starts):
            self.pair.take()

    @rule(span=st.integers(0, 8), limit=st.integers(1, 3))
    def short_turn(self, span: int, limit: int) -> None:
        self.pair.tick(span, limit)
        self.pair.take()

    @rule(
        span=st.sampled_from([0, 0, -20, -3, 3, 20]),
        late=st.integers(0, 3),
        identity=WHO,
        shut=st.sampled_from([False, False, True]),
    )
    def outside(self, span: int, late: int, identity: str | None, shut: bool) -> None:
        self.pair.step(span, late)
        if shut:
            self.pair.pause(identity)
        else:
            self.pair.resume(identity)

    @invariant()
    def check(self) -> None:
        self.pair.check()

    def teardown(self) -> None:
        self.pair.finish()


TestAgendaMachine = AgendaMachine.TestCase
TestAgendaMachine.settings = settings(max_examples=200, stateful_step_count=50)


# -- the seeded driver


@dataclass(frozen=True)
class Course:
    """What a driver is like. `span`: how far etas go; `stride`: how far a turn goes; `crowd`: how
    many may wait.
    """

    seed: int
    keys: int
    concurrency: int
    span: int
    stride: int
    crowd: int


COURSES = [
    Course(seed=1, keys=3, concurrency=1, span=10, stride=2, crowd=8),  # one slot, many ties
    Course(seed=2, keys=8, concurrency=3, span=30, stride=5, crowd=16),
    Course(seed=3, keys=2, concurrency=8, span=12, stride=4, crowd=12),  # busy keys
    Course(seed=4, keys=12, concurrency=2, span=5_000, stride=40, crowd=16),  # far etas: stale
    Course(seed=5, keys=40, concurrency=4, span=9_000, stride=60, crowd=50),  # lines are swept
]


def drive(pair: Pair, course: Course, steps: int, proof: int) -> None:
    """Random operations; a look at the calls after each, and the whole proof at each `proof`."""
    random = Random(course.seed)
    roll, below = random.random, random.randrange
    names = [str(number) for number in range(course.keys)]
    who = (None, *BY_NAME, "unknown")
    entries, running = pair.model.entries, pair.model.running

    def span() -> int:
        return below(course.span) - 2 if roll() < 0.9 else -below(9)

    for at in range(steps):
        draw = roll()
        if len(entries) > course.crowd and draw < 0.34:
            pair.remove(below(100))
            draw += 0.34
        if draw < 0.04:
            pair.again(below(100), span(), running=roll() < 0.7)
        elif draw < 0.34:
            name = names[below(course.keys)] if roll() < 0.85 else None
            expires = 0 if roll() < 0.8 else (None, 1, 5)[below(3)]
            pair.enqueue(
                TASKS[below(6)] if roll() < 0.7 else PLAIN,
                name,
                span(),
                steady=roll() < 0.6,
                expires=expires,
                priority=0 if roll() < 0.8 else (None, 2, 40)[below(3)],
                rate="" if roll() < 0.6 else "r",
                empty=roll() < 0.1,
                renew=roll() < 0.6,
            )
        elif draw < 0.38:
            if entries:
                pair.move(below(100), span(), steady=roll() < 0.5)
        elif draw < 0.56:
            limit = EVERYTHING if roll() < 0.7 else 1 + below(3)
            pair.tick(below(course.stride), limit)
        elif draw < 0.78:
            pair.take()
        elif draw < 0.87:
            if running:
                pair.release(below(100))
        elif draw < 0.89:
            if running:
                pair.snooze(below(100), span(), steady=roll() < 0.5)
        elif draw < 0.93:
            pair.remove(below(100))
        elif draw < 0.95:
            pair.step(below(41) - 20, below(3))
        elif draw < 0.958:
            pair.pause(who[below(len(who))])
        else:
            pair.resume(who[below(len(who))])
        if at % proof:
            pair.agree()
        else:
            pair.check()
    pair.finish()


@pytest.mark.parametrize("course", COURSES, ids=lambda course: f"seed{course.seed}")
def test_a_short_drive(course: Course) -> None:
    """An agenda and a list of calls agree, with a whole proof after every step."""
    drive(Pair(Agenda(course.concurrency)), course, steps=1_500, proof=1)


@pytest.mark.slow
@pytest.mark.parametrize("course", COURSES, ids=lambda course: f"seed{course.seed}")
def test_a_long_drive(course: Course) -> None:
    """An agenda and a list of calls agree over a million random steps, 200,000 of each course."""
    drive(Pair(Agenda(course.concurrency)), course, steps=200_000, proof=101)


# -- the machinery notices


class LineNotRedrawn(Agenda):
    """A call that moves earlier keeps its later line, so it starts late."""

    def place(self, call: Call, due: bool = False, order: int = 0) -> Call | None:
        old = self.waiting.get(call.key)
        if old is None or due or call.steady is not old.steady or call.eta >= old.eta:
            return super().place(call, due, order)
        super().place(structs.replace(call, eta=old.eta))
        self.waiting[call.key] = call
        return old


class StaleNotSkipped(Agenda):
    """A line that a call has left behind still lets it start, so it starts early."""

    def place(self, call: Call, due: bool = False, order: int = 0) -> Call | None:
        self.__dict__.setdefault("drawn", set()).add((call.eta, call.steady, call.key))
        return super().place(call, due, order)

    def take_due(self, steady: int, wall: int, limit: int) -> list[Call]:
        for line in sorted(self.__dict__.get("drawn", ()), key=repr):
            time, is_steady, key = line
            call = self.waiting.get(key)
            if time <= (steady if is_steady else wall):
                self.__dict__["drawn"].remove(line)
                if call is not None and call.steady is is_steady and not self.standing(key):
                    super().place(call, True, steady)
        return super().take_due(steady, wall, limit)


class BackOfTheLane(Agenda):
    """A call that replaces one in a lane goes to its end."""

    def place(self, call: Call, due: bool = False, order: int = 0) -> Call | None:
        old = self.remove(call.key) if due and self.standing(call.key) else None
        return super().place(call, due, order) or old


class BusyForEver(Agenda):
    """The end of a run does not wake the next call of its key."""

    def release(self, key: Key) -> None:
        del self.running[key]


class OneTooMany(Agenda):
    """A slot more than allowed."""

    def take(self, *args: Any, **kwargs: Any) -> Call | None:
        self.concurrency += 1
        try:
            return super().take(*args, **kwargs)
        finally:
            self.concurrency -= 1


class NeverExpired(Agenda):
    """A call that expired is gone without a word."""

    def take_due(self, steady: int, wall: int, limit: int) -> list[Call]:
        return super().take_due(steady, wall, limit)[1:]


class StepsForgotten(Agenda):
    """The wall clock is read once, at the start."""

    def take_due(self, steady: int, wall: int, limit: int) -> list[Call]:
        ahead = self.__dict__.setdefault("ahead", wall - steady)
        return super().take_due(steady, steady + ahead, limit)


class DeafToPause(Agenda):
    """Only the whole queue can be paused."""

    def take(self, *args: Any, **kwargs: Any) -> Call | None:
        self.lanes.paused.clear()
        return super().take(*args, **kwargs)


class NoHeadStart(Agenda):
    """Priorities are not looked at."""

    def _line_up(self, call: Call, order: int) -> None:
        super()._line_up(call, order + (option_of(call, "priority") or 0))


class TasksWithoutLimit(Agenda):
    """The slots of a task do not run out."""

    def take(self, *args: Any, **kwargs: Any) -> Call | None:
        for lane in self.lanes.slots.values():
            lane._limit = EVERYTHING
        return super().take(*args, **kwargs)


class SlotNotFreed(Agenda):
    """The run of a task with a limit ends and leaves its slot taken."""

    def release(self, key: Key) -> None:
        gates = self.lanes.passed.get(key, [])
        gates[:] = [gate for gate in gates if not isinstance(gate, Slots)]
        super().release(key)


class RatesForgotten(Agenda):
    """What started is not remembered."""

    def take(self, *args: Any, **kwargs: Any) -> Call | None:
        for name in [name for name, lane in self.lanes.rates.items() if not len(lane.lines)]:
            del self.lanes.rates[name]
        return super().take(*args, **kwargs)


class NeverByItself(Agenda):
    """Nobody comes when a rate has room again."""

    def take_due(self, steady: int, wall: int, limit: int) -> list[Call]:
        self.lanes.opening.clear()
        return super().take_due(steady, wall, limit)


class NothingDropped(Agenda):
    """Who should be dropped waits."""

    def take(self, *args: Any, **kwargs: Any) -> Call | None:
        for lane in self.lanes.rates.values():
            lane.drops = False
        return super().take(*args, **kwargs)


PLANTED = [
    LineNotRedrawn,
    StaleNotSkipped,
    BackOfTheLane,
    BusyForEver,
    OneTooMany,
    NeverExpired,
    StepsForgotten,
    DeafToPause,
    NoHeadStart,
    TasksWithoutLimit,
    SlotNotFreed,
    RatesForgotten,
    NeverByItself,
    NothingDropped,
]
FAILURES = (AssertionError, KeyError)


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found_by_the_driver(planted: type[Agenda]) -> None:
    """A broken agenda does not get through the drives."""
    found = 0
    for course in COURSES:
        try:
            drive(Pair(planted(course.concurrency)), course, steps=3_000, proof=101)
        except FAILURES:
            found += 1
    assert found >= 3


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_bug_is_found_by_the_state_machine(planted: type[Agenda]) -> None:
    """A broken agenda does not get through the state machine."""
    machine: Any = type(planted.__name__, (AgendaMachine,), {"make": planted})
    with pytest.raises(FAILURES):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=500,
                stateful_step_count=40,
                derandomize=True,
                database=None,
                phases=[Phase.generate],
                report_multiple_bugs=False,
            ),
        )


def test_a_sound_agenda_gets_through() -> None:
    """What the planted bugs are tried against lets a sound agenda pass."""

    class Sound(Agenda):
        pass

    for course in COURSES:
        drive(Pair(Sound(course.concurrency)), course, steps=1_500, proof=101)
