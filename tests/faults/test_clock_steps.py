"""T3, T4 and J1 with a clock that is set by an hour, while the program runs and while it is down.

An eta follows the wall clock through every step, a delay does not notice any; nothing is early by
the clock it follows, nothing is lost, and nothing spins. The program is a process in real time,
once with a clock that libfaketime steps under it, once with one whose wall it shifts itself. That
something does *not* happen is seen by waiting for a while.
"""

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, Final

import pytest

from tests.faults.power import ROOT

HOUR: Final = 3600
NOTICED: Final = 3.0  # seconds: the wall is read again every second, and machines are busy
QUIET: Final = 2.5  # real seconds in which a job that must not run would have
SPIN: Final = 0.5  # of a core: less than this is no busy loop
LIBRARIES: Final = [
    path
    for folder in ("/usr/lib", "/usr/local/lib", "/usr/lib64")
    for path in Path(folder).glob("**/faketime/libfaketime.so.1")
]

pytestmark = pytest.mark.slow


class Child:
    """The program, and what it tells."""

    def __init__(self, folder: Path, how: str) -> None:
        self.folder, self.how = folder, how
        self.ran: dict[int, tuple[int, int, int]] = {}
        self.times: dict[str, int] = {}
        self.shifted = 0
        self._stamp = folder / "stamp"
        environment = dict(os.environ)
        if how == "faketime":
            self._stamp.write_text("+0")
            environment |= {
                "LD_PRELOAD": str(LIBRARIES[0]),
                "FAKETIME_TIMESTAMP_FILE": str(self._stamp),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_NO_CACHE": "1",
            }
        clock = "system" if how == "faketime" else how
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.syscalls_clock", str(folder), clock],
            cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)

    def _listen(self, until: Callable[[str], Any], seconds: float) -> bool:
        """Hear what it tells until something is said; False if it is not in time."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                return False
            what, *words = line.split()
            if what == "ran":
                assert int(words[0]) not in self.ran, f"{words[0]} ran twice"
                self.ran[int(words[0])] = int(words[1]), int(words[2]), int(words[3])
            if until(line):
                return True
        return False

    def tell(self, *words: object, answer: str = "done") -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        told: list[str] = []

        def heard(line: str) -> bool:
            told.append(line)
            return line.startswith(answer)

        assert self._listen(heard, 20), f"{words} was not answered in 20 s"
        if answer == "done":
            self.times[" ".join(map(str, words[:2]))] = int(told[-1].split()[-1])
        return told[-1]

    def shift(self, seconds: int) -> None:
        """Set the wall clock, as an administrator would."""
        self.shifted += seconds
        if self.how == "faketime":
            new = self._stamp.with_name("stamp.new")
            new.write_text(f"{self.shifted:+d}")
            new.replace(self._stamp)
        else:
            self.tell("shift", seconds)

    def runs(self, n: int, within: float) -> bool:
        """Wait for a run; whether it came in time."""
        return n in self.ran or self._listen(lambda _: n in self.ran, within)

    def is_quiet(self, n: int, seconds: float = QUIET) -> None:
        assert not self.runs(n, seconds), f"{n} ran, and its time has not come"

    def cpu(self) -> float:
        return float(self.tell("cpu", answer="cpu").split()[1])

    def early(self) -> list[int]:
        """Those that began before their eta, by the wall clock of that moment."""
        return [n for n, (wall, eta, _) in self.ran.items() if wall < eta]

    def waited(self, n: int) -> float:
        """Seconds from a call with a delay to its run."""
        return (self.ran[n][2] - self.times[f"delay {n}"]) / 1e6

    def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            assert self.process.wait(20) == 0
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(20)
            assert self.process.stdout is not None
            self.process.stdout.close()


@contextmanager
def lives(folder: Path, how: str) -> Iterator[Child]:
    child = Child(folder, how)
    try:
        yield child
    finally:
        child.end()


fakes = pytest.mark.skipif(not LIBRARIES, reason="libfaketime is not installed")


@pytest.fixture(params=["shifted", pytest.param("faketime", marks=fakes)])
def child(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Child]:
    with lives(tmp_path, request.param) as child:
        yield child


def test_forward_while_it_runs(child: Child) -> None:
    """Etas that have come run at once, those that have not wait; a delay notices nothing, unless
    it is beyond the horizon: then it follows the wall clock too.
    """
    child.tell("start")
    child.tell("eta", 1, HOUR - 60)
    child.tell("eta", 2, HOUR + 2)
    child.tell("eta", 3, 3 * HOUR)
    child.tell("delay", 4, 3)
    child.tell("delay", 5, 500)
    child.tell("delay", 6, HOUR - 60)
    child.is_quiet(1, 0.5)
    child.shift(HOUR)
    assert child.runs(1, NOTICED)
    assert child.runs(6, NOTICED)
    assert child.runs(2, 2 + NOTICED)
    assert child.runs(4, 3 + NOTICED)
    assert child.waited(4) >= 2.99
    child.is_quiet(5)
    assert sorted(child.ran) == [1, 2, 4, 6]
    assert child.early() == []


def test_back_while_it_runs(child: Child) -> None:
    """An eta waits for its time, an hour longer; a delay does not. No second is spent on it."""
    child.tell("start")
    child.tell("eta", 1, 1.5)
    child.tell("delay", 2, 1.5)
    child.shift(-HOUR)
    began = child.cpu()
    assert child.runs(2, 1.5 + NOTICED)
    assert child.waited(2) >= 1.49
    child.is_quiet(1)
    assert child.cpu() - began < SPIN * QUIET
    child.shift(HOUR)
    assert child.runs(1, NOTICED)
    assert 1 not in child.early()


@pytest.mark.parametrize("by", [HOUR, -HOUR])
def test_while_it_is_down(child: Child, by: int) -> None:
    """After a restart all of them follow the wall clock: what is due runs, what is not waits."""
    child.tell("start")
    child.tell("eta", 1, 1800)
    child.tell("delay", 2, 1800)
    child.tell("eta", 3, 2 * HOUR)
    child.tell("close")
    child.shift(by)
    child.tell("start")
    if by < 0:
        began = child.cpu()
        child.is_quiet(1)
        assert child.ran == {}
        assert child.cpu() - began < SPIN * QUIET
        child.tell("eta", 4, 0.2)  # ids grow all the same
        assert child.runs(4, 0.2 + NOTICED)
        child.shift(2 * HOUR)
    assert child.runs(1, NOTICED)
    assert child.runs(2, NOTICED)
    assert 3 not in child.ran
    child.tell("close")
    child.shift(2 * HOUR)
    child.tell("start")
    assert child.runs(3, NOTICED)
    assert child.early() == []


def test_a_clock_that_is_not_read_again_is_seen(tmp_path: Path) -> None:
    """Control: a queue that reads the wall once sleeps through a step."""
    with lives(tmp_path, "deaf") as child:
        child.tell("start")
        child.tell("eta", 1, HOUR)
        child.is_quiet(1, 1)
        child.shift(HOUR)
        assert not child.runs(1, NOTICED)


def test_a_delay_that_follows_the_wall_is_seen(tmp_path: Path) -> None:
    """Control: if the steady clock is set with the wall, a delay is cut short."""
    with lives(tmp_path, "dragged") as child:
        child.tell("start")
        child.tell("delay", 1, 600)
        child.tell("eta", 2, 2)
        child.shift(HOUR)
        assert child.runs(1, 2 + NOTICED)
        assert child.waited(1) < 590
