"""A full disk, and limits that are one: calls are refused, and what happens to jobs is recorded."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from asyncdefer.errors import JournalFull
from asyncdefer.stores import _room
from asyncdefer.stores._base import Add, Drop, Set
from asyncdefer.stores.sqlite import SQLiteStore
from tests.stores.desk import Desk, opened_desk, row

ROOT = Path(__file__).parents[2]

COMMON = """
    import asyncio, os, sys, warnings
    from asyncdefer.errors import JournalError, JournalFull
    from asyncdefer.stores._base import Add, Drop, Note, Row, Set, Unknown
    from asyncdefer.stores.sqlite import SQLiteStore
    from tests.stores.desk import opened_desk, row

    path = sys.argv[1]

    def heavy(id):
        return row(id, f"k:{id}", arguments="x" * 3000)

    async def add_until_full(desk, ids):
        "The ids that were acknowledged, and the one that was not."
        there = []
        for id in ids:
            try:
                await desk.write(Add(heavy(id)))
            except JournalFull:
                return there, id
            there.append(id)
        raise AssertionError("never full")
"""


def run(program: str, *command: str, path: Path) -> str:
    """What the program says; it fails with what it says about that."""
    text = dedent(COMMON) + dedent(program)
    done = subprocess.run(
        [*command, sys.executable, "-c", text, str(path)],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


# -- a disk


def _can_mount() -> bool:
    try:
        done = subprocess.run(
            ["unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt"],
            capture_output=True, timeout=20, check=False,
        )  # fmt: skip
    except OSError:
        return False
    return done.returncode == 0


small_disk = pytest.mark.skipif(
    not _can_mount(), reason="only a user who may mount file systems of its own has a small disk"
)
ON_A_SMALL_DISK = "unshare", "-Urm", "sh", "-c", 'mount -t tmpfs -o size=8m none "$4" && exec "$@"'

FILL = """
    def fill():
        "Leave no byte on the disk."
        with open(os.path.join(path, "filler"), "ab", buffering=0) as file:
            for size in (1 << 16, 4096, 1):
                try:
                    while file.write(bytes(size)) == size:
                        pass
                except OSError:
                    pass

    def make_room():
        os.unlink(os.path.join(path, "filler"))

    store = SQLiteStore(os.path.join(path, "journal.db"))
    reserve = os.path.join(path, "journal.db-reserve")
