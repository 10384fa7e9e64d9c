"""What the project says about itself is true: its documents, its laws, its packaging."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.metadata import entry_points, metadata, version
from pathlib import Path

import pytest
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

LAWS = [
    *(f"T{n}" for n in range(1, 9)),
    *(f"D{n}" for n in range(1, 11)),
    *(f"W{n}" for n in range(1, 6)),
    *(f"R{n}" for n in range(1, 9)),
    *(f"C{n}" for n in range(1, 4)),
    *(f"J{n}" for n in range(1, 12)),
]


# Code blocks


def blocks() -> list[object]:
    """Every Python block of every document, under the name of its file and line."""
    sybil = Sybil(parsers=[CodeBlockParser("python", lambda _: None)], pattern="*.md")
    return [
        pytest.param(example, id=f"{path.relative_to(ROOT)}:{example.line}")
        for path in DOCUMENTS
        if path.exists()
        for example in sybil.parse(path).examples()
    ]


SHOWN = re.compile(r"\s*```text\n(.*?)```", re.DOTALL)
"""What a block prints, if that follows it at once."""


OF_THE_MACHINE = "ignore:SQLite:RuntimeWarning"
"""What a transaction says where SQLite is older than 3.51.3."""


def has_tests(source: str) -> bool:
    return any(
        isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        for node in ast.parse(source).body
    )


@pytest.mark.parametrize("example", blocks())
def test_a_code_block_is_a_whole_program(example: Example, tmp_path: Path) -> None:
    """Saved in a file it runs to its end and prints what the page says it prints; one that has tests
    is a test file, and they pass.
    """
    source = str(example.parsed)
    file = tmp_path / ("test_block.py" if has_tests(source) else "program.py")
    # As many empty lines before it as in the document, so that a traceback shows the line there.
    file.write_text("\n" * example.line + source, "utf-8")
    (tmp_path / "pytest.ini").touch()  # so that our own settings do not count
    pytest_ = ["-m", "pytest", "-q", "-p", "no:asyncio"] if has_tests(source) else []
    # A process of its own, since a program may set up logging for all of it.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", OF_THE_MACHINE, *pytest_, file.name],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    shown = SHOWN.match(example.document.text, example.region.end)
    if shown:
        assert done.stdout == shown[1]


# Laws


@pytest.mark.parametrize("law", LAWS)
def test_a_law_has_a_file(law: str) -> None:
    """Each promise has a file of its own in tests/promises, named after it."""
    files = [file.stem for file in (ROOT / "tests" / "promises").glob("test_*.py")]
    assert [stem for stem in files if law.lower() in stem.split("_")]


# Documents


def test_the_readme_shows_two_commands() -> None:
    """Who comes by sees how to run it and how to test it, and nothing else to choose from."""
    text = (ROOT / "README.md").read_text("utf-8")
    commands = re.findall(r"^scripts/\w+.*$", text, re.MULTILINE)
    assert commands == ["scripts/demo", "scripts/test"]


@pytest.mark.parametrize("name", ["demo", "test", "check", "bench", "docs", "floors"])
def test_a_script_can_be_run(name: str) -> None:
    """Each script is there, and executable."""
    assert os.access(ROOT / "scripts" / name, os.X_OK)


EVENT = re.compile(
    r"(?:job|clock|loop|journal|thread|queue|schedule|after_commit)_[a-z]+ed|iteration_page"
    r"|transaction_slow|starved"
)


def events_in_the_code() -> set[str]:
    """Every text of the library that is the name of an event."""
    return {
        node.value
        for file in (ROOT / "asyncdefer").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and EVENT.fullmatch(node.value)
    }


def test_the_page_of_events_is_complete() -> None:
    """Each event that the library can give is on its page, and no other is."""
    page = (ROOT / "docs" / "reference" / "events.md").read_text("utf-8")
    documented = set(re.findall(rf"^\|? ?`(?:asyncdefer\.)?({EVENT.pattern})`", page, re.MULTILINE))
    assert documented == events_in_the_code()


def test_the_page_of_errors_is_complete() -> None:
    """Each error of the library is on its page."""
    page = (ROOT / "docs" / "reference" / "errors.md").read_text("utf-8")
    errors = import_module("asyncdefer.errors")
    names = [
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, errors.DeferError)
    ]
    assert [name for name in names if not re.search(rf"\b{name}\b", page)] == []


# Packaging


def test_the_version_is_in_the_changelog() -> None:
    """What is installed is written down."""
    assert f"## [{version('asyncdefer')}]" in (ROOT / "CHANGELOG.md").read_text("utf-8")


def test_the_licence_is_told() -> None:
    """MIT, in the words of PEP 639."""
    assert metadata("asyncdefer")["License-Expression"] == "MIT"
    assert "MIT License" in (ROOT / "LICENSE").read_text("utf-8")


def test_types_are_shipped() -> None:
    """Type checkers of our users see our annotations."""
    assert (ROOT / "asyncdefer" / "py.typed").exists()


def test_the_base_install_is_small() -> None:
    """Five dependencies; everything else is an extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    names = {re.split(r"[<>=]", dependency)[0] for dependency in project["dependencies"]}
    assert names == {"anyio", "aiosqlite", "structlog", "msgspec", "cronsim"}


def test_pytest_finds_the_fixtures() -> None:
    """The plugin is an entry point, so that a project need not name it."""
    (plugin,) = entry_points(group="pytest11", name="asyncdefer")
    assert plugin.load() is import_module("asyncdefer.pytest_plugin")
