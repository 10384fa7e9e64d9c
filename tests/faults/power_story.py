"""What a program was promised, and whether a journal that is found keeps to it.

The story is the lines that the program has written, each with its place among the events. A
journal that was found after a cut at a place is judged by what had been said before a `horizon`:
with `synchronous=FULL` the cut itself; with NORMAL what a sync covers, or what the journal itself
shows to have been reached, since it may lose its end but have no hole.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, NamedTuple

from tests.faults.power_trace import Event

NEVER: Final = 1 << 62
_LIVE: Final = ("scheduled", "running")


class Found(NamedTuple):
    """A row: its state, and how often it was started."""

    state: str
    attempt: int


@dataclass(slots=True)
class Told:
    """All that was said of one call, each by the place where it was."""

    n: int
    task: str
    key: str
    begun: int
    accepted: int = NEVER
    ended: int = NEVER
    cancel: int = NEVER
    cancelled: int = NEVER
    refused: int = NEVER
    full: bool = False
    """It was refused for want of room, which means that it was not written at all."""
    runs: list[tuple[int, int]] = field(default_factory=list)
    """Of each start of the function: the place, and the attempt that it was told."""

    def begun_run(self) -> int:
        return self.runs[0][0] if self.runs else NEVER


class Wrong(NamedTuple):
    kind: str
    text: str


class Story:
    """The calls of a program, in the order in which they were made."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.calls: dict[int, Told] = {}
        self.others: list[tuple[str, ...]] = []
        """What else was said."""
        for place, event in enumerate(events):
            if event.kind == "ack":
                self._line(place, *event.data.decode().split())

    def _line(self, place: int, what: str, *words: str) -> None:
        if what == "call":
            n, task, *key = words
            self.calls[int(n)] = Told(int(n), task, key[0] if key else "", place)
            return
        if not words or not words[0].isdigit():
            self.others.append((what, *words))
            return
        call = self.calls[int(words[0])]
        match what:
            case "accepted":
                call.accepted = min(call.accepted, place)
            case "ended":
                call.ended = min(call.ended, place)
            case "cancel":
                call.cancel = min(call.cancel, place)
            case "cancelled":
                call.cancelled = min(call.cancelled, place)
            case "run":
                call.runs.append((place, int(words[1])))
            case "refused":
                call.refused, call.full = min(call.refused, place), words[1:] == ("JournalFull",)
            case _:
                self.others.append((what, *words))

    def accepted(self, place: int) -> int:
        """How many calls had been acknowledged."""
        return sum(call.accepted <= place for call in self.calls.values())

    def evidence(self, found: Mapping[int, Found]) -> int:
        """How far the program had come at least, by what a journal shows."""
        reached = -1
        for n, row in found.items():
            call = self.calls[n]
            seen = call.begun
            if row.state == "cancelled":
                seen = call.begun if call.cancel == NEVER else call.cancel
            elif row.state == "succeeded" and call.runs:
                seen = call.begun_run()
            reached = max(reached, seen)
        return reached

    def judge(self, found: Mapping[int, Found], horizon: int, cut: int) -> list[Wrong]:
        """Everything that is not as it was promised before the horizon."""
        newest: dict[str, int] = {}
        promised: dict[str, int] = {}
        running: dict[str, int] = {}
        wrongs: list[Wrong] = []
        for n, row in found.items():
            call = self.calls.get(n)
            if call is None or call.begun > cut:
                wrongs.append(Wrong("invented", f"{n} is there, and nobody called it yet"))
                continue
            if call.full and call.refused <= horizon:
                wrongs.append(Wrong("ghost", f"{call} was refused for want of room, and is there"))
            if call.key:
                newest[call.key] = max(n, newest.get(call.key, 0))
                if row.state == "running":
                    running[call.key] = running.get(call.key, 0) + 1
        wrongs += [Wrong("twice", f"{key} runs twice") for key, many in running.items() if many > 1]
        for n, call in self.calls.items():
            if call.key and call.accepted <= horizon:
                promised[call.key] = max(n, promised.get(call.key, 0))
        for n, call in self.calls.items():
            there = found.get(n)
            if there is None:
                if call.accepted <= horizon and not self._may_be_gone(call, newest, cut):
                    wrongs.append(Wrong("lost", f"{call} was accepted and is not there"))
                continue
            wrongs += self._state(call, there, horizon)
            later = max(newest.get(call.key, 0), promised.get(call.key, 0)) if call.key else 0
            if there.state == "scheduled" and later > n:
                wrongs.append(Wrong("back", f"{call} was replaced by {later}, and waits"))
        return wrongs

    def _may_be_gone(self, call: Told, newest: Mapping[str, int], cut: int) -> bool:
        if call.key and newest.get(call.key, 0) > call.n:
            return True
        return call.task == "brief" and min(call.begun_run(), call.cancel) <= cut

    def _state(self, call: Told, row: Found, horizon: int) -> list[Wrong]:
        wrongs: list[Wrong] = []
        if call.ended <= horizon and row.state != "succeeded":
            wrongs.append(Wrong("back", f"{call} had a result that was seen, and is {row.state}"))
        if call.cancelled <= horizon and row.state != "cancelled":
            wrongs.append(Wrong("back", f"{call} had been cancelled, and is {row.state}"))
        if row.state in _LIVE or call.task == "flaky":
            started = max((attempt for at, attempt in call.runs if at <= horizon), default=0)
            if row.attempt < started:
                text = f"{call} had been started {started} times, and the row says {row.attempt}"
                wrongs.append(Wrong("uncounted", text))
        return wrongs


def found_in(rows: Iterable[tuple[str, str, str, str]]) -> dict[int, Found]:
    """What (task, state, arguments, body) of rows say of the calls."""
    return {_number(arguments): Found(state, _attempt(body)) for _, state, arguments, body in rows}


@lru_cache(100_000)  # the same rows are found in state after state
def _number(arguments: str) -> int:
    return int(json.loads(arguments)["n"])


@lru_cache(100_000)
def _attempt(body: str) -> int:
    return int(json.loads(body).get("attempt", 0)) if body else 0
