"""A shop with a journal of its own, for the tests of transactions."""

import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from asyncdefer.testing import check_conservation
from tests.edges.tills import Shop


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """It is open; afterwards its books have to balance, and nothing is held."""
    shop = Shop(tmp_path / "shop.db")
    async with shop.queue:
        db = sqlite3.connect(shop.path)
        db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        db.close()
        yield shop
        await shop.is_noticed()
        scheduler = shop.queue._started()
        assert not scheduler.lodged
        assert not scheduler.books.yielding
        assert scheduler.journal is not None and scheduler.journal.lent == 0
        check_conservation(shop.queue)
