"""J9 when single system calls fail: errors at the call, no false acknowledgement, and recovery.

The program is a process in real time, since the faults are put into real system calls. Here the
calls that matter fail once each; `scripts/faults syscalls` has all of them fail.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import power_trace
from tests.faults.syscalls import Trial, judged, trial, trials
from tests.faults.workplace import workplace

SOME = 8  # trials of one kind of fault

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        power_trace.can_record() is not None, reason=power_trace.can_record() or "it can"
    ),
]


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with workplace() as place:
        yield place / "faults"


def well(found: list[Trial]) -> None:
    wrongs = [f"{one}, {wrong.kind}: {wrong.text}" for one in found for wrong in one.wrongs]
    assert not wrongs, "\n".join(wrongs[:5])


@pytest.mark.parametrize(
    ("fault", "every"),
    [("openat:EMFILE", 1), ("openat:EIO", 3), ("ftruncate:EIO", 1), ("fsync:EIO", 1)],
)
def test_a_start_that_fails_says_so(folder: Path, fault: str, every: int) -> None:
    """Each of the calls that open the journal, or cut it, fails once: the start is refused with a
    `JournalError`, or the program does without it; and it starts again.
    """
    found = trials(fault, folder, every=every)
    well(found)
    assert found[-1].hits == 0  # to the last call
    assert fault != "openat:EMFILE" or any(one.unstarted for one in found)


@pytest.mark.parametrize(
    ("fault", "first", "last"),
    [("fdatasync:EIO", 3, 27), ("pwrite64:EIO", 30, 130), ("pwrite64:ENOSPC", 30, 130)],
)
def test_a_write_that_fails_is_no_acknowledgement(
    folder: Path, fault: str, first: int, last: int
) -> None:
    """Its calls are refused, all others run, and what was refused does not run twice."""
    found = trials(fault, folder, first=first, last=last, every=max((last - first) // SOME, 1))
    well(found)
    assert sum(bool(one.hits) for one in found) >= SOME // 2
    assert fault == "pwrite64:ENOSPC" or any(one.refused for one in found)


@pytest.mark.parametrize(
    ("fault", "n"),
    [("fdatasync:EIO", 12), ("pwrite64:ENOSPC", 60), ("openat:EMFILE", 4), ("unlink:EIO", 1)],
)
def test_a_disk_that_fails_for_good(folder: Path, fault: str, n: int) -> None:
    """The program closes its queue in time, and on a disk that works all that was acknowledged is
    there and runs.
    """
    well([trial(fault, n, folder, ever_after=True)])


def test_a_false_acknowledgement_is_seen(folder: Path) -> None:
    """Control: a program that does not wait for the commit is found out."""
    found = (trial("fdatasync:EIO", n, folder, early=True) for n in range(9, 30))
    assert any("lost" in {wrong.kind for wrong in one.wrongs} for one in found)


def test_a_program_that_hangs_is_seen(folder: Path) -> None:
    """Control: what does not end in time is wrong, unless the disk fails for good."""
    found = trial("pwrite64:ENOSPC", 60, folder, ever_after=True)
    assert not found.wrongs
    once = replace(found, ever_after=False)
    assert "hangs" in {wrong.kind for wrong in judged(once, folder)}