"""


def on_a_small_disk(program: str, path: Path) -> str:
    path.mkdir()
    # "$0" is a word for sh, "$1" to "$3" start Python, "$4" is the folder.
    return run(dedent(FILL) + dedent(program), *ON_A_SMALL_DISK, "sh", path=path)


@small_disk
def test_on_a_full_disk_only_calls_are_refused(tmp_path: Path) -> None:
    """Starts, ends and cancels are recorded in the room of the reserve.

    When there is room again, calls are accepted again, and the reserve is made again.
    """
    said = on_a_small_disk(
        """
        async def main():
            async with opened_desk(store) as desk:
                assert os.stat(reserve).st_size == 1 << 20
                await desk.write(*[Add(row(id, f"k:{id}")) for id in range(1, 201)])
                fill()
                there, refused = await add_until_full(desk, range(1000, 9000))
                calls = 0
                for id in range(1, 201):
                    started = row(id, f"k:{id}", "running", body="x" * 200)
                    await desk.write(Set(started, "scheduled"), Note("n", str(id)))
                    if id % 2:
                        await desk.write(Drop(id, "running"))
                    try:
                        await desk.write(Add(heavy(refused)))
                    except JournalFull:
                        calls += 1
                    else:  # there was room beside the reserve
                        assert os.stat(reserve).st_size >= 1 << 20
                        there.append(refused)
                        refused += 1
                print("refused", calls)
                states = await desk.states()
                assert states == {
                    **dict.fromkeys(range(2, 201, 2), "running"),
                    **dict.fromkeys(there, "scheduled"),
                }, states
                make_room()
                await desk.write(Add(heavy(refused)))
                await desk.renew()
                assert os.stat(reserve).st_size == 1 << 20
                expected = await desk.states()
            async with opened_desk(store) as desk:
                assert desk.opened.clean
                assert desk.opened.notes == {"n": "200"}
                assert await desk.states() == expected
                assert desk.opened.counts["running"] == 100
                assert desk.opened.counts["scheduled"] == len(there) + 1

        asyncio.run(main())
        """,
        tmp_path / "disk",
    )
    assert int(said.split()[1]) > 100


@small_disk
@pytest.mark.parametrize("adds", [1, 40])
def test_a_refused_call_never_comes_back(tmp_path: Path, adds: int) -> None:
    """Not even if the process dies right after it was told."""
    on_a_small_disk(
        f"""
        def first_life(report):
            async def main():
                opening = opened_desk(store)
                desk = await opening.__aenter__()
                fill()
                filler = os.path.join(path, "filler")
                os.truncate(filler, os.stat(filler).st_size - (1 << 19))
                there = []
                try:
                    for first in range(0, 9000, {adds}):
                        ids = range(first + 1, first + 1 + {adds})
                        await desk.write(*[Add(heavy(id)) for id in ids])
                        there.extend(ids)
                except JournalFull:
                    os.write(report, " ".join(map(str, there)).encode())
                    os.kill(os.getpid(), 9)

            asyncio.run(main())

        said, report = os.pipe()
        child = os.fork()
        if child == 0:
            first_life(report)
            os._exit(1)
        os.close(report)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == 9
        there = [int(id) for id in os.read(said, 1 << 16).split()]
        assert there
        make_room()

        async def second_life():
            async with opened_desk(store) as desk:
                assert await desk.ids() == there, (await desk.ids(), there)

        asyncio.run(second_life())
        """,
        tmp_path / "disk",
    )


@small_disk
def test_a_journal_opens_on_a_full_disk(tmp_path: Path) -> None:
    """By its reserve; and without one it says that there is no room, and opens when there is."""
    on_a_small_disk(
        """
        async def main():
            async with opened_desk(store) as desk:
                await desk.write(*[Add(row(id)) for id in range(1, 101)])
            fill()
            async with opened_desk(store) as desk:
                for id in range(1, 101):
                    await desk.write(Drop(id, "scheduled"))
                assert await desk.rows() == []
            fill()
            if os.path.exists(reserve):
                os.unlink(reserve)
            fill()
            try:
                async with opened_desk(store):
                    raise AssertionError("where was the room?")
            except JournalFull:
                pass
            make_room()
            async with opened_desk(store) as desk:
                await desk.write(Add(heavy(1)))

        asyncio.run(main())
        """,
        tmp_path / "disk",
    )


# -- a limit of the process


def test_a_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """SQLite calls it an I/O error. The -wal is written from its beginning before anybody is refused."""
    pytest.importorskip("resource")
    said = run(
        """
        import resource

        LIMIT = 3 << 20

        async def main():
            store = SQLiteStore(path)
            async with opened_desk(store) as desk:
                await desk.write(*[Add(row(id, f"k:{id}")) for id in range(1, 101)])
                resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT, resource.RLIM_INFINITY))
                there, refused = await add_until_full(desk, range(1000, 9000))
                assert os.stat(path).st_size > LIMIT // 2  # the journal itself is at the limit
                for id in range(1, 101):
                    await desk.write(Set(row(id, f"k:{id}", "running"), "scheduled"))
                    await desk.write(Drop(id, "running"))
                try:
                    await desk.write(Add(heavy(refused)))
                except JournalFull:
                    pass
                assert set(there) <= set(await desk.ids()) <= {*there, refused}
                resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
                await desk.write(Add(heavy(9999)))
                expected = await desk.ids()
            async with opened_desk(store) as desk:
                assert desk.opened.clean
                assert await desk.ids() == expected
            print(len(there))

        asyncio.run(main())
        """,
        path=tmp_path / "journal.db",
    )
    assert int(said) > 300


# -- the reserve


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def reserve_of(path: Path) -> os.stat_result | None:
    try:
        return os.stat(f"{path}-reserve")
    except FileNotFoundError:
        return None


async def test_the_reserve_has_its_room(path: Path) -> None:
    """It is there from the start, and not as a promise only."""
    async with opened_desk(SQLiteStore(path)):
        found = reserve_of(path)
        assert found is not None
        assert found.st_size == _room.RESERVE
        assert found.st_blocks * 512 >= _room.RESERVE


async def test_half_a_reserve_is_made_whole(path: Path) -> None:
    """At a renewal, too."""
    async with opened_desk(SQLiteStore(path)) as desk:
        os.truncate(f"{path}-reserve", 1000)
        await desk.renew()
        found = reserve_of(path)
        assert found is not None
        assert found.st_size == _room.RESERVE


async def test_a_journal_without_a_reserve_is_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that cannot promise room, calls are accepted as long as there is some."""

    def no_room(file: int, start: int, stop: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(_room, "_allocate", no_room)
    async with opened_desk(SQLiteStore(path)) as desk:
        assert os.stat(f"{path}-reserve").st_size == 0
        await desk.write(Add(row(1)))
        await desk.write(Set(row(1, state="running"), "scheduled"), Add(row(2)))
        await desk.renew()
        assert await desk.ids() == [1, 2]


async def test_what_the_reserve_made_room_for_is_not_for_calls(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As long as it cannot be made again."""
    store = SQLiteStore(path)
    async with opened_desk(store) as desk:
        await desk.write(Add(row(1)))
        file = store._of().file

        def no_room(file: int, start: int, stop: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr(_room, "_allocate", no_room)
            file._room._reserve.release()
            await _refused(desk)
            await desk.write(Drop(1, "scheduled"))
            await desk.renew()
            await _refused(desk)
        await desk.write(Add(row(3)))
        assert reserve_of(path) is not None
        assert await desk.ids() == [3]


async def _refused(desk: Desk) -> None:
    with pytest.raises(JournalFull):
        await desk.write(Drop(7, "running"), Add(row(2)))
