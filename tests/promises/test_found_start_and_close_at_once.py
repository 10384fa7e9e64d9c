"""C1 and C3: `close()` while `start()` is under way leaves nothing open, whatever start had come to."""

import asyncio
from contextlib import suppress
from typing import Any

import pytest

from asyncdefer import JournalLocked, Queue, QueueClosed, SQLiteStore
from asyncdefer.stores._base import Owner, Row
from asyncdefer.testing import VirtualClock


async def turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


@pytest.mark.parametrize("turn", [*range(1, 8), 20, 50])
@pytest.mark.parametrize("ends", ["is closed", "is cancelled"])
async def test_a_start_that_goes_no_further(
    disk: Any, clock: VirtualClock, turn: int, ends: str
) -> None:
    """The journal is free, start says why, and the queue can be started again."""
    queue = Queue(disk.store(), clock=clock)
    starting = asyncio.create_task(queue.start())
    await turns(turn)
    if ends == "is cancelled":
        starting.cancel()
        with suppress(asyncio.CancelledError):
            await starting
    ended = starting.done()
    async with asyncio.timeout(5):
        await queue.close()
    if ended:
        assert starting.cancelled() or starting.exception() is None
    else:
        with pytest.raises(QueueClosed):
            await starting
    async with Queue(disk.store(), clock=clock):
        pass
    async with queue:
        pass


class Locked(SQLiteStore):
    """Another process has it when it is asked twice, and then the first look into it fails."""

    asked = 0
    looks = 0

    def open(self, owner: Owner, **times: Any) -> Any:
        self.asked += 1
        if self.asked <= 2:
            raise JournalLocked("another has it")
        return super().open(owner, **times)

    async def claim(self, owner: Owner, **asked: Any) -> list[Row]:
        self.looks += 1
        if self.looks == 1:
            raise OSError("not now")
        return await super().claim(owner, **asked)


async def test_a_takeover_that_fails_half_way(
    tmp_path: Any, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """J8: it lets go of the journal, and is tried again."""
    monkeypatch.setattr("asyncdefer._opening.POLL", 0.01)
    store = Locked(tmp_path / "timers.db")
    async with Queue(store, clock=clock, on_locked="standby") as queue:
        await asyncio.wait_for(queue.ready(), 20)
        assert (store.asked, queue.standby) == (4, False)
