"""J1 and J4 through a power cut: what was acknowledged is there, and what was over stays over.

A recorded program is a process in real time: its own system calls are what is replayed. Here are
5,000 states of the disk, and `scripts/faults power` makes a hundred thousand.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import power_trace
from tests.faults.power import Recording, Tally, record, replay, restart
from tests.faults.workplace import workplace

SEED = 1
FULL, NORMAL, STARTS = 3_000, 2_000, 60
TRIED = 200  # states among which a planted fault must be seen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        power_trace.can_record() is not None, reason=power_trace.can_record() or "it can"
    ),
]


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with workplace() as place:
        yield place


@pytest.fixture(scope="module")
def recorded(place: Path) -> Any:
    """What a kind of program did, recorded once."""
    known: dict[str, Recording] = {}

    def recorded(kind: str) -> Recording:
        if kind not in known:
            known[kind] = record(kind, SEED, place)
        return known[kind]

    return recorded


def cut(recording: Recording, count: int, place: Path, **options: bool) -> Tally:
    tally = Tally()
    replay(recording, SEED, 0, count, place, tally, **options)
    return tally


def test_full_loses_nothing(recorded: Any, place: Path) -> None:
    """With synchronous=FULL every acknowledged call, result and cancel is there after a cut.

    And the recording is worth it: the -wal was checkpointed and begun anew many times.
    """
    recording = recorded("full")
    tally = cut(recording, FULL, place)
    assert not tally.wrongs, f"{tally}\n{tally.wrongs[:5]}"
    assert tally.states == FULL
    assert tally.acknowledged > 50 * FULL
    assert len(tally.disks) > FULL // 2
    synced = [event for event in recording.events if event.kind == "sync"]
    assert sum(event.name == "timers.db" for event in synced) > 10  # each of them a checkpoint


def test_normal_is_a_journal_of_some_moment_before(recorded: Any, place: Path) -> None:
    """With NORMAL the end may be missing: what is there is sound, has no hole, and what a sync
    of the -wal had covered is among it. Some states do lose calls.
    """
    tally = cut(recorded("normal"), NORMAL, place)
    assert not tally.wrongs, f"{tally}\n{tally.wrongs[:5]}"
    assert tally.lossy > NORMAL // 20


@pytest.mark.parametrize("kind", ["full", "normal"])
def test_a_queue_starts_on_what_is_left(recorded: Any, place: Path, kind: str) -> None:
    """It runs what is due there, once, and nothing that was over."""
    tally = Tally()
    restart(recorded(kind), SEED, STARTS, place, tally)
    assert not tally.wrongs, f"{tally}\n{tally.wrongs[:5]}"
    assert tally.states == STARTS


def test_a_program_that_does_not_sync_is_seen(recorded: Any, place: Path) -> None:
    """Control: with synchronous=OFF calls are lost, and files are damaged."""
    assert {"lost", "corrupt"} <= set(cut(recorded("off"), TRIED, place).kinds())


def test_it_is_the_cut_that_loses(recorded: Any, place: Path) -> None:
    """Control of the control: on a disk that drops nothing the same program loses nothing."""
    assert not cut(recorded("off"), TRIED, place, drops=False).wrongs


def test_an_acknowledgement_before_the_commit_is_seen(recorded: Any, place: Path) -> None:
    """Control: a program that is told too early loses calls, though all is synced."""
    assert "lost" in cut(recorded("early"), TRIED, place).kinds()


def test_normal_is_not_full(recorded: Any, place: Path) -> None:
    """Control: by what FULL promises NORMAL is found wanting."""
    recording = recorded("normal")
    strict = Recording("full", recording.events, recording.story)
    assert "lost" in cut(strict, TRIED, place).kinds()


def test_a_start_on_a_bad_disk_is_seen(recorded: Any, place: Path) -> None:
    """Control: a queue that is started on what an unsynced program left runs the wrong calls."""
    tally = Tally()
    restart(recorded("off"), SEED, 50, place, tally)
    assert tally.wrongs
