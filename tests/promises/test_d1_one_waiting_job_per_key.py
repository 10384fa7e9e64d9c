"""D1: at most one job waits per (task, key)."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

import asyncdefer
from asyncdefer import Queue, Snooze, State
from asyncdefer.testing import VirtualClock, virtual


async def test_a_second_call_takes_the_place_of_the_waiting_one(
    queue: Queue, clock: VirtualClock
) -> None:
    """Two calls of one key that wait at the same time are one job, and it runs once."""
    runs: list[int] = []

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, n: int) -> None:
        runs.append(n)

    first = await note.enqueue(1, 100)
    second = await note.enqueue(1, 200)

    assert first.replaced
    assert not second.replaced
    assert (queue.stats().waiting, queue.stats().replaced) == (1, 1)
    assert [job.id async for job in queue.jobs(state=State.SCHEDULED)] == [second.id]
    await clock.advance(60)
    assert runs == [200]


async def test_other_keys_wait_side_by_side(queue: Queue, clock: VirtualClock) -> None:
    """Calls with different keys never touch each other."""
    runs: list[int] = []

    @queue.task(delay=10, defer=["user"])
    async def note(user: int) -> None:
        runs.append(user)

    handles = [await note.enqueue(user) for user in range(50)]

    assert not any(handle.replaced for handle in handles)
    assert queue.stats().waiting == 50
    await clock.advance(10)
    assert runs == list(range(50))


async def test_the_same_key_in_two_tasks_is_two_jobs(queue: Queue, clock: VirtualClock) -> None:
    """A key belongs to its task: the same text in another task is another key."""
    runs: list[str] = []

    @queue.task
    async def mail(text: str) -> None:
        runs.append(f"mail {text}")

    @queue.task
    async def push(text: str) -> None:
        runs.append(f"push {text}")

    await queue.enqueue(mail, "a", delay=5, key="user:1")
    await queue.enqueue(push, "b", delay=5, key="user:1")

    assert queue.stats().waiting == 2
    await clock.advance(5)
    assert runs == ["mail a", "push b"]


async def test_calls_without_a_key_never_fold(queue: Queue, clock: VirtualClock) -> None:
    """Without defer and key every call is a job of its own, however equal the arguments."""
    runs: list[int] = []

    @queue.task(delay=5)
    async def note(user: int) -> None:
        runs.append(user)

    handles = [await note.enqueue(1) for _ in range(3)]

    assert len({handle.id for handle in handles}) == 3
    assert not any(handle.replaced for handle in handles)
    await clock.advance(5)
    assert runs == [1, 1, 1]


async def test_two_lambdas_never_share_a_key(queue: Queue, clock: VirtualClock) -> None:
    """In memory an unregistered function is its own identity: one qualname is not one function."""
    a = await queue.enqueue(lambda: "a", delay=5, key="k")
    b = await queue.enqueue(lambda: "b", delay=5, key="k")

    assert not a.replaced
    assert queue.stats().waiting == 2
    await clock.advance(5)
    assert (await a, await b) == ("a", "b")


async def test_an_unregistered_function_folds_with_itself(
    queue: Queue, clock: VirtualClock
) -> None:
    """A function handed over twice with one key is one waiting job."""

    async def note(n: int) -> int:
        return n

    first = await queue.enqueue(note, 1, delay=5, key="k")
    second = await queue.enqueue(note, 2, delay=5, key="k")

    assert first.replaced
    assert queue.stats().waiting == 1
    await clock.advance(5)
    assert (await first, await second) == (2, 2)


async def test_a_bound_method_looked_up_twice_is_one_function(
    queue: Queue, clock: VirtualClock
) -> None:
    """Functions that are equal are the same: `bot.say` and `bot.say` share a key, two bots do not."""

    class Bot:
        async def say(self, text: str) -> str:
            return text

    bot, other = Bot(), Bot()
    first = await queue.enqueue(bot.say, "a", delay=5, key="k")
    second = await queue.enqueue(bot.say, "b", delay=5, key="k")
    third = await queue.enqueue(other.say, "c", delay=5, key="k")

    assert first.replaced
    assert not second.replaced
    await clock.advance(5)
    assert (await first, await second, await third) == ("b", "b", "c")


async def test_a_snoozed_job_is_still_the_only_waiting_job_of_its_key(
    queue: Queue, clock: VirtualClock
) -> None:
    """A run that comes back to wait does not stand beside a newer call of its key."""
    runs: list[int] = []

    @queue.task(defer=["user"])
    async def note(user: int, n: int) -> None:
        runs.append(n)
        if n == 1:
            await asyncdefer.sleep(5)
            raise Snooze(delay=5)

    await note.enqueue(7, 1)
    await clock.advance(1)
    await note.options(delay=60).enqueue(7, 2)
    await clock.advance(4)

    assert queue.stats().running == 0
    assert queue.stats().waiting == 1
    await clock.advance(120)
    assert runs == [1, 2]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("enqueue"), st.integers(0, 2), st.integers(0, 20)),
        st.tuples(st.just("advance"), st.integers(0, 12), st.just(0)),
        st.tuples(st.just("cancel"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("flush"), st.integers(0, 40), st.just(0)),
        st.tuples(st.just("reschedule"), st.integers(0, 40), st.integers(0, 20)),
    ),
    max_size=40,
)


@given(steps=STEPS)
async def test_whatever_happens_a_key_waits_once(steps: list[tuple[str, int, int]]) -> None:
    """After any history of calls, moves, cancels and runs no (task, key) waits twice."""
    queue = Queue(concurrency=2, drain_timeout=0)

    @queue.task(defer=["key"])
    async def work(key: int, pause: int) -> None:
        await asyncdefer.sleep(pause)
        if pause % 3 == 0:
            raise Snooze(delay=pause + 1)

    async with virtual(queue) as clock:
        handles = []
        for op, a, b in steps:
            if op == "enqueue":
                handles.append(await work.options(delay=b).enqueue(a, b))
            elif op == "advance":
                await clock.advance(a)
            elif handles:
                handle = handles[a % len(handles)]
                if op == "cancel":
                    await handle.cancel()
                elif op == "flush":
                    await handle.flush()
                else:
                    await handle.reschedule(delay=b)
            waiting = [job async for job in queue.jobs(state=State.SCHEDULED)]
            running = [job async for job in queue.jobs(state=State.RUNNING)]
            for jobs in (waiting, running):
                assert all(n == 1 for n in Counter((job.task, job.key) for job in jobs).values())
            assert queue.stats().waiting == len(waiting) <= 3
