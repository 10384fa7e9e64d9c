"""The agenda: what waits, when it is due, and who of the due may start next.

One dict from key to the waiting call, two timelines (steady time for delays, wall time for
etas) and the lanes. It is pure: times come in as arguments, calls go out as return values.

How a line stays honest. Every waiting call has one live line on the timeline of its clock: at
its eta, or, while the call stands in a lane, at its expiry if it has one. A call that is moved
to a later time keeps its line, which is pushed again when it surfaces; `_lines` remembers the
time of such a line. So the live line of a key is the one whose time is the expected one, and
all others are stale: they are skipped when they surface and swept when they are the majority.

A call that is due leaves the timeline for the lane `ready`, and the first of that lane starts
while a slot is free. If something else is shut for it (its task is paused, a run of its key is
under way), it moves on to that lane and comes back through `ready` when that lane opens.
"""

from collections.abc import Callable, Iterator
from typing import Any

from asyncdefer._core.job import Call, Key
from asyncdefer._core.lane import BUSY, EVERYTHING, Lane, Lanes
from asyncdefer._core.rules import expiry
from asyncdefer._core.timeline import Line, Timeline


class Agenda:
    """The waiting calls of one queue, and the keys that run."""

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.waiting: dict[Key, Call] = {}
        self.running: dict[Key, Any] = {}
        """What runs under a key; the loop has its own records here."""
        self.steady = Timeline()
        self.wall = Timeline()
        self.lanes = Lanes(self.waiting)
        self.ready = self.lanes.ready
        self.looks = EVERYTHING  # lines that `take` may still look at in this turn
        self.dropped: list[Call] = []
        """By `take`: for those the rate had no room, and no lane either."""
        self.empty = 0  # waiting calls that stand for nobody (calls == 0)
        self._lines: dict[Key, int] = {}  # time of the live line where it is not the call's eta
        self._standing = self.lanes.standing

    # -- calls come and go

    def place(self, call: Call, due: bool = False, order: int = 0) -> Call | None:
        """Let a call wait; the older call of its key, if one waited, is replaced and returned.

        `due` says that the eta has come: the call goes straight to the lane, with `order` as
        its claim, and takes the place there of the one it replaces.
        """
        key = call.key
        old = self.waiting.setdefault(key, call)
        if old is call:
            if not call.calls:
                self.empty += 1
            if due:
                self._stand(call, order, None)
            else:
                line = (call.eta, call.id, key)
                (self.steady if call.steady else self.wall).push(line)
            return None
        self.waiting[key] = call
        self.empty += (not call.calls) - (not old.calls)
        if key in self._standing:
            had = self._lines.get(key)
            if due and call.more.rate == old.more.rate:
                self.lanes.claims.setdefault(key, old.id)
            else:
                self.lanes.leave(key)
                if due:
                    self._line_up(call, order)
            self._redraw(call, old, had, expiry(call) if due else call.eta)
            return old
        had = self._lines.get(key, old.eta)
        if due:
            self._stand(call, order, old)
        elif call.steady is old.steady and had <= call.eta:
            self._lines[key] = had  # the line stays, and is pushed again when it surfaces
        else:
            self._redraw(call, old, had, call.eta)
        return old

    def add(self, call: Call, due: bool, order: int) -> None:
        """`place` for the common case: a call without a key and without options of its own."""
        number = call.id
        self.waiting[number] = call
        if not due:
            (self.steady if call.steady else self.wall).push((call.eta, number, number))
        elif call.task.declared.expires or call.task.declared.priority:
            self._stand(call, order, None)
        else:
            self._standing[number] = order
            self.ready.lines.push((order, number, number))

    def renew(self, call: Call, old: Call) -> None:
        """`place` for the common case: a later call of a key whose older call is not due yet."""
        key = call.key
        if (
            (self._standing and key in self._standing)
            or call.steady is not old.steady
            or self._lines.setdefault(key, old.eta) > call.eta
            or not old.calls
        ):
            self.place(call)
        else:
            self.waiting[key] = call

    def remove(self, key: Key) -> Call | None:
        """Take a waiting call out, wherever it stands."""
        call = self.waiting.get(key)
        if call is not None:
            had = self._expected(key, call)
            if key in self._standing:
                self.lanes.leave(key)
            self._redraw(call, call, had, None)
            self._forget(key, call)
        return call

    # -- time passes

    def take_due(self, steady: int, wall: int, limit: int) -> list[Call]:
        """Let what is due stand in the lane; the calls that expired are taken out and returned.

        At most `limit` lines are looked at, so that a turn is short whatever has piled up.
        """
        expired: list[Call] = []
        ahead = wall - steady
        while limit > 0:
            timeline, shift, line = self.steady, 0, self.steady.first()
            other = self.wall.first()
            if other and (line is None or (other[0] - ahead, other[1]) < (line[0], line[1])):
                timeline, shift, line = self.wall, ahead, other
            if line is None or line[0] - shift > steady:
                break
            limit -= 1
            timeline.pop()
            call = self._surface(timeline, line)
            if call is None:
                continue
            ends = expiry(call)
            if not call.calls:  # nobody replaced the empty call of a leading window
                self._forget(call.key, call)
            elif ends is not None and ends - shift <= steady:
                self.lanes.leave(call.key)
                self._forget(call.key, call)
                expired.append(call)
            elif call.key not in self._standing:
                self._stand(call, call.eta - shift, None)
        self.lanes.drain(steady, limit)
        return expired

    def next_times(self) -> tuple[int | None, int | None]:
        """When the next line is due, or a lane opens, on the steady and on the wall clock."""
        steady = self._next(self.steady)
        if self.lanes.opening:
            opens = self.lanes.opening[0][0]
            steady = opens if steady is None else min(steady, opens)
        return steady, self._next(self.wall)

    def waiting_for_time(self) -> Iterator[Call]:
        """The waiting calls that were not due so far: once due, a call stays so."""
        return (call for key, call in self.waiting.items() if key not in self._standing)

    def is_due(self, steady: int, wall: int) -> bool:
        """Something should have started, or stands in a lane."""
        times = zip(self.next_times(), (steady, wall), strict=True)
        return bool(self._standing) or any(time is not None and time <= now for time, now in times)

    # -- who may start

    def take(self, steady: int, wall: int, expired: list[Call]) -> Call | None:
        """The next call to start, which from now on runs; None if nobody may, or `looks` is used up.

        Those whose time has run out meanwhile go to `expired` instead.
        """
        lanes, ready, running = self.lanes, self.ready, self.running
        elsewhere, claims, paused = lanes.elsewhere, lanes.claims, lanes.paused
        pop, standing = ready.lines.pop, self._standing
        if ready.shut:
            return None
        while len(running) < self.concurrency and self.looks > 0:
            line = pop()
            if line is None:
                return None
            self.looks -= 1
            key = line[2]
            call = self.waiting.get(key)
            if (
                call is None
                or standing.get(key) != line[0]
                # Most calls stand where they came in, and with their own claim.
                or (not lanes.stands(line, ready) if elsewhere or claims else line[1] != call.id)
            ):
                ready.lines.stale -= 1
                continue
            if key in running:
                self._turn_away(line, BUSY, steady)
                continue
            if paused and (lane := paused.get(call.task.identity)) is not None:
                self._turn_away(line, lane, steady)
                continue
            declared = call.task.declared
            gates, drops = None, False
            if declared.concurrency or declared.rate_limit or call.more.crashes:
                gates = lanes.gates(call)
                gate = next((gate for gate in gates if gate.room(steady) < 1), None)
                drops = gate is not None and gate.drops and not call.more.attempt
                if gate is not None and not drops:
                    self._turn_away(line, gate, steady)
                    continue
            del standing[key]
            if claims:
                claims.pop(key, None)
            had = self._lines.get(key)
            if had is not None:  # it has an expiry
                self._redraw(call, call, had, None)
            del self.waiting[key]
            late = had is not None and (expiry(call) or 0) <= (steady if call.steady else wall)
            if late or drops:
                (expired if late else self.dropped).append(call)
                self.looks = lanes.give_up(key, steady, self.looks)
                continue
            if lanes.on_way:
                lanes.arrive(key)
            if gates is not None:
                lanes.start(key, gates, steady)
            running[key] = call
            return call
        return None

    def _turn_away(self, line: Line, lane: Lane, now: int) -> None:
        """Out of `ready`, to where something is shut for it."""
        self.looks = self.lanes.give_up(line[2], now, self.looks)
        self.lanes.enter(line, lane)

    def startable(self) -> bool:
        """Somebody may be able to start at once."""
        if self.lanes.stirred:
            return True
        ready = self.ready
        if ready.shut or len(self.running) >= self.concurrency:
            return False
        return len(ready.lines) > ready.lines.stale

    def release(self, key: Key) -> None:
        """The run of a key has ended: its slot is free, and the key's next call may start."""
        del self.running[key]
        if self.lanes.elsewhere or self.lanes.passed:
            self.lanes.release(key)

    def _line_up(self, call: Call, order: int) -> None:
        order -= call.option("priority") or 0
        self._standing[call.key] = order
        self.ready.lines.push((order, call.id, call.key))

    def _stand(self, call: Call, order: int, old: Call | None) -> None:
        had = None if old is None else self._lines.get(call.key, old.eta)
        self._line_up(call, order)
        ends = expiry(call)
        if had is not None or ends is not None:
            self._redraw(call, old or call, had, ends)

    # -- lines

    def _expected(self, key: Key, call: Call) -> int | None:
        """The time of the key's live line; None if it has none."""
        return self._lines.get(key, None if key in self._standing else call.eta)

    def _remember(self, key: Key, call: Call, time: int) -> None:
        if time == call.eta and key not in self._standing:
            self._lines.pop(key, None)
        else:
            self._lines[key] = time

    def _redraw(self, call: Call, old: Call, had: int | None, wanted: int | None) -> None:
        """Give a call a live line that surfaces at `wanted` or before; `had` is the one of `old`."""
        key = call.key
        if had is not None and (wanted is None or old.steady is not call.steady or wanted < had):
            timeline = self.steady if old.steady else self.wall
            timeline.stale += 1
            self._lines.pop(key, None)
            # Compaction asks what is expected of the key, so the new line has to be known first.
            if wanted is not None:
                self._draw(call, wanted)
            timeline.compact(self._live(timeline, None if wanted is not None else key))
        elif wanted is None:
            self._lines.pop(key, None)
        elif had is None:
            self._draw(call, wanted)
        else:
            self._remember(key, call, had)

    def _draw(self, call: Call, time: int) -> None:
        timeline = self.steady if call.steady else self.wall
        timeline.push((time, call.id, call.key))
        self._remember(call.key, call, time)

    def _live(self, timeline: Timeline, gone: Key | None) -> Callable[[Line], bool]:
        """Which lines of a timeline are live, one for each key; `gone` is a key that is leaving."""
        seen: set[Key | None] = {gone}

        def live(line: Line) -> bool:
            key = line[2]
            if key in seen or self._caller(timeline, line) is None:
                return False
            seen.add(key)
            return True

        return live

    def _caller(self, timeline: Timeline, line: Line) -> Call | None:
        """The call whose live line this is; None for a stale line."""
        time, _, key = line
        call = self.waiting.get(key)
        if (
            call is None
            or (self.steady if call.steady else self.wall) is not timeline
            or self._expected(key, call) != time
        ):
            return None
        return call

    def _surface(self, timeline: Timeline, line: Line) -> Call | None:
        """The call whose line has come, if the line is live and the call was not moved later."""
        call = self._caller(timeline, line)
        if call is None:
            timeline.stale -= 1
            return None
        time, _, key = line
        self._lines.pop(key, None)
        wanted = expiry(call) if key in self._standing else call.eta
        if wanted is not None and wanted > time:
            self._draw(call, wanted)
            return None
        return call

    def _next(self, timeline: Timeline) -> int | None:
        while (line := timeline.first()) is not None:
            if self._caller(timeline, line) is not None:
                return int(line[0])
            timeline.pop()
            timeline.stale -= 1
        return None

    def _forget(self, key: Key, call: Call) -> None:
        del self.waiting[key]
        if not call.calls:
            self.empty -= 1

    # -- proof

    def __len__(self) -> int:
        """How many calls wait, those that stand for nobody left out."""
        return len(self.waiting) - self.empty

    def __repr__(self) -> str:
        return (
            f"<Agenda waiting={len(self)} running={len(self.running)}/{self.concurrency}"
            f" standing={len(self._standing)} lines={len(self.steady)}+{len(self.wall)}>"
        )

    def lines(self) -> int:
        """How many lines the timelines hold."""
        return len(self.steady) + len(self.wall)

    def standing(self, key: Key) -> bool:
        """The call of this key is due and stands in a lane."""
        return key in self._standing

    def _check(self) -> None:
        """Every invariant, spelled out; for tests."""
        assert len(self.running) <= self.concurrency
        assert all(call.key == key for key, call in self.waiting.items())
        assert self.empty == sum(not call.calls for call in self.waiting.values())
        assert set(self._standing) <= set(self.waiting)
        assert set(self._lines) <= set(self.waiting)
        for timeline, steady in ((self.steady, True), (self.wall, False)):
            timeline._check()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - a proof of the whole proves its parts
            live = set(filter(self._live(timeline, None), timeline))
            wanted = {
                (time, key)
                for key, call in self.waiting.items()
                if call.steady is steady and (time := self._expected(key, call)) is not None
            }
            assert {(time, key) for time, _, key in live} == wanted
            assert len(timeline) - timeline.stale == len(wanted)
        for key, call in self.waiting.items():
            wants = expiry(call) if key in self._standing else call.eta
            has = self._expected(key, call)
            assert wants is None or (has is not None and has <= wants)
        self.lanes._check()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - as above
        busy = {key for key, lane in self.lanes.elsewhere.items() if lane is BUSY}
        assert busy <= set(self.running)
