"""The floors of the durable workloads: plain SQLite in the same kind of file, at the same `synchronous`, doing the same number of rows."""

from __future__ import annotations

import random
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

DAY = 86_400_000_000
GROUP = 1_000

Rows = list[tuple[int, str, int, str]]


@contextmanager
def folder() -> Iterator[Path]:
    """On the disk of the working directory, since /tmp may be memory."""
    path = Path(tempfile.mkdtemp(prefix=".bench-", dir="."))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def connect(path: Path) -> sqlite3.Connection:
    """A table of four columns, whose key is the id; no index, no owner, no check."""
    file = sqlite3.connect(path, isolation_level=None)
    file.execute("PRAGMA journal_mode=WAL")
    file.execute("PRAGMA synchronous=FULL")
    file.execute(
        "CREATE TABLE jobs (id INTEGER PRIMARY KEY, task TEXT, at INTEGER, body TEXT) STRICT"
    )
    return file


def rows(first: int, count: int, *, scattered: bool = False) -> Rows:
    source = random.Random(first)
    return [
        (i, "benchmarks.fn", source.randrange(DAY) if scattered else i, f'{{"i":{i}}}')
        for i in range(first, first + count)
    ]


def insert(file: sqlite3.Connection, wanted: Rows) -> None:
    """Each group of a thousand in one transaction."""
    for start in range(0, len(wanted), GROUP):
        file.execute("BEGIN IMMEDIATE")
        file.executemany("INSERT INTO jobs VALUES (?, ?, ?, ?)", wanted[start : start + GROUP])
        file.execute("COMMIT")


def run(file: sqlite3.Connection, wanted: Rows) -> None:
    """Accepted, started and ended, a thousand at a time: three statements in one transaction each."""
    for start in range(0, len(wanted), GROUP):
        group = wanted[start : start + GROUP]
        for sql, values in (
            ("INSERT INTO jobs VALUES (?, ?, ?, ?)", group),
            ("UPDATE jobs SET body = '1' WHERE id = ?", [row[:1] for row in group]),
            ("UPDATE jobs SET body = '2' WHERE id = ?", [row[:1] for row in group]),
        ):
            file.execute("BEGIN IMMEDIATE")
            file.executemany(sql, values)
            file.execute("COMMIT")
