"""Kill -9: nothing that was acknowledged is lost, whenever and however often the program dies.

Real time and real processes, since a process that is killed is what is tested: a life takes some
fifty milliseconds. The lives are forked from a process of their own, in which there is no event
loop, no SQLite connection and no thread. What a death by kill -9 cannot show is what the disk has:
`synchronous=OFF` passes here, and is for the power cuts to find.

`scripts/faults kill` dies 10,000 times; one seed again: `scripts/faults kill --first 17 --seeds 1`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.kill_planted import BUGS
from tests.faults.ledger import Judge

ROOT = Path(__file__).parents[2]
CYCLES = 1_000  # deaths
PACKED = 250  # in one test
TRIED = 40  # seeds after which a planted bug should have been seen
LIVES = 10  # of each of these; one or two seeds are enough for most
FIRST = {
    # A seed that finds the bug soon; 1 for all others.
    "a_start_before_it_is_recorded": 4,
    "an_outcome_before_it_is_recorded": 4,
    "a_move_that_is_not_logged": 2,
}

forks = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there is no pidfd_open here")


def kill(*arguments: object, harness: str = "kill") -> subprocess.CompletedProcess[str]:
    """The fork server, in a process of its own."""
    command = [sys.executable, "-m", f"tests.faults.{harness}", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@forks
@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, CYCLES, PACKED))
def test_whatever_is_killed_goes_on(first: int) -> None:
    """Every law of the journal holds over fifty lives, at random instants and at named ones."""
    done = kill("--first", first, "--cycles", PACKED)
    assert done.returncode == 0, done.stdout + done.stderr
    killed = re.search(r"kill: (\d+) killed .* 0 lost, 0 journals wrong", done.stdout)
    assert killed is not None, done.stdout
    assert int(killed[1]) >= PACKED


@forks
@pytest.mark.slow
@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_seen(bug: str) -> None:
    """The ledger can fail: a bug of each kind is found soon, by the law that it breaks, with its
    command.
    """
    first = FIRST.get(bug, 1)
    done = kill("--plant", bug, "--first", first, "--seeds", TRIED, "--lives", LIVES)
    assert done.returncode == 1, done.stdout + done.stderr
    broken = re.search(r"(Attribute|Type|Name|Import)Error", done.stdout)
    assert not broken, f"not the bug is found, but that it no longer fits: {done.stdout}"
    assert re.search(r"again with: scripts/faults kill --first \d+ --seeds 1", done.stdout)


@forks
@pytest.mark.slow
def test_three_crashes_are_enough() -> None:
    """A job that kills its process has failed at the third time, and its neighbours end well."""
    done = kill("--seeds", 25, harness="kill_crashes")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 journals wrong" in done.stdout


@forks
@pytest.mark.parametrize(
    ("allowed", "law"), [(2, "killer .* has killed 2 times"), (4, "killer .* after 4 starts")]
)
def test_a_wrong_number_of_crashes_is_seen(allowed: int, law: str) -> None:
    """The harness of the killers can fail too."""
    done = kill("--seeds", 2, "--allowed", allowed, harness="kill_crashes")
    assert done.returncode == 1
    assert re.search(law, done.stdout), done.stdout + done.stderr
    assert "again with: scripts/faults crashes --first" in done.stdout


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
