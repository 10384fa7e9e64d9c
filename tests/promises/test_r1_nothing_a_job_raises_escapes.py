"""R1: what a job raises never ends the loop, another job or the program's own task."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

import asyncdefer
from asyncdefer import Queue, State
from asyncdefer.testing import VirtualClock, virtual


class Custom(BaseException):
    """Not an `Exception`: an `except Exception` lets it through."""


class Unprintable(Exception):
    """Fails when it is shown, as in a log line."""

    def __str__(self) -> str:
        raise ValueError("no words")

    __repr__ = __str__


class Unhashable(Exception):
    """Compares in an odd way and has no hash."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("no comparison")

    __hash__ = None  # type: ignore[assignment]


RAISED: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("x"),
    "SystemExit": lambda: SystemExit(3),
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "StopIteration": lambda: StopIteration(5),
    "StopAsyncIteration": StopAsyncIteration,
    "BaseException": lambda: Custom("x"),
    "group": lambda: BaseExceptionGroup("both", [SystemExit(1), ValueError("x")]),
    "unprintable": Unprintable,
    "unhashable": Unhashable,
    "RecursionError": RecursionError,
    "MemoryError": MemoryError,
}


async def work(word: str) -> str:
    await asyncdefer.sleep(10)
    return word


async def until_cancelled() -> None:
    await asyncio.Event().wait()


def job_that_raises(kind: str, make: Callable[[], BaseException]) -> Callable[[], Any]:
    async def at_once() -> NoReturn:
        raise make()

    async def after_a_while() -> NoReturn:
        await asyncdefer.sleep(1)
        raise make()

    def plain() -> NoReturn:
        raise make()

    return {"at once": at_once, "after a while": after_a_while, "plain": plain}[kind]


@pytest.mark.parametrize("awaited", [True, False], ids=["awaited", "unawaited"])
@pytest.mark.parametrize("kind", ["at once", "after a while", "plain"])
@pytest.mark.parametrize("make", RAISED.values(), ids=RAISED)
async def test_a_failing_job_takes_nobody_along(
    queue: Queue, clock: VirtualClock, make: Callable[[], BaseException], kind: str, awaited: bool
) -> None:
    """Whatever a job raises, the jobs beside it, the later ones and the program go on."""
    own = asyncio.create_task(until_cancelled())
    beside = await queue.enqueue(work, "beside")
    bad = await queue.enqueue(job_that_raises(kind, make))
    waiter = asyncio.gather(bad, return_exceptions=True) if awaited else None
    await asyncio.sleep(0)
    await clock.advance(20)
    assert bad.state is State.FAILED
    later = await queue.enqueue(work, "later")
    await clock.advance(20)
    assert (beside.done(), later.done(), own.done()) == (True, True, False)
    assert (await beside, await later) == ("beside", "later")
    stats = queue.stats()
    assert (stats.succeeded, stats.failed, stats.running) == (2, 1, 0)
    if waiter is not None:
        async with asyncio.timeout(5):
            await waiter
    own.cancel()
    await asyncio.wait([own])


@pytest.mark.parametrize("make", RAISED.values(), ids=RAISED)
async def test_a_failure_gives_back_its_slot(make: Callable[[], BaseException]) -> None:
    """A job that fails leaves its slot and its key to the next."""
    queue = Queue(concurrency=1)
    async with virtual(queue) as clock:
        for kind in ("at once", "after a while", "plain"):
            await queue.enqueue(job_that_raises(kind, make), key="k")
            await clock.advance(5)
        handle = await queue.enqueue(work, "next", key="k")
        await clock.advance(20)
        assert handle.done()
        assert await handle == "next"


async def test_a_cancelled_task_group_in_a_job_stays_in_it(
    queue: Queue, clock: VirtualClock
) -> None:
    """A task group that breaks inside a job, with its children, is the failure of that job."""

    async def child() -> NoReturn:
        await asyncdefer.sleep(1)
        raise LookupError

    async def job() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
            group.create_task(until_cancelled())

    beside = await queue.enqueue(work, "beside")
    bad = await queue.enqueue(job)
    await clock.advance(20)
    assert (bad.state, beside.state) == (State.FAILED, State.SUCCEEDED)


async def test_a_subscriber_that_fails_does_no_harm(queue: Queue, clock: VirtualClock) -> None:
    """A callback of `subscribe` that raises ends neither the loop nor the job it was told of."""

    def angry(event: object) -> NoReturn:
        raise LookupError("listener")

    unsubscribe = queue.subscribe(angry)
    handle = await queue.enqueue(work, "done")
    await clock.advance(20)
    assert handle.state is State.SUCCEEDED
    unsubscribe()


@pytest.mark.parametrize("make", [Unprintable, Unhashable])
async def test_a_failure_that_cannot_be_shown_still_answers(
    queue: Queue, clock: VirtualClock, make: Callable[[], BaseException]
) -> None:
    """An exception that breaks the telling of it does not keep the answer from the waiters."""
    told: list[str] = []
    unsubscribe = queue.subscribe(lambda event: told.append(event.name))
    bad = await queue.enqueue(job_that_raises("after a while", make))
    waiter = asyncio.gather(bad, return_exceptions=True)
    await asyncio.sleep(0)
    await clock.advance(5)
    async with asyncio.timeout(5):
        assert isinstance((await waiter)[0], (Unprintable, Unhashable))
    assert told[-1] == "job_failed"
    failed = [job async for job in queue.jobs(state=State.FAILED)]
    assert [job.id for job in failed] == [bad.id]
    unsubscribe()


INTERRUPTED = """
import asyncio
import sys

from asyncdefer import Queue

def plain():
    raise KeyboardInterrupt

async def coroutine():
    raise KeyboardInterrupt

async def main():
    queue = Queue()
    async with queue:
        handle = await queue.enqueue({kind})
        try:
            await handle
        finally:
            try:
                await handle
            except BaseException as error:
                print("settled", handle.done(), type(error).__name__, flush=True)

if {uvloop}:
    import uvloop
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
else:
    asyncio.run(main())
print("went on", flush=True)
"""


@pytest.mark.parametrize("uvloop", [False, True], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("kind", ["coroutine", "plain"])
def test_a_keyboard_interrupt_ends_the_program(tmp_path: Path, kind: str, uvloop: bool) -> None:
    """`KeyboardInterrupt` in a job does end the program, but first the waiters are settled."""
    # A program of its own: an interrupt that does what it should would end the test run.
    if uvloop:
        pytest.importorskip("uvloop")
    script = tmp_path / "program.py"
    script.write_text(INTERRUPTED.format(kind=kind, uvloop=uvloop))
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False
    )
    assert ran.returncode in (-signal.SIGINT, 128 + signal.SIGINT), ran.stderr
    assert "went on" not in ran.stdout
    settled = ran.stdout.split()
    assert settled[:2] == ["settled", "True"], ran.stdout + ran.stderr
    assert settled[2] != "CancelledError"
