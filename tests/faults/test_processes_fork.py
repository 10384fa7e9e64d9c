"""A fork in the middle of writes: the parent's journal stays whole, and no child writes to it.

Real processes and real time, since a fork is what is tested. They are forked by a program of their
own (`kill_forks.py`), so that this process, with all that pytest holds, is not.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.kill_forks import ENDS, INSIDE

ROOT = Path(__file__).parents[2]
FORKS = 6


def forks(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.faults.kill_forks", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


pytestmark = pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="there is no pidfd_open here")


@pytest.mark.slow
@pytest.mark.parametrize("how", ENDS)
def test_children_of_the_main_thread(how: str) -> None:
    """However a child ends, the parent goes on, and has exactly the calls that it was told of."""
    done = forks("--how", how, "--forks", FORKS)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{FORKS} forks in 1 programs" in done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("how", INSIDE)
def test_children_of_the_thread_of_the_loop(how: str) -> None:
    """Forked by a coroutine, beside the writer; what leaves the loop there is asyncio's own matter."""
    done = forks("--how", how, "--forks", FORKS, "--inside")
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_child_that_writes_is_seen() -> None:
    """The harness can fail: a row that nobody was told of is one too many."""
    done = forks("--how", "_exit", "--forks", 2, "--plant")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "0 calls are lost, 1 is there by itself" in done.stdout
