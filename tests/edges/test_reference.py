"""The reference is complete: what is public is on it, and what is on it is public."""

import re
from pathlib import Path

import asyncdefer
import asyncdefer.testing

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def read(name: str) -> str:
    return (REFERENCE / name).read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference() -> None:
    """Each name of `asyncdefer` is on the page of the API or on that of the errors."""
    api = set(re.findall(r"^::: asyncdefer\.(\w+)$", read("api.md"), re.MULTILINE))
    errors = set(re.findall(r"^### (\w+)$", read("errors.md"), re.MULTILINE))
    assert set(asyncdefer.__all__) - api - errors - {"DeferError"} == set()
    assert api - set(asyncdefer.__all__) == set()
    assert "`DeferError`" in read("errors.md")


def test_every_event_is_in_the_reference() -> None:
    """Each event that the library emits is in the table of events, and no other."""
    sources = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "asyncdefer").rglob("*.py")
    )
    emitted = set(
        re.findall(
            r'"(job_[a-z]{3,}|schedule_ended|iteration_page|clock_jumped|loop_lagged|starved)"',
            sources,
        )
    )
    listed = set(re.findall(r"^\| `(\w+)` \| [A-Z]", read("events.md"), re.MULTILINE))
    assert "job_accepted" in emitted
    assert listed == emitted
