"""Found: what is read again after a failed commit counts as recorded, though it was never synced.

When the sync of a commit fails, and that of the close of its connection too, the frames are in the
-wal as the system has it in memory. The new connection reads them, and `Journal._read_again` takes
starts and ends for done: a run begins, a waiter sees its result. A power cut before the next good
sync takes them back: a start that was not counted (J2), a result that runs again (J3).

What helped in a trial: `PRAGMA wal_checkpoint(TRUNCATE)` on the new connection in `File._ready`,
which is an error as long as it cannot be done: what is read then is on the disk. It also writes
the pages anew, which matters where the system forgets pages that it could not write.

    pytest tests/faults/found_unsynced.py
"""

import sys
from pathlib import Path

import pytest

from tests.faults import power_trace
from tests.faults.power import ROOT, Recording, Tally, replay, workplace
from tests.faults.power_story import Story
from tests.faults.power_trace import Event


def played(fault: str, place: Path, states: int, *, forgets: bool = False) -> Tally:
    """What is found after cuts of a program whose system calls failed.

    `forgets`: of what could not be synced nothing is ever written, though a later sync is fine:
    that is how Linux does it.
    """
    folder, trace, tally = place / "recorded", place / "trace", Tally()
    folder.mkdir()
    command = [sys.executable, "-m", "tests.faults.syscalls_program", str(folder), "5"]
    assert power_trace.record(command, trace, cwd=ROOT, fault=fault) == 0
    events, _ = power_trace.read([trace], folder)
    if forgets:
        events = forgotten(events)
    replay(Recording("full", events, Story(events)), 0, 0, states, place, tally)
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


@pytest.mark.parametrize("n", [8, 16, 18, 20, 26, 28])
def test_two_syncs_that_fail_in_a_row(n: int) -> None:
    """What a waiter saw, and what began to run, is on the disk before."""
    with workplace() as place:
        tally = played(f"fdatasync:error=EIO:when={n}..{n + 1}", place, 400)
    assert not tally.wrongs, f"{tally}\n{tally.wrongs[:3]}"


@pytest.mark.parametrize("n", [8, 16, 18, 20, 26, 28])
def test_a_system_that_forgets_what_it_could_not_write(n: int) -> None:
    """What is acknowledged after two failed syncs does not build on what was never written (J1)."""
    with workplace() as place:
        tally = played(f"fdatasync:error=EIO:when={n}..{n + 1}", place, 400, forgets=True)
    assert "lost" not in tally.kinds(), f"{tally}\n{tally.wrongs[:3]}"


@pytest.mark.parametrize("n", [8, 16, 18, 20])
def test_one_sync_that_fails(n: int) -> None:
    """Then it holds: the close of the connection takes back what was not synced."""
    with workplace() as place:
        tally = played(f"fdatasync:error=EIO:when={n}", place, 400)
    assert not tally.wrongs, f"{tally}\n{tally.wrongs[:3]}"
