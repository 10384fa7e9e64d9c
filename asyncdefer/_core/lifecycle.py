"""The lifecycle of a job as a table: a missing cell is an error.

The figure in the documentation is drawn from this table.
"""

from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a job is in its life."""

    HELD = "held"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REPLACED = "replaced"
    DROPPED = "dropped"

    __hash__ = str.__hash__  # that of Enum is a Python function, and states are keys on hot paths

    @property
    def ended(self) -> bool:
        """Nothing more will happen by itself."""
        return self not in _LIVE

    @classmethod
    def named(cls, name: "State | str") -> "State":
        """A state by itself, its name or its value, as `jobs(state=)` takes it."""
        try:
            return cls(name.lower())
        except (ValueError, AttributeError):
            known = ", ".join(cls)
            raise ValueError(f"no state is named {name!r}; the states are {known}") from None


class Event(StrEnum):
    """What happens to a job."""

    RELEASE = "release"
    START = "start"
    SUCCEED = "succeed"
    FAIL = "fail"
    SNOOZE = "snooze"
    RETRY = "retry"
    MOVE = "move"
    REPLACE = "replace"
    CANCEL = "cancel"
    EXPIRE = "expire"
    DROP = "drop"
    REDRIVE = "redrive"

    __hash__ = str.__hash__  # as above


_LIVE: Final = frozenset({State.HELD, State.SCHEDULED, State.RUNNING})

TRANSITIONS: Final[dict[tuple[State, Event], State]] = {
    (State.HELD, Event.RELEASE): State.SCHEDULED,
    (State.HELD, Event.MOVE): State.HELD,
    (State.HELD, Event.REPLACE): State.REPLACED,
    (State.HELD, Event.CANCEL): State.CANCELLED,
    (State.HELD, Event.DROP): State.DROPPED,
    (State.SCHEDULED, Event.START): State.RUNNING,
    (State.SCHEDULED, Event.MOVE): State.SCHEDULED,
    (State.SCHEDULED, Event.REPLACE): State.REPLACED,
    (State.SCHEDULED, Event.CANCEL): State.CANCELLED,
    (State.SCHEDULED, Event.EXPIRE): State.EXPIRED,
    (State.SCHEDULED, Event.DROP): State.DROPPED,
    (State.RUNNING, Event.SUCCEED): State.SUCCEEDED,
    (State.RUNNING, Event.FAIL): State.FAILED,
    (State.RUNNING, Event.SNOOZE): State.SCHEDULED,
    (State.RUNNING, Event.RETRY): State.SCHEDULED,
    (State.RUNNING, Event.REPLACE): State.REPLACED,
    (State.RUNNING, Event.CANCEL): State.CANCELLED,
    (State.RUNNING, Event.DROP): State.DROPPED,
    (State.FAILED, Event.REDRIVE): State.SCHEDULED,
}

FROM_RUNNING: Final = {
    event: to for (state, event), to in TRANSITIONS.items() if state is State.RUNNING
}


def after(state: State, event: Event) -> State:
    """The state that follows; `LookupError` where the table has no cell."""
    try:
        return TRANSITIONS[state, event]
    except KeyError:
        raise LookupError(f"a job that is {state} cannot {event}") from None
