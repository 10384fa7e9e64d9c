"""A power cut at any moment, by replay: what was acknowledged is there in every state of the disk.

A real program is recorded with all that it writes (`power_trace`), and the states of the disk in
which a cut may leave it are made (`power_disk`) and opened: each must be a journal that keeps to
what the program had been told by then (`power_story`), and on some a queue is started
(`power_start`).

    scripts/faults power --states 100000
    scripts/faults power --first 4711 --states 1 --recording kept/full-4000.pickle

The program lives in real time, so no recording is like another: `--keep` those that failed.
"""

import argparse
import logging
import pickle
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final, NamedTuple

from asyncdefer.errors import JournalError
from asyncdefer.stores import _lock, _schema
from tests.faults import power_start, power_trace
from tests.faults.power_disk import Disk, State
from tests.faults.power_story import Found, Story, Wrong, found_in
from tests.faults.workplace import progress, say, workplace

ROOT: Final = Path(__file__).parents[2]
ENDS: Final = ("close", "kill", "close")
BATCH: Final = 2_000  # states of one recording


@dataclass
class Recording:
    """What a program did to its folder in some lives, and what it was told meanwhile."""

    kind: str
    events: list[power_trace.Event]
    story: Story
    syncs: list[int] = field(default_factory=list)
    """Of the places: up to which event all was synced by then."""
    changes: list[int] = field(default_factory=list)
    """The places of the events that are no words of the program."""

    def __post_init__(self) -> None:
        safe = 0
        for event in self.events:
            if event.kind == "sync" and event.name == "timers.db-wal":
                safe = event.began
            self.syncs.append(safe)
        self.changes += [n for n, event in enumerate(self.events) if n and event.kind != "ack"]

    def cut(self, chance: random.Random) -> int:
        """A place for a cut; most are right before the disk changes: that is when all that there was
        to say has been said.
        """
        if chance.random() < 0.2:
            return chance.randrange(1, len(self.events) + 1)
        return chance.choice(self.changes)

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
    disks: set[int] = field(default_factory=set)
    """Their hashes."""
    losses: int = 0
    """Acknowledged, and not there: allowed with NORMAL only."""
    lossy: int = 0
    """States that had losses."""
    wrongs: list[tuple[int, Wrong]] = field(default_factory=list)

    def kinds(self) -> Counter[str]:
        return Counter(wrong.kind for _, wrong in self.wrongs)

    def __str__(self) -> str:
        return (
            f"{self.states} states{f' ({len(self.disks)} different)' * bool(self.disks)}, "
            f"{self.acknowledged} acknowledged calls looked for, {self.kinds()['lost']} lost, "
            f"{len(self.wrongs)} wrong{f' {dict(self.kinds())}' * bool(self.wrongs)}"
            f"{f', {self.losses} lost of which nothing was promised' * bool(self.losses)}"
        )


class Started(NamedTuple):
    """The rows before a start, how often each call ran, and the rows after it."""

    before: dict[int, Found]
    ran: Counter[int]
    after: dict[int, Found]


def record(kind: str, seed: int, place: Path) -> Recording:
    """Have a program live its lives, in a folder of its own in `place`."""
    folder = Path(tempfile.mkdtemp(dir=place))
    traces: list[Path] = []
    for life, end in enumerate(ENDS):
        traces.append(place / f"trace-{life}")
        words = [str(folder), str(life * 10_000), str(seed * 10 + life), kind, end]
        command = [sys.executable, "-m", "tests.faults.power_program", *words]
        code = power_trace.record(command, traces[-1], cwd=ROOT)
        if code != (-9 if end == "kill" else 0):
            raise RuntimeError(f"the program {command} ended with {code}: it is to be mended")
    events, doubtful = power_trace.read(traces, folder)
    wrong = untold(events, folder)
    if wrong and doubtful:
        for number in doubtful:
            events[number] = power_trace.Event("nothing")
        wrong = untold(events, folder)
    if wrong:
        raise RuntimeError(f"the recording does not tell all that was done to {wrong}")
    shutil.rmtree(folder)
    for trace in traces:
        trace.unlink()
    return Recording(kind, events, Story(events))


def untold(events: list[power_trace.Event], folder: Path) -> list[str]:
    """The files that are not as their events say."""
    disk = Disk(events)
    disk.go(len(events))
    kept = disk.kept()
    return [name for name, content in kept.items() if (folder / name).read_bytes() != content]


