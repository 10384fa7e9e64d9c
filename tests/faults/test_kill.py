"""Kill -9: nothing that was acknowledged is lost, whenever and however often the program dies.

Real time and real processes, since a process that is killed is what is tested: a life takes some
fifty milliseconds. The lives are forked from a process of their own, in which there is no event
loop, no SQLite connection and no thread. What a death by kill -9 cannot show is what the disk has:
`synchronous=OFF` passes here, and is for the power cuts to find.

`scripts/faults` runs 10,000 lives; one seed again: `scripts/faults --first 17 --seeds 1`.
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.kill_planted import BUGS
from tests.faults.ledger import Judge

ROOT = Path(__file__).parents[2]
SEEDS = 20  # of forty lives each: 800 take a minute when two others work on the machine
PACKED = 5  # seeds in one test
TRIED = 40  # seeds of fifteen lives after which a planted bug should have been seen


def kill(*arguments: object, harness: str = "kill") -> subprocess.CompletedProcess[str]:
    """The fork server, in a process of its own."""
    command = [sys.executable, "-m", f"tests.faults.{harness}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, PACKED))
def test_whatever_is_killed_goes_on(first: int) -> None:
    """Every law of the journal holds over forty deaths, at random instants and at named ones."""
    done = kill("--first", first, "--seeds", PACKED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 lost" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_seen(bug: str) -> None:
    """The ledger can fail: a bug of each kind is found within some hundred lives, with its command."""
    done = kill("--plant", bug, "--seeds", TRIED, "--lives", 15)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = re.search(r"AttributeError|TypeError|NameError", done.stdout)
    assert not broken, f"not the bug is found, but that it no longer fits: {done.stdout}"
    assert re.search(r"again with: scripts/faults .*--first \d+ --seeds 1", done.stdout), (
        done.stdout
    )


@pytest.mark.slow
def test_three_crashes_are_enough() -> None:
    """A job that kills its process has failed at the third time, and its neighbours end well."""
    done = kill("--seeds", 40, harness="kill_crashes")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("allowed", [2, 4])
def test_a_wrong_number_of_crashes_is_seen(allowed: int) -> None:
    """The harness of the killers can fail too."""
    done = kill("--seeds", 10, "--allowed", allowed, harness="kill_crashes")
    assert done.returncode == 1
    assert "again with: python -m tests.faults.kill_crashes --first" in done.stdout, done.stderr


def judged(*events: tuple[object, ...]) -> list[str]:
    """What a ledger shows in which these events stand: (boot, word, values…)."""
    judge = Judge()
    return judge.judge((boot, at, word, values) for at, (boot, word, *values) in enumerate(events))  # type: ignore[misc]


CALL = (0, "boot_begins", 4), (0, "calling", 1, "note", None, 0, 1), (0, "acked", 1)
RUN = (0, "taken", 1, 1), (0, "started", 1, "id", 1), (0, "ended", 1, 1, "ok", 0)


def test_a_call_that_never_ran_is_lost() -> None:
    """An acknowledged call has to come to its end; one of which nothing is known need not."""
    assert "is lost" in judged(*CALL, (0, "died", ""), (1, "drained"))[0]
    assert judged(*CALL[:2], (0, "died", ""), (1, "drained")) == []
    assert judged(*CALL, *RUN, (0, "drained")) == []


def test_a_run_may_be_repeated_after_a_death_only() -> None:
    """At least once, and exactly once for whoever was told."""
    again = (1, "boot_begins", 4), (1, "taken", 1, 2), (1, "started", 1, "id", 2)
    assert judged(*CALL, *RUN, (0, "died", ""), *again) == []
    assert "twice" in judged(*CALL, *RUN, (0, "started", 1, "id", 2))[0]
    assert "waiter" in judged(*CALL, *RUN, (0, "seen", 1, "its result"), (0, "died", ""), *again)[0]
    assert "close" in judged(*CALL, *RUN, (0, "closed"), *again)[0]
    assert "attempt" in judged(*CALL, *RUN, (0, "died", ""), again[0], *RUN[:2])[0]


def test_a_replaced_call_does_not_start() -> None:
    """Once the newer call is acknowledged; of two that are not, one starts."""
    two = [(0, "boot_begins", 4), *((0, "calling", n, "note", "k", 0, 1) for n in (1, 2))]
    older = (1, "boot_begins", 4), (1, "started", 1, "id", 1), (1, "ended", 1, 1, "ok", 0)
    assert "replaced" in judged(*two, (0, "acked", 2), (0, "died", ""), *older)[0]
    assert judged(*two, (0, "acked", 1), (0, "died", ""), *older) == []
    both = *older, (1, "started", 2, "id2", 1)
    assert "older" in judged(*two, (0, "acked", 1), (0, "died", ""), *both)[0]
