"""Callers, waiters and those who meddle with jobs. The model hears of it in the same breath."""

import asyncio
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from asyncdefer import Handle, QueueClosed
from asyncdefer._core.instant import moment
from tests.soak.jobs import MARK, Jobs
from tests.soak.policies import some_retries
from tests.soak.records import Burst, Call, Kind, Outcome

CALLS: Final = 250  # of one session; jobs that call would go on for ever


@dataclass(eq=False)
class Waiter:
    burst: Burst
    task: asyncio.Task[Outcome | None]
    limit: int | None
    cancelled: bool = False


class Callers(Jobs):
    """All that is done to a queue from outside."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self.waiters: list[Waiter] = []

    async def call(self, kind: Kind | None = None, user: str | None = None) -> None:
        """One call of some task, by one of the ways there are."""
        model, random = self.model, self.random
        if model.accepted >= CALLS:
            return
        model.observe()
        kind = kind or random.choice(self.kinds)
        self.mark += 1
        MARK.set(self.mark)
        user = user or random.choice("abc")
        n = () if kind.rule.defer is True else (self.mark,)
        given: dict[str, Any] = {}
        options: dict[str, Any] = {}
        call = Call(
            kind, user, kind.rule.shown(user), n, True, self.clock.steady() + kind.delay,
            kind.timeout, kind.expires, kind.retry, kind.priority, self.mark,
        )  # fmt: skip
        if self.chance(0.5):
            span = self.span(0, 1, 3, 10, 30)
            given["delay"] = timedelta(microseconds=span)
            call.eta = self.clock.steady() + span
        elif self.chance(0.5):
            call.steady, call.eta = False, self.clock.wall() + self.span(-5, 0, 2, 7, 20)
            given["eta"] = moment(call.eta)
        if self.chance(0.15):
            call.key = given["key"] = random.choice(("x", f"x{user}"))
        if self.chance(0.2):
            call.timeout = self.span(2, 4)
            options["timeout"] = timedelta(microseconds=call.timeout)
        if self.chance(0.2):
            call.expires = self.span(1, 6)
            options["expires"] = timedelta(microseconds=call.expires)
        if self.chance(0.2):
            call.retry = some_retries(random) if self.chance(0.8) else None
            options["retry"] = call.retry and call.retry.given()
        if self.chance(0.2):
            call.priority = self.span(0, 1, 5, 20)
            options["priority"] = timedelta(microseconds=call.priority)
        args = (user,) if n == () else (user, n)
        try:
            handle = await self.hand_over(kind, args, given, options)
        except QueueClosed:
            model.demand(model.closing, "refused for no reason")
            return
        model.demand(not model.closing, "taken in by a queue that closes")
        self.note("call", kind.name, user, n, handle.id)
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
            return handle  # noqa: RET504 - it gives the result its type
        # These refuse functions with parameters that have the names of options.
        return await queue.enqueue(kind.target, *args, **given)

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
        what = random.choice("cccffrrrrdddgg")
        failed = [burst for burst in model.bursts if burst.kept and model.has_failed(burst)]
        if what in "dg" and failed and self.chance(0.6):
            burst = random.choice(failed)
        burst = burst.root
        handle = random.choice(burst.handles)
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
                await self.redrive(model.latest(burst))
                expected = got = None
        model.demand(got == expected, f"{what} gave {got}, not {expected}:", burst)

    async def redrive(self, burst: Burst) -> None:
        model = self.model
        expected = model.can_redrive(burst) and not model.closing
        self.mark += 1
        MARK.set(self.mark)
        try:
            handle = await self.queue.redrive(burst.newest.id)
        except ValueError as error:
            model.demand(not expected, f"redrive: {error!r}", burst)
        except QueueClosed:
            model.demand(model.closing, "a redrive is refused for no reason:", burst)
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
