"""Lanes: where calls stand that are due and may not start yet, in the order in which they will.

A line in a lane is (order, id, key); `order` is the time from which the call has a claim to
start. Who is due stands in `ready` first. If it finds something else shut for it, it moves on to
that lane, and comes back through `ready` when that one opens.
"""

from collections.abc import Callable, Hashable, Mapping
from typing import Final

from asyncdefer._core.job import Call, Key
from asyncdefer._core.timeline import Line, Timeline


class Lane:
    """Full, paused, busy: `shut` says that nothing may leave."""

    __slots__ = ("lines", "name", "shut")

    def __init__(self, name: str, *, shut: bool = False) -> None:
        self.name = name
        self.shut = shut
        self.lines = Timeline()

    def __repr__(self) -> str:
        return f"<Lane {self.name} {'shut' if self.shut else 'open'} {len(self.lines)} lines>"


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
        self.opened: list[Lane] = []  # lanes that opened and still have lines
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

    def leave(self, key: Key) -> None:
        """Stand nowhere any more."""
        if key in self.standing:
            del self.standing[key]
            self.claims.pop(key, None)
            lane = self.elsewhere.pop(key, self.ready)
            if lane is not BUSY:
                lane.lines.stale += 1
                lane.lines.compact(self._live(lane))

    def release(self, key: Key) -> None:
        """The run of a key has ended: the call behind it is ready."""
        if self.elsewhere.get(key) is BUSY:
            self.enter(self.line(key), self.ready)

    def _live(self, lane: Lane) -> Callable[[Line], bool]:
        seen: set[Key] = set()

        def live(line: Line) -> bool:
            if line[2] in seen or not self.stands(line, lane):
                return False
            seen.add(line[2])
            return True

        return live

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
            self.opened.append(lane)

    def drain(self, limit: int) -> None:
        """Send those who stand in lanes that opened back through `ready`, at most so many."""
        while self.opened and limit > 0:
            lane = self.opened[0]
            line = lane.lines.pop()
            if line is None:
                del self.opened[0]
            elif self.stands(line, lane):
                self.enter(line, self.ready)
            else:
                lane.lines.stale -= 1
            limit -= 1

    def _check(self) -> None:
        """Every invariant, spelled out; for tests."""
        assert set(self.elsewhere) <= set(self.standing)
        assert set(self.claims) <= set(self.standing) <= set(self._waiting)
        assert all(lane is not self.ready for lane in self.elsewhere.values())
        lanes = {key: self.elsewhere.get(key, self.ready) for key in self.standing}
        known = (self.ready, *self.paused.values(), *self.opened)
        assert all(lane is BUSY or lane in known for lane in lanes.values())
        for lane in known:
            lane.lines._check()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage] - a proof of the whole proves its parts
            mine = {key for key, stood in lanes.items() if stood is lane}
            assert {key for _, _, key in filter(self._live(lane), lane.lines)} == mine
            assert len(lane.lines) - lane.lines.stale == len(mine)
