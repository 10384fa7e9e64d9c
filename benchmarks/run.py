"""Measures the library against a floor and its peers, and prints the table.

    python benchmarks/run.py                  everything, some ten minutes
    python benchmarks/run.py --quick          a smoke run, within a minute, without peers
    python benchmarks/run.py --only due_jobs  one workload (may be given again)

Each measurement is a process of its own. Within a workload the sides take turns (floor, ours, peers, floor, ours, …), so that whatever else the
machine does falls on all of them. Peers live in `.venv-bench`, made here from `benchmarks/peers.txt`. The status is 0 unless something broke; with
`--strict` a figure that misses what it must reach counts as broken.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from figures import ROWS, WORKLOADS, Line, Rounds, Spread, Workload, line, ratios, self_check

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PEERS = HERE / "peers.txt"
PEERS_HOME = ROOT / ".venv-bench"
PATIENCE = 300
"""Seconds for one measurement."""

MODULES = {"apscheduler": "apscheduler", "huey": "huey", "aiojobs": "aiojobs", "docket": "pydocket"}
"""Each peer by the name it is imported with, and by the one it is installed with."""


class Options(argparse.Namespace):
    quick: bool
    peers: bool
    strict: bool
    uvloop: bool
    rounds: int
    only: list[str] | None
    json: Path | None


def parse(arguments: Sequence[str]) -> Options:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one small round of each, without peers"
    )
    parser.add_argument(
        "--no-peers", dest="peers", action="store_false", help="floor and ours only"
    )
    parser.add_argument(
        "--strict", action="store_true", help="fail when a figure misses what it must reach"
    )
    parser.add_argument(
        "--uvloop", action="store_true", help="floor and ours on uvloop, without peers"
    )
    parser.add_argument(
        "--rounds", type=int, default=5, help="repetitions (fewer for the slow workloads)"
    )
    parser.add_argument("--only", action="append", choices=WORKLOADS, help="this workload")
    parser.add_argument(
        "--json", type=Path, help="also write every single measurement to this file"
    )
    options = parser.parse_args(arguments, namespace=Options())
    if options.rounds < 1:
        parser.error("--rounds is at least 1")
    if options.quick or options.uvloop:
        options.peers = False
    return options


class Notes:
    """What went wrong: errors fail the run, the absence of a peer does not."""

    def __init__(self) -> None:
        self.errors: list[str] = []
        self.remarks: list[str] = []

    def error(self, text: str) -> None:
        self.errors.append(summary(text))
        say(f"error: {text}")

    def remark(self, text: str) -> None:
        self.remarks.append(summary(text))
        say(text)


def summary(text: str) -> str:
    """Where it happened and how it ended, without the traceback between."""
    first, *others = text.splitlines()
    return f"{first}: {others[-1]}" if others else first


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def peers_python() -> Path:
    return PEERS_HOME / ("Scripts" if os.name == "nt" else "bin") / "python"


def prepare_peers(notes: Notes) -> dict[str, str]:
    """Makes the peers' environment if it is not the one that `peers.txt` describes. Returns the versions of those that are there."""
    python = peers_python()
    stamp = PEERS_HOME / "made-from"
    wanted = f"{platform.python_version()}\n{PEERS.read_text()}"
    if not stamp.exists() or stamp.read_text() != wanted:
        say("making .venv-bench for the peers")
        try:
            subprocess.run(
                [sys.executable, "-m", "venv", "--clear", str(PEERS_HOME)],
                check=True,
                stdout=sys.stderr,
            )
        except (OSError, subprocess.CalledProcessError) as failure:
            notes.remark(f"no peers: their environment could not be made ({failure})")
            return {}
        for pin in PEERS.read_text().split():
            install = [
                str(python),
                "-m",
                "pip",
                "install",
                "-qq",
                "--disable-pip-version-check",
                pin,
            ]
            if subprocess.run(install, check=False, stdout=sys.stderr).returncode:
                notes.remark(f"without the peer {pin}: it could not be installed")
        stamp.write_text(wanted)
    versions: dict[str, str] = {}
    for module, package in MODULES.items():
        ask = (
            f"import {module}; from importlib.metadata import version; print(version({package!r}))"
        )
        answer = subprocess.run(
            [str(python), "-c", ask], check=False, capture_output=True, text=True
        )
        if answer.returncode:
            notes.remark(f"without the peer {package}: it is not in .venv-bench")
        else:
            versions[module] = answer.stdout.strip()
    return versions


def measure(
    python: str, workload: Workload, side: str, n: int, window: float, uvloop: bool
) -> dict[str, float]:
    """One side in a fresh process. Raises RuntimeError with the end of what it printed."""
    command = [python, str(HERE / workload.file), side, "--n", str(n), "--window", str(window)]
    if uvloop:
        command.append("--uvloop")
    # As an installed program runs: bytecode is written, no debug mode, no other loop's policy.
    environment = {
        name: text
        for name, text in os.environ.items()
        if not name.startswith("PYTHON") or name == "PYTHONPATH"
    }
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            cwd=ROOT,
            env=environment,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(f"it was not done after {PATIENCE} s") from None
    if done.returncode:
        raise RuntimeError(f"status {done.returncode}\n{done.stderr.strip()[-2000:]}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run(
    name: str, workload: Workload, options: Options, peers: Sequence[str], notes: Notes
) -> Rounds:
    """All rounds of one workload, the sides taking turns."""
    count = 1 if options.quick else max(workload.least, math.ceil(options.rounds * workload.rounds))
    window = 1.0 if options.quick else 5.0
    n = workload.quick_n if options.quick else workload.n
    found: dict[str, list[dict[str, float]]] = {}
    broken: set[str] = set()
    if name == "import_time":
        measure(sys.executable, workload, "ours", n, window, uvloop=False)  # writes the bytecode
    for turn in range(count):
        say(f"{name}, round {turn + 1} of {count}")
        for side in (*workload.sides, *(peer for peer in workload.peers if peer in peers)):
            of_peer = side in workload.peers
            figures: dict[str, float] = {}
            if side not in broken:
                python = str(peers_python()) if of_peer else sys.executable
                try:
                    figures = measure(
                        python, workload, side, workload.peers.get(side, n), window, options.uvloop
                    )
                except RuntimeError as failure:
                    broken.add(side)
                    (notes.remark if of_peer else notes.error)(f"{name}, {side}: {failure}")
            found.setdefault(side, []).append(figures)
    return found


