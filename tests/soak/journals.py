"""One random program played twice, in two ways that must not differ.

In memory and with a journal; and with a journal whose queue goes on, or is closed or dies again and
again. What is compared: which functions ran and when, what each waiter got, what handles say, the
listing and the counts after every step. Runs at the very same instant may change places, since a
start with a journal waits for its commit.
"""

import asyncio
import copy
import gc
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from random import Random
from typing import Any, Final

from asyncdefer import Defer, Every, MemoryStore, Queue, RateLimit, Retry, Snooze, sleep
from asyncdefer.testing import VirtualClock
from tests.soak.verdict import Violation

HOUR: Final = 3_600
DELAYS: Final = (0, 1, 30, 60, 300, 601, 900, 1_200, 7_200)
KEYLESS: Final = ("max_wait", "first", "merge", "leading")
"""Their arguments make the key."""
STEPS: Final = (
    *["enqueue"] * 6, "eta", "eta", "options", "options", "repeat", "cancel", "flush",
    "reschedule", "reschedule", "redrive", "discard", "pause", "resume", *["advance"] * 4,
)  # fmt: skip


@dataclass(frozen=True)
class Step:
    what: str
    key: str | None
    delay: int
    share: float
    task: str


def steps(seed: int, tasks: list[str], more: tuple[str, ...] = ()) -> list[Step]:
    random = Random(f"journals {seed}")
    return [
        Step(
            random.choice(STEPS + more),
            random.choice(("a", "b", None)),
            random.choice(DELAYS),
            random.random(),
            random.choice(tasks),
        )
        for _ in range(random.choice((6, 12, 25)))
    ]


@dataclass
class Play:
    """A program under way, and what was seen of it."""

    clock: VirtualClock
    ran: list[tuple[int, str, Any]] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    starts: Counter[Any] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.began = self.clock.monotonic()

    def note(self, name: str, value: Any) -> None:
        self.ran.append((round(self.clock.monotonic() - self.began), name, str(value)))

    def queue(self, store: MemoryStore | None, *, runs_long: bool = True) -> Queue:
        """The program. `runs_long`: there are jobs that a close would interrupt."""
        queue = Queue(store, clock=self.clock, drain_timeout=0)

        def make(name: str, **options: Any) -> None:
            async def body(n: Any) -> Any:
                self.note(name, n)
                return n

            queue.task(name, **options)(body)

        @queue.task("retried", retry=Retry(3, delay=700, jitter=False, factor=1))
        async def retried(n: int) -> int:
            self.note("retried", n)
            self.starts[n] += 1
            if self.starts[n] < 4 - n % 2:
                raise KeyError(n)
            return n

        @queue.task("snoozed")
        async def snoozed(n: int) -> int:
            self.note("snoozed", n)
            self.starts[n] += 1
            if self.starts[n] < 2:
                raise Snooze(delay=800)
            return n

        make("plain")
        make("max_wait", defer=Defer(params=[], max_wait=1_000))
        make("first", defer=Defer(params=[], keep="first"))
        make("merge", defer=Defer(params=[], keep=lambda old, new: {"n": old["n"] + new["n"]}))
        make("rated", rate_limit=RateLimit(1, per=50))
        make("expiring", expires=100, concurrency=1)
        if runs_long:
            make("leading", defer=Defer(params=[], leading=True))
            make("dropping", rate_limit=RateLimit(1, per=50, drop=True))

            @queue.task("long")
            async def long(n: int) -> int:
                self.note("long", n)
                await sleep(400)
                return n

        return queue

    async def call(self, queue: Queue, number: int, step: Step) -> Any:
        """One of the steps that hand a call over; its handle."""
        task = queue.task_of(step.task)
        key = None if step.task in KEYLESS else step.key
        n: Any = [number] if step.task == "merge" else number
        if step.what == "enqueue":
            return await queue.enqueue(task, n, key=key, delay=step.delay)
        if step.what == "eta":
            eta = self.clock.now() + timedelta(seconds=step.delay)
            return await queue.enqueue(task, n, key=key, eta=eta)
        if step.what == "options":
            named: Any = {} if key is None else {"key": key}
            return await queue.options(delay=step.delay, expires=10_000, **named).enqueue(task, n)
        period = Every(1_000 if step.delay > 100 else 1_300)
        return await queue.options(key=f"every {step.key}", repeat=period).enqueue(task, n)

    async def look(self, queue: Queue, number: int) -> None:
        """What there is after a step."""
        await self.clock.advance(0)
        jobs = [
            (job.task, job.key, str(job.state), self.since(job.eta), job.attempt)
            async for job in queue.jobs()
        ]
        stats = queue.stats()
        if not stats.balanced:
            raise Violation(f"step {number}: the books do not balance: {stats}")
        self.seen.append((number, sorted(jobs, key=str), stats.waiting, stats.running, stats.held))

    def since(self, time: Any) -> int:
        return round(time.timestamp() - self.began)

    def found(self) -> list[Any]:
        return [sorted(self.ran), *self.seen]


