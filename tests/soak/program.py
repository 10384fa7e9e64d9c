"""The parts of a random program: tasks and the jobs they run, callers, waiters and meddlers.

Whatever it does it tells the model first, in the same breath.
"""

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import suppress
from contextvars import Context, ContextVar
from dataclasses import dataclass
from datetime import timedelta
from queue import SimpleQueue
from random import Random
from typing import Any, Final

import asyncdefer
from asyncdefer import Defer, GiveUp, Handle, Queue, QueueClosed, Snooze
from asyncdefer._core.instant import moment
from asyncdefer.testing import VirtualClock
from tests.soak.model import (
    SECOND,
    Burst,
    Call,
    Kind,
    Model,
    Outcome,
    Rule,
    shown_by_all,
    shown_by_name,
)

CALLS: Final = 120  # of one session; jobs that call would go on for ever
GUARD: Final = 5  # real seconds after which a waiter hangs
MARK: ContextVar[int] = ContextVar("mark", default=0)


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    return {"user": new["user"], "n": old["n"] + new["n"]}


def by_user(user: str, n: tuple[int, ...] = ()) -> str:
    return user


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


@dataclass(eq=False)
class Waiter:
    burst: Burst
    task: asyncio.Task[Outcome | None]
    limit: int | None
    cancelled: bool = False


