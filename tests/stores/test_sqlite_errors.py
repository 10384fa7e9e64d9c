"""Errors of SQLite and cancellations: what was not acknowledged has not happened, or is not known."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from asyncdefer.errors import JournalError, JournalFull
from asyncdefer.stores import _faults, _file, _lock, _sound
from asyncdefer.stores._base import Add, Note, Owner, Set, Unknown, Written
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import LEASE, NOW, Desk, leave, opened_desk, row


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


class Faulty(sqlite3.Connection):
    """A connection to the journal that fails at one statement, as it is told."""

    at = ""
    code = sqlite3.SQLITE_IOERR_FSYNC
    happens = False
    made = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        self._fail(sql)
        return super().execute(sql, parameters)

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        self._fail(sql)
        return super().executemany(sql, parameters)

    def _fail(self, sql: str) -> None:
        if not Faulty.at or not sql.lstrip().startswith(Faulty.at):
            return
        Faulty.at = ""
        if self.in_transaction:
            super().execute("COMMIT" if Faulty.happens else "ROLLBACK")
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = Faulty.code
        raise error


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Faulty]]:
    connect = _lock.connect

    def faulty(path: str, **kwargs: Any) -> Any:
        Faulty.made += 1
        return connect(path, **{**kwargs, "factory": Faulty})

    monkeypatch.setattr(_lock, "connect", faulty)
    Faulty.made = 0
    yield Faulty
    Faulty.at, Faulty.code, Faulty.happens = "", sqlite3.SQLITE_IOERR_FSYNC, False


# -- a failed commit


@pytest.mark.parametrize("happens", [False, True])
async def test_a_failed_commit_is_unknown(path: Path, faulty: type[Faulty], happens: bool) -> None:
    """It may have happened or not; by the next call the store knows which, and it stays so."""
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1, "k")))
        for id in (2, 3):
            faulty.at, faulty.happens = "COMMIT", happens
            with pytest.raises(Unknown) as caught:
                await desk.write(Add(row(id, "k")), Note("n", str(id)))
            assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
            there = id if happens else 1
            assert await desk.claimed(keys=[("task", "k")]) == [there]
        assert await desk.write(Add(row(4, "k"))) == Written((), (there,))
    async with opened_desk(SQLiteStore(path)) as desk:
        assert desk.opened.clean
        assert await desk.ids() == [4]
        assert desk.opened.notes == ({"n": "3"} if happens else {})


@pytest.mark.parametrize("at", ["BEGIN", "INSERT INTO asyncdefer_meta", "COMMIT"])
async def test_nothing_is_done_before_that_is_settled(
    path: Path, faulty: type[Faulty], at: str
) -> None:
    """What a failed commit has left behind is written over first; neither read nor write passes."""
    async with opened_desk(SQLiteStore(path)) as desk:
        faulty.at = "COMMIT"
        with pytest.raises(Unknown):
            await desk.write(Add(row(1)))
        for verb in (desk.claim, desk.rows, desk.renew, lambda: desk.write(Add(row(2)))):
            faulty.at = at
            with pytest.raises(JournalError):
                await verb()
        assert await desk.rows() == []
        await desk.write(Add(row(3)))
        assert await desk.ids() == [3]


async def test_a_rollback_that_fails_costs_the_connection(
    path: Path, faulty: type[Faulty], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next call makes a new one, and what it finds is on the disk."""
    store = SQLiteStore(path)
    async with opened_desk(store) as desk:
        await desk.write(Add(row(1)))
        connections = faulty.made
        faulty.at = "INSERT"
        fail = Faulty._fail

        def fail_twice(self: Faulty, sql: str) -> None:
            try:
                fail(self, sql)
            except sqlite3.Error:
                sqlite3.Connection.execute(self, "BEGIN")
                faulty.at = "ROLLBACK"
                raise

        with monkeypatch.context() as patch:
            patch.setattr(Faulty, "_fail", fail_twice)
            with pytest.raises(JournalError):
                await desk.write(Add(row(2)))
            faulty.at = ""
        assert await desk.ids() == [1]
        assert faulty.made == connections + 1


