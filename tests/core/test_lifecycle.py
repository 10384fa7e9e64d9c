import pytest

from asyncdefer._core.lifecycle import TRANSITIONS, Event, State, after

LIVE = {State.HELD, State.SCHEDULED, State.RUNNING}
CELLS = [(state, event) for state in State for event in Event]


@pytest.mark.parametrize(("state", "event"), [cell for cell in CELLS if cell in TRANSITIONS])
def test_a_cell_of_the_table_is_the_next_state(state: State, event: Event) -> None:
    """What follows is what the table says."""
    assert after(state, event) is TRANSITIONS[state, event]


@pytest.mark.parametrize(("state", "event"), [cell for cell in CELLS if cell not in TRANSITIONS])
def test_a_missing_cell_is_an_error(state: State, event: Event) -> None:
    """An event that has no cell is a LookupError that names both."""
    with pytest.raises(LookupError, match=f"a job that is {state} cannot {event}"):
        after(state, event)


def test_the_table_as_it_was_decided() -> None:
    """The whole table: a change of it is a decision."""
    rows = {
        state: {event.value: to.value for (was, event), to in TRANSITIONS.items() if was is state}
        for state in State
    }
    assert rows == {
        State.HELD: {
            "release": "scheduled",
            "move": "held",
            "replace": "replaced",
            "cancel": "cancelled",
            "drop": "dropped",
        },
        State.SCHEDULED: {
            "start": "running",
            "move": "scheduled",
            "replace": "replaced",
            "cancel": "cancelled",
            "expire": "expired",
            "drop": "dropped",
        },
        State.RUNNING: {
            "succeed": "succeeded",
            "fail": "failed",
            "snooze": "scheduled",
            "retry": "scheduled",
            "replace": "replaced",
            "cancel": "cancelled",
            "drop": "dropped",
        },
        State.SUCCEEDED: {},
        State.FAILED: {"redrive": "scheduled"},
        State.CANCELLED: {},
        State.EXPIRED: {},
        State.REPLACED: {},
        State.DROPPED: {},
    }


@pytest.mark.parametrize("state", State)
def test_what_has_ended_stays_as_it_is(state: State) -> None:
    """An ended job changes by a redrive and by nothing else."""
    assert state.ended == (state not in LIVE)
    if state.ended:
        assert {event for was, event in TRANSITIONS if was is state} <= {Event.REDRIVE}


def test_every_state_is_reached_from_the_first_ones() -> None:
    """No state and no event is in the table for nothing."""
    reached = {State.HELD, State.SCHEDULED}
    for _ in State:
        reached |= {to for (state, _), to in TRANSITIONS.items() if state in reached}
    assert reached == set(State)
    assert {event for _, event in TRANSITIONS} == set(Event)


@pytest.mark.parametrize("name", [State.FAILED, "failed", "FAILED", "Failed"])
def test_a_state_is_found_by_itself_its_value_and_its_name(name: State | str) -> None:
    """`jobs(state=)` takes a State or its name."""
    assert State.named(name) is State.FAILED


@pytest.mark.parametrize("name", ["done", "", 5, None])
def test_an_unknown_state_is_told_with_those_there_are(name: str) -> None:
    """The error lists the states."""
    with pytest.raises(ValueError, match=r"no state is named .*held, scheduled, .*dropped"):
        State.named(name)


def test_states_and_events_are_texts() -> None:
    """They print, compare and hash as their values."""
    assert {State.FAILED: 1}["failed"] == 1  # type: ignore[index]
    assert f"{State.FAILED} {Event.FAIL}" == "failed fail"
