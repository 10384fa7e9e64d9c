"""Found: after a commit that failed and happened, an older change of the group is written again.

`Journal._read_again` compares each change of the group with the row as it is now. Of two changes
of one job only the last can be seen there, so the first is taken for missing and is written once
more, over the newer one: a run goes back to waiting, its end cannot be recorded, and what its
waiter saw is run again at the next start (J3, J9). The group was one transaction: if the last
change of each job in it is there, all of it is.

"""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from asyncdefer import JournalError, Queue, Retry, State, current
from asyncdefer.stores._base import Command, Owner, Set, Unknown, Written
from asyncdefer.stores.sqlite import SQLiteStore
from asyncdefer.testing import VirtualClock


class Slow:
    """A real store; a write waits as long as `held` is set, and one may fail after it happened."""

    def __init__(self, path: Path) -> None:
        self._store: Any = SQLiteStore(path)
        self.held: asyncio.Event | None = None
        self.fails = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        if self.held is not None:
            await self.held.wait()
        written: Written = await self._store.write(owner, commands, within=within)
        sets = [change for command in commands for change in command if isinstance(change, Set)]
        if self.fails and len(sets) > len({change.row.id for change in sets}):
            self.fails = False
            raise Unknown("it happened")
        return written


async def test_a_retry_and_its_start_in_one_group(
    tmp_path: Path, defer_clock: VirtualClock
) -> None:
    """Both are there, so nothing is written again, and the job that succeeded has ended."""
    path, clock = tmp_path / "timers.db", defer_clock
    store: Any = Slow(path)
    failed = asyncio.Event()
    ran: list[int] = []

    def program(store: Any) -> Queue:
        queue = Queue(store, clock=clock)

        @queue.task("flaky", retry=Retry(3, delay=0, jitter=False))
        async def flaky() -> str:
            ran.append(current().attempt)
            if current().attempt == 1:
                store.held = asyncio.Event()  # the disk is slow from here on
                failed.set()
                raise ValueError("again")
            return "done"

        @queue.task("other")
        async def other() -> None: ...

        return queue

    async with program(store) as queue:
        handle = await queue.enqueue(queue.task_of("flaky"))
        await failed.wait()
        other = queue.enqueue_nowait(queue.task_of("other"), delay=60)
        for _ in range(20):  # the retry is logged, and started, behind the write that waits
            await asyncio.sleep(0)
        store.fails = True
        store.held.set()
        with suppress(JournalError):  # it is one of that group, and its caller is told
            await other.accepted()
        await clock.advance(1)
        assert await handle == "done"
        [job] = [job async for job in queue.jobs(task="flaky")]
        assert job.state is State.SUCCEEDED
    async with program(SQLiteStore(path)) as queue:
        await clock.advance(1)
        assert ran == [1, 2]
        [job] = [job async for job in queue.jobs(task="flaky")]
        assert job.state is State.SUCCEEDED
