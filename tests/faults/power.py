"""A power cut at any moment, by replay: what was acknowledged is there in every state of the disk.

A real program is recorded with all that it writes (`power_trace`), and the states of the disk in
which a cut may leave it are made (`power_disk`) and opened: each must be a journal that keeps to
what the program had been told by then (`power_story`). One state again, or a hundred thousand:

    python -m tests.faults.power --states 100000
    python -m tests.faults.power --seed 3 --first 4711 --states 1
"""

import argparse
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from contextlib import closing, contextmanager
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from asyncdefer.errors import JournalError
from asyncdefer.stores import _lock, _schema
from tests.faults import power_trace
from tests.faults.power_disk import Disk, State
from tests.faults.power_story import Found, Story, Wrong, found_in

ROOT: Final = Path(__file__).parents[2]
ENDS: Final = ("close", "kill", "close")
BATCH: Final = 2_000  # states of one recording
_MEMORY: Final = Path("/dev/shm")


@dataclass
class Recording:
    """What a program did to its folder in some lives, and what it was told meanwhile."""

    kind: str
    events: list[power_trace.Event]
    story: Story
    syncs: list[int] = field(default_factory=list)
    """Of the places: up to which event all was synced by then."""

    def __post_init__(self) -> None:
        safe = 0
        for event in self.events:
            if event.kind == "sync" and event.name == "timers.db-wal":
                safe = event.began
            self.syncs.append(safe)

    def promised(self, cut: int) -> int:
        """Up to which place what was told must be there after a cut."""
        if self.kind == "normal":
            return self.syncs[cut - 1] - 1 if cut else -1
        return cut - 1


