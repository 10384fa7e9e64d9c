"""What only a store in memory says of itself."""

import gc

import pytest

from asyncdefer.errors import JournalError
from asyncdefer.stores._base import Add, Store
from asyncdefer.stores.memory import MemoryStore
from tests.stores.desk import AFTER_THE_LEASE, NOW, new_owner, opened_desk, row


async def test_it_is_a_store() -> None:
    """With the five verbs, as type checkers see them."""
    store: Store = MemoryStore()
    assert [found async for found in store.scan()] == []


async def test_there_is_no_transaction_to_write_within() -> None:
    """An error that says so, and nothing is written."""
    store = MemoryStore()
    async with opened_desk(store) as desk:
        with pytest.raises(JournalError, match="MemoryStore has no transactions"):
            await store.write(desk.owner, [(Add(row(1)),)], within=object())
        assert await desk.rows() == []


async def test_a_number_is_for_one_owner_at_a_time() -> None:
    """The second would lose its store when the first closes."""
    store = MemoryStore()
    async with opened_desk(store) as desk:
        with pytest.raises(JournalError, match="number of its own"):
            async with store.open(desk.owner, now=NOW, until=NOW):
                pass
        await desk.write(Add(row(1)))


async def test_two_stores_share_nothing() -> None:
    """Each has its own rows."""
    async with opened_desk(MemoryStore()) as one, opened_desk(MemoryStore()) as two:
        await one.write(Add(row(1)))
        assert await two.rows() == []


async def test_an_owner_that_is_forgotten_has_not_closed() -> None:
    """A program that lets go of an open store has died, as far as the store can tell."""
    store = MemoryStore()
    opening = store.open(new_owner(), now=NOW, until=AFTER_THE_LEASE)
    await opening.__aenter__()
    del opening
    gc.collect()
    async with opened_desk(store, AFTER_THE_LEASE) as desk:
        assert not desk.opened.clean
    async with opened_desk(store, AFTER_THE_LEASE) as desk:
        assert desk.opened.clean