async def test_a_commit_without_room_has_not_happened(path: Path, faulty: type[Faulty]) -> None:
    """The frame that makes a transaction count is the last of it."""
    faulty.code = sqlite3.SQLITE_FULL
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1)))
        faulty.at = "COMMIT"
        await desk.write(Add(row(2)))  # there was room at the second try
        assert await desk.ids() == [1, 2]


async def test_a_connection_that_cannot_be_made_again_is_an_error_at_the_call(
    path: Path, faulty: type[Faulty]
) -> None:
    """Until it can."""
    async with opened_desk(SQLiteStore(path)) as desk:
        await _lose_connection(desk)
        for at in (
            "PRAGMA journal_mode",
            "PRAGMA synchronous",
            "SELECT +value FROM asyncdefer_meta",
        ):
            faulty.at = at
            with pytest.raises(JournalError):
                await desk.write(Add(row(2)))
        await desk.write(Add(row(3)))
        assert await desk.ids() == [3]


async def test_a_connection_that_is_made_again_looks_who_has_the_journal(
    path: Path, faulty: type[Faulty], tmp_path: Path
) -> None:
    """Another file in that place is not taken for it."""
    async with opened_desk(SQLiteStore(path)) as desk:
        await _lose_connection(desk)
        connections = faulty.made
        _rename(path, tmp_path / "original")
        with pytest.raises(JournalError, match="is gone"):
            await desk.write(Add(row(2)))
        await leave(SQLiteStore(tmp_path / "other"))
        _rename(tmp_path / "other", path)
        with pytest.raises(JournalError, match="has been replaced"):
            await desk.write(Add(row(2)))
        _rename(tmp_path / "original", path)
        await desk.write(Add(row(3)))
        assert faulty.made == connections + 2  # one was the other journal's
        assert await desk.ids() == [3]


async def _lose_connection(desk: Desk) -> None:
    """As after a rollback that failed."""
    assert isinstance(desk.store, SQLiteStore)
    held = desk.store._of()
    await held.hop(held.file.close)


def _rename(old: Path, new: Path) -> None:
    old.rename(new)


# -- a failure before it


@pytest.mark.parametrize(
    "at", ["BEGIN", "SELECT +value FROM asyncdefer_meta WHERE name = 'epoch'", "INSERT", "UPDATE"]
)
@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_IOERR_READ, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOMEM]
)
async def test_what_fails_before_the_commit_has_not_happened(
    path: Path, faulty: type[Faulty], at: str, code: int
) -> None:
    """A `JournalError` with its cause, and the next write goes through."""
    faulty.code = code
    async with opened_desk(SQLiteStore(path)) as desk:
        faulty.at = at
        with pytest.raises(JournalError) as caught:
            await desk.write(Add(row(1)))
        assert not isinstance(caught.value, Unknown | JournalFull)
        assert isinstance(caught.value.__cause__, sqlite3.Error)
        assert await desk.rows() == []
        await desk.write(Add(row(2)))
    async with opened_desk(SQLiteStore(path)) as desk:
        assert (desk.opened.last_id, desk.opened.counts["scheduled"]) == (2, 1)


@pytest.mark.parametrize("at", ["PRAGMA journal_mode", "SELECT name", "CREATE", "INSERT", "COMMIT"])
async def test_an_open_that_fails_lets_go_of_everything(
    path: Path, faulty: type[Faulty], at: str
) -> None:
    """Thread, lock and files: the next one opens as if nothing had been."""
    threads = threading.active_count()
    faulty.at = at
    with pytest.raises(JournalError):
        await leave(SQLiteStore(path))
    assert threading.active_count() == threads
    async with opened_desk(SQLiteStore(path)) as desk:
        assert desk.opened.clean


async def test_an_end_that_fails_lets_go_of_everything(path: Path, faulty: type[Faulty]) -> None:
    """The error is told, and the next owner finds a journal that nobody closed."""
    threads = threading.active_count()
    opening = SQLiteStore(path).open(Owner(1, 1, "host", NOW), now=NOW, until=NOW + LEASE)
    await opening.__aenter__()
    faulty.at = "BEGIN"
    with pytest.raises(JournalError):
        await opening.__aexit__(None, None, None)
    assert threading.active_count() == threads
    async with opened_desk(SQLiteStore(path)) as desk:
        assert not desk.opened.clean


