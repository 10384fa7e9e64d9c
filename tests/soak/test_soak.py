"""The soak: random programs on a virtual clock keep every promise, and a broken promise is seen.

`scripts/soak` runs 10,000 seeds; one seed again: `scripts/soak --first 17 --seeds 1`.
"""

import logging
from collections.abc import Callable, Iterator

import pytest

from tests.soak.planted import BUGS, Patch
from tests.soak.planted_policies import BUGS as POLICY_BUGS
from tests.soak.planted_schedules import BUGS as SCHEDULE_BUGS
from tests.soak.schedules import Schedules
from tests.soak.simulation import simulate
from tests.soak.verdict import Violation

SEEDS = 300
PACKED = 10  # seeds in one test
TRIED = 60  # seeds after which a mutant should have been seen


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Thousands of jobs fail on purpose here."""
    logger = logging.getLogger("asyncdefer")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, PACKED))
def test_any_program_keeps_the_promises(first: int) -> None:
    """Whatever callers, jobs, clocks and closes do, every law holds after every step."""
    for seed in range(first, first + PACKED):
        simulate(seed)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SEEDS, PACKED))
def test_any_schedules_keep_the_promises(first: int) -> None:
    """Runs come at their times, one at a time, until the schedule is ended, and leave nothing."""
    for seed in range(first, first + PACKED):
        simulate(seed, Schedules)


@pytest.mark.parametrize("seed", range(0, 40, 4))
def test_a_seed_is_the_same_program_every_time(seed: int) -> None:
    """The same seed gives the same trace, so a failing seed can be run again."""
    assert simulate(seed) == simulate(seed)
    assert simulate(seed, Schedules) == simulate(seed, Schedules)


@pytest.mark.parametrize("plant", BUGS + POLICY_BUGS, ids=lambda plant: plant.__name__)
def test_a_planted_bug_is_seen(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """The soak can fail: a bug of each kind is found within a few seeds, with its command."""
    plant(monkeypatch)
    monkeypatch.setattr("tests.soak.simulation.GUARD", 1)  # some bugs let waiters hang on purpose
    with pytest.raises(Violation, match=r"scripts/soak --first \d+ --seeds 1"):
        for seed in range(TRIED):
            simulate(seed)


@pytest.mark.parametrize("plant", SCHEDULE_BUGS, ids=lambda plant: plant.__name__)
def test_a_bug_in_schedules_is_seen(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    """So can the soak of schedules."""
    plant(monkeypatch)
    monkeypatch.setattr("tests.soak.schedules.GUARD", 1)
    with pytest.raises(Violation, match=r"scripts/soak --first \d+ --seeds 1"):
        for seed in range(TRIED):
            simulate(seed, Schedules)
