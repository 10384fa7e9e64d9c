"""System calls that fail: an error at the call, no false acknowledgement, and the program lives.

A program (`syscalls_program`) runs under strace, which makes the n-th call of a kind on the
journal's files fail, for n = 1, 2, 3 … until none is hit any more. Each thread counts for itself,
so both lives of the program, each with a thread of its own at the journal, are hit. Then a queue is
started without faults, runs what is due, and all must be as the program had been told.

    scripts/faults syscalls
    scripts/faults syscalls --fault fdatasync:EIO --first 12 --last 12
"""

import argparse
import logging
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from tests.faults import power_start, power_trace
from tests.faults.power import ROOT, rows_of, started
from tests.faults.power_story import NEVER, Story, Wrong
from tests.faults.power_trace import Event
from tests.faults.workplace import progress, say, workplace

FAULTS: Final = (
    "fdatasync:EIO", "fdatasync:ENOSPC", "pwrite64:EIO", "pwrite64:ENOSPC", "pread64:EIO",
    "openat:EMFILE", "openat:EIO", "openat:ENOSPC", "ftruncate:EIO", "ftruncate:ENOSPC",
    "fsync:EIO", "fallocate:ENOSPC", "unlink:EIO",
)  # fmt: skip
LIMIT: Final = 40  # real seconds after which a program hangs
ONCE, EVER_AFTER = 10.0, 0.5  # real seconds for which the program waits
_FILES: Final = ("", "-wal", "-shm", "-journal", "-lock", "-lock-journal", "-reserve", "-probe")
_KNOWN: Final = ("JournalError", "JournalFull", "JournalLocked", "Unknown")


@dataclass
class Trial:
    """One run of the program with its faults, and what was found afterwards."""

    fault: str
    n: int
    ever_after: bool
    hits: int = 0
    accepted: int = 0
    refused: int = 0
    unstarted: int = 0
    wrongs: list[Wrong] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.fault} at {self.n}{'+' * self.ever_after}"


def trial(
    fault: str,
    n: int,
    folder: Path,
    *,
    ever_after: bool = False,
    early: bool = False,
) -> Trial:
    """Run the program with the n-th call failing, or all from there on, and judge what is left.

    `early`: it says "accepted" before the commit, and must be found out.
    """
    tried = Trial(fault, n, ever_after)
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    call, error = fault.split(":")  # of several calls, with a comma between
    path, trace = folder / "timers.db", folder / "trace"
    strace = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", str(trace), "-e", "signal=none"]
    for name in (folder, *(f"{path}{suffix}" for suffix in _FILES)):
        strace += ["-P", str(name)]
    strace += ["-e", f"trace={call}", "-e", f"inject={call}:error={error}:when={n}"]
    strace[-1] += "+" * ever_after
    patience = EVER_AFTER if ever_after else ONCE
    command = [*strace, sys.executable, "-m", "tests.faults.syscalls_program"]
    command += [str(folder), str(patience), *(["early"] if early else [])]
    try:
        done = subprocess.run(
            command, cwd=ROOT, timeout=LIMIT, check=False, capture_output=True, text=True
        )
    except subprocess.TimeoutExpired:
        tried.wrongs.append(Wrong("hangs", f"the program did not end in {LIMIT} s"))
        return tried
    tried.hits = trace.read_text(errors="replace").count("(INJECTED)")
    if done.returncode or done.stderr.strip():
        text = f"the program ended with {done.returncode}: {done.stderr[-2000:]}"
        tried.wrongs.append(Wrong("died", text))
    tried.wrongs += judged(tried, folder)
    return tried


