"""The shape of the library: how long its files may be, and who may read a clock."""

import ast
import io
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "asyncdefer"
FILES = sorted(LIBRARY.rglob("*.py"))

LINES_OF_A_FILE = 400
LINES_OF_THE_LIBRARY = 11_000  # without web/


def lines(file: Path) -> int:
    return len(file.read_text("utf-8").splitlines())


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_can_be_read_at_one_sitting(file: Path) -> None:
    """No file has more than 400 lines."""
    assert lines(file) <= LINES_OF_A_FILE


def test_the_library_can_be_read_in_a_day() -> None:
    """Without web/ it stays under 11,000 lines of code: to explain costs nothing."""
    files = (file for file in FILES if "web" not in file.parts)
    assert sum(lines_of_code(file.read_text("utf-8")) for file in files) < LINES_OF_THE_LIBRARY


def lines_of_code(source: str) -> int:
    """The lines that are not blank, comment or docstring."""
    silent = {
        tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
        tokenize.ENDMARKER,
    }  # fmt: skip
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in silent:
            code.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Expr(value=ast.Constant(value=str())) if node.end_lineno is not None:
                code.difference_update(range(node.lineno, node.end_lineno + 1))
            case _:
                pass
    return len(code)


def test_lines_of_code_are_counted_as_people_do() -> None:
    """The counter itself."""
    source = '"""Says\nmuch."""\n\n# a comment\nx = (\n    1,  # one\n)\n\ndef f():\n    "doc"\n    return x\n'
    assert lines_of_code(source) == 5


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
