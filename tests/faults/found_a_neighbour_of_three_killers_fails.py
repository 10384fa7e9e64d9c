"""Not collected: a bug that kill -9 found, by its smallest test. Run it by its name."""

from pathlib import Path

from asyncdefer import Queue, State, sleep
from asyncdefer.testing import VirtualClock
from tests.promises.conftest import Disk


async def test_a_neighbour_of_three_killers(defer_clock: VirtualClock, tmp_path: Path) -> None:
    """J2: "a job that kills the process ends FAILED, and its neighbours do not".

    Jobs with a crash run one at a time among themselves, but beside the fresh ones. So a neighbour
    that was hit once runs beside a killer that has not killed yet, and again beside the next one,
    and is FAILED before any of the killers is.
    """
    disk, clock = Disk("sqlite", tmp_path), defer_clock
    died: list[str] = []

    def program() -> Queue:
        queue = Queue(disk.store(), clock=clock, concurrency=2, drain_timeout=0)

        @queue.task("neighbour")
        async def neighbour() -> None:
            await sleep(10)

        @queue.task("killer")
        async def killer(name: str) -> None:
            died.append(name)
            await sleep(1_000)

        return queue

    async with program() as queue:
        handle = await queue.enqueue(queue.task_of("neighbour"))
        for name in "abc":
            await queue.enqueue(queue.task_of("killer"), name)
        await clock.advance(1)
        disk.crash()
    for _ in range(2):
        async with program() as queue:
            await clock.advance(1)
            disk.crash()
    assert died == ["a", "b", "c"]
    async with program() as queue:
        await clock.advance(60)
        found = await queue.handle(handle.id)
        assert found is not None
        assert found.state is State.SUCCEEDED
