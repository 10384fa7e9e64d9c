"""J1, J2 and J3 when a sync fails and then the power: what was said rests on what is on the disk.

After a failed sync the frames of a commit are in the -wal as the system has it in memory. Whoever
reads them there and goes on builds on what a power cut may take back. The program of `syscalls` is
recorded with its failing syncs, and cut as all recordings are.
"""

import sys
from pathlib import Path

import pytest

from tests.faults import power_trace
from tests.faults.power import ROOT, Recording, Tally, replay
from tests.faults.power_story import Story
from tests.faults.power_trace import Event
from tests.faults.workplace import workplace

STATES = 150

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        power_trace.can_record() is not None, reason=power_trace.can_record() or "it can"
    ),
]


def played(fault: str, place: Path, *words: str, forgets: bool = False) -> Tally:
    """What is found after cuts of a program whose system calls failed.

    `forgets`: of what could not be synced nothing is ever written, though a later sync is fine:
    that is how Linux does it.
    """
    folder, trace, tally = place / "recorded", place / "trace", Tally()
    folder.mkdir()
    command = [sys.executable, "-m", "tests.faults.syscalls_program", str(folder), "5", *words]
    assert power_trace.record(command, trace, cwd=ROOT, fault=fault) == 0
    events, _ = power_trace.read([trace], folder)
    assert any(event.kind == "failed" for event in events), "nothing has failed"
    if forgets:
        events = forgotten(events)
    replay(Recording("full", events, Story(events)), 0, 0, STATES, place, tally)
    return tally


def forgotten(events: list[Event]) -> list[Event]:
    """The same without the writes to the -wal that a sync should have covered, and failed."""
    found, since = list(events), 0
    for place, event in enumerate(events):
        if event.kind == "failed":
            for number in range(since, place):
                if (found[number].kind, found[number].name) == ("write", "timers.db-wal"):
                    found[number] = Event("nothing")
        if event.kind in ("sync", "failed"):
            since = place
    return found


def failing(n: int, many: int) -> str:
    return f"fdatasync:error=EIO:when={n}..{n + many - 1}"


@pytest.mark.parametrize(("n", "many"), [(8, 1), (18, 1), (8, 2), (16, 2), (20, 2), (26, 2)])
def test_syncs_that_fail(n: int, many: int) -> None:
    """What a waiter saw, and what began to run, is on the disk before."""
    with workplace() as place:
        tally = played(failing(n, many), place)
    assert not tally.wrongs, f"{tally}\n{tally.wrongs[:3]}"


@pytest.mark.parametrize("n", [8, 18, 26])
def test_a_system_that_forgets_what_it_could_not_write(n: int) -> None:
    """What is acknowledged after two failed syncs does not build on what was never written (J1)."""
    with workplace() as place:
        tally = played(failing(n, 2), place, forgets=True)
    assert "lost" not in tally.kinds(), f"{tally}\n{tally.wrongs[:3]}"


def test_an_acknowledgement_in_spite_of_a_failed_sync_is_seen() -> None:
    """Control: a program that says "accepted" whatever becomes of the commit is found out."""
    with workplace() as place:
        tally = played(failing(10, 2), place, "early")
    assert "lost" in tally.kinds(), f"{tally}"