async def test_a_transaction_that_was_left_open_is_rolled_back(path: Path) -> None:
    """Before anything else is done; nothing of it gets into a later commit."""
    store = SQLiteStore(path)
    async with opened_desk(store) as desk:
        held = store._of()

        def half() -> None:
            db = held.file._ready()
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO asyncdefer_notes VALUES ('half', 'done')")

        await held.hop(half)
        await desk.write(Add(row(1)))
    async with opened_desk(store) as desk:
        assert desk.opened.notes == {}
        assert await desk.ids() == [1]


# -- somebody else's transaction


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A statement waits for a hundredth of what it would."""
    for module in (_faults, _file, _sound):
        monkeypatch.setattr(module, "BUSY_WAIT", 0.01)


@pytest.mark.usefixtures("impatient")
async def test_a_write_waits_for_the_transaction_of_another(path: Path) -> None:
    """It fails nobody; claims and scans come in between."""
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1)))
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("CREATE TABLE users (id)")
            db.execute("BEGIN IMMEDIATE")
            db.execute("INSERT INTO users VALUES (1)")
            write = asyncio.create_task(desk.write(Add(row(2))))
            for _ in range(5):
                assert await desk.claimed(ids=[1, 2]) == [1]
                assert await desk.ids() == [1]
            assert not write.done()
            db.execute("COMMIT")
            assert await write == Written()
        assert await desk.ids() == [1, 2]


@pytest.mark.usefixtures("impatient")
async def test_a_write_does_not_wait_for_ever(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a minute it is an error that says what to do; and it is not written later."""
    assert _faults.BUSY_ROUNDS == 60
    async with opened_desk(SQLiteStore(path)) as desk:
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            with pytest.raises(JournalError, match="commit or roll back"):
                await desk.write(Add(row(1)))
            db.execute("ROLLBACK")
        assert await desk.rows() == []