@dataclass
class Tally:
    """What was looked at, and what was found."""

    states: int = 0
    acknowledged: int = 0
    files: Counter[str] = field(default_factory=Counter)
    losses: int = 0
    """Acknowledged, and not there: allowed with NORMAL only."""
    lossy: int = 0
    """States that had losses."""
    wrongs: list[tuple[int, Wrong]] = field(default_factory=list)

    def kinds(self) -> Counter[str]:
        return Counter(wrong.kind for _, wrong in self.wrongs)

    def __str__(self) -> str:
        return (
            f"{self.states} states, {self.acknowledged} acknowledged calls looked for, "
            f"{len(self.wrongs)} wrong {dict(self.kinds()) or ''}, "
            f"{self.losses} lost without a promise in {self.lossy} states"
        )


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder in memory, where there is one: a hundred thousand states are written."""
    folder = tempfile.mkdtemp(dir=_MEMORY if _MEMORY.is_dir() else None)
    try:
        yield Path(folder).resolve()
    finally:
        shutil.rmtree(folder)


def record(kind: str, seed: int, place: Path) -> Recording:
    """Have a program live its lives, in `place`."""
    folder = place / "recorded"
    folder.mkdir()
    traces: list[Path] = []
    for life, end in enumerate(ENDS):
        traces.append(place / f"trace-{life}")
        words = [str(folder), str(life * 10_000), str(seed * 10 + life), kind, end]
        command = [sys.executable, "-m", "tests.faults.power_program", *words]
        code = power_trace.record(command, traces[-1], cwd=ROOT)
        if code != (-9 if end == "kill" else 0):
            raise RuntimeError(f"the program {command} ended with {code}")
    events = power_trace.read(traces, folder)
    kept = Disk(events)
    kept.go(len(events))
    for name, content in kept.kept().items():
        if (folder / name).read_bytes() != content:
            raise RuntimeError(f"the recording does not tell all that was done to {name}")
    shutil.rmtree(folder)
    for trace in traces:
        trace.unlink()
    return Recording(kind, events, Story(events))


def states(
    recording: Recording, seed: int, first: int, count: int, *, drops: bool = True
) -> Iterator[tuple[int, int, State]]:
    """The number of a state, the place of its cut, and its files, by the places of the cuts.

    `drops`: False is a disk that never loses anything, by which the judge is judged.
    """
    disk = Disk(recording.events)
    cuts = [
        (random.Random(f"{seed} {number}").randrange(1, len(recording.events) + 1), number)
        for number in range(first, first + count)
    ]
    for cut, number in sorted(cuts):
        disk.go(cut)
        if drops:
            yield number, cut, disk.cut(random.Random(f"{seed} {number} cut"))
        else:
            yield number, cut, disk.kept()


def put(state: State, folder: Path) -> Path:
    """Write the files of a state into an empty folder; the path of the journal."""
    for old in folder.iterdir():
        old.unlink()
    for name, content in state.items():
        (folder / name).write_bytes(content)
    return folder / "timers.db"


def rows_of(path: Path) -> dict[int, Found] | Wrong:
    """The rows of a journal, by the numbers of their calls; or what is wrong with it."""
    if not path.exists():
        return {}
    try:
        with closing(_lock.connect(str(path))) as db:
            db.execute("PRAGMA locking_mode = EXCLUSIVE")  # one opens it, and needs no -shm
            version = _schema.inspect(db, str(path))
            (sound,) = db.execute("PRAGMA integrity_check").fetchone()
            if sound != "ok":
                return Wrong("corrupt", sound)
            if not version:
                return {}
            rows = db.execute("SELECT task, state, arguments, body FROM asyncdefer_jobs").fetchall()
            meta = dict(db.execute("SELECT name, value FROM asyncdefer_meta"))
    except (sqlite3.Error, JournalError) as error:
        return Wrong("corrupt", repr(error))
    live = Counter(state for _, state, _, _ in rows)
    for state in ("held", "scheduled", "running"):
        if meta[state] != live[state]:
            return Wrong("miscounted", f"{meta[state]} {state} by its books, and {live[state]} are")
    return found_in(rows)


def check(recording: Recording, found: dict[int, Found] | Wrong, cut: int, tally: Tally) -> None:
    """Judge what was found after a cut by what was promised."""
    story, said = recording.story, cut - 1
    tally.states += 1
    tally.acknowledged += story.accepted(said)
    if isinstance(found, Wrong):
        tally.wrongs.append((cut, found))
        return
    horizon = recording.promised(cut)
    if recording.kind == "normal":
        horizon = max(horizon, story.evidence(found))
        losses = [one for one in story.judge(found, said, said) if one.kind == "lost"]
        tally.losses += len(losses)
        tally.lossy += bool(losses)
    tally.wrongs += [(cut, wrong) for wrong in story.judge(found, horizon, said)]


def replay(
    recording: Recording,
    seed: int,
    first: int,
    count: int,
    place: Path,
    tally: Tally,
    *,
    drops: bool = True,
) -> None:
    """Make so many states of a recording and judge them."""
    folder = place / "state"
    folder.mkdir(exist_ok=True)
    for number, cut, state in states(recording, seed, first, count, drops=drops):
        before = len(tally.wrongs)
        check(recording, rows_of(put(state, folder)), cut, tally)
        if len(tally.wrongs) > before:
            tally.wrongs[before:] = [(number, wrong) for _, wrong in tally.wrongs[before:]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--states", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0, help="of the recordings and the states")
    parser.add_argument("--first", type=int, default=0, help="the number of the first state")
    parser.add_argument("--kind", choices=["full", "normal", "off", "early"], help="one kind only")
    options = parser.parse_args()
    if (reason := power_trace.can_record()) is not None:
        print(f"not tested: {reason}")
        return 0
    failed = False
    kinds = [options.kind] if options.kind else ["full", "normal"]
    for kind in kinds:
        tally, began = Tally(), monotonic()
        first, end = options.first, options.first + options.states // len(kinds)
        end = max(end, first + 1)
        while first < end:
            upto = min(end, (first // BATCH + 1) * BATCH)
            with workplace() as place:
                seed = options.seed * 1_000 + first // BATCH  # a recording for each batch
                recording = record(kind, seed, place)
                replay(recording, options.seed, first, upto - first, place, tally)
            first = upto
            if sys.stdout.isatty():
                print(f"{kind}: {tally}", end="\r", flush=True)
        print(f"{kind}: {tally}, in {monotonic() - began:.0f} s")
        for number, wrong in tally.wrongs[:20]:
            again = f"--kind {kind} --seed {options.seed} --first {number} --states 1"
            print(f"  {wrong.kind}: {wrong.text}\n    python -m tests.faults.power {again}")
        failed |= bool(tally.wrongs)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
