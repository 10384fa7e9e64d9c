"""The conservation law: every accepted job is in exactly one place.

accepted + claimed = succeeded + failed + cancelled + replaced + expired + dropped + waiting + running + held
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import asyncdefer
from asyncdefer import Defer, DeferError, GiveUp, Handle, Queue, QueueClosed, Snooze, Stats
from asyncdefer.testing import VirtualClock, virtual

ENDS = ("succeeded", "failed", "cancelled", "replaced", "expired", "dropped")
PLACES = (*ENDS, "waiting", "running", "held")

Counts = dict[str, int]
Path = Callable[[Queue, VirtualClock], Awaitable[Counts]]
PATHS: list[Path] = []


def path(fn: Path) -> Path:
    PATHS.append(fn)
    return fn


def balanced(stats: Stats) -> bool:
    return stats.accepted + stats.claimed == sum(getattr(stats, place) for place in PLACES)


def counts(stats: Stats) -> Counts:
    places = {place: getattr(stats, place) for place in ("accepted", *PLACES)}
    return {place: n for place, n in places.items() if n}


async def noop() -> None: ...


async def fail() -> None:
    raise ZeroDivisionError


async def hold(seconds: float) -> None:
    await asyncdefer.sleep(seconds)


@path
async def nothing(queue: Queue, clock: VirtualClock) -> Counts:
    return {}


@path
async def waits(queue: Queue, clock: VirtualClock) -> Counts:
    await queue.enqueue(noop, delay=10)
    await clock.advance(9)
    return {"accepted": 1, "waiting": 1}


@path
async def runs(queue: Queue, clock: VirtualClock) -> Counts:
    await queue.enqueue(hold, 10)
    await clock.advance(9)
    return {"accepted": 1, "running": 1}


@path
async def succeeds(queue: Queue, clock: VirtualClock) -> Counts:
    await queue.enqueue(noop, delay=10)
    await clock.advance(10)
    return {"accepted": 1, "succeeded": 1}


@path
async def succeeds_in_a_thread(queue: Queue, clock: VirtualClock) -> Counts:
    await queue.enqueue(len, "abc", delay=10)
    await clock.advance(10)
    return {"accepted": 1, "succeeded": 1}


@path
async def fails(queue: Queue, clock: VirtualClock) -> Counts:
    await queue.enqueue(fail)
    await clock.advance(0)
    return {"accepted": 1, "failed": 1}


@path
async def gives_up(queue: Queue, clock: VirtualClock) -> Counts:
    async def job() -> None:
        raise GiveUp("no")

    await queue.enqueue(job)
    await clock.advance(0)
    return {"accepted": 1, "failed": 1}


@path
async def exits(queue: Queue, clock: VirtualClock) -> Counts:
    async def job() -> None:
        raise SystemExit

    await queue.enqueue(job)
    await clock.advance(0)
    return {"accepted": 1, "failed": 1}


@path
async def cancels_itself(queue: Queue, clock: VirtualClock) -> Counts:
    async def job() -> None:
        raise asyncio.CancelledError

    await queue.enqueue(job)
    await clock.advance(0)
    return {"accepted": 1, "failed": 1}


@path
async def times_out(queue: Queue, clock: VirtualClock) -> Counts:
    await queue.options(timeout=5).enqueue(hold, 10)
    await clock.advance(5)
    return {"accepted": 1, "failed": 1}


@path
async def is_cancelled_while_waiting(queue: Queue, clock: VirtualClock) -> Counts:
    handle = await queue.enqueue(noop, delay=10)
    await handle.cancel()
    await handle.cancel()
    await clock.advance(20)
    return {"accepted": 1, "cancelled": 1}


@path
async def is_cancelled_while_running(queue: Queue, clock: VirtualClock) -> Counts:
    handle = await queue.enqueue(hold, 10)
    await clock.advance(5)
    await handle.cancel()
    await clock.advance(0)
    return {"accepted": 1, "cancelled": 1}


@path
async def swallows_its_cancellation(queue: Queue, clock: VirtualClock) -> Counts:
    async def job() -> str:
        try:
            await asyncdefer.sleep(10)
        except asyncio.CancelledError:
            return "never mind"
        return "slept"

    handle = await queue.enqueue(job)
    await clock.advance(5)
    await handle.cancel()
    await clock.advance(0)
    return {"accepted": 1, "cancelled": 1}


@path
async def is_replaced(queue: Queue, clock: VirtualClock) -> Counts:
    for _ in range(4):
        await queue.enqueue(noop, delay=10, key="k")
    await clock.advance(10)
    return {"accepted": 4, "replaced": 3, "succeeded": 1}


@path
async def is_replaced_and_cancelled(queue: Queue, clock: VirtualClock) -> Counts:
    handles = [await queue.enqueue(noop, delay=10, key="k") for _ in range(4)]
    await handles[1].cancel()
    await clock.advance(10)
    return {"accepted": 4, "replaced": 3, "cancelled": 1}


@path
async def runs_and_has_a_next_call(queue: Queue, clock: VirtualClock) -> Counts:
    await queue.enqueue(hold, 10, key="k")
    await clock.advance(1)
    await queue.enqueue(hold, 10, key="k")
    await queue.enqueue(hold, 10, key="k")
    return {"accepted": 3, "replaced": 1, "running": 1, "waiting": 1}


@path
async def expires(queue: Queue, clock: VirtualClock) -> Counts:
    queue.pause()
    await queue.options(expires=5, delay=10).enqueue(noop)
    await clock.advance(15)
    queue.resume()
    await clock.advance(15)
    return {"accepted": 1, "expired": 1}


@path
async def is_paused(queue: Queue, clock: VirtualClock) -> Counts:
    queue.pause()
    await queue.enqueue(noop)
    await clock.advance(15)
    return {"accepted": 1, "waiting": 1}


@path
async def snoozes(queue: Queue, clock: VirtualClock) -> Counts:
    async def job() -> None:
        raise Snooze(delay=10)

    await queue.enqueue(job)
    await clock.advance(25)
    return {"accepted": 1, "waiting": 1}


@path
async def snoozes_and_succeeds(queue: Queue, clock: VirtualClock) -> Counts:
    async def job() -> None:
        if asyncdefer.current().attempt < 4:
            raise Snooze(delay=10)

    await queue.enqueue(job)
    await clock.advance(100)
    return {"accepted": 1, "succeeded": 1}


@path
async def gives_way(queue: Queue, clock: VirtualClock) -> Counts:
    async def job(n: int) -> None:
        await asyncdefer.sleep(10)
        if n == 1:
            raise Snooze(delay=1)

    await queue.enqueue(job, 1, key="k")
    await clock.advance(5)
    await queue.enqueue(job, 2, key="k", delay=50)
    await clock.advance(5)
    assert counts(queue.stats()) == {"accepted": 2, "replaced": 1, "waiting": 1}
    await clock.advance(100)
    return {"accepted": 2, "replaced": 1, "succeeded": 1}


@path
async def moves(queue: Queue, clock: VirtualClock) -> Counts:
    handle = await queue.enqueue(noop, delay=10)
    await handle.reschedule(delay=50)
    await handle.flush()
    await clock.advance(0)
    await handle.flush()
    await handle.reschedule(delay=5)
    await clock.advance(100)
    return {"accepted": 1, "succeeded": 1}


@path
async def leads(queue: Queue, clock: VirtualClock) -> Counts:
    await queue.options(delay=10, defer=Defer(leading=True)).enqueue(noop)
    await clock.advance(5)
    assert balanced(queue.stats())
    await clock.advance(50)
    return {"accepted": 1, "succeeded": 1}


@path
async def leads_and_trails(queue: Queue, clock: VirtualClock) -> Counts:
    options = queue.options(delay=10, defer=Defer(leading=True))
    for _ in range(4):
        await options.enqueue(noop)
        await clock.advance(1)
        assert balanced(queue.stats())
    await clock.advance(50)
    return {"accepted": 4, "replaced": 2, "succeeded": 2}


@path
async def refuses(queue: Queue, clock: VirtualClock) -> Counts:
    for wrong in ({"delay": -1}, {"key": ""}, {"delay": True}, {"colour": "red"}):
        with pytest.raises((TypeError, ValueError)):
            await queue.enqueue(noop, **wrong)  # type: ignore[arg-type]
    return {}


@path
async def is_redriven(queue: Queue, clock: VirtualClock) -> Counts:
    broken = True

    async def job() -> None:
        if broken:
            raise ZeroDivisionError

    handle = await queue.enqueue(job)
    await clock.advance(0)
    broken = False
    await queue.redrive(handle.id)
    await clock.advance(0)
    return {"accepted": 2, "failed": 1, "succeeded": 1}


@path
async def is_discarded(queue: Queue, clock: VirtualClock) -> Counts:
    handle = await queue.enqueue(fail)
    await clock.advance(0)
    await queue.discard(handle.id)
    assert balanced(queue.stats())
    return {"accepted": 1, "failed": 1}


@path
async def is_dropped_by_close(queue: Queue, clock: VirtualClock) -> Counts:
    handles = [await queue.enqueue(noop, delay=10) for _ in range(3)]
    await queue.close()
    for handle in handles:
        with pytest.raises(QueueClosed):
            await handle
    return {"accepted": 3, "dropped": 3}


@path
async def closes_over_an_open_window(queue: Queue, clock: VirtualClock) -> Counts:
    await queue.options(delay=10, defer=Defer(leading=True)).enqueue(noop)
    await clock.advance(5)
    await queue.close()
    return {"accepted": 1, "succeeded": 1}


@pytest.mark.parametrize("scenario", PATHS, ids=lambda scenario: scenario.__name__)
async def test_each_path_counts_once(scenario: Path) -> None:
    """On every path a job is counted in exactly one place, and in the right one."""
    queue = Queue(drain_timeout=0)
    async with virtual(queue) as clock:
        expected = await scenario(queue, clock)
        stats = queue.stats()
        assert counts(stats) == expected
        assert balanced(stats)
    assert balanced(queue.stats())


async def test_a_run_that_close_interrupts_counts_once() -> None:
    """Whatever close() makes of running and waiting jobs, each is counted once and none is left."""
    queue = Queue(drain_timeout=0, concurrency=2)
    async with virtual(queue) as clock:
        handles = [await queue.enqueue(hold, 10, key=f"k{n}") for n in range(4)]
        await clock.advance(1)
        handles.append(await queue.enqueue(hold, 10, key="k0"))
        await queue.close()
        stats = queue.stats()
        assert balanced(stats)
        assert (stats.accepted, stats.waiting, stats.running, stats.held) == (5, 0, 0, 0)
        for handle in handles:
            with pytest.raises(QueueClosed):
                await handle


async def test_the_books_go_on_after_a_restart() -> None:
    """A queue that is closed and started again stays balanced."""
    queue = Queue(drain_timeout=0)
    for _ in range(3):
        async with virtual(queue) as clock:
            await queue.enqueue(noop)
            await queue.enqueue(noop, delay=1000)
            await queue.enqueue(hold, 1000)
            await clock.advance(5)
            assert balanced(queue.stats())
        assert balanced(queue.stats())
        assert queue.stats().waiting == queue.stats().running == 0


class Walk:
    """A random program: callers, movers and jobs that misbehave, from one seed."""

    def __init__(self, seed: int, queue: Queue, clock: VirtualClock) -> None:
        self.random = random.Random(seed)
        self.queue, self.clock = queue, clock
        self.handles: list[Handle[Any]] = []
        self.defers: list[Any] = [
            ["key"],
            Defer(params=["key"], max_wait=15),
            Defer(params=["key"], leading=True),
            Defer(params=["key"], keep="first"),
            None,
        ]

    async def job(self, key: int, what: str, seconds: int) -> str:
        await asyncdefer.sleep(seconds)
        if what == "fail":
            raise ZeroDivisionError
        if what == "give up":
            raise GiveUp("no")
        if what == "snooze" and asyncdefer.current().attempt < 3:
            raise Snooze(delay=seconds)
        return what

    def thread(self, key: int, what: str, seconds: int) -> str:
        if what == "fail":
            raise ZeroDivisionError
        return what

    async def step(self) -> None:
        choose, handles = self.random.choice, self.handles
        match choose("eeeeeeaaacfrpln"):
            case "e":
                options: dict[str, Any] = {"delay": choose([None, 0, 3, 10])}
                options["defer"] = choose(self.defers)
                options["expires"] = choose([None, None, 4])
                options["timeout"] = choose([None, None, 6])
                call = self.queue.options(**{k: v for k, v in options.items() if v is not None})
                fn = choose([self.job, self.job, self.thread])
                what = choose(["return", "return", "fail", "give up", "snooze"])
                handles.append(await call.enqueue(fn, choose(range(4)), what, choose([0, 2, 9])))
            case "a":
                await self.clock.advance(choose([0, 1, 5, 20]))
            case "c" if handles:
                await choose(handles).cancel()
            case "f" if handles:
                await choose(handles).flush()
            case "r" if handles:
                await choose(handles).reschedule(delay=choose([0, 7]))
            case "p":
                self.queue.pause()
            case "l":
                self.queue.resume()
            case "n":
                await asyncio.sleep(0)

    async def end(self) -> None:
        self.queue.resume()
        await self.clock.run_until_idle()


@pytest.mark.parametrize("seed", range(30))
async def test_any_program_balances(seed: int) -> None:
    """After every step of a random program the law holds, and at its end every call has an outcome."""
    queue = Queue(concurrency=2, drain_timeout=0)
    async with virtual(queue) as clock:
        walk = Walk(seed, queue, clock)
        for _ in range(120):
            await walk.step()
            stats = queue.stats()
            assert balanced(stats), counts(stats)
            assert stats.accepted == len(walk.handles)
            assert stats.running <= 2
        await walk.end()
        stats = queue.stats()
        assert (stats.waiting, stats.running, stats.held) == (0, 0, 0)
        assert sum(getattr(stats, end) for end in ENDS) == len(walk.handles)
        assert stats.replaced == sum(handle.replaced for handle in walk.handles)
        results = await asyncio.wait_for(
            asyncio.gather(*walk.handles, return_exceptions=True), timeout=5
        )
        allowed = (DeferError, GiveUp, ZeroDivisionError, TimeoutError)
        assert all(isinstance(r, (str, *allowed)) for r in results), results


@pytest.mark.parametrize("seed", range(15))
async def test_any_program_balances_after_a_close_at_any_moment(seed: int) -> None:
    """A close in the middle of a random program leaves nothing uncounted and nobody waiting."""
    queue = Queue(concurrency=2, drain_timeout=0)
    async with virtual(queue) as clock:
        walk = Walk(seed, queue, clock)
        for _ in range(walk.random.randrange(80)):
            await walk.step()
        await queue.close()
        stats = queue.stats()
        assert balanced(stats), counts(stats)
        assert (stats.waiting, stats.running, stats.held) == (0, 0, 0)
        assert all(handle.done() for handle in walk.handles)
        await asyncio.wait_for(asyncio.gather(*walk.handles, return_exceptions=True), timeout=5)
