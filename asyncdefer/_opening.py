"""The life of a queue's journal: open its store, or stand by until another process lets go of it."""

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from typing import Final
from uuid import uuid4

from asyncdefer._core.job import JobError
from asyncdefer._holding import Holding
from asyncdefer._journal import LEASE, Journal
from asyncdefer._log import ERROR, INFO
from asyncdefer._task import TaskOf
from asyncdefer.errors import JournalError, JournalLocked
from asyncdefer.stores._base import HELD, Opened, Owner, Store

POLL: Final = 0.5
"""Real seconds between two looks whether the owner is gone."""


class Opening:
    """A store that is open for one queue, from its start to its close."""

    def __init__(self, store: Store, scheduler: Holding) -> None:
        self._scheduler = scheduler
        self._store = store
        self._context: AbstractAsyncContextManager[Opened] | None = None
        self._ended = False
        self.standing_by: asyncio.Task[None] | None = None
        self._owner = Owner(
            number=uuid4().int >> 65,
            pid=os.getpid(),
            host=socket.gethostname(),
            started=scheduler.clock.wall(),
        )

    async def open(self, task_of: TaskOf) -> None:
        """Own the store and take in what is due soon; `JournalLocked` if another process has it."""
        scheduler = self._scheduler
        now = scheduler.clock.wall()
        context = self._store.open(self._owner, now=now, until=now + LEASE)
        opened = await context.__aenter__()
        self._context = context
        scheduler.last = max(scheduler.last, opened.last_id)
        scheduler.salt = self._owner.number % 1024 << 10  # several owners may share a store
        journal = Journal(
            self._store,
            self._owner,
            scheduler.clock,
            refused=scheduler.refused,
            out=scheduler.out,
            failed=self._failed,
        )
        scheduler.use(journal, opened, task_of)
        try:
            # Both at once: no run begins before the queue takes calls.
            claims = [await scheduler.ask_held()] if opened.counts.get(HELD) else []
            for claim in (*claims, scheduler.ask()):
                await journal.through(claim)
            await scheduler.take_in_records()
        except BaseException:
            await journal.close()
            await self._let_go()
            raise
        scheduler.tell(INFO, "journal_opened", None)

    def stand_by(self, task_of: TaskOf, opened: Callable[[], None]) -> None:
        """Wait in the background until the store is free, and then own it."""
        self.standing_by = asyncio.create_task(self._wait(task_of, opened))

    async def _wait(self, task_of: TaskOf, opened: Callable[[], None]) -> None:
        while True:
            try:
                await self.open(task_of)
            except JournalError as error:
                if not isinstance(error, JournalLocked):
                    self._failed(error)
                if self._ended:  # a store that is asked may not hear that nobody waits any more
                    return
                await asyncio.sleep(POLL)
            else:
                if not self._ended:
                    self.standing_by = None
                    opened()
                return

    async def close(self) -> None:
        """Let go of the store, or wait for it no more; an error is told."""
        self._ended = True
        waiting, self.standing_by = self.standing_by, None
        if waiting is not None and waiting.get_loop() is asyncio.get_running_loop():
            await called_off(waiting)
        await self._let_go()

    async def _let_go(self) -> None:
        context, self._context = self._context, None
        if context is not None:
            try:
                await context.__aexit__(None, None, None)
            except JournalError as error:
                self._failed(error)

    def _failed(self, error: JournalError) -> None:
        told = JobError(type(error).__name__, str(error), "")
        self._scheduler.tell(ERROR, "journal_failed", None, error=told)


async def called_off(task: asyncio.Task[None]) -> None:
    """Cancel a task and wait for its end, whatever that is and whatever is cancelled meanwhile."""
    task.cancel()
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    if not task.cancelled():
        task.exception()  # it was told, or is to whoever waits for it
