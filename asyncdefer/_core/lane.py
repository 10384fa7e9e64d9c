"""A lane: where jobs stand that are due and may not start yet, in the order in which they will.

Its lines are (order, id, key); `order` is the time from which a job has a claim to start.
"""

from asyncdefer._core.timeline import Timeline


class Lane:
    """Full, paused, busy: `shut` says that nothing may leave."""

    __slots__ = ("lines", "name", "shut")

    def __init__(self, name: str, *, shut: bool = False) -> None:
        self.name = name
        self.shut = shut
        self.lines = Timeline()

    def __repr__(self) -> str:
        return f"<Lane {self.name} {'shut' if self.shut else 'open'} {len(self.lines)} lines>"
