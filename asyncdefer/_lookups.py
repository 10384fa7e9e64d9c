"""Questions that the memory cannot answer: ended jobs, and calls beyond the horizon."""

from abc import abstractmethod
from typing import Any

from asyncdefer import _rows as rows
from asyncdefer._codec import Unreadable
from asyncdefer._committing import Committing
from asyncdefer._core.job import NO_CONTEXT, NO_KWARGS, Call, Key, Unread
from asyncdefer._core.lifecycle import State
from asyncdefer._recording import FAR
from asyncdefer.stores._base import Row


class LookUps(Committing):
    """Calls by their ids and keys, wherever they are."""

    @abstractmethod
    def _check_open(self) -> None:
        """`QueueClosed` if it is, and `WrongLoop` for who asks from elsewhere."""

    async def look_up(self, number: int) -> Call | None:
        """The call of an id, wherever it is; an ended one with the answer that its row has."""
        call = self.books.find(number)
        if call is not None or self.journal is None:
            return call
        self._check_open()
        await self.journal.through(claim := self.fetch(ids=[number]))
        self._check_open()
        call = self.books.find(number) or next((found for found in claim.found if found), None)
        if call is not None:
            return call
        async for row in self.journal.store.scan(ids=[number], limit=1):
            return self._ended_of(row)
        return None

    async def look_up_with_key(self, number: int) -> tuple[Call | None, Call | None]:
        """The call of an id, and the one that waits under its key."""
        call = await self.look_up(number)
        if call is None or isinstance(call.key, int):
            return call, None
        return call, await self.look_beyond(call.key)

    async def look_beyond(self, key: tuple[Any, str]) -> Call | None:
        """The waiting call of a key that is not in memory, if there is one."""
        if self.journal is None:
            return None
        far = self.books.far.get(key)
        if far is None:
            self._check_open()
            await self.journal.through(claim := self.fetch(keys=[key]))
            self._check_open()
            far = next((found for found in claim.found if found), None)
        waiting = self.agenda.waiting.get(key)
        return waiting if waiting is not None and waiting.calls else far

    def _ended_of(self, row: Row) -> Call | None:
        """A job that has ended, out of its row; the ledger keeps it for a while."""
        if not State(row.state).ended or (row.until is not None and row.until <= self.clock.wall()):
            return None
        task: Any = self.task_of(row.task) or rows.Stranger(row.task)
        try:
            if isinstance(task, rows.Stranger):
                raise Unreadable(f"no task is named {row.task!r} here")
            call = rows.call_of(row, task, self._ahead)
        except Unreadable as error:
            key: Key = row.id if row.key is None else (task.identity, row.key)
            call = Unread(row.id, task, key, row.at, False, (), NO_KWARGS, NO_CONTEXT)
            call.why = str(error)
        call.answer = rows.answer_of(row, task)
        call.answer.until = FAR if row.until is None else row.until - self._ahead
        self.ledger.keep(call)
        return call