class Program:
    """What a seed makes of callers and jobs, for one session of the queue after the other."""

    loop: asyncio.AbstractEventLoop
    lockstep: Lockstep
    model: Model

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.random = Random(seed)
        self.clock = VirtualClock()
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
        self.kinds = [self.kind(name) for name in self.random.choices(tuple(RULES), k=4)]
        self.kinds += [self.kind(self.random.choice(("none", "names")), thread=True)]
        self.waiters: list[Waiter] = []
        self.helpers: list[asyncio.Task[None]] = []

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
            return await self.job(kind, n)

        def plain(user: str, n: tuple[int, ...] = ()) -> object:
            return self.plain(kind, n)

        function: Any = plain if thread else job
        if kind.bare:
            kind.target = function
            return kind
        kind.delay, kind.timeout, kind.expires = (
            self.random.choice(choices)
            for choices in ((0, 5 * SECOND), (None, None, 6 * SECOND), (None, None, 20 * SECOND))
        )  # type: ignore[assignment]
        options: Any = {"delay": kind.delay, "timeout": kind.timeout, "expires": kind.expires}
        options = {name: span and timedelta(microseconds=span) for name, span in options.items()}
        options["delay"] = options["delay"] or None
        kind.target = self.queue.task(kind.name, defer=kind.rule.defer, **options)(function)
        return kind

    async def job(self, kind: Kind, n: tuple[int, ...]) -> object:
        burst = self.model.enter(kind, asyncdefer.current(), n, MARK.get())
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

    def plain(self, kind: Kind, n: tuple[int, ...]) -> object:
        burst = self.model.enter(kind, asyncdefer.current(), n, MARK.get())
        self.note("run in a thread", kind.name, n)
        if burst is None:
            return None
        if self.chance(0.3):
            self.park()
        try:
            value = self.ending(None)
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
                if not swallows:
                    raise
                swallows = False
                if self.model.closing:
                    break  # else it would be abandoned after real seconds
        return self.ending(burst)

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

    def ending(self, burst: Burst | None) -> object:
        """How a job ends; only one in the loop may snooze here."""
        if self.chance(0.6):
            return object()
        if burst is not None and burst.attempt < 4 and self.chance(0.5):
            if self.chance(0.7):
                raise Snooze(timedelta(microseconds=self.span(0, 1, 10)))
            raise Snooze(eta=moment(self.clock.wall() + self.span(-2, 1, 10)))
        error = self.random.choice(
            (ZeroDivisionError, SystemExit, asyncio.CancelledError, StopIteration, GiveUp)
        )
        raise error("on purpose")

    # -- callers

    async def call(self, kind: Kind | None = None) -> None:
        """One call of some task, by one of the ways there are."""
        model, random = self.model, self.random
        if model.accepted >= CALLS:
            return
        model.observe()
        kind = kind or random.choice(self.kinds)
        self.mark += 1
        MARK.set(self.mark)
        key = random.choice("abc")
        n = () if kind.rule.defer is True else (self.mark,)
        given: dict[str, Any] = {}
        options: dict[str, Any] = {}
        call = Call(
            kind, kind.rule.shown(key), n, True, self.clock.steady() + kind.delay,
            kind.timeout, kind.expires, self.mark,
        )  # fmt: skip
        if self.chance(0.5):
            span = self.span(0, 1, 3, 10, 30)
            given["delay"] = timedelta(microseconds=span)
            call.eta = self.clock.steady() + span
        elif self.chance(0.5):
            call.steady, call.eta = False, self.clock.wall() + self.span(-5, 0, 2, 7, 20)
            given["eta"] = moment(call.eta)
        if self.chance(0.15):
            call.key = given["key"] = f"x{key}"
        if self.chance(0.2):
            call.timeout = self.span(2, 4)
            options["timeout"] = timedelta(microseconds=call.timeout)
        if self.chance(0.2):
            call.expires = self.span(1, 6)
            options["expires"] = timedelta(microseconds=call.expires)
        args = (key,) if n == () else (key, n)
        try:
            handle = await self.hand_over(kind, args, given, options)
        except QueueClosed:
            model.demand(model.closing, "refused for no reason")
            return
        model.demand(not model.closing, "taken in by a queue that closes")
        self.note("call", kind.name, key, n, handle.id)
        burst = model.accept(call, handle)
        for _ in range(random.choice((0, 0, 1, 3))):
            self.wait(burst)

    async def hand_over(
        self, kind: Kind, args: tuple[Any, ...], given: dict[str, Any], options: dict[str, Any]
    ) -> Handle[Any]:
        queue, target = self.queue, kind.target
        if kind.bare and kind.rule.defer is not None:
            options["defer"] = kind.rule.defer
        if options or self.chance(0.2):
            if kind.bare or self.chance(0.5):
                return await queue.options(**given, **options).enqueue(target, *args)
            handle: Handle[Any] = await target.options(**given, **options).enqueue(*args)
            return handle
        if not given and not kind.bare:
            handle = await target.enqueue(*args)
            return handle
        # These refuse functions with parameters that have the names of options.
        return await queue.enqueue(kind.target, *args, **given)

    def some_burst(self) -> Burst:
        """Rather a recent one."""
        bursts = self.model.bursts
        return bursts[-1 - min(self.random.randrange(len(bursts)), self.random.randrange(20))]

    def wait(self, burst: Burst) -> None:
        handle = self.random.choice(burst.handles)
        limit = self.span(0, 1, 5, 20) if self.chance(0.3) else None
        waiting = self.outcome(handle, limit)
        # In a context of its own: nobody mistakes this task for a part of the job that made it.
        task = self.loop.create_task(waiting, context=Context())
        self.waiters.append(Waiter(burst, task, limit))

    async def outcome(self, handle: Handle[Any], limit: int | None = None) -> Outcome | None:
        """What a waiter gets; None if its own time ran out."""
        since = self.clock.steady()
        try:
            if limit is None:
                return await handle, None
            return await handle.result(timedelta(microseconds=limit)), None
        except TimeoutError as error:
            if limit is None or "not ended yet" not in str(error):
                return None, error
            took = self.clock.steady() - since
            self.model.demand(took >= limit, "a waiter timed out after", took, "not", limit)
            return None
        except Exception as error:
            return None, error

    def leave_one(self) -> None:
        """Cancel a waiter, which touches nothing else."""
        waiter = self.random.choice(self.waiters)
        if not waiter.task.done():
            waiter.cancelled = True
            waiter.task.cancel()

    async def meddle(self, burst: Burst) -> None:
        """Do something to a job, by any of its handles."""
        model, random = self.model, self.random
        model.observe()
        burst = burst.root
        handle = random.choice(burst.handles)
        what = random.choice("cccffrrrrddgg")
        self.note("meddle", what, burst.newest.id)
        match what:
            case "c":
                expected: object = model.cancel(burst)
                got: object = await handle.cancel()
            case "f":
                expected = model.move(burst, True, self.clock.steady())
                got = await handle.flush()
            case "r" if self.chance(0.5):
                span = self.span(0, 2, 7, 40)
                expected = model.move(burst, True, self.clock.steady() + span)
                got = await handle.reschedule(delay=timedelta(microseconds=span))
            case "r":
                eta = self.clock.wall() + self.span(-3, 0, 2, 15)
                expected = model.move(burst, False, eta)
                got = await handle.reschedule(eta=moment(eta))
            case "g":
                expected = model.discard(model.latest(burst))
                try:
                    got = await self.queue.discard(burst.newest.id)
                except ValueError:
                    got = None
            case _:
                expected = got = await self.redrive(model.latest(burst))
        model.demand(got == expected, f"{what} gave {got}, not {expected}:", burst)

    async def redrive(self, burst: Burst) -> None:
        model = self.model
        expected = model.can_redrive(burst) and not model.closing
        self.mark += 1
        MARK.set(self.mark)
        try:
            handle = await self.queue.redrive(burst.newest.id)
        except (ValueError, QueueClosed) as error:
            closed = isinstance(error, QueueClosed)
            model.demand(not expected and closed is model.closing, f"redrive: {error!r}", burst)
        else:
            model.demand(expected, "a redrive that should be refused:", burst)
            self.wait(model.redrive(burst, handle, self.mark))

    def pause_or_resume(self) -> None:
        """The whole queue, or one task."""
        model = self.model
        model.observe()
        kind = self.random.choice((None, *self.kinds))
        paused = model.paused if kind is None else kind.paused
        change = self.queue.resume if paused else self.queue.pause
        change(None if kind is None else kind.target)
        self.note("resume" if paused else "pause", kind and kind.name)
        if kind is None:
            model.paused = not paused
        else:
            kind.paused = not paused

    def resume_all(self) -> None:
        self.model.observe()
        self.queue.resume()
        self.model.paused = False
        for kind in self.kinds:
            self.queue.resume(kind.target)
            kind.paused = False

    def set_clock(self) -> None:
        """A step of the wall clock, forward or back."""
        self.model.observe()
        span = self.span(1, 5, 30) * self.random.choice((1, -1))
        self.note("step", span)
        self.clock.step(timedelta(microseconds=span))

    async def look(self) -> None:
        """The questions that one can ask of a queue agree with each other."""
        model = self.model
        model.observe()
        waiting = {burst.newest.id for burst in model.waiting.values()}
        shown = [job.id async for job in self.queue.jobs("scheduled")]
        model.demand(set(shown) == waiting, "jobs() shows", shown, "and not", waiting)
        for burst in model.waiting.values():
            handle = await self.queue.handle(burst.newest.id)
            model.demand(handle is not None and handle.state == "scheduled", "handle():", burst)
            if burst.call.key is not None:
                found = await self.queue.pending(burst.call.kind.target, burst.call.key)
                right = found is not None and found.id == burst.newest.id
                model.demand(right, "pending():", burst)

    async def meddle_somehow(self) -> None:
        """Anything that a caller does without letting time pass."""
        choice = self.random.random()
        if choice < 0.45 or not self.model.bursts:
            await self.call()
        elif choice < 0.7:
            await self.meddle(self.some_burst())
        elif choice < 0.8:
            self.wait(self.some_burst())
        elif choice < 0.87 and self.waiters:
            self.leave_one()
        elif choice < 0.91:
            self.set_clock()
        elif choice < 0.96:
            self.pause_or_resume()
        else:
            await self.look()

    def help(self, deed: Coroutine[Any, Any, None]) -> None:
        """A task beside the driver, which is waited for at the end of the session."""
        self.helpers.append(self.loop.create_task(deed, context=Context()))
