"""J9 when a file of a journal is cut off in its place: by `> timers.db`, or by a copy that failed.

It is the same file, so its identity says nothing; its length does. No call is acknowledged that
would not be found again, and nothing is taken for a new journal that is the rest of an old one.
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


async def false(tmp_path: Path, clock: VirtualClock, suffix: str, left: int) -> list[str]:
    """The calls that were acknowledged after the cut, and are gone when the process has died."""
    path, died = tmp_path / "timers.db", tmp_path / "died.db"
    ran: list[str] = []
    async with program(path, clock, ran) as queue:  # more than a page of them
        for number in range(300):
            queue.enqueue_nowait(queue.task_of("note"), f"far {number}", delay=5000)
    acknowledged: list[str] = []
    async with program(path, clock, ran) as queue:
        await queue.enqueue(queue.task_of("note"), "before", delay=10)
        os.truncate(f"{path}{suffix}", left)
        for number in range(3):
            try:
                await queue.enqueue(queue.task_of("note"), f"after {number}", delay=20)
            except JournalError:
                continue
            acknowledged.append(f"after {number}")
        for name in ("", "-wal"):
            shutil.copy(f"{path}{name}", f"{died}{name}")
    ran.clear()
    try:
        async with program(died, clock, ran):
            await clock.advance(100)
    except JournalError as error:
        ran.append(f"{error}")
    return [text for text in acknowledged if text not in ran]


@pytest.mark.parametrize("suffix", ["", "-wal"])
@pytest.mark.parametrize("left", [0, 8192])
async def test_a_file_is_cut_off_while_the_queue_runs(
    tmp_path: Path, defer_clock: VirtualClock, suffix: str, left: int
) -> None:
    """Calls are refused, or they are there after the process died."""
    assert await false(tmp_path, defer_clock, suffix, left) == []


async def test_without_a_look_at_the_length_it_would_be_acknowledged(
    tmp_path: Path, defer_clock: VirtualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: SQLite goes on in a -wal that was cut off, and the calls in it are lost."""
    monkeypatch.setattr("asyncdefer.stores._sound.check_files", lambda *_: None)
    assert await false(tmp_path, defer_clock, "", 0) == ["after 0", "after 1", "after 2"]


async def test_an_empty_file_beside_a_wal_is_no_new_journal(
    tmp_path: Path, defer_clock: VirtualClock
) -> None:
    """The start is refused, and the -wal stays: with the journal back in its place it has the calls."""
    path, died, whole = tmp_path / "timers.db", tmp_path / "died.db", tmp_path / "whole.db"
    ran: list[str] = []
    async with program(path, defer_clock, ran) as queue:
        for number in range(50):
            await queue.enqueue(queue.task_of("note"), f"far {number}", delay=5000)
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
