"""J2 at its edge: whom three *different* killers take with them.

Jobs with a crash run one at a time among themselves, but beside the fresh ones. That is what it
costs that one bad job holds up nobody: the journal knows who ran when the process died, and not
who did it.
"""

import shutil
from pathlib import Path

import pytest

from asyncdefer import Handle, JobFailed, Queue, State, sleep
from asyncdefer.testing import VirtualClock


def program(path: Path, clock: VirtualClock, began: list[str]) -> Queue:
    queue = Queue(path, clock=clock, concurrency=2, drain_timeout=0, result_ttl=None)

    @queue.task("neighbour")
    async def neighbour() -> None:
        await sleep(10)

    @queue.task("killer")
    async def killer(name: str) -> None:
        began.append(name)
        await sleep(1_000)

    return queue


async def crashed(queue: Queue, path: Path, clock: VirtualClock) -> Path:
    """Let it run for a second, and die: the journal as the process leaves it."""
    await clock.advance(1)
    left = path.with_name(f"after-{path.name}")
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", f"{left}{suffix}")
    return left


async def lives(
    path: Path, clock: VirtualClock, killers: str, crashes: int
) -> tuple[Path, list[str], str]:
    """So many deaths of a neighbour and its killers; the journal, who began, the neighbour's id."""
    began: list[str] = []
    async with program(path, clock, began) as queue:
        handle = await queue.enqueue(queue.task_of("neighbour"))
        for name in killers:
            await queue.enqueue(queue.task_of("killer"), name)
        path = await crashed(queue, path, clock)
    for _ in range(crashes - 1):
        async with program(path, clock, began) as queue:
            path = await crashed(queue, path, clock)
    return path, began, handle.id


async def found(queue: Queue, number: str) -> Handle[object]:
    handle = await queue.handle(number)
    assert handle is not None
    return handle


@pytest.mark.parametrize("killers", ["a", "ab"])
async def test_a_neighbour_of_two_killers(
    tmp_path: Path, defer_clock: VirtualClock, killers: str
) -> None:
    """Whoever ran beside one killer, or two, runs alone in the end, and ends well."""
    path, _, number = await lives(tmp_path / "timers.db", defer_clock, killers, 2)
    async with program(path, defer_clock, []) as queue:
        await defer_clock.advance(5_000)
        assert (await found(queue, number)).state is State.SUCCEEDED


async def test_a_neighbour_of_three_killers(tmp_path: Path, defer_clock: VirtualClock) -> None:
    """A limit: a job beside which three different jobs killed the process has been there at three
    crashes, as a killer would have been. It is FAILED, and says why; `redrive` runs it again.
    """
    path, began, number = await lives(tmp_path / "timers.db", defer_clock, "abc", 3)
    assert began == ["a", "b", "c"]  # each of them for the first time
    async with program(path, defer_clock, []) as queue:
        await defer_clock.advance(1)
        handle = await found(queue, number)
        assert handle.state is State.FAILED
        with pytest.raises(JobFailed, match="died"):
            await handle
        await defer_clock.advance(10_000)
        await queue.redrive(number)
        await defer_clock.advance(60)
        assert (await found(queue, number)).state is State.SUCCEEDED
