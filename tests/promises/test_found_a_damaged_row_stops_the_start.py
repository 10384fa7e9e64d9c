"""J7: a damaged row is held, and all others run."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from asyncdefer import Every, Queue
from asyncdefer.testing import VirtualClock

HOUR = 3600


@pytest.mark.parametrize(
    "change",
    [
        """body = '{"repeat":{"cron":"0 0 * * *","tz":"Mars/Base","missed":"once"}}'""",
        """body = '{"repeat":{"cron":"what","tz":null,"missed":"once"}}'""",
        """body = '{"repeat":{"every":-5,"missed":"once"}}'""",
        """body = '{"repeat":{}}'""",
        "at = 1 << 62",
        """body = '{"started":9223372036854775807}'""",
    ],
)
@pytest.mark.parametrize("known", [True, False])
async def test_all_others_run(
    tmp_path: Path, clock: VirtualClock, change: str, known: bool
) -> None:
    async def tick() -> None: ...

    async def note() -> None:
        ran.append(1)

    ran: list[Any] = []
    old = Queue(tmp_path / "timers.db", clock=clock)
    old.task("tick", repeat=Every(HOUR))(tick)
    async with old:
        await old.enqueue(old.task("note")(note), delay=60)
    db = sqlite3.connect(tmp_path / "timers.db")
    db.execute(f"UPDATE asyncdefer_jobs SET {change} WHERE task = 'tick'")
    db.commit()
    db.close()
    new = Queue(tmp_path / "timers.db", clock=clock)
    if known:
        new.task("tick", repeat=Every(HOUR))(tick)
    new.task("note")(note)
    starting = asyncio.ensure_future(new.start())
    done, _ = await asyncio.wait([starting], timeout=3)
    try:
        assert done, "start() hangs"
        assert len([job async for job in new.jobs()]) >= 1
        await clock.advance(61)
        assert ran == [1]
    finally:
        if not done:
            starting.cancel()
            await asyncio.wait([starting])
        else:
            await new.close()
