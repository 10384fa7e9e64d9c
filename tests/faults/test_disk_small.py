"""J9 on a small disk: calls are refused, what was accepted is run, and nothing of it is lost.

The program is a process in real time: it has a mount of 2 MiB, or a limit of its own for the size
of a file. It fills the journal, runs and cancels jobs when not one call more is accepted, and
either is killed there or gets room back. What is left is opened on a disk that has room.
"""

import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.faults import power_start
from tests.faults.power import ROOT, rows_of, started
from tests.faults.power_story import NEVER, Found, Story, Wrong
from tests.faults.power_trace import Event
from tests.faults.workplace import workplace

WATCH: Final = 100  # real seconds after which the program hangs
MOUNT: Final = (
    'mount -t tmpfs -o size=2m small "$1" || exit 99; '
    '"$5" -m tests.faults.syscalls_disk "$1" "$2" "$3" "$4"; code=$?; '
    'cp "$1"/timers.db* "$6" 2>/dev/null; exit $code'
)


@cache
def _cannot_mount() -> str | None:
    if shutil.which("unshare") is None:
        return "there is no unshare"
    tried = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs small /mnt"],
        capture_output=True,
        check=False,
    )
    return None if tried.returncode == 0 else "a program may not have mounts of its own here"


mounts = pytest.mark.skipif(_cannot_mount() is not None, reason=_cannot_mount() or "it can")
HOWS = ["limit", pytest.param("mount", marks=mounts)]
pytestmark = pytest.mark.slow


@dataclass
class Life:
    """What became of the program."""

    code: int
    said: str
    story: Story
    path: Path
    lines: int


@pytest.fixture
def place() -> Iterator[Path]:
    with workplace() as place:
        yield place


def lived(how: str, end: str, place: Path) -> Life:
    """Let the program fill its disk; its journal is on a larger one afterwards."""
    small, left, acks = place / "small", place / "left", place / "acks"
    small.mkdir()
    left.mkdir()
    if how == "limit":
        command = [sys.executable, "-m", "tests.faults.syscalls_disk"]
        command += [str(small), str(acks), how, end]
        left = small
    else:
        command = ["unshare", "-Urm", "sh", "-c", MOUNT, "sh"]
        command += [str(small), str(acks), how, end, sys.executable, str(left)]
    done = subprocess.run(
        command, cwd=ROOT, timeout=WATCH, check=False, capture_output=True, text=True
    )
    lines = acks.read_bytes().splitlines()
    story = Story(Event("ack", data=line) for line in lines)
    return Life(done.returncode, done.stderr[-3000:], story, left / "timers.db", len(lines))


def judged(life: Life) -> tuple[Counter[str], list[Wrong]]:
    """In which states its jobs are, and what is not as it was told, now and after a start."""
    found = started(life.path, rows_of(life.path))
    if isinstance(found, Wrong):
        return Counter(), [found]
    wrongs = life.story.judge(found.before, life.lines, life.lines)
    wrongs += power_start.judge(life.story, *found, life.lines, life.lines)
    wrongs += life.story.judge(found.after, life.lines, life.lines)
    return states(found.before), wrongs


def states(rows: dict[int, Found]) -> Counter[str]:
    return Counter(row.state for row in rows.values())


@pytest.mark.parametrize("how", HOWS)
def test_what_was_accepted_is_worked_off_on_a_full_disk(how: str, place: Path) -> None:
    """Calls are `JournalFull`; starts, ends and cancels are recorded; then there is room again,
    calls are accepted again, and not one that was accepted is lost.
    """
    life = lived(how, "close", place)
    assert life.code == 0, life.said
    assert ("closed",) in life.story.others
    calls = life.story.calls.values()
    refused = [call for call in calls if call.refused < NEVER]
    assert refused
    assert all(call.full for call in refused), "no room, and said in other words"
    found, wrongs = judged(life)
    assert not wrongs, wrongs[:5]
    assert found == {
        "succeeded": 60,
        "cancelled": 60,
        "scheduled": sum(call.accepted < NEVER for call in calls) - 120,
    }


@pytest.mark.parametrize("how", HOWS)
def test_a_program_that_dies_on_a_full_disk_has_lost_nothing(how: str, place: Path) -> None:
    """What it recorded there is as good as any; and what it refused never comes back."""
    life = lived(how, "kill", place)
    assert life.code == (-9 if how == "limit" else 137), life.said
    found, wrongs = judged(life)
    assert not wrongs, wrongs[:5]
    assert (found["succeeded"], found["cancelled"]) == (60, 60)


@mounts
def test_without_a_reserve_it_would_not_do(place: Path) -> None:
    """Control: where there can be no reserve, what happens on a full disk is not recorded: that is
    said, and what was acknowledged is there all the same.
    """
    life = lived("bare", "close", place)
    assert life.code != 0
    assert "JournalFull" in life.said
    assert life.story.others[-1] == ("doing", "work")
    assert not judged(life)[1]


def test_a_loss_is_seen(place: Path) -> None:
    """Control: a journal from which rows were taken, or in which ended ones wait, is found out."""
    life = lived("limit", "kill", place)
    with closing(sqlite3.connect(life.path)) as db, db:
        db.execute("DELETE FROM asyncdefer_jobs WHERE id = (SELECT max(id) FROM asyncdefer_jobs)")
        db.execute("UPDATE asyncdefer_meta SET value = value - 1 WHERE name = 'scheduled'")
    assert "lost" in {wrong.kind for wrong in judged(life)[1]}
