"""The soak of the journal: what it may not change, and what a restart may not."""

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.soak.journals import WAYS, compare
from tests.soak.planted_journals import BUGS, Patch
from tests.soak.verdict import Violation

SEEDS = 100
TRIED = 400  # seeds after which a planted bug should have been seen


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Jobs fail on purpose here."""
    logger = logging.getLogger("asyncdefer")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, 10))
@pytest.mark.parametrize("way", WAYS)
def test_two_plays_of_a_program_are_the_same(way: str, first: int) -> None:
    """Runs, outcomes, handles, listings and counts, with a journal as without, and over restarts."""
    for seed in range(first, first + 10):
        compare(seed, way)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("way", "plant"), [(way, bug) for way, bugs in BUGS.items() for bug in bugs]
)
def test_a_planted_bug_is_seen(
    way: str, plant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    """The comparison can fail, and says with which command."""
    plant(monkeypatch)
    for seed in range(TRIED):
        try:
            compare(seed, way)
        except Violation as error:
            if "again with" in str(error):
                return
        except Exception:  # noqa: S112 - a bug may break more than the comparison
            continue
    pytest.fail("nothing was found")
