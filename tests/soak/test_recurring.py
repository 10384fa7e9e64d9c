"""Schedules keep every promise under random hands, and a broken promise is seen.

`scripts/soak` runs these too; one seed again: `scripts/soak --first 17 --seeds 1`.
"""

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.soak.planted_recurring import BUGS, Patch
from tests.soak.recurring import simulate

SEEDS = 300
PACKED = 20  # seeds in one test
TRIED = 60  # seeds after which a planted bug should have been seen


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Many runs fail on purpose here."""
    logger = logging.getLogger("asyncdefer")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, PACKED))
def test_any_schedules_keep_the_promises(first: int) -> None:
    """Whoever begins, repeats, replaces, moves, pauses and ends them, and however the clock is set."""
    for seed in range(first, first + PACKED):
        simulate(seed)


@pytest.mark.parametrize("plant", BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_seen(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """The simulation can fail: each of these is found within a few seeds."""
    plant(monkeypatch)
    with pytest.raises(Exception, match=r".") as found:
        for seed in range(TRIED):
            simulate(seed)
    assert "scripts/soak --first" in "".join(found.value.__notes__)
