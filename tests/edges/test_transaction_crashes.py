"""Kills around a commit, and many transactions at once: what is committed runs, what is not never does."""

import asyncio
import random
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import aiosqlite
import pytest

from asyncdefer import Queue
from tests.edges.tills import Shop, until

PROGRAM = """
import asyncio, os, random, signal, sqlite3, sys, warnings
import aiosqlite
from asyncdefer import Queue

warnings.simplefilter("ignore", RuntimeWarning)
path, where, seed = sys.argv[1:]
queue = Queue(path)


@queue.task("ship")
async def ship(order: int) -> int:
    return order


def die():
    os.kill(os.getpid(), signal.SIGKILL)


async def main():
    async with queue:
        async with aiosqlite.connect(path, isolation_level=None) as db:
            await db.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY)")
            if where == "random":
                await crowd(random.Random(seed))
            if where == "after":
                queue._started().look_for = lambda *_, **__: die()
            async with queue.transaction(db) as tx:
                await db.execute("INSERT INTO orders VALUES (1)")
                await tx.enqueue(ship, 1, delay=3600)
                if where == "before":
                    die()


async def crowd(source):
    asyncio.get_running_loop().call_later(source.uniform(0.02, 0.25), die)

    async def worker(number):
        async with aiosqlite.connect(path, isolation_level=None, timeout=30) as db:
            for n in range(1000):
                order = number * 1000 + n
                try:
                    async with queue.transaction(db) as tx:
                        await db.execute(f"INSERT INTO orders VALUES ({order})")
                        await tx.enqueue(ship, order, delay=3600)
                        if source.random() < 0.3:
                            raise ZeroDivisionError
                except ZeroDivisionError:
                    pass

    await asyncio.gather(*map(worker, range(1, 5)))


asyncio.run(main())
"""


def killed(path: Path, where: str, seed: int = 0) -> None:
    """A program that dies in the middle."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), where, str(seed)], check=False, timeout=30
    )
    assert done.returncode == -9


def found(path: Path) -> tuple[list[int], list[int]]:
    """The orders, and those of the calls that wait."""
    db = sqlite3.connect(path)
    orders = [id for (id,) in db.execute("SELECT id FROM orders ORDER BY id")]
    texts = db.execute("SELECT arguments FROM asyncdefer_jobs WHERE state = 'scheduled'").fetchall()
    db.close()
    return orders, sorted(int("".join(filter(str.isdigit, text))) for (text,) in texts)


async def waits(path: Path) -> int:
    """How many calls the next start has."""
    queue = Queue(path)

    @queue.task("ship")
    async def ship(order: int) -> int:
        return order

    async with queue:
        return queue.stats().waiting


async def test_a_kill_before_the_commit(tmp_path: Path) -> None:
    """Neither the order nor the call is there."""
    killed(tmp_path / "shop.db", "before")
    assert found(tmp_path / "shop.db") == ([], [])
    assert await waits(tmp_path / "shop.db") == 0


async def test_a_kill_between_the_commit_and_the_adoption(tmp_path: Path) -> None:
    """Both are there, and the next start has the call."""
    killed(tmp_path / "shop.db", "after")
    assert found(tmp_path / "shop.db") == ([1], [1])
    assert await waits(tmp_path / "shop.db") == 1


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
async def test_a_kill_at_any_time(tmp_path: Path, seed: int) -> None:
    """Of each transaction the order and the call are there together, or neither is."""
    killed(tmp_path / "shop.db", "random", seed)
    orders, calls = found(tmp_path / "shop.db")
    assert orders == calls
    assert await waits(tmp_path / "shop.db") == len(orders)


@pytest.mark.parametrize("seed", range(6))
async def test_a_crowd_against_a_model(shop: Shop, seed: int) -> None:
    """Tasks and threads commit and roll back at random, keys and savepoints among them: what is
    committed runs once, unless a later call of its key took its place; what is not never runs.
    """
    source = random.Random(seed)
    committed: list[tuple[int, str | None]] = []
    numbers = iter(range(1, 10_000))
    lock = threading.Lock()

    def plan() -> list[tuple[int, str | None, bool]]:
        with lock:
            return [
                (next(numbers), source.choice([None, "a", "b"]), source.random() < 0.7)
                for _ in range(source.randint(1, 4))
            ]

    def work() -> None:
        db = sqlite3.connect(shop.path, isolation_level=None, timeout=30)
        for _ in range(8):
            ends, done = source.random() < 0.7, []
            try:
                with shop.queue.transaction(db) as tx:
                    for number, key, kept in plan():
                        db.execute("SAVEPOINT one")
                        db.execute(f"INSERT INTO orders VALUES ({number})")
                        tx.enqueue(shop.ship, number, key=key)
                        if kept:
                            done.append((number, key))
                        else:
                            db.execute("ROLLBACK TO one")
                        db.execute("RELEASE one")
                    if source.random() < 0.2:
                        time.sleep(0.01)
                    if not ends:
                        raise ZeroDivisionError
                committed.extend(done)
            except ZeroDivisionError:
                pass
        db.close()

    async def beside() -> None:
        async with aiosqlite.connect(shop.path, isolation_level=None, timeout=30) as db:
            for _ in range(8):
                ends, done, joins = source.random() < 0.7, [], source.random() < 0.4
                try:
                    if joins:
                        await db.execute("BEGIN IMMEDIATE")
                    async with shop.queue.transaction(db) as tx:
                        for number, key, _ in plan():
                            await db.execute(f"INSERT INTO orders VALUES ({number})")
                            await tx.enqueue(shop.ship, number, key=key)
                            done.append((number, key))
                        if not ends and not joins:
                            raise ZeroDivisionError
                    if joins:
                        await db.execute("COMMIT" if ends else "ROLLBACK")
                    if ends:
                        committed.extend(done)
                except ZeroDivisionError:
                    pass

    async def plainly() -> None:
        for _ in range(10):
            (number, key, _), *_ = plan()
            await shop.queue.enqueue(shop.ship, number, key=key)
            committed.append((number, key))
            await asyncio.sleep(source.random() / 50)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    await asyncio.gather(beside(), beside(), plainly())
    await until(lambda: not any(thread.is_alive() for thread in threads))
    await shop.is_noticed()
    await shop.queue.join()
    runs = shop.runs
    assert len(runs) == len(set(runs)), f"seed {seed}: twice"
    assert set(runs) <= {number for number, _ in committed}, f"seed {seed}: never committed"
    assert {number for number, key in committed if key is None} <= set(runs), f"seed {seed}: lost"
    assert shop.queue.stats().succeeded == len(runs)
    assert [job async for job in shop.queue.jobs(state="scheduled")] == []