def states(
    recording: Recording, seed: int, first: int, count: int, *, drops: bool = True
) -> Iterator[tuple[int, int, State]]:
    """The number of a state, the place of its cut, and its files, by the places of the cuts.

    `drops`: False is a disk that never loses anything, by which the judge is judged.
    """
    disk = Disk(recording.events)
    cuts = [
        (recording.cut(random.Random(f"{seed} {number}")), number)
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
        tally.disks.add(hash(tuple(sorted(state.items()))))
        check(recording, rows_of(put(state, folder)), cut, tally)
        if len(tally.wrongs) > before:
            tally.wrongs[before:] = [(number, wrong) for _, wrong in tally.wrongs[before:]]


def started(path: Path, before: dict[int, Found] | Wrong) -> Started | Wrong:
    """Start a queue on a journal, and have it run all."""
    if isinstance(before, Wrong):
        return before
    ran = power_start.drained(path)
    if isinstance(ran, Wrong):
        return ran
    after = rows_of(path)
    return after if isinstance(after, Wrong) else Started(before, ran, after)


def restart(recording: Recording, seed: int, count: int, place: Path, tally: Tally) -> None:
    """Start a queue on so many states of a recording, have it run all, and judge that."""
    folder = place / "started"
    folder.mkdir(exist_ok=True)
    for number, cut, state in states(recording, seed, 0, count):
        before = rows_of(put(state, folder))
        found = started(put(state, folder), before)
        tally.states += 1
        if isinstance(found, Wrong):
            tally.wrongs.append((number, found))
            continue
        tally.acknowledged += recording.story.accepted(cut - 1)
        horizon = recording.promised(cut)
        if recording.kind == "normal":
            horizon = max(horizon, recording.story.evidence(found.before))
        wrongs = power_start.judge(recording.story, *found, horizon, cut - 1)
        wrongs += recording.story.judge(found.before, horizon, cut - 1)
        tally.wrongs += [(number, wrong) for wrong in wrongs]


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/faults power", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--states", type=int, default=100_000, help="of the disk (100,000)")
    parser.add_argument("--seed", type=int, default=0, help="of the programs and the states")
    parser.add_argument("--first", type=int, default=0, help="the number of the first state")
    parser.add_argument("--kind", choices=["full", "normal", "off", "early"], help="one kind only")
    parser.add_argument("--starts", type=int, default=20, help="of a queue, for each recording")
    parser.add_argument("--keep", type=Path, help="a folder for recordings with a wrong state")
    parser.add_argument("--recording", type=Path, help="one that was kept, instead of a new one")
    given = parser.parse_args()
    logging.getLogger("asyncdefer").setLevel(logging.CRITICAL)
    if given.recording:
        with workplace() as place:
            kept: Recording = pickle.loads(given.recording.read_bytes())
            tally = Tally()
            replay(kept, given.seed, given.first, given.states, place, tally)
        tell(tally)
        say(f"power, {kept.kind}: {tally}")
        return int(bool(tally.wrongs))
    if (reason := power_trace.can_record()) is not None:
        say(f"power: not tested, {reason}")
        return 0
    kinds = [given.kind] if given.kind else ["full", "normal"]
    began, found = monotonic(), dict[str, Tally]()
    for kind in kinds:
        cuts, starts = many(kind, max(given.states // len(kinds), 1), given)
        found |= {kind: cuts, f"{kind}, started": starts}
    for tally in found.values():
        tell(tally)
    figures = "; ".join(f"{name}: {tally}" for name, tally in found.items())
    say(f"power: {figures}; {monotonic() - began:.0f} s")
    return int(any(tally.wrongs for tally in found.values()))


def many(kind: str, count: int, given: argparse.Namespace) -> tuple[Tally, Tally]:
    """So many states of one kind of program, from a new recording every now and then.

    Those that were read, and those on which a queue was started.
    """
    cuts, starts, began = Tally(), Tally(), monotonic()
    first, end = given.first, given.first + count
    while first < end:
        upto = min(end, (first // BATCH + 1) * BATCH)
        before = len(cuts.wrongs) + len(starts.wrongs)
        with workplace() as place:
            recording = record(kind, given.seed * 1_000 + first // BATCH, place)
            replay(recording, given.seed, first, upto - first, place, cuts)
            restart(recording, given.seed, min(given.starts, upto - first), place, starts)
        if given.keep and len(cuts.wrongs) + len(starts.wrongs) > before:
            given.keep.mkdir(parents=True, exist_ok=True)
            (given.keep / f"{kind}-{first}.pickle").write_bytes(pickle.dumps(recording))
        first = upto
        progress(f"{kind}: {cuts}, {monotonic() - began:.0f} s")
    return cuts, starts


def tell(tally: Tally) -> None:
    for number, wrong in tally.wrongs[:20]:
        say(f"  state {number}, {wrong.kind}: {wrong.text}")


if __name__ == "__main__":
    sys.exit(main())
