"""The shape of the library: how long its files may be, and who may read a clock."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "asyncdefer"
FILES = sorted(LIBRARY.rglob("*.py"))

LINES_OF_A_FILE = 400
LINES_OF_THE_LIBRARY = 4_000  # without web/


def lines(file: Path) -> int:
    return len(file.read_text("utf-8").splitlines())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_can_be_read_at_one_sitting(file: Path) -> None:
    """No file has more than 400 lines."""
    assert lines(file) <= LINES_OF_A_FILE


def test_the_library_can_be_read_in_a_day() -> None:
    """Without web/ it stays under 4,000 lines, the blank ones not counted."""
    written = [
        line
        for file in FILES
        if "web" not in file.parts
        for line in file.read_text("utf-8").splitlines()
        if line.strip()
    ]
    assert len(written) < LINES_OF_THE_LIBRARY


def clock_reads(source: str) -> list[int]:
    """The lines that use the `time` module or ask a datetime for the present."""
    found: list[int] = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names) if any(name.name == "time" for name in names):
                found.append(node.lineno)
            case ast.ImportFrom(module="time"):
                found.append(node.lineno)
            case ast.Attribute(
                attr="now" | "utcnow" | "today",
                value=ast.Name(id="datetime" | "date" | "dt")
                | ast.Attribute(attr="datetime" | "date"),
            ):
                found.append(node.lineno)
            case _:
                pass
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_only_the_clock_reads_the_clock(file: Path) -> None:
    """Time is a parameter: `time.*` and `datetime.now` are in `_clock.py` and nowhere else."""
    if file == LIBRARY / "_clock.py":
        return
    assert clock_reads(file.read_text("utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import time as t",
        "from time import monotonic",
        "datetime.now(UTC)",
        "datetime.datetime.utcnow()",
        "started = date.today()",
        "now = datetime.now",
    ],
)
def test_a_clock_that_is_read_is_seen(source: str) -> None:
    """The rule above can fail."""
    assert clock_reads(source) == [1]
