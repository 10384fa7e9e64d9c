"""The tasks of a random program, and jobs that misbehave in every way there is."""

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar
from datetime import timedelta
from queue import SimpleQueue
from random import Random
from typing import Any, Final

import asyncdefer
from asyncdefer import Defer, GiveUp, Queue, Snooze
from asyncdefer._core.instant import SECOND, moment
from tests.soak.model import Model
from tests.soak.policies import some_rate, some_retries
from tests.soak.records import Burst, Kind, Rule, shown_by_all, shown_by_name
from tests.soak.seams import RestingClock

GUARD: Final = 5  # real seconds after which a waiter hangs
MARK: ContextVar[int] = ContextVar("mark", default=0)


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {"user": new["user"], "n": old["n"] + new["n"]}


def by_user(user: str, n: tuple[int, ...] = ()) -> str:
    return user


ERRORS: Final[tuple[type[BaseException], ...]] = (
    ZeroDivisionError, ConnectionError, TimeoutError, SystemExit, asyncio.CancelledError,
    StopIteration, GiveUp,
)  # fmt: skip
KEY: Final = ["user"]
NO_RULE: Final = Rule(None, lambda user: None)
RULES: Final = {
    "none": NO_RULE,
    "all": Rule(True, shown_by_all),
    "names": Rule(KEY, shown_by_name),
    "function": Rule(by_user, lambda user: user),
    "bounded": Rule(Defer(KEY, max_wait=12), shown_by_name, max_wait=12 * SECOND),
    "leading": Rule(Defer(KEY, leading=True), shown_by_name, leading=True),
    "first": Rule(Defer(KEY, keep="first"), shown_by_name, keep="first"),
    "merge": Rule(Defer(KEY, keep=merge), shown_by_name, keep="merge"),
    "rich": Rule(
        Defer(key=by_user, max_wait=9, leading=True, keep=merge),
        lambda user: user, "merge", 9 * SECOND, leading=True,
    ),
}  # fmt: skip


class Lockstep:
    """The thread pool's work: the loop stands still until a thread is done, or parked.

    So the same seed gives the same order of events with real threads, too.
    """

    def __init__(self) -> None:
        self._work: SimpleQueue[Any] = SimpleQueue()
        self._own = threading.local()
        self.still = threading.Semaphore(0)

    def put(self, work: Any) -> None:
        self._work.put(work)
        if work is not None:
            self.still.acquire(timeout=GUARD)

    def get(self) -> Any:
        if getattr(self._own, "worked", False):
            self.still.release()
        self._own.worked = True
        return self._work.get()


