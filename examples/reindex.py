"""A search index is made anew from a table, with a bar that shows how far it is.

Four shards go through the table by its keys, so rows that are done leave no gap; a text that cannot
be indexed is tried three times and then listed. `rich` draws the bar if it is installed.
"""

import asyncio
import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from itertools import pairwise

from asyncdefer import Handle, Queue, Report, Retry

ROWS = 2_000
folder = tempfile.TemporaryDirectory()
db = sqlite3.connect(f"{folder.name}/texts.db", isolation_level=None)
queue = Queue(f"{folder.name}/timers.db")  # with it, a restart goes on where it was


@queue.source
@dataclass
class Stale:
    version: int

    async def split(self, shards: int) -> list[tuple[int, int]]:
        (last,) = db.execute("SELECT coalesce(max(id), 0) FROM texts").fetchone()
        return list(pairwise(last * at // shards for at in range(shards + 1)))

    async def page(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
        keys = "version < ? AND id > ? AND id <= ?"
        sql = f"SELECT id, id FROM texts WHERE {keys} ORDER BY id LIMIT ?"
        return db.execute(sql, (self.version, after, upto, limit)).fetchall()


@queue.task(retry=Retry(3, delay=0.05))
async def index(text_id: int, version: int) -> None:
    (text,) = db.execute("SELECT text FROM texts WHERE id = ?", (text_id,)).fetchone()
    await asyncio.sleep(0.001)  # what the search engine takes
    if not text:
        raise ValueError("there are no words in it")
    db.execute("UPDATE texts SET version = ? WHERE id = ?", (version, text_id))


@queue.task
async def publish(report: Report, version: int) -> None:
    print(f"version {version} is in use: {report.items} texts")


async def watch(handle: Handle[Report], show: Callable[[int], object]) -> None:
    while not handle.done():
        await asyncio.sleep(0.1)
        show(handle.progress().items)


async def main() -> None:
    db.execute("PRAGMA synchronous = OFF")
    db.execute("CREATE TABLE texts (id INTEGER PRIMARY KEY, text TEXT, version INTEGER)")
    texts = [("" if n == 1_234 else f"text {n}",) for n in range(1, ROWS + 1)]
    db.executemany("INSERT INTO texts (text, version) VALUES (?, 1)", texts)
    async with queue:
        handle = await queue.iterate(Stale(2), index, publish, shards=4, args=(2,), max_failures=5)
        try:
            bar = import_module("rich.progress").Progress()
        except ImportError:
            await watch(handle, lambda done: print(f"{done} of {ROWS}"))
        else:
            with bar:
                line = bar.add_task("texts", total=ROWS)
                await watch(handle, lambda done: bar.update(line, completed=done))
        for bad in (await handle).failed:
            print(f"text {bad.key}: {bad.error.message}")


asyncio.run(main())
db.close()
folder.cleanup()
