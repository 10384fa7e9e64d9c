"""Bugs of the journal that the two ways of playing a program have to find."""

from collections.abc import Callable
from typing import Any, Final

import pytest
from msgspec import structs

from asyncdefer import _recording as recording
from asyncdefer import _rows as rows
from asyncdefer._books import WeakCalls
from asyncdefer._core.job import Call

Patch = pytest.MonkeyPatch
call_of = rows.call_of


def reads(change: Callable[[Call], Call]) -> Callable[..., Call]:
    return lambda *args: change(call_of(*args))


def with_more(**values: Any) -> Callable[[Call], Call]:
    def changed(call: Call) -> Call:
        call.more = structs.replace(call.more, **values)
        return call

    return changed


def far_waiters_are_forgotten(monkeypatch: Patch) -> None:
    """Those who share the answer of a far call do not keep it alive."""
    put = WeakCalls.put

    def forgetful(self: WeakCalls, call: Call) -> None:
        answer, call.answer = call.answer, None
        put(self, call)
        call.answer = answer

    monkeypatch.setattr(WeakCalls, "put", forgetful)


def far_calls_are_counted_twice(monkeypatch: Patch) -> None:
    """A far call that is replaced goes on being counted."""

    def come_near(self: Any, call: Call) -> None:
        self.books.far.pop(call.key)

    monkeypatch.setattr(recording.Recording, "_come_near", come_near)


def failures_are_forgotten(monkeypatch: Patch) -> None:
    """A restart gives a job all its attempts again."""
    monkeypatch.setattr(rows, "call_of", reads(with_more(failures=0)))


def bounds_are_forgotten(monkeypatch: Patch) -> None:
    """A restart lets a burst begin anew."""
    monkeypatch.setattr(rows, "call_of", reads(with_more(bound=None)))


def rates_are_forgotten(monkeypatch: Patch) -> None:
    """A restart is a way around a rate limit."""
    monkeypatch.setattr(recording.Recording, "_restore_rates", lambda self: None)


def grids_are_forgotten(monkeypatch: Patch) -> None:
    """A schedule counts from the restart."""
    monkeypatch.setattr(rows, "call_of", reads(with_more(grid=None)))


def options_are_forgotten(monkeypatch: Patch) -> None:
    """What was given to one call is read from its task after a restart."""
    monkeypatch.setattr(rows, "portable", lambda options: None)


BUGS: Final[dict[str, list[Callable[[Patch], None]]]] = {
    "memory": [far_waiters_are_forgotten, far_calls_are_counted_twice],
    "restarts": [
        failures_are_forgotten, bounds_are_forgotten, rates_are_forgotten, grids_are_forgotten,
        options_are_forgotten,
    ],
}  # fmt: skip
