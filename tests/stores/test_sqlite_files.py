"""The files of a journal in SQLite: what is made, with which rights, and what is refused."""

import asyncio
import logging
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import dedent
from typing import Any

import pytest

from asyncdefer.errors import JournalError
from asyncdefer.stores import _lock, _sound
from asyncdefer.stores._base import Add, Drop, Opened, Owner, Set, Store
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import LEASE, NOW, Desk, leave, opened_desk, row, rows_of

PRIVATE = 0o600
OWNER = Owner(1 << 40, 1, "host", NOW)
NONE = Opened(0, True, {}, {})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def store(path: Path) -> Store:
    return SQLiteStore(path)


def mode_of(path: Path | str) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def beside(path: Path) -> set[str]:
    """What there is in the folder of a journal, without its name."""
    return {each.name.removeprefix(path.name) for each in path.parent.iterdir()}


def touch(path: Path, mode: int) -> None:
    path.touch()
    path.chmod(mode)


def read(path: Path | str) -> bytes:
    return Path(path).read_bytes()


def write(path: Path | str, content: bytes) -> None:
    Path(path).write_bytes(content)


def cut_off(path: Path, missing: int) -> None:
    os.truncate(path, path.stat().st_size - missing)


def sql(path: Path, *statements: str) -> None:
    """What another program does to the file."""
    with closing(sqlite3.connect(path)) as db:
        for statement in statements:
            db.execute(statement)
        db.commit()


async def refused(path: Path | str, because: str) -> None:
    """Nobody can open it, and the error says why."""
    with pytest.raises(JournalError, match=because):
        await leave(SQLiteStore(path))


# -- arguments


@pytest.mark.parametrize("path", [None, 1, b"journal.db", ["journal.db"]])
def test_a_path_is_a_text_or_a_path(path: Any) -> None:
    """Nothing else names a file."""
    with pytest.raises(TypeError):
        SQLiteStore(path)


@pytest.mark.parametrize("path", ["", ":memory:", "file:journal.db", "a\0b"])
def test_a_path_names_a_file(path: str) -> None:
    """SQLite's names for something else are refused."""
    with pytest.raises(ValueError):
        SQLiteStore(path)


@pytest.mark.parametrize("synchronous", ["OFF", "full", 2, None])
def test_synchronous_is_full_or_normal(synchronous: Any) -> None:
    """With anything less, acknowledged rows could be lost by the death of the process."""
    with pytest.raises(ValueError, match="FULL"):
        SQLiteStore("journal.db", synchronous=synchronous)


def test_nothing_is_touched_before_the_open(path: Path) -> None:
    """A store is a value until somebody opens it."""
    store = SQLiteStore(str(path))
    store.open(Owner(1, 1, "host", NOW), now=NOW, until=NOW + LEASE)
    assert beside(path) == set()


async def test_a_store_that_is_not_open_does_nothing(store: Store, path: Path) -> None:
    """Every verb is an error."""
    with pytest.raises(JournalError, match="open it first"):
        await rows_of(store)
    assert beside(path) == set()


# -- what is made


async def test_our_files_are_for_their_owner_only(store: Store, path: Path) -> None:
    """The journal and all that stands beside it, whatever the umask says."""
    before = os.umask(0)
    try:
        async with opened_desk(store) as desk:
            await desk.write(Add(row(1)))
            assert beside(path) == {"", "-wal", "-shm", "-lock", "-reserve"}
            for name in beside(path):
                assert mode_of(f"{path}{name}") == PRIVATE
    finally:
        os.umask(before)
    assert beside(path) == {"", "-lock", "-reserve"}


async def test_the_mode_of_a_file_that_was_there_is_left_alone(store: Store, path: Path) -> None:
    """Its owner had reasons; SQLite gives its own files the same."""
    touch(path, 0o640)
    async with opened_desk(store) as desk:
        await desk.write(Add(row(1)))
        assert mode_of(path) == mode_of(f"{path}-wal") == 0o640


