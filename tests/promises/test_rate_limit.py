"""A rate limit spaces the starts of a task, holds up nobody else, and takes nothing in advance."""

from datetime import timedelta
from typing import Any

import pytest

import asyncdefer
from asyncdefer import JobCancelled, JobDropped, JobExpired, Queue, RateLimit, Retry, Snooze, State
from asyncdefer.testing import VirtualClock


class Starts:
    """When jobs started, in seconds since this was made."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.zero = clock.monotonic()
        self.at: list[tuple[float, Any]] = []

    async def __call__(self, what: Any = None) -> Any:
        self.at.append((round(self.clock.monotonic() - self.zero, 6), what))
        return what


@pytest.fixture
def starts(clock: VirtualClock) -> Starts:
    return Starts(clock)


async def test_ten_at_five_per_second(queue: Queue, clock: VirtualClock, starts: Starts) -> None:
    """They span 1.8 seconds, in the order in which they came."""
    call = queue.task("call", rate_limit=RateLimit(5, per=1))(starts)
    for n in range(10):
        await call.enqueue(n)
    await clock.advance(10)
    assert (
        starts.at == [(n * 0.2, n) for n in range(10)]
        or [(pytest.approx(n * 0.2), n) for n in range(10)] == starts.at
    )


async def test_others_are_not_held_up(queue: Queue, clock: VirtualClock, starts: Starts) -> None:
    """Who stands in a rate's lane takes no slot, not even the only one."""
    queue.pause()
    slow = queue.task("slow", rate_limit=RateLimit(1, per=60))(starts)
    for n in range(200):
        await slow.enqueue(n)
    handle = await queue.enqueue(abs, -5)
    queue.resume()
    await clock.advance(0)
    assert await handle == 5
    assert len(starts.at) == 1


async def test_each_key_has_a_rate_of_its_own(
    queue: Queue, clock: VirtualClock, starts: Starts
) -> None:
    """By names of parameters or by a function of the arguments."""

    async def fetch(host: str, n: int) -> None:
        await starts((host, n))

    def host_of(host: str, n: int) -> str:
        return host.lower()

    for key, hosts in ((["host"], ("a", "b")), (host_of, ("A", "a"))):
        task = queue.task(f"fetch {hosts}", rate_limit=RateLimit(1, per=10, key=key))(fetch)
        starts.at.clear()
        starts.zero = clock.monotonic()
        for n in range(2):
            for host in hosts:
                await task.enqueue(host, n)
        await clock.advance(100)
        times = [at for at, _ in starts.at]
        assert times == ([0, 0, 10, 10] if key == ["host"] else [0, 10, 20, 30])


async def test_a_burst(queue: Queue, clock: VirtualClock, starts: Starts) -> None:
    """So many at once after a rest, then one by one."""
    call = queue.task("call", rate_limit=RateLimit(1, per=10, burst=3))(starts)
    for n in range(5):
        await call.enqueue(n)
    await clock.advance(100)
    assert [at for at, _ in starts.at] == [0, 0, 0, 10, 20]


async def test_a_cancelled_call_owes_nothing(
    queue: Queue, clock: VirtualClock, starts: Starts
) -> None:
    """The next one starts when the cancelled one would have."""
    call = queue.task("call", rate_limit=RateLimit(1, per=10))(starts)
    handles = [await call.enqueue(n) for n in range(4)]
    await clock.advance(5)
    assert await handles[1].cancel()
    await clock.advance(100)
    assert starts.at == [(0, 0), (10, 2), (20, 3)]
    with pytest.raises(JobCancelled):
        await handles[1]


async def test_a_folded_call_takes_the_place(
    queue: Queue, clock: VirtualClock, starts: Starts
) -> None:
    """A call that folds into one that waits in the lane starts when that one would have."""
    call = queue.task("call", defer=True, rate_limit=RateLimit(1, per=10))(starts)
    for what in ("a", "b", "c", "b"):
        await call.enqueue(what)
    await clock.advance(100)
    assert starts.at == [(0, "a"), (10, "b"), (20, "c")]


async def test_a_folded_call_of_another_rate_key_changes_lanes(
    queue: Queue, clock: VirtualClock, starts: Starts
) -> None:
    """What counts is the rate of the call that will run."""

    async def fetch(doc: str, host: str) -> None:
        await starts((doc, host))

    rate = RateLimit(1, per=10, key=["host"])
    task = queue.task("fetch", defer=["doc"], rate_limit=rate)(fetch)
    await task.enqueue("first", "busy")
    await task.enqueue("second", "busy")
    await clock.advance(1)
    await task.enqueue("second", "free")
    await task.enqueue("third", "busy")
    await clock.advance(100)
    assert starts.at == [
        (0, ("first", "busy")),
        (1, ("second", "free")),
        (10, ("third", "busy")),
    ]


async def test_drop(queue: Queue, clock: VirtualClock, starts: Starts) -> None:
    """With `drop=True` a call that may not start when it is due ends with JobDropped."""
    call = queue.task("call", rate_limit=RateLimit(1, per=10, drop=True))(starts)
    handles = [await call.enqueue(n) for n in range(3)]
    later = await call.enqueue(
        3,
    )
    await clock.advance(1)
    assert [handle.state for handle in handles] == [
        State.SUCCEEDED,
        State.DROPPED,
        State.DROPPED,
    ]
    for handle in (*handles[1:], later):
        with pytest.raises(JobDropped, match="rate"):
            await handle
    await clock.advance(9)
    assert await (await call.enqueue(4)) == 4
    assert queue.stats().dropped == 3


