"""Lanes: where calls stand that are due and may not start yet, in the order in which they will.

A line in a lane is (order, id, key); `order` is the time from which the call has a claim to
start. Who is due stands in `ready` first. If it finds something else shut for it, it moves on to
that lane, and comes back through `ready` when that one opens.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from heapq import heappop, heappush
from typing import Final

from asyncdefer._core.job import Call, Key
from asyncdefer._core.rate import Gcra, RateLimit
from asyncdefer._core.timeline import Line, Timeline

EVERYTHING: Final = 1 << 62


class Lane:
    """One reason not to start. `shut`: nothing may leave."""

    __slots__ = ("drops", "lines", "name", "sent", "shut", "stirred", "wakes")

    def __init__(self, name: str, *, shut: bool = False) -> None:
        self.name = name
        self.shut = shut
        self.lines = Timeline()
        self.sent = 0  # calls that left and are on their way through `ready`
        self.stirred = False
        self.drops = False  # who finds it shut is not let in, but ends
        self.wakes: int | None = None

    def room(self, now: int) -> int:
        """How many may leave at `now`, on the steady clock."""
        return 0 if self.shut else EVERYTHING

    def opens(self) -> int | None:
        """When there is room by itself; None if somebody else makes it."""
        return None

    def take(self, now: int) -> None:
        """One that had to pass here starts."""

    def free(self) -> None:
        """The run of one that had to pass here has ended."""

    def __repr__(self) -> str:
        return f"<Lane {self.name} {'shut' if self.shut else 'open'} {len(self.lines)} lines>"


class Slots(Lane):
    """The `concurrency` of a task: open while fewer than so many run."""

    __slots__ = ("_limit", "_running")

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name)
        self._limit = limit
        self._running = 0

    def room(self, now: int) -> int:
        return self._limit - self._running

    def take(self, now: int) -> None:
        self._running += 1

    def free(self) -> None:
        self._running -= 1


class RateLane(Lane):
    """The `rate_limit` of a task, for one of its rate keys: open when one more is within it."""

    __slots__ = ("_rate",)

    def __init__(self, name: str, limit: RateLimit) -> None:
        super().__init__(name)
        self.drops = limit.drop
        self._rate = Gcra(limit)

    def room(self, now: int) -> int:
        return self._rate.room(now)

    def opens(self) -> int | None:
        return self._rate.opens(self.sent)

    def take(self, now: int) -> None:
        self._rate.take(now)

    def arrival(self) -> int:
        """What there is to remember of it."""
        return self._rate.arrival()

    def restore(self, arrival: int) -> None:
        """Go on where another process was."""
        self._rate.restore(arrival)

    def idle(self, now: int) -> bool:
        """A new lane would be the same."""
        return not self.sent and not len(self.lines) and self._rate.idle(now)


BUSY: Final = Lane("busy", shut=True)
"""Behind the run of one's own key. At most one call stands there for a key, so no lines are kept."""