@pytest.mark.parametrize(
    "name",
    ["with space", "què?#%20&mode=ro", "100%", "a'b", 'a"b', "ünï", "-lock", "a;b", "\udcff"],
)
async def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    """Also one that would mean something in a URI."""
    store = SQLiteStore(tmp_path / name)
    await leave(store, Add(row(1)))
    assert beside(tmp_path / name) == {"", "-lock", "-reserve"}


async def test_two_names_of_a_file_are_one_journal(tmp_path: Path) -> None:
    """The lock stands beside the file itself, not beside the link."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "real" / "journal.db")
    async with opened_desk(SQLiteStore(tmp_path / "link.db")):
        with pytest.raises(JournalError, match="open already"):
            await leave(SQLiteStore(tmp_path / "real" / "journal.db"))
    assert (tmp_path / "real" / "journal.db-lock").exists()


async def test_an_empty_file_is_a_new_journal(store: Store, path: Path) -> None:
    """As `touch` or a temporary file leaves it."""
    touch(path, PRIVATE)
    async with opened_desk(store) as desk:
        assert (desk.opened.clean, desk.opened.last_id) == (True, 0)


async def test_the_tables_of_the_program_are_its_own(store: Store, path: Path) -> None:
    """The journal may live in the program's database, and leaves everything else as it is."""
    theirs = (
        "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT)",
        "CREATE INDEX users_name ON users (name)",
        "CREATE TABLE log (name TEXT)",
        "CREATE TRIGGER users_log AFTER INSERT ON users BEGIN INSERT INTO log VALUES (new.name); END",
        "CREATE VIEW names AS SELECT name FROM users",
        "CREATE TABLE asyncdefer_jobs_of_mine (id INTEGER)",
        "INSERT INTO users (name) VALUES ('Ada')",
    )
    sql(path, *theirs)
    async with opened_desk(store) as desk:
        await desk.write(Add(row(1)))
        sql(path, "INSERT INTO users (name) VALUES ('Grace')", "CREATE TABLE more (x)")
        await desk.write(Add(row(2)))
        assert await desk.ids() == [1, 2]
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM log").fetchall() == [("Ada",), ("Grace",)]
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_schema")}
    assert {"users", "users_name", "users_log", "names", "more"} < names


