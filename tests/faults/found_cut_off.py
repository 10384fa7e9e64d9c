"""Found: a journal that is cut off in place while it runs goes on to acknowledge calls.

`Identity.check` compares the inode. A file that was truncated (by `> timers.db`, by a copy that
failed) keeps it, so groups are written to the -wal and acknowledged, and the next start says that
the file is damaged or no database (J9: no false acknowledgement). With the -wal cut off, what was
acknowledged afterwards is lost by the death of the process. The length stands in the same `stat`
that is made already: neither file is ever shorter than it was, except the -wal by our own hand.

And a journal of length 0 beside a -wal that has calls is taken for a new one: SQLite removes the
-wal, and with it what a longer file, put back in its place, would still have had.

    pytest tests/faults/found_cut_off.py
"""

import os
import shutil
from pathlib import Path

import pytest

from asyncdefer import JournalError, Queue
from asyncdefer.testing import VirtualClock


def program(path: Path, clock: VirtualClock, ran: list[str]) -> Queue:
    queue = Queue(path, clock=clock)

    @queue.task("note")
    async def note(text: str) -> None:
        ran.append(text)

    return queue


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("left", [0, 8192])
async def test_a_file_is_cut_off_while_the_queue_runs(
    tmp_path: Path, defer_clock: VirtualClock, suffix: str, left: int
) -> None:
    """Calls are refused, or they are there after the process died."""
    path, died = tmp_path / "timers.db", tmp_path / "died.db"
    ran: list[str] = []
    async with program(path, defer_clock, ran) as queue:  # more than a page of them
        for number in range(300):
            queue.enqueue_nowait("note", f"far {number}", delay=5000)
    acknowledged: list[str] = []
    async with program(path, defer_clock, ran) as queue:
        await queue.enqueue("note", "before", delay=10)
        os.truncate(f"{path}{suffix}", left)
        for number in range(3):
            try:
                await queue.enqueue("note", f"after {number}", delay=20)
            except JournalError:
                continue
            acknowledged.append(f"after {number}")
        for name in ("", "-wal"):
            shutil.copy(f"{path}{name}", f"{died}{name}")
    ran.clear()
    try:
        async with program(died, defer_clock, ran):
            await defer_clock.advance(100)
    except JournalError as error:
        ran.append(f"{error}")
    assert [text for text in acknowledged if text not in ran] == [], ran


async def test_an_empty_file_beside_a_wal_is_no_new_journal(
    tmp_path: Path, defer_clock: VirtualClock
) -> None:
    """The start is refused, and the -wal stays: with the journal back in its place it has the calls."""
    path, died, whole = tmp_path / "timers.db", tmp_path / "died.db", tmp_path / "whole.db"
    ran: list[str] = []
    async with program(path, defer_clock, ran) as queue:
        for number in range(50):
            await queue.enqueue("note", f"far {number}", delay=5000)
        for name in ("", "-wal"):
            shutil.copy(f"{path}{name}", f"{died}{name}")
    shutil.copy(died, whole)
    os.truncate(died, 0)
    with pytest.raises(JournalError):
        await program(died, defer_clock, ran).start()
    os.replace(whole, died)
    ran.clear()
    async with program(died, defer_clock, ran):
        await defer_clock.advance(6000)
    assert len(ran) == 50