@pytest.mark.usefixtures("impatient")
async def test_an_open_waits_for_the_transaction_of_another(path: Path) -> None:
    """And so does a close, which gives up sooner: then it counts as none."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = wal")
        db.execute("CREATE TABLE users (id)")
        db.execute("BEGIN IMMEDIATE")
        store = SQLiteStore(path)
        owner = Owner(1, 1, "host", NOW)
        opening = store.open(owner, now=NOW, until=NOW + LEASE)
        entering = asyncio.create_task(opening.__aenter__())
        for _ in range(1_000):
            await asyncio.sleep(0)
        assert not entering.done()
        db.execute("COMMIT")
        await entering
        await store.write(owner, [(Add(row(1)),)])
        db.execute("BEGIN IMMEDIATE")
        await opening.__aexit__(None, None, None)
        db.execute("COMMIT")
    async with opened_desk(store) as desk:
        assert not desk.opened.clean
        assert await desk.ids() == [1]


# -- cancelled


@pytest.mark.parametrize("turns", [0, 1, 2, 5])
async def test_a_cancelled_write_is_there_or_it_is_not(path: Path, turns: int) -> None:
    """All of it, and the next one is not in its transaction."""
    async with opened_desk(SQLiteStore(path)) as desk:
        for number in range(0, 600, 3):
            first, second = row(number + 1, f"k{number}"), row(number + 2)
            write = asyncio.create_task(
                desk.write(Add(first), Add(second), Note(f"n{number}", "v"))
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            write.cancel()
            with suppress(asyncio.CancelledError):
                await write
            if number % 30 == 0:
                await desk.write(Add(row(number + 3)))
        ids = set(await desk.ids())
        written = {number for number in range(0, 600, 3) if number + 1 in ids}
        assert ids >= set(range(3, 600, 30))
        assert written == {number for number in range(0, 600, 3) if number + 2 in ids}
    async with opened_desk(SQLiteStore(path)) as desk:
        assert desk.opened.clean
        assert desk.opened.notes == dict.fromkeys((f"n{number}" for number in written), "v")
        assert desk.opened.counts["scheduled"] == len(ids)


async def test_a_cancelled_claim_has_claimed_nothing(path: Path) -> None:
    """The rows that nobody had come with the next one."""
    await leave(SQLiteStore(path), Add(row(1, state="running")), Add(row(2, pinned=True)))
    async with opened_desk(SQLiteStore(path)) as desk:
        for turns in range(4):
            claim = asyncio.create_task(desk.claim())
            for _ in range(turns):
                await asyncio.sleep(0)
            if not claim.done():
                claim.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await claim
        assert await desk.claimed() == [1, 2]
        assert await desk.claimed() == []


@pytest.mark.parametrize("clean", [False, True])
@pytest.mark.parametrize("turns", range(12))
async def test_a_cancelled_open_lets_go_of_everything(path: Path, turns: int, clean: bool) -> None:
    """Neither thread nor lock stays; and the next owner hears what this one has not heard."""
    store = SQLiteStore(path)
    await leave(store, Add(row(1, state="running")))
    if not clean:
        with closing(sqlite3.connect(path)) as db:
            db.execute("UPDATE asyncdefer_meta SET value = 0 WHERE name = 'clean'")
            db.commit()
    threads = threading.active_count()
    opening = asyncio.create_task(_open_and_stay(store))
    for _ in range(turns):
        await asyncio.sleep(0)
    opening.cancel()
    with suppress(asyncio.CancelledError):
        await opening
    assert threading.active_count() == threads
    async with opened_desk(SQLiteStore(path)) as desk:
        assert desk.opened.clean == clean
        assert await desk.claimed() == [1]


async def _open_and_stay(store: SQLiteStore) -> None:
    await store.open(Owner(1, 1, "host", NOW), now=NOW, until=NOW + LEASE).__aenter__()
    await store._end(heard=False)


@pytest.mark.parametrize("turns", range(6))
async def test_a_cancelled_close_closes(path: Path, turns: int) -> None:
    """To the end, however often it is cancelled; and then it is cancelled."""
    store = SQLiteStore(path)
    threads = threading.active_count()
    opening = store.open(Owner(1, 1, "host", NOW), now=NOW, until=NOW + LEASE)
    await opening.__aenter__()
    closing = asyncio.create_task(_leave(opening))
    await asyncio.sleep(0)
    for _ in range(turns):
        closing.cancel()
        await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert threading.active_count() == threads
    async with opened_desk(store) as desk:
        assert desk.opened.clean


async def test_a_close_in_a_cancelled_scope_closes(path: Path) -> None:
    """Such a scope cancels again and again."""
    store = SQLiteStore(path)
    threads = threading.active_count()
    with anyio.CancelScope() as scope:
        async with opened_desk(store) as desk:
            await desk.write(Add(row(1)))
            scope.cancel()
            await desk.write(Add(row(2)))
    assert scope.cancelled_caught
    assert threading.active_count() == threads
    async with opened_desk(store) as desk:
        assert desk.opened.clean


async def _leave(opening: Any) -> None:
    await opening.__aexit__(None, None, None)


async def test_a_close_lets_those_finish_who_came_before(path: Path) -> None:
    """What was asked of the store is done; what comes after is an error."""
    store = SQLiteStore(path)
    owner = Owner(1, 1, "host", NOW)
    opening = store.open(owner, now=NOW, until=NOW + LEASE)
    await opening.__aenter__()
    writes = [asyncio.create_task(store.write(owner, [(Add(row(id)),)])) for id in range(1, 9)]
    await asyncio.sleep(0)
    closing = asyncio.create_task(_leave(opening))
    await asyncio.sleep(0)
    with pytest.raises(JournalError):
        await store.write(owner, [(Add(row(9)),)])
    assert await asyncio.gather(*writes) == [Written()] * 8
    await closing
    async with opened_desk(store) as desk:
        assert await desk.ids() == list(range(1, 9))


# -- what cannot be kept


async def test_a_change_of_another_kind_is_refused(path: Path) -> None:
    """A value that is none of ours, in a row that would be folded away as well."""
    good = row(1, "k")
    bad: Any = Set(row(1, "k", arguments="x"), "scheduled")
    async with opened_desk(SQLiteStore(path)) as desk:
        for changes in (["Add"], [None], [Add(good), bad, 7], [good]):
            with pytest.raises(JournalError):
                await desk.store.write(desk.owner, [tuple(changes)])  # type: ignore[arg-type]
        assert await desk.rows() == []