def judged(tried: Trial, folder: Path) -> list[Wrong]:
    """What is not as the program was told, now and after a start without faults."""
    lines = (folder / "acks").read_bytes().splitlines()
    story = Story(Event("ack", data=line) for line in lines)
    tried.accepted = sum(call.accepted < NEVER for call in story.calls.values())
    tried.refused = sum(call.refused < NEVER for call in story.calls.values())
    wrongs: list[Wrong] = []
    for what, *words in story.others:
        if what == "unstarted":
            tried.unstarted += 1
        elif what == "waited" and not tried.ever_after:
            wrongs.append(Wrong("hangs", f"something did not end in {ONCE} s"))
        if what in ("unstarted", "uncancelled") and words[-1] not in _KNOWN:
            wrongs.append(Wrong("strange", f"{what}: {words}"))
    horizon = len(lines)
    path = folder / "timers.db"
    found = started(path, rows_of(path))
    if isinstance(found, Wrong):
        return [*wrongs, found]
    wrongs += story.judge(found.before, horizon, horizon)
    wrongs += power_start.judge(story, *found, horizon, horizon)
    for n in found.ran:  # a call that is over may leave no row
        story.calls[n].runs.append((horizon, 0))
    wrongs += story.judge(found.after, horizon, horizon)
    return wrongs if tried.ever_after else [*wrongs, *_twice(story)]


def _twice(story: Story) -> list[Wrong]:
    """Calls that were refused and ran more than once; with a flaky one, an attempt of it did."""
    wrongs: list[Wrong] = []
    for call in story.calls.values():
        many = max(Counter(attempt for _, attempt in call.runs).values(), default=0)
        if call.task != "flaky":
            many = len(call.runs)
        if call.refused < NEVER and many > 1:
            wrongs.append(Wrong("twice", f"{call} was refused, and ran {many} times"))
    return wrongs


def trials(
    fault: str, folder: Path, *, first: int = 1, last: int = 1_000, every: int = 1
) -> list[Trial]:
    """One after the other, until the program is not hit any more."""
    found: list[Trial] = []
    for n in range(first, last + 1, every):
        found.append(trial(fault, n, folder))
        if not found[-1].hits:
            break
    return found


def turns(fault: str, given: argparse.Namespace) -> list[Trial]:
    """A fault at each call in turn, and for good at some."""
    with workplace() as place:
        folder = place / "f"
        found = trials(fault, folder, first=given.first, last=given.last, every=given.every)
        for n in range(given.first, given.first + len(found), given.lasting):
            found.append(trial(fault, n, folder, ever_after=True))
    return found


def figures(found: list[Trial]) -> str:
    return (
        f"{len(found)} trials, {sum(one.hits for one in found)} calls failed, "
        f"{sum(one.accepted for one in found)} accepted, "
        f"{sum(one.refused for one in found)} refused, "
        f"{sum(one.unstarted for one in found)} starts refused, "
        f"{sum(wrong.kind == 'lost' for one in found for wrong in one.wrongs)} lost, "
        f"{sum(bool(one.wrongs) for one in found)} trials wrong"
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/faults syscalls", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--fault", help=f"one of {', '.join(FAULTS)}; all of them")
    parser.add_argument("--first", type=int, default=1, help="the call that fails first (1)")
    parser.add_argument("--last", type=int, default=1_000, help="the last (when none is hit)")
    parser.add_argument("--every", type=int, default=1, help="of so many one (1)")
    parser.add_argument("--lasting", type=int, default=10, help="of how many calls one lasts (10)")
    given = parser.parse_args()
    logging.getLogger("asyncdefer").setLevel(logging.CRITICAL + 1)
    if (reason := power_trace.can_record()) is not None:
        say(f"syscalls: not tested, {reason}")
        return 0
    began, all_found = monotonic(), list[Trial]()
    for fault in [given.fault] if given.fault else FAULTS:
        found = turns(fault, given)
        all_found += found
        progress(f"{fault}: {figures(found)}, {monotonic() - began:.0f} s")
        for one in found:
            for wrong in one.wrongs[:5]:
                say(f"  {one}, {wrong.kind}: {wrong.text[-600:]}")
    say(f"syscalls: {figures(all_found)}; {monotonic() - began:.0f} s")
    return int(any(one.wrongs for one in all_found))


if __name__ == "__main__":
    sys.exit(main())
