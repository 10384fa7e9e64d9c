"""What an iteration tells: how far it is, and in the end what became of its items."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from asyncdefer._core.job import JobError


class ItemFailure(Struct, frozen=True):
    """An item that failed for good. `key`: as its page gave it; of a list the index, of a range the
    number, None where a whole shard failed.
    """

    key: Any
    error: JobError


class ShardReport(Struct, frozen=True):
    """One shard: its index, and how many of its items succeeded."""

    index: int
    items: int


class Report(Struct, frozen=True):
    """What became of an iteration. Times are aware datetimes in UTC.

    `items`: how many succeeded. `failed`: the others, in the order of shards and keys.
    """

    items: int
    failed: list[ItemFailure]
    shards: list[ShardReport]
    started_at: datetime
    finished_at: datetime


class Progress(Struct, frozen=True):
    """How far an iteration is. `items`: done; `failed`: for good; `shards`: the items of each one.

    `ended`: how many of the shards have ended.
    """

    items: int
    failed: int
    shards: list[ShardReport]
    ended: int


class Ending(Struct, frozen=True):
    """What is written into the row of a record: how far its shards were when they or it ended, and
    how often `finalize` has failed.
    """

    progress: Progress | None = None
    failures: int = 0


class Cursor(Struct):
    """How far a shard is, as it is written into its row.

    `after`: the key of the last item that is done. `failures`: of the item that is next.
    `started`: microseconds on the wall clock.
    """

    after: Any
    started: int
    items: int = 0
    failures: int = 0
    failed: list[ItemFailure] = []