async def test_a_folded_call_is_not_dropped(
    queue: Queue, clock: VirtualClock, starts: Starts
) -> None:
    """It waits with the one that it replaced, and is judged when that is due."""
    call = queue.task("call", delay=20, defer=True, rate_limit=RateLimit(1, per=10, drop=True))(
        starts
    )
    handles = [await call.enqueue("a") for _ in range(3)]
    await clock.advance(30)
    assert [await handle for handle in handles] == ["a"] * 3


async def test_expires_while_it_waits_for_the_rate(
    queue: Queue, clock: VirtualClock, starts: Starts
) -> None:
    """The lane does not stop the time, and an expired call takes nothing from the rate."""
    call = queue.task("call", expires=15, rate_limit=RateLimit(1, per=10))(starts)
    handles = [await call.enqueue(n) for n in range(4)]
    await clock.advance(100)
    assert starts.at == [(0, 0), (10, 1)]
    for handle in handles[2:]:
        with pytest.raises(JobExpired):
            await handle


async def test_pause_and_rate(queue: Queue, clock: VirtualClock, starts: Starts) -> None:
    """A pause in between changes neither the order nor the spacing."""
    call = queue.task("call", rate_limit=RateLimit(1, per=10))(starts)
    for n in range(4):
        await call.enqueue(n)
    await clock.advance(5)
    queue.pause(call)
    await clock.advance(30)
    assert starts.at == [(0, 0)]
    queue.resume(call)
    await clock.advance(100)
    assert starts.at == [(0, 0), (35, 1), (45, 2), (55, 3)]


async def test_retries_and_snoozes_keep_to_the_rate(
    queue: Queue, clock: VirtualClock, starts: Starts
) -> None:
    """A rate is of starts: the second run of a job is one more."""

    async def flaky(what: str) -> None:
        await starts(what)
        if len(starts.at) == 1:
            raise ValueError
        if len(starts.at) == 3:
            raise Snooze(0)

    retry = Retry(3, delay=1, jitter=False)
    task = queue.task("flaky", rate_limit=RateLimit(1, per=10), retry=retry)(flaky)
    await task.enqueue("a")
    await task.enqueue("b")
    await clock.advance(100)
    assert [at for at, _ in starts.at] == [0, 10, 20, 30]
    assert queue.stats().succeeded == 2


async def test_a_key_that_rests_is_forgotten(
    queue: Queue, clock: VirtualClock, starts: Starts
) -> None:
    """State is O(1) for each key in use, and none for the others."""
    call = queue.task("call", rate_limit=RateLimit(1, per=10, key=["what"]))(starts)
    for n in range(300):
        await call.enqueue(n)
        await clock.advance(1)
    lanes = queue._scheduler.agenda.lanes  # type: ignore[union-attr]
    assert len(lanes.rates) <= 30
    lanes._check()


async def test_a_key_function_that_fails(queue: Queue, clock: VirtualClock, starts: Starts) -> None:
    """The call fails, and nothing has changed."""

    def broken(what: Any) -> str:
        raise ZeroDivisionError

    call = queue.task("call", rate_limit=RateLimit(1, per=1, key=broken))(starts)
    with pytest.raises(ZeroDivisionError):
        await call.enqueue(1)
    assert queue.stats().accepted == 0


def test_an_unknown_name_is_refused_at_decoration() -> None:
    """As in `defer`."""
    with pytest.raises(ValueError, match="nobody"):

        @Queue().task(rate_limit=RateLimit(1, per=1, key=["nobody"]))
        async def fetch(host: str) -> None: ...


@pytest.mark.parametrize("rate", [5, (5, 1), "5/s"])
def test_a_rate_is_a_rate_limit(rate: Any) -> None:
    """Nothing else is taken for one; and it belongs to the task, not to a call."""
    with pytest.raises(TypeError, match="RateLimit"):
        Queue().task(rate_limit=rate)(abs)
    with pytest.raises(TypeError, match="no option"):
        Queue().options(rate_limit=RateLimit(1, per=1))  # type: ignore[call-arg]


async def test_many_keys_at_once(queue: Queue, clock: VirtualClock, starts: Starts) -> None:
    """Lanes of many keys open side by side."""
    call = queue.task("call", rate_limit=RateLimit(2, per=timedelta(seconds=1), key=["what"]))(
        starts
    )
    for _ in range(6):
        for what in range(50):
            await call.enqueue(what)
    await clock.advance(10)
    for what in range(50):
        assert [at for at, each in starts.at if each == what] == [0, 0.5, 1, 1.5, 2, 2.5]
    await asyncdefer.sleep(0)


async def test_a_rate_with_room_and_no_slot(clock: VirtualClock, starts: Starts) -> None:
    """While all slots are taken the queue rests: nothing can be done about a rate that has opened."""
    small = Queue(concurrency=1, clock=clock)
    async with small:
        spaced = small.task("spaced", rate_limit=RateLimit(1, per=10))(starts)
        for n in range(3):
            await spaced.enqueue(n)
        await clock.advance(1)
        await small.enqueue(asyncdefer.sleep, 60)
        await clock.advance(20)
        await clock.advance(50)
    assert starts.at == [(0, 0), (61, 1), (71, 2)]


async def test_the_claim_counts_also_when_room_grows(clock: VirtualClock, starts: Starts) -> None:
    """Who came first starts first, also where the rate opened for several while no slot was free."""
    small = Queue(concurrency=3, clock=clock)
    async with small:
        spaced = small.task("spaced", rate_limit=RateLimit(1, per=10, burst=2))(starts)
        for n in range(4):
            await spaced.enqueue(n)
        await clock.advance(1)
        for _ in range(3):
            await small.enqueue(asyncdefer.sleep, 60)
        await clock.advance(40)
        await spaced.enqueue(4)
        await clock.advance(100)
    assert starts.at == [(0, 0), (0, 1), (61, 2), (61, 3), (71, 4)]
