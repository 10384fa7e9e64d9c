"""Stores with a bug each, which a comparison with a sound one must find."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from msgspec import structs

from asyncdefer.errors import JournalError
from asyncdefer.stores import memory
from asyncdefer.stores._base import (
    Add,
    Change,
    Command,
    Drop,
    Note,
    Opened,
    Owner,
    Place,
    Row,
    Set,
    Written,
)  # fmt: skip
from asyncdefer.stores.memory import MemoryStore


class KeepsTheOlder(MemoryStore):
    """Of two waiting rows of a key the older one stays."""

    def _put(self, row: Row, lease: memory._Lease) -> dict[int, None]:
        other = self._waiting.get((row.task, row.key or ""))
        if row.state == "scheduled" and other is not None and other < row.id:
            return {row.id: None}
        return super()._put(row, lease)


class KeepsBoth(MemoryStore):
    """A row that comes back waits beside the newer one."""

    def _put(self, row: Row, lease: memory._Lease) -> dict[int, None]:
        other = self._waiting.get((row.task, row.key or ""))
        if row.state == "scheduled" and other is not None and other > row.id:
            super()._put(structs.replace(row, key=None), lease)
            return {}
        return super()._put(row, lease)


class ForgetsTheTask(MemoryStore):
    """Keys of two tasks meet."""

    def _put(self, row: Row, lease: memory._Lease) -> dict[int, None]:
        gone = dict[int, None]()
        for old, _ in list(self._rows.values()):
            both = row.state == old.state == "scheduled" and row.task != old.task
            if both and row.key == old.key is not None and old.id < row.id:
                self._take(old.id)
                gone[old.id] = None
        return gone | super()._put(row, lease)


class ForgetsWas(MemoryStore):
    """A change finds its row in any state."""

    def _finds(self, id: int, was: str, lease: memory._Lease) -> bool:
        return id in self._rows


class SaysNothing(MemoryStore):
    """Nobody is told who was lost or replaced."""

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        await super().write(owner, commands)
        return Written()


class ForgetsWhoGaveWay(MemoryStore):
    """Only rows that were there before the write are told as replaced."""

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        before = set(self._rows)
        written = await super().write(owner, commands)
        return Written(written.lost, tuple(id for id in written.replaced if id in before))


class RewritesArguments(MemoryStore):
    """A set brings its own arguments."""

    def _take(self, id: int) -> Row:
        return structs.replace(super()._take(id), arguments="1")


class AddsTwice(MemoryStore):
    """An add of a row that is there puts the new one in its place."""

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        more: list[Command] = []
        for command in commands:
            for change in command:
                kept = self._rows.get(change.row.id) if isinstance(change, Add) else None
                more += [(Drop(kept.row.id, kept.row.state),)] if kept else []
                more.append((change,))
        return await super().write(owner, more)


class FoldsTooMuch(MemoryStore):
    """Of the changes of one id in a write only the last one happens."""

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        last: dict[object, Change] = {}
        for command in commands:
            for change in command:
                match change:
                    case Add(Row(id)) | Set(Row(id)) | Drop(id):
                        last[id] = change
                    case Note(name):
                        last[name] = change
        return await super().write(owner, [(change,) for change in last.values()])


class OneKindAfterAnother(MemoryStore):
    """First all drops, then all sets, then all adds."""

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        order = Note, Drop, Set, Add
        changes = [change for command in commands for change in command]
        return await super().write(owner, [tuple(sorted(changes, key=lambda each: order.index(type(each))))])  # fmt: skip


class HalfAWrite(MemoryStore):
    """What came before a change that fails has happened."""

    async def write(
        self, owner: Owner, commands: Sequence[Command], *, within: Any = None
    ) -> Written:
        try:
            return await super().write(owner, commands)
        except JournalError:
            for command in commands:
                await super().write(owner, [command])
            raise


class IdsGoBack(MemoryStore):
    """The greatest id is that of the rows there are."""

    def _begin(self, owner: Owner, now: int, until: int) -> Opened:
        self._last_id = max(self._rows, default=0)
        return super()._begin(owner, now, until)


class AlwaysClean(MemoryStore):
    """Nobody is told that an owner died."""

    def _begin(self, owner: Owner, now: int, until: int) -> Opened:
        return structs.replace(super()._begin(owner, now, until), clean=True)


class NotesStay(MemoryStore):
    """None does not take a note away."""

    def _begin(self, owner: Owner, now: int, until: int) -> Opened:
        return structs.replace(super()._begin(owner, now, until), notes={"n": "1", **self._notes})


class PurgesTooMuch(MemoryStore):
    """Live rows go as well."""

    async def renew(self, owner: Owner, *, now: int, until: int) -> None:
        await super().renew(owner, now=now, until=until)
        for row, _ in list(self._rows.values()):
            if row.until is not None and row.until <= now:
                self._take(row.id)


class PurgesLate(MemoryStore):
    """A row is there an instant too long."""

    async def renew(self, owner: Owner, *, now: int, until: int) -> None:
        await super().renew(owner, now=now - 1, until=until)


class ForgetsRunning(MemoryStore):
    """Running rows beyond the horizon do not come."""

    def _coming(self, lease: memory._Lease, until: int, limit: int, after: Place) -> list[Row]:
        rows = super()._coming(lease, until, limit, after)
        return [row for row in rows if row.at <= until]


class RepeatsThePlace(MemoryStore):
    """The row of the place comes again."""

    def _coming(self, lease: memory._Lease, until: int, limit: int, after: Place) -> list[Row]:
        return super()._coming(lease, until, limit, (after[0], after[1] - 1))


class ClaimsById(MemoryStore):
    """Rows come in the order of their ids."""

    def _coming(self, lease: memory._Lease, until: int, limit: int, after: Place) -> list[Row]:
        return sorted(super()._coming(lease, until, limit, after), key=lambda row: row.id)


class NamesHeldRows(MemoryStore):
    """A claim by key takes what is held."""

    def _named(self, lease: memory._Lease, keys: set[tuple[str, str]], ids: set[int]) -> list[Row]:
        held = {
            id
            for id, (row, _) in self._rows.items()
            if row.state == "held" and (row.task, row.key) in keys
        }
        return super()._named(lease, keys, ids | held)


class ForgetsTheLimit(MemoryStore):
    """A scan has as many rows as there are."""

    async def scan(self, **filters: Any) -> AsyncIterator[Row]:  # type: ignore[override]
        async for row in super().scan(**{**filters, "limit": 1 << 30}):
            yield row


PLANTED = [
    KeepsTheOlder,
    KeepsBoth,
    ForgetsTheTask,
    ForgetsWas,
    SaysNothing,
    ForgetsWhoGaveWay,
    RewritesArguments,
    AddsTwice,
    FoldsTooMuch,
    OneKindAfterAnother,
    HalfAWrite,
    IdsGoBack,
    AlwaysClean,
    NotesStay,
    PurgesTooMuch,
    PurgesLate,
    ForgetsRunning,
    RepeatsThePlace,
    ClaimsById,
    NamesHeldRows,
    ForgetsTheLimit,
]