class Lanes:
    """Who stands where.

    A line is live if its key stands in that lane with that claim; one line of a key only, since a
    call may come back to where it stood before. The id of a claim is that of the call, or, if that
    one took the place of another (`claims`), of the first one in this place.
    """

    def __init__(self, waiting: Mapping[Key, Call]) -> None:
        self.ready = Lane("ready")
        self.standing: dict[Key, int] = {}  # key -> order
        self.claims: dict[Key, int] = {}
        self.elsewhere: dict[Key, Lane] = {}  # the lanes of those that do not stand in `ready`
        self.paused: dict[Hashable, Lane] = {}
        self.slots: dict[Hashable, Slots] = {}
        self.rates: OrderedDict[tuple[Hashable, str], RateLane] = OrderedDict()
        self.passed: dict[Key, list[Lane]] = {}  # the gates that each run passed
        self.on_way: dict[Key, Lane] = {}  # whence those come that were sent back to `ready`
        self.stirred: list[Lane] = []  # lanes that may have opened
        self.opening: list[tuple[int, int, Lane]] = []  # when others open by themselves: a heap
        self.suspects = Slots("suspects", 1)  # jobs during whose runs the process died
        self.forgotten: tuple[Hashable, str] | None = None  # the rate that has come to rest last
        self._waiting = waiting

    def line(self, key: Key) -> Line:
        """The live line of a key that stands in a lane."""
        return self.standing[key], self.claims.get(key, self._waiting[key].id), key

    def stands(self, line: Line, lane: Lane) -> bool:
        """The line is live in this lane."""
        key = line[2]
        if key not in self.standing or self.elsewhere.get(key, self.ready) is not lane:
            return False
        return self.line(key) == line

    def enter(self, line: Line, lane: Lane) -> None:
        """Stand in another lane than before, with the same claim."""
        if lane is self.ready:
            self.elsewhere.pop(line[2], None)
        else:
            self.elsewhere[line[2]] = lane
        if lane is not BUSY:
            lane.lines.push(line)
            if lane is not self.ready:
                self.stir(lane)

    def leave(self, key: Key) -> None:
        """Stand nowhere any more."""
        if key in self.standing:
            del self.standing[key]
            self.claims.pop(key, None)
            self.arrive(key)
            lane = self.elsewhere.pop(key, self.ready)
            if lane is not BUSY:
                lane.lines.stale += 1
                lane.lines.compact(self._live(lane))

    def _live(self, lane: Lane) -> Callable[[Line], bool]:
        seen: set[Key] = set()

        def live(line: Line) -> bool:
            if line[2] in seen or not self.stands(line, lane):
                return False
            seen.add(line[2])
            return True

        return live

    # -- lanes that shut and open

    def pause(self, identity: Hashable | None) -> None:
        """Shut the lane of a task, or `ready` itself with None."""
        if identity is None:
            self.ready.shut = True
        else:
            self.paused.setdefault(identity, Lane(f"paused {identity}", shut=True))

    def resume(self, identity: Hashable | None) -> None:
        """Open it again."""
        if identity is None:
            self.ready.shut = False
        elif (lane := self.paused.pop(identity, None)) is not None:
            lane.shut = False
            self.stir(lane)

    def is_paused(self, key: Key) -> bool:
        """It stands where only a resume lets it go on."""
        lane = self.elsewhere.get(key, self.ready)
        return key in self.standing and lane.shut and lane is not BUSY

    def gates(self, call: Call) -> list[Lane]:
        """The lanes of its task that a call has to find open, made when they are first asked for."""
        found: list[Lane] = []
        task = call.task
        limit, rate = task.declared.concurrency, task.declared.rate_limit
        if limit:
            slots = self.slots.get(task.identity)
            if slots is None:
                slots = self.slots[task.identity] = Slots(f"full {task.name}", limit)
            found.append(slots)
        if rate:
            name = (task.identity, call.more.rate)
            lane = self.rates.get(name)
            if lane is None:
                lane = self.rates[name] = RateLane(f"rate {task.name} {call.more.rate}", rate)
            found.append(lane)
        if call.more.crashes:
            found.append(self.suspects)
        return found

    def start(self, key: Key, gates: list[Lane], now: int) -> None:
        """A call that found its gates open starts."""
        self.passed[key] = gates
        for gate in gates:
            gate.take(now)
        if self.rates:  # those that were not used for long are asked in turn whether they are idle
            name = next(iter(self.rates))
            self.rates.move_to_end(name)
            if self.rates[name].idle(now):
                del self.rates[name]
                self.forgotten = name

    def release(self, key: Key) -> None:
        """The run of a key has ended: the call behind it is ready, and its slots are free."""
        if self.elsewhere.get(key) is BUSY:
            self.enter(self.line(key), self.ready)
        for gate in self.passed.pop(key, ()):
            gate.free()
            self.stir(gate)

    def arrive(self, key: Key) -> None:
        """A call that was sent back to `ready` is there no more: another may follow."""
        lane = self.on_way.pop(key, None)
        if lane is not None:
            lane.sent -= 1
            self.stir(lane)

    def give_up(self, key: Key, now: int, limit: int) -> int:
        """A call that is first in `ready` cannot start; what is left of the `limit`.

        If a lane had sent it, the next of that lane comes at once: those who are in `ready` by now
        may have come after it.
        """
        if key not in self.on_way:
            return limit
        self.arrive(key)
        return self.drain(now, limit)

    def stir(self, lane: Lane) -> None:
        """Look at this lane at the next `drain`: it may have opened."""
        if not lane.stirred and len(lane.lines):
            lane.stirred = True
            self.stirred.append(lane)

    def drain(self, now: int, limit: int) -> int:
        """Send those who stand in lanes that opened back through `ready`.

        At most `limit` lines are looked at; what is left of it.
        """
        while self.opening and self.opening[0][0] <= now:
            lane = heappop(self.opening)[2]
            lane.wakes = None
            self.stir(lane)
        while self.stirred and limit > 0:
            limit -= 1
            lane = self.stirred[-1]
            line = lane.lines.first()
            if line is not None and not self.stands(line, lane):
                lane.lines.pop()
                lane.lines.stale -= 1
            elif line is None or lane.room(now) <= lane.sent:
                self.stirred.pop().stirred = False
                opens = lane.opens()
                if line is not None and opens is not None and lane.wakes != opens:
                    lane.wakes = opens
                    heappush(self.opening, (opens, line[1], lane))
            else:
                lane.lines.pop()
                self.enter(line, self.ready)
                self.on_way[line[2]] = lane
                lane.sent += 1
        return limit

    def _check(self) -> None:
        """Every invariant, spelled out; for tests."""
        assert set(self.elsewhere) <= set(self.standing)
        assert set(self.claims) <= set(self.standing) <= set(self._waiting)
        assert all(lane is not self.ready for lane in self.elsewhere.values())
        lanes = {key: self.elsewhere.get(key, self.ready) for key in self.standing}
        known = {
            self.ready, *self.paused.values(), *self.slots.values(), *self.rates.values(),
            self.suspects, *self.stirred,
        }  # fmt: skip
        sent = list(self.on_way.values())
        assert all(lane.sent == sent.count(lane) for lane in known)
        assert set(self.on_way) <= set(self.standing) - set(self.elsewhere)
        assert all(lane is BUSY or lane in known for lane in lanes.values())
        for lane in known:
            lane.lines._check()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - a proof of the whole proves its parts
            mine = {key for key, stood in lanes.items() if stood is lane}
            assert {key for _, _, key in filter(self._live(lane), lane.lines)} == mine
            assert len(lane.lines) - lane.lines.stale == len(mine)
