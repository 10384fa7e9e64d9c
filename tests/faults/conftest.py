"""What the harnesses share: the library says nothing while it is made to fail."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """Jobs, journals and disks fail on purpose here."""
    logger = logging.getLogger("asyncdefer")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    yield
    logger.setLevel(level)
