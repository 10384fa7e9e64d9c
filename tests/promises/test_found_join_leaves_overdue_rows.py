"""`join()` waits for overdue rows that are still in the journal, too."""

from typing import Any

import pytest

from asyncdefer import Queue
from asyncdefer.testing import VirtualClock


async def test_all_overdue_rows_run(
    disk: Any, clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asyncdefer._claims.PAGE", 10)
    monkeypatch.setattr("asyncdefer._claims.IN_MEMORY", 20)
    ran: list[Any] = []

    def program() -> tuple[Queue, Any]:
        queue = Queue(disk.store(), clock=clock)

        @queue.task("note")
        async def note(n: int) -> None:
            ran.append(n)

        return queue, note

    first, note = program()
    async with first:
        first.pause()
        for n in range(100):
            first.enqueue_nowait(note, n)
    queue, _ = program()
    async with queue:
        await queue.join()
        assert len(ran) == 100
