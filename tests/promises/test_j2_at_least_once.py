"""J2. At least once: a job that ran when the process died runs again, but not for ever."""

from typing import Any

import pytest

from asyncdefer import JobFailed, Queue, Retry, Snooze, State, current, sleep
from asyncdefer.testing import VirtualClock, check_conservation


class Program:
    """A program that runs jobs of several kinds, in one process after another."""

    def __init__(self, disk: Any, clock: VirtualClock) -> None:
        self.disk = disk
        self.clock = clock
        self.ran: list[Any] = []

    def start(self, **options: Any) -> Queue:
        ran = self.ran
        queue = Queue(self.disk.store(), clock=self.clock, **options)

        @queue.task("long", defer=["name"])
        async def long(name: str, seconds: int = 1000) -> str:
            ran.append((name, current().attempt))
            await sleep(seconds)
            return name

        @queue.task("quick")
        async def quick(name: str) -> str:
            ran.append((name, current().attempt))
            return name

        @queue.task("flaky", retry=Retry(3, delay=100, jitter=False))
        async def flaky() -> None:
            ran.append(("flaky", current().attempt))
            raise ValueError("again")

        @queue.task("snoozer")
        async def snoozer() -> None:
            ran.append(("snoozer", current().attempt))
            raise Snooze(100)

        return queue

    def call(self, queue: Queue, name: str, *args: Any, **options: Any) -> Any:
        return queue.enqueue(queue.task_of(name), *args, **options)


@pytest.fixture
def program(disk: Any, clock: VirtualClock) -> Program:
    return Program(disk, clock)


async def test_a_run_that_the_crash_interrupted_runs_again(program: Program) -> None:
    """Its attempt was counted before it started."""
    async with program.start() as first:
        await program.call(first, "long", "a")
        await program.clock.advance(1)
        program.disk.crash()
    async with program.start() as queue:
        await program.clock.advance(1_001)
        check_conservation(queue)
        assert queue.stats().succeeded == 1
    assert program.ran == [("a", 1), ("a", 2)]


async def test_a_run_that_the_close_interrupted_burns_nothing(program: Program) -> None:
    """It runs again at the next start, however often the program is restarted."""
    for attempt in range(1, 6):
        async with program.start(drain_timeout=0) as queue:
            if attempt == 1:
                await program.call(queue, "long", "a")
            await program.clock.advance(1)
    assert program.ran == [("a", attempt) for attempt in range(1, 6)]


async def test_three_crashes_are_enough(program: Program) -> None:
    """A job that takes the process down again and again has failed."""
    async with program.start() as queue:
        handle = await program.call(queue, "long", "killer")
        await program.clock.advance(1)
        program.disk.crash()
    for _ in range(2):
        async with program.start() as queue:
            await program.clock.advance(1)
            program.disk.crash()
    async with program.start() as queue:
        await program.clock.advance(1)
        failed = await queue.handle(handle.id)
        assert failed is not None
        assert failed.state is State.FAILED
        with pytest.raises(JobFailed, match="Crashed"):
            await failed
        [job] = [job async for job in queue.jobs(state=State.FAILED)]
        assert job.error is not None
        assert job.error.type == "Crashed"
        assert job.attempt == 3
        check_conservation(queue)
    assert len(program.ran) == 3


async def test_the_neighbours_do_not_fail(program: Program) -> None:
    """Jobs that once ran beside the killer run one at a time, so it takes none of them with it."""
    names = ["a", "killer", "b", "c"]
    async with program.start() as queue:
        for name in names:
            await program.call(queue, "long", name)
        await program.clock.advance(1)
        program.disk.crash()
    for _ in range(20):  # whenever the killer runs the process dies
        program.ran.clear()
        async with program.start() as queue:
            while not any(name == "killer" for name, _ in program.ran):
                if queue.stats().waiting + queue.stats().running == 0:
                    break
                assert queue.stats().running <= 1
                await program.clock.advance(500)
            program.disk.crash()
    async with program.start() as queue:
        states = {job.key: job.state async for job in queue.jobs()}
    assert states.pop('["killer"]') is State.FAILED
    assert list(states.values()) == [State.SUCCEEDED] * 3


async def test_fresh_jobs_run_beside_a_suspect(program: Program) -> None:
    """One suspect takes one slot, and nobody else waits for it."""
    async with program.start() as queue:
        for name in "ab":
            await program.call(queue, "long", name)
        await program.clock.advance(1)
        program.disk.crash()
    async with program.start() as queue:
        await program.clock.advance(1)
        fresh = await program.call(queue, "quick", "fresh")
        assert await fresh == "fresh"
        assert queue.stats().running == 1


async def test_an_interrupted_run_gives_way_to_a_newer_call(program: Program) -> None:
    """A newer call of its key that waited runs instead."""
    async with program.start() as queue:
        await program.call(queue, "long", "a", 1_000)
        await program.clock.advance(1)
        await program.call(queue, "long", "a", 7)
        program.disk.crash()
    async with program.start() as queue:
        await program.clock.advance(8)
        assert queue.stats().succeeded == 1
        assert [job.arguments["seconds"] async for job in queue.jobs()] == [7]
        check_conservation(queue)


@pytest.mark.parametrize("name", ["flaky", "snoozer"])
async def test_what_waits_for_its_next_attempt_goes_on(program: Program, name: str) -> None:
    """Attempts and failures are counted through a crash."""
    async with program.start() as queue:
        await program.call(queue, name)
        await program.clock.advance(1)
        program.disk.crash()
    async with program.start() as queue:
        await program.clock.advance(100)
        assert program.ran == [(name, 1), (name, 2)]
        await program.clock.advance(300)
        if name == "flaky":
            assert program.ran == [(name, n) for n in (1, 2, 3)]
            assert queue.stats().failed == 1