# -- how it is used


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[sqlite3.Connection]]:
    """The connections to the journal that are made."""
    made: list[sqlite3.Connection] = []
    connect = _lock.connect

    def remember(*args: Any, **kwargs: Any) -> Any:
        made.append(connect(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(_lock, "connect", remember)
    yield made
    made.clear()


@pytest.mark.parametrize(("synchronous", "number"), [("FULL", 2), ("NORMAL", 1)])
async def test_settings_are_as_they_must_be(
    path: Path, connections: list[sqlite3.Connection], synchronous: Any, number: int
) -> None:
    """WAL, the syncs that were promised, and nothing that lets a file run code."""
    store = SQLiteStore(path, synchronous=synchronous)
    async with opened_desk(store):
        (db,) = connections
        names = ["journal_mode", "synchronous", "trusted_schema", "cell_size_check", "mmap_size"]
        names += ["busy_timeout", "foreign_keys", "fullfsync"]
        asked: list[Any] = []

        def ask() -> None:
            asked.extend(db.execute(f"PRAGMA {name}").fetchone()[0] for name in names)

        await store._of().hop(ask)
        assert asked == ["wal", number, 0, 1, 0, 1000, 0, 1]


async def test_a_setting_that_does_not_stick_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and nothing stays open."""
    monkeypatch.setitem(_sound._PRAGMAS, "page_count", 7)
    await refused(path, "PRAGMA page_count = 7")
    monkeypatch.undo()
    await leave(SQLiteStore(path))


async def test_the_wal_stays_short(store: Store, path: Path) -> None:
    """However much is written; and a renewal takes it down."""
    wal = f"{path}-wal"
    async with opened_desk(store) as desk:
        for turn in range(30):
            heavy = [row(turn * 100 + n, arguments="x" * 30_000) for n in range(1, 101)]
            await desk.write(*map(Add, heavy))
            await desk.write(*[Drop(each.id, "scheduled") for each in heavy])
        assert os.stat(wal).st_size < 40 << 20
        await desk.renew()
        await desk.write(Add(row(1)))  # begins at the front again
        with closing(sqlite3.connect(path)) as db:
            _, frames, moved = db.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        assert frames == moved < 100


async def test_the_wal_of_small_groups_is_written_over(store: SQLiteStore, path: Path) -> None:
    """A commit that makes a file longer takes twice as long; also after the connection was lost."""
    async with opened_desk(store) as desk:
        for turn in range(2):
            for number in range(300):
                await desk.write(Add(row(1 + turn * 1_000 + number)))
            assert os.stat(f"{path}-wal").st_size < 400 * 4_120
            assert store._desk is not None
            await store._desk.hop(store._desk.file.close)


async def test_a_checkpoint_is_of_something(store: SQLiteStore) -> None:
    """One of a -wal that is home already may lose another connection's commit (before 3.51.3)."""
    async with opened_desk(store) as desk:
        heavy = [row(n, arguments="x" * 30_000) for n in range(1, 101)]
        await desk.write(*map(Add, heavy))
        assert store._desk is not None
        file = store._desk.file
        said: list[str] = []
        await store._desk.hop(lambda: file._ready().set_trace_callback(said.append))
        await desk.renew()
        asked = [text for text in said if text.startswith(("COMMIT", "PRAGMA wal_checkpoint"))]
        assert asked == ["COMMIT", "PRAGMA wal_checkpoint(PASSIVE)"]
        said.clear()
        await desk.renew()
        assert not [text for text in said if "checkpoint" in text]


async def test_arguments_are_in_no_log(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    """What is executed is logged by aiosqlite; jobs carry passwords."""
    caplog.set_level(logging.DEBUG)
    async with opened_desk(store) as desk:
        secret = row(1, "SECRET-key", arguments="SECRET", body="SECRET", task="SECRET-task")
        await desk.write(Add(secret))
        await desk.write(Set(secret, "scheduled"), Add(row(1)), Drop(1, "running"))
        await desk.claim()
        await desk.claim(keys=[("SECRET-task", "SECRET-key")])
        await rows_of(store, task="SECRET-task")
        with pytest.raises(JournalError) as caught:
            await desk.write(Add(row(2, arguments="SECRET\udc80")))
    assert "aiosqlite" in {record.name for record in caplog.records}
    assert "SECRET" not in caplog.text
    assert "SECRET" not in str(caught.value)


async def test_an_idle_journal_holds_no_calls(store: Store) -> None:
    """Its thread has let go of the last group when the writer hears of it."""
    async with opened_desk(store) as desk:
        text = "x" * 1_000
        before = sys.getrefcount(text)
        await desk.write(Add(row(1, arguments=text)), Add(row(2, "k", arguments=text)))
        assert sys.getrefcount(text) == before
        await desk.write(Set(row(1, body=text), "scheduled"))
        assert sys.getrefcount(text) == before


async def test_a_thread_ends_with_its_journal(store: Store, path: Path) -> None:
    """After a close, a refusal and a broken file there is none more than before."""
    before = threading.active_count()
    for _ in range(20):
        async with opened_desk(store):
            assert threading.active_count() == before + 1
            with pytest.raises(JournalError):
                await leave(SQLiteStore(path))
        assert threading.active_count() == before
    write(path, b"no database" * 1000)
    await refused(path, "not a SQLite database")
    assert threading.active_count() == before


def test_a_forgotten_journal_lets_the_interpreter_exit(path: Path) -> None:
    """Nobody closed it: the program ends all the same, and nothing that was written is lost."""
    program = """
        import asyncio, sys
        from asyncdefer.stores._base import Add, Owner, Row
        from asyncdefer.stores.sqlite import SQLiteStore

        async def main():
            store = SQLiteStore(sys.argv[1])
            opening = store.open(Owner(1, 1, "host", 1), now=1, until=2)
            await opening.__aenter__()
            await store.write(Owner(1, 1, "host", 1), [(Add(Row(1, "t", None, "scheduled", 1)),)])
            kept.append((store, opening))

        kept = []
        asyncio.run(main())
    """
    subprocess.run([sys.executable, "-c", dedent(program), str(path)], check=True, timeout=20)

    async def look() -> None:
        async with opened_desk(SQLiteStore(path)) as desk:
            assert not desk.opened.clean
            assert await desk.ids() == [1]

    asyncio.run(look())


# -- what is refused


async def test_a_folder_is_refused(tmp_path: Path) -> None:
    """And one that is not there is not made."""
    await refused(tmp_path, "is a folder")
    await refused(tmp_path / "no" / "journal.db", "cannot be made")
    assert beside(tmp_path / "journal.db") == set()


@pytest.mark.parametrize(
    "content", [b"x" * 100, b"SQLite format 3\0" + b"\xff" * 5000, b"\0" * 512]
)
async def test_another_file_is_refused(path: Path, content: bytes) -> None:
    """It stays as it was."""
    write(path, content)
    await refused(path, "not a SQLite database|damaged")
    assert read(path) == content


async def fill(path: Path, number: int = 2_000) -> None:
    rows = [row(id, f"k:{id}", arguments="x" * 200, at=NOW + id) for id in range(1, number + 1)]
    await leave(SQLiteStore(path), *map(Add, rows))


@pytest.mark.parametrize("missing", [1, 4096, 100_000, 300_000])
async def test_a_file_that_was_cut_off_is_refused(path: Path, missing: int) -> None:
    """After an unfinished copy, say."""
    await fill(path)
    cut_off(path, missing)
    before = read(path)
    await refused(path, "damaged")
    assert read(path) == before


async def test_a_file_that_was_cut_off_beside_its_wal_is_refused(path: Path) -> None:
    """What the -wal has is not enough."""
    await fill(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE asyncdefer_meta SET value = 0 WHERE name = 'clean'")
        wal = read(f"{path}-wal")
    cut_off(path, 100_000)
    write(f"{path}-wal", wal)
    await refused(path, "damaged")


async def test_an_empty_file_beside_a_wal_is_refused(path: Path) -> None:
    """It is no new journal: with the file back in its place, the -wal has what it lacks."""
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(Add(row(1)))
        before = read(path), read(f"{path}-wal")
    write(path, b"")
    write(f"{path}-wal", before[1])
    await refused(path, "empty")
    assert read(f"{path}-wal") == before[1]
    write(path, before[0])
    async with opened_desk(SQLiteStore(path)) as desk:
        assert await desk.ids() == [1]


@pytest.mark.parametrize("left", [0, 4096, 8192, 50_000])
@pytest.mark.parametrize("name", ["", "-wal"])
async def test_a_file_that_is_cut_off_meanwhile_is_an_error_at_the_call(
    path: Path, name: str, left: int
) -> None:
    """By a shell's `>`, by a copy that failed: the inode is the same, and writes would succeed."""
    await fill(path, 500)
    store = SQLiteStore(path)
    opening = store.open(OWNER, now=NOW, until=NOW + LEASE)
    await opening.__aenter__()
    desk = Desk(store, OWNER, NONE, NOW)
    await desk.write(*[Set(row(id, f"k:{id}", body="x" * 99), "scheduled") for id in range(1, 400)])
    os.truncate(f"{path}{name}", left)
    for _ in range(2):
        with pytest.raises(JournalError, match="damaged"):
            await desk.write(Add(row(9_999)))
        with pytest.raises(JournalError, match="damaged"):
            await desk.claim()
    with pytest.raises(JournalError, match="damaged"):
        await opening.__aexit__(None, None, None)


async def test_a_file_that_sqlite_makes_shorter_is_as_it_should_be(path: Path) -> None:
    """By a VACUUM or a checkpoint of the program, or of our own."""
    await fill(path)
    async with opened_desk(SQLiteStore(path)) as desk:
        await desk.write(*[Drop(id, "scheduled") for id in range(100, 2_000)])
        size = os.stat(path).st_size
        with closing(sqlite3.connect(path, isolation_level=None)) as db:
            for _ in range(3):
                db.execute("VACUUM")
                assert db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
                assert os.stat(path).st_size < size // 2
                assert os.stat(f"{path}-wal").st_size == 0
                await desk.write(Add(row(9_000)), Drop(9_000, "scheduled"))
        assert len(await desk.ids()) == 100


async def test_damage_inside_is_found_after_an_unclean_stop(path: Path) -> None:
    """A small journal is looked through before anything is done with it."""
    await fill(path)
    sql(path, "UPDATE asyncdefer_meta SET value = 0 WHERE name = 'clean'")
    with closing(sqlite3.connect(path)) as db:
        root, size = db.execute(
            "SELECT rootpage, (SELECT page_size FROM pragma_page_size) FROM sqlite_schema "
            "WHERE name = 'asyncdefer_jobs_waiting'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * size + 12)
        file.write(b"\xff" * 200)
    await refused(path, "damaged")


async def test_damage_that_is_met_later_is_an_error_at_the_call(path: Path) -> None:
    """In a journal that was closed nobody looks for it."""
    await fill(path)
    with closing(sqlite3.connect(path)) as db:
        (root,) = db.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'asyncdefer_jobs_waiting'"
        ).fetchone()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(b"\xff" * 4096)
    async with opened_desk(SQLiteStore(path)) as desk:
        with pytest.raises(JournalError, match="damaged"):
            await desk.claim()
        with pytest.raises(JournalError, match="damaged"):
            await desk.write(Add(row(9_999)))
        assert len(await desk.claimed(ids=[1, 2])) == 2


async def test_a_text_that_is_none_spoils_no_other_row(path: Path) -> None:
    """A damaged row is handed on for its reader to refuse; its neighbours come as they are."""
    await leave(SQLiteStore(path), *[Add(row(id, f"k:{id}", body="{}")) for id in (1, 2, 3)])
    sql(path, "UPDATE asyncdefer_jobs SET body = CAST(x'7bff' AS TEXT) WHERE id = 2")
    async with opened_desk(SQLiteStore(path)) as desk:
        bodies = {each.id: each.body for each in await desk.claim()}
        assert bodies == {1: "{}", 2: "{\ufffd", 3: "{}"}
        assert [each.body for each in await desk.rows()] == ["{}", "{\ufffd", "{}"]
        assert [each.body for each in await desk.claim(ids=[3])] == ["{}"]
        await desk.write(Set(row(2, "k:2", "held", body="parked"), "scheduled"))
        assert [each.body for each in await desk.claim(ids=[2])] == ["parked"]


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="there are no users here")
@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_cannot_be_written_is_refused(what: str) -> None:
    """By a user who may only read."""
    program = """
        import asyncio, os, sys
        from asyncdefer.errors import JournalError
        from asyncdefer.stores._base import Owner
        from asyncdefer.stores.sqlite import SQLiteStore

        if os.getuid() == 0:
            os.setuid(65534)

        async def main():
            async with SQLiteStore(sys.argv[1]).open(Owner(1, 1, "host", 1), now=1, until=2):
                pass

        try:
            asyncio.run(main())
        except JournalError as error:
            print(error)
    """
    with TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o777)
        path = folder / "journal.db"
        if what == "file":
            sql(path, "CREATE TABLE users (id)")
            path.chmod(0o444)
        else:
            folder.chmod(0o555)
        done = subprocess.run(
            [sys.executable, "-c", dedent(program), str(path)],
            capture_output=True, check=True, text=True, timeout=20,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        assert "may write to" in done.stdout or "can be written to" in done.stdout