class Jobs(ABC):
    """The queue of a seed, its tasks, and what they do when they run."""

    loop: asyncio.AbstractEventLoop
    lockstep: Lockstep
    model: Model

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.clock = RestingClock()
        self.trace: list[tuple[object, ...]] = []
        self.concurrency = self.random.choice((1, 2, 3, 10))
        self.keeps = self.chance(0.7)
        self.queue = Queue(
            concurrency=self.concurrency,
            result_ttl=3600 if self.keeps else 0,
            drain_timeout=self.random.choice((0, 0, 60)),
            clock=self.clock,
        )
        if self.random.random() < 0.5:  # events are made only if somebody listens
            self.queue.subscribe(lambda event: self.note(event.name, event.job_id, event.key))
        self.mark = 0
        self.failing = False  # the loop is torn down, and nobody moves the clock any more
        self.kinds = [self.kind(name) for name in self.random.choices(tuple(RULES), k=4)]
        self.kinds += [self.kind(self.random.choice(("none", "names")), thread=True)]
        self.helpers: list[asyncio.Task[None]] = []

    @abstractmethod
    async def call(self, kind: Kind | None = None, user: str | None = None) -> None: ...

    @abstractmethod
    async def meddle(self, burst: Burst) -> None: ...

    def some_burst(self) -> Burst:
        """Rather a recent one."""
        bursts = self.model.bursts
        return bursts[-1 - min(self.random.randrange(len(bursts)), self.random.randrange(20))]

    def help(self, deed: Coroutine[Any, Any, None]) -> None:
        """A task beside the driver, which is waited for at the end of the session."""
        self.helpers.append(self.loop.create_task(deed, context=Context()))

    def note(self, *what: object) -> None:
        self.trace.append((self.clock.steady(), *what))

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def span(self, *seconds: int) -> int:
        """One of these, in microseconds, or a little more."""
        return self.random.choice(seconds) * SECOND + self.random.choice((0, 0, 1, 1000, 700_001))

    # -- tasks and jobs

    def kind(self, name: str, *, thread: bool = False) -> Kind:
        """A task, or a bare function whose calls carry the rule."""
        number = len(getattr(self, "kinds", ())) + self.random.randrange(1 << 30)
        kind = Kind(f"{name} {number}", RULES[name], thread=thread, bare=self.chance(0.3))

        async def job(user: str, n: tuple[int, ...] = ()) -> object:
            return await self.job(kind, user, n)

        def plain(user: str, n: tuple[int, ...] = ()) -> object:
            return self.plain(kind, user, n)

        choose = self.random.choice
        kind.fails = self.chance(0.3)
        kind.function = kind.target = plain if thread else job
        if kind.bare:
            return kind
        kind.delay = choose((0, 5 * SECOND))
        kind.timeout = choose((None, None, 6 * SECOND))
        kind.expires = choose((None, None, 20 * SECOND))
        spans = {"delay": kind.delay, "timeout": kind.timeout, "expires": kind.expires}
        options: Any = {name: timedelta(microseconds=span) for name, span in spans.items() if span}
        options |= self.policies(kind)
        kind.target = self.queue.task(kind.name, defer=kind.rule.defer, **options)(kind.function)
        return kind

    def policies(self, kind: Kind) -> dict[str, Any]:
        """What its decorator says of attempts, rates, slots and head starts."""
        options: dict[str, Any] = {}
        if self.chance(0.5):
            kind.retry = some_retries(self.random)
            options["retry"] = kind.retry.given()
        if self.chance(0.3):
            kind.rate = some_rate(self.random, (None, KEY, by_user))
            options["rate_limit"] = kind.rate.given()
        if self.chance(0.3):
            options["concurrency"] = kind.concurrency = self.random.choice((1, 1, 2, 3))
        if self.chance(0.3):
            kind.priority = self.span(0, 2, 10)
            options["priority"] = timedelta(microseconds=kind.priority)
        return options

    async def job(self, kind: Kind, user: str, n: tuple[int, ...]) -> object:
        burst = self.model.enter(kind, asyncdefer.current(), (user, n), MARK.get())
        self.note("run", kind.name, n)
        if burst is None:
            return None
        try:
            value = await self.deeds(burst)
        except BaseException as error:
            self.note("raises", kind.name, n, type(error).__name__)
            self.model.leave(burst, (None, error))
            raise
        self.note("returns", kind.name, n)
        self.model.leave(burst, (value, None))
        return value

    def plain(self, kind: Kind, user: str, n: tuple[int, ...]) -> object:
        burst = self.model.enter(kind, asyncdefer.current(), (user, n), MARK.get())
        self.note("run in a thread", kind.name, n)
        if burst is None:
            return None
        if self.chance(0.3):
            self.park()
        try:
            value = self.ending(burst)
        except BaseException as error:
            self.model.leave(burst, (None, error))
            raise
        self.model.leave(burst, (value, None))
        return value

    def park(self) -> None:
        """Hold a thread until the loop has turned a few times."""
        gate = threading.Event()
        turns = self.random.randrange(40)
        self.loop.call_soon_threadsafe(lambda: self.help(self.open(gate, turns)))
        self.lockstep.still.release()
        gate.wait(GUARD)

    async def open(self, gate: threading.Event, turns: int) -> None:
        await self.turns(turns)
        gate.set()
        self.lockstep.still.acquire(timeout=GUARD)

    async def turns(self, count: int) -> None:
        for _ in range(count):
            await asyncio.sleep(0)

    async def deeds(self, burst: Burst) -> object:
        swallows = self.chance(0.15)
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 4))):
            try:
                await self.deed(burst)
            except asyncio.CancelledError:
                burst.interrupted = True
                limit, begun = burst.call.timeout, burst.begun or 0
                late = limit is not None and self.clock.steady() >= begun + limit
                told = burst.cancelled or self.model.closing or late
                self.model.demand(told, "cancelled for no reason:", burst)
                if not swallows or self.failing:
                    raise
                swallows = False
                if self.model.closing:
                    break  # else it would be abandoned after real seconds
        if self.chance(0.1) and burst.attempt < 4 and not self.model.closing:
            await self.call(burst.call.kind, burst.call.user)  # which this run then gives way to
            raise Snooze(delay=1)
        return self.ending(burst)

    async def call_again(self, burst: Burst) -> None:
        """A newer call of a job that waits for its next run by now."""
        await self.turns(self.random.randrange(5))
        if not self.model.closing:
            await self.call(burst.call.kind, burst.user)

    async def deed(self, burst: Burst) -> None:
        choice = self.random.random()
        if choice < 0.4:
            await asyncdefer.sleep(self.span(0, 1, 3, 8) / SECOND)
        elif choice < 0.55:
            await self.turns(self.random.randrange(5))
        elif choice < 0.7:
            await self.call(burst.call.kind if self.chance(0.3) else None)
        elif choice < 0.85:
            await self.meddle(burst if self.chance(0.2) else self.some_burst())
        else:
            handle = self.random.choice(self.some_burst().handles)
            if choice < 0.9:
                await asyncio.gather(asyncdefer.sleep(2), handle.result(9), return_exceptions=True)
            elif choice < 0.95:
                with suppress(Exception):
                    await handle
            else:
                await handle

    def ending(self, burst: Burst) -> object:
        """How a job ends; one in a thread makes no tasks, and does not snooze."""
        in_loop = not burst.call.kind.thread
        if burst.call.kind.fails and self.chance(0.7):
            raise ZeroDivisionError("on purpose")
        if self.chance(0.6):
            return object()
        if in_loop and self.chance(0.15):
            self.help(self.call_again(burst))
        if in_loop and burst.attempt < 4 and self.chance(0.4):
            if self.chance(0.7):
                raise Snooze(timedelta(microseconds=self.span(0, 1, 10)))
            raise Snooze(eta=moment(self.clock.wall() + self.span(-2, 1, 10)))
        raise self.random.choice(ERRORS)("on purpose")
