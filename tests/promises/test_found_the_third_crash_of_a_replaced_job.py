"""A bug that a kill at a random moment has found, by its smallest program."""

from pathlib import Path

from asyncdefer import Queue, State, sleep
from asyncdefer.testing import VirtualClock, check_conservation
from tests.promises.conftest import Disk


async def test_a_run_that_has_a_successor_gives_way(
    defer_clock: VirtualClock, tmp_path: Path
) -> None:
    """§10: an interrupted run gives way to a newer call of its key that waits, else it runs again.

    The rows of runs come before those that wait, in one claim. So when the interrupted run is
    looked at, the newer call is not there yet, and at the third crash the older one is FAILED (and
    told as such) instead of replaced.
    """
    disk, clock = Disk("sqlite", tmp_path), defer_clock

    def program() -> Queue:
        queue = Queue(disk.store(), clock=clock, drain_timeout=0)

        @queue.task("job", defer=["name"])
        async def job(name: str, seconds: int) -> None:
            await sleep(seconds)

        return queue

    async with program() as queue:
        await queue.enqueue(queue.task_of("job"), "k", 1_000)
        await clock.advance(1)
        disk.crash()
    async with program() as queue:
        await clock.advance(1)
        disk.crash()
    async with program() as queue:
        await clock.advance(1)
        assert queue.stats().running == 1
        await queue.enqueue(queue.task_of("job"), "k", 0)
        disk.crash()
    async with program() as queue:
        await clock.advance(10)
        states = [job.state async for job in queue.jobs()]
        check_conservation(queue)
    assert states == [State.SUCCEEDED], "the older call is told to have failed"
