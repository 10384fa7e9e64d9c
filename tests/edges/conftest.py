"""A shop with a journal of its own, for the tests of transactions."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.edges.tills import Shop, opened


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    async with opened(Shop(tmp_path / "shop.db")) as shop:
        yield shop