def number(value: float, unit: str = "") -> str:
    if math.isnan(value):
        return "—"
    digits = (
        0
        if abs(value) >= 100
        else 1
        if abs(value) >= 20
        else 2
        if abs(value) >= 0.1 or not value
        else 3
    )
    return f"{value:,.{digits}f}{' ' if unit and not unit.startswith('/') else ''}{unit}"


def spread(values: Spread, unit: str = "") -> str:
    if math.isnan(values.median):
        return "—"
    if values.low == values.high:
        return number(values.median, unit)
    return f"{number(values.median, unit)} ({number(values.low)}–{number(values.high)})"


def mark(value: float | None, each: Line) -> str:
    if value is None:
        return ""
    sign = "≥" if each.row.more_is_better else "≤"
    return f"{sign} {value:g}{' ×' if each.row.relative else ''}{' ' + each.row.unit if not each.row.relative and each.row.unit else ''}"


def table(lines: Sequence[Line], options: Options) -> str:
    head = ("workload", "floor", "ours", "ratio", "must", "aim", "reached", "best peer")
    rows = [head, tuple("---" for _ in head)]
    for each in lines:
        workload = WORKLOADS[each.row.workload]
        n = workload.quick_n if options.quick else workload.n
        title = each.row.title.format(n=f"{n:,}", window=1.0 if options.quick else 5.0)
        peer = f"{each.best_peer[0]} {number(each.best_peer[1])} ×" if each.best_peer else ""
        ratio = spread(each.ratio, "×") if each.row.nearest else ""
        rows.append(
            (
                title,
                spread(each.floor, each.row.unit) if each.row.figure != "import_ms" else "",
                spread(each.ours, each.row.unit),
                ratio,
                mark(each.row.must, each),
                mark(each.row.aim, each),
                each.verdict,
                peer,
            )
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def details(results: dict[str, Rounds]) -> str:
    """Every side and figure: medians with the smallest and the greatest, and the ratio to the floor."""
    rows = [
        "| workload | side | figure | median (min–max) | × floor | rounds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rounds in results.items():
        for side, measured in rounds.items():
            for figure in dict.fromkeys(figure for each in measured for figure in each):
                values = [each[figure] for each in measured if figure in each]
                ratio = "" if side == "floor" else spread(Spread.of(ratios(rounds, side, figure)))
                rows.append(
                    f"| {name} | {side} | {figure} | {spread(Spread.of(values))} | {ratio} | {len(values)} |"
                )
    return "\n".join(rows)


def machine(options: Options, versions: dict[str, str]) -> str:
    """What it was measured on, without naming the machine."""
    model = platform.machine()
    try:
        for row in Path("/proc/cpuinfo").read_text().splitlines():
            if row.startswith("model name"):
                model = row.partition(":")[2].strip()
                break
    except OSError:
        pass
    load = (
        ", ".join(f"{each:.1f}" for each in os.getloadavg()) if hasattr(os, "getloadavg") else "?"
    )
    loop = "uvloop" if options.uvloop else "stock asyncio"
    peers = ", ".join(f"{MODULES[name]} {version}" for name, version in versions.items()) or "none"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{python}, {loop}, {platform.system()}, {model}, {os.cpu_count()} cores; peers: {peers}; load at the end {load}"


def main(arguments: Sequence[str]) -> int:
    self_check()
    options = parse(arguments)
    notes = Notes()
    started = time.monotonic()
    versions = prepare_peers(notes) if options.peers else {}
    results: dict[str, Rounds] = {}
    for name in options.only or WORKLOADS:
        try:
            results[name] = run(name, WORKLOADS[name], options, list(versions), notes)
        except RuntimeError as failure:
            notes.error(f"{name}: {failure}")
    lines = [
        line(row, results[row.workload], list(WORKLOADS[row.workload].peers))
        for row in ROWS
        if row.workload in results
    ]
    missed = [each for each in lines if each.missed]

    print("## Benchmarks\n")
    print(machine(options, versions) + ".")
    print(
        "Medians of interleaved rounds, a fresh process each, with the smallest and the greatest in brackets; ratios are taken round by round.\n"
    )
    print(table(lines, options))
    print(f"\n{len(missed)} of {len(lines)} missed; {time.monotonic() - started:.0f} s.\n")
    for remark in (*notes.remarks, *(f"**error** {text}" for text in notes.errors)):
        print(f"- {remark}")
    print("\n### Every side\n")
    print(details(results))
    if options.json is not None:
        options.json.write_text(
            json.dumps({"machine": machine(options, versions), "results": results}, indent=1)
        )
    if notes.errors:
        return 1
    return 2 if options.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