async def in_one_go(seed: int, store: MemoryStore | None) -> list[Any]:
    """Callers wait for what they have enqueued; half of the handles are let go."""
    play = Play(VirtualClock())
    queue = play.queue(store)
    tasks = [task.name for task in queue._registry if not task.name.startswith("asyncdefer.")]
    handles: list[Any] = []
    waits: list[asyncio.Task[Any]] = []
    async with queue:
        for number, step in enumerate(steps(seed, tasks)):
            random = Random(f"{seed} {number}")
            if step.what in ("enqueue", "eta", "options") or (step.what == "repeat" and step.key):
                handle = await play.call(queue, number, step)
                if random.random() < 0.5:
                    handles.append(handle)
                    waits.append(asyncio.create_task(_outcome(handle)))
                del handle
            elif step.what in ("pause", "resume"):
                getattr(queue, step.what)(step.task)
            elif step.what == "advance":
                await play.clock.advance(step.delay + step.share * 100)
            elif handles and step.what != "repeat":
                one = random.choice(handles)
                play.seen.append((number, step.what, await _asked(queue, one, step)))
            if number == 5:
                gc.collect()  # an answer and the far call that it keeps alive are a cycle
            await play.look(queue, number)
            play.seen.append(
                [(str(h.state), h.replaced, h.attempt, play.since(h.eta)) for h in handles]
            )
        for name in tasks:
            queue.resume(name)
        await play.clock.advance(5 * HOUR)
        await asyncio.sleep(0)
        play.seen.append([wait.result() if wait.done() else "hangs" for wait in waits])
    return play.found()


async def with_restarts(seed: int, *, restarts: bool) -> list[Any]:
    """Nobody holds a handle for longer than a step, since none outlives its process."""
    play, store = Play(VirtualClock()), MemoryStore()
    queue = play.queue(store, runs_long=False)
    tasks = [task.name for task in queue._registry if not task.name.startswith("asyncdefer.")]
    ids: list[str] = []
    await queue.start()
    for number, step in enumerate(steps(seed, tasks, ("restart",) * 4)):
        if step.what in ("enqueue", "eta", "options") or (
            step.what == "repeat" and step.key and step.task == "plain"
        ):
            ids.append((await play.call(queue, number, step)).id)
        elif step.what == "advance":
            await play.clock.advance(step.delay + step.share * 100)
        elif step.what == "restart":
            await play.clock.advance(0)
            if restarts:
                store = await _end(queue, store, play.clock, dies=step.share < 0.6)
                queue = play.queue(store, runs_long=False)
                await queue.start()
        elif step.what in ("cancel", "flush", "reschedule", "redrive") and ids:
            handle = await queue.handle(ids[int(step.share * len(ids))])
            if handle is not None and not handle.replaced:
                play.seen.append((number, step.what, await _asked(queue, handle, step)))
            del handle
        await play.look(queue, number)
    await play.clock.advance(4 * HOUR)
    await queue.close()
    return play.found()


async def _outcome(handle: Any) -> Any:
    try:
        return await handle.result()
    except Exception as error:
        return type(error).__name__


async def _asked(queue: Queue, handle: Any, step: Step) -> Any:
    """What a handle or the queue says to a wish."""
    if step.what == "reschedule":
        return await handle.reschedule(delay=step.delay)
    if step.what in ("cancel", "flush"):
        return await getattr(handle, step.what)()
    try:
        return bool(await getattr(queue, step.what)(handle.id))
    except ValueError:
        return "refused"


async def _end(queue: Queue, store: MemoryStore, clock: VirtualClock, *, dies: bool) -> MemoryStore:
    """The end of a process, in good order or not: what it had written is all that is left."""
    if dies:
        store = copy.deepcopy(store)
        for lease in store._leases.values():
            lease.until = -(1 << 62)
        clock.detach(queue._scheduler)  # type: ignore[arg-type]
    await queue.close()
    return store


Way = Callable[[int], Coroutine[Any, Any, list[Any]]]
WAYS: Final[dict[str, tuple[Way, Way]]] = {
    "memory": (
        lambda seed: in_one_go(seed, None),
        lambda seed: in_one_go(seed, MemoryStore()),
    ),
    "restarts": (
        lambda seed: with_restarts(seed, restarts=False),
        lambda seed: with_restarts(seed, restarts=True),
    ),
}


def compare(seed: int, way: str) -> None:
    """`Violation` if the two plays of a seed differ."""
    try:
        one, other = (asyncio.run(play(seed)) for play in WAYS[way])
        for mine, its in zip(one, other, strict=True):
            if mine != its:
                raise Violation(f"{mine}\nand\n{its}")
    except Violation as error:
        again = f"scripts/soak --first {seed} --seeds 1"
        raise Violation(f"{way}: {error}\nagain with: {again}") from None
