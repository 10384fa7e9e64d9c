"""A random program of schedules on a virtual clock, from one seed.

`schedule_model.py` says what should become of them. It is a simulation of its own, so that it
needs to know nothing of bursts and claims.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import Context
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from asyncdefer import Handle
from asyncdefer._core.instant import SECOND, moment
from asyncdefer.testing import check_conservation
from tests.soak.schedule_jobs import OWN, ScheduleJobs
from tests.soak.schedule_model import Model
from tests.soak.schedule_records import Chain, Expected, Job, Key
from tests.soak.verdict import Violation

GUARD: Final = 5  # real seconds after which a waiter hangs


@dataclass(eq=False)
class Held:
    """A handle and what it is of."""

    handle: Handle[Any]
    what: Chain | Job


class Schedules(ScheduleJobs):
    """One seed."""

    held: list[Held]
    waiters: list[asyncio.Task[tuple[Job | None, Expected]]]

    # -- calls

    async def begin(self) -> None:
        """Begin a schedule: a new one, the same one again, or in the place of another."""
        kind, choose, model = self.random.choice(self.kinds), self.random.choice, self.model
        key: Key = kind.name, choose(("a", "a", "b", OWN))
        had = model.chains.get(key)
        asked: Any = None if had is None else had.asked
        if not asked or self.chance(0.5):
            keep = had is not None and self.chance(0.5)
            rhythm = had.rhythm if had is not None and keep else self.rhythm()
            asked = choose((1, 2)), rhythm, choose((None, None, None, 2)), choose((None, None, 30))
        n, rhythm, timeout, expires = asked
        given, when = self.when() if self.chance(0.25) else ({}, None)
        options: dict[str, Any] = {"repeat": rhythm.given(), "key": key[1]} | given
        if timeout:
            options["timeout"] = timeout
        if expires:
            options["expires"] = expires
        same = model.is_same(key, asked)
        handle = await kind.target.options(**options).enqueue(n)
        self.note("begin", key, asked, handle.id)
        if same and had is not None:
            model.demand(handle.id == had.id, "the same again began another:", had)
            return self.hold(handle, had)
        steady, eta = when or (True, 0)
        job = Job(
            kind, key, n, steady, eta,
            timeout * SECOND if timeout else kind.timeout,
            expires * SECOND if expires else kind.expires,
        )  # fmt: skip
        chain = Chain(key, rhythm, asked, handle.id)
        model.begin(job, chain, given=when is not None)
        return self.hold(handle, chain)

    def when(self) -> tuple[dict[str, Any], tuple[bool, int]]:
        """A time that a caller gives, and on which clock it is."""
        if self.chance(0.5):
            span = self.span(0, 1, 5, 40)
            return {"delay": timedelta(microseconds=span)}, (True, self.clock.steady() + span)
        eta = self.clock.wall() + self.span(-5, 1, 5, 40)
        return {"eta": moment(eta)}, (False, eta)

    async def call_once(self) -> None:
        """A call that does not repeat, under the key of a schedule or without one."""
        kind = self.random.choice(self.kinds)
        given, (steady, eta) = self.when()
        self.n += 1
        options: dict[str, Any] = {"repeat": None} if self.chance(0.3) else {}
        if self.chance(0.5):
            options["key"] = self.random.choice(("a", "b", OWN))
        handle = await kind.target.options(**options, **given).enqueue(self.n)
        key: Key = kind.name, options.get("key", handle.id)
        self.note("once", key, handle.id)
        job = Job(kind, key, self.n, steady, eta, kind.timeout, kind.expires)
        self.model.place(job)
        self.hold(handle, job)

    def hold(self, handle: Handle[Any], what: Chain | Job) -> None:
        held = Held(handle, what)
        self.held = [*self.held[-15:], held]
        if self.chance(0.3):
            self.wait(held)

    def wait(self, held: Held) -> None:
        # In a context of its own: nobody mistakes this task for a part of the job that made it.
        self.waiters.append(self.loop.create_task(self.outcome(held), context=Context()))

    async def outcome(self, held: Held) -> tuple[Job | None, Expected]:
        """What a waiter gets, and the job it is the outcome of."""
        what = held.what
        job = self.model.live(what)
        if job is None:
            job = what.answer if isinstance(what, Chain) else what.root
        try:
            return job, (await held.handle, None)
        except Exception as error:
            return job, (None, error)

    # -- what is done to them

    async def meddle(self) -> None:
        choice = self.random.random()
        deeds: tuple[tuple[float, Callable[[], Awaitable[None]]], ...] = (
            (0.4, self.begin), (0.5, self.call_once), (0.75, self.handle_one), (0.85, self.look),
        )  # fmt: skip
        for share, deed in deeds:
            if choice < share:
                return await deed()
        if choice < 0.92:
            self.pause_or_resume()
        else:
            step = self.span(1, 5, 100) * self.random.choice((1, -1))
            self.note("step", step)
            self.clock.step(timedelta(microseconds=step))
        return None

    async def handle_one(self) -> None:
        """Cancel, flush, reschedule, await."""
        if not self.held:
            return None
        held, model = self.random.choice(self.held), self.model
        job, handle = model.live(held.what), held.handle
        what = self.random.choice("cffrrw")
        self.note("handle", what, repr(job))
        if what == "c":
            expected, got = model.cancel(job), await handle.cancel()
        elif what == "f":
            expected = model.move(job, self.clock.steady(), steady=True)
            got = await handle.flush()
        elif what == "r":
            given, (steady, eta) = self.when()
            expected, got = (
                model.move(job, eta, steady=steady),
                await handle.reschedule(**given),
            )
        else:
            return self.wait(held)
        model.demand(expected == got, what, "gave", got, "and not", expected, job)
        return None

    async def look(self) -> None:
        """Find a job by its key or its id; discard or redrive it."""
        model, queue = self.model, self.queue
        before = dict(model.waiting)
        listed = {(job.task, job.key or job.id): job async for job in queue.jobs("scheduled")}
        if before != model.waiting:
            return  # a long list is not made in one breath
        model.demand(
            set(listed) == set(model.waiting), "jobs() shows", set(listed), "not", model.waiting
        )
        key: Key = self.random.choice(self.kinds).name, self.random.choice(("a", "b", OWN))
        found, job = await queue.pending(*key), model.waiting.get(key)
        chain = model.chains.get(key)
        model.demand((found is None) is (job is None and chain is None), "pending():", found, key)
        if found is not None:
            mine = chain is not None and (job is None or job.chain is chain)
            what = chain if mine else job
            if what is not None:
                self.hold(found, what)
        if listed and self.chance(0.5):
            key, seen = self.random.choice(tuple(listed.items()))
            job = model.waiting.get(key)
            if self.chance(0.5):
                found = await queue.handle(seen.id)
                if found is not None and job is not None:
                    self.hold(found, job)
            else:
                self.note("discard", key)
                model.demand(await queue.discard(seen.id) and model.discard(job), "discard:", job)
        if model.failed and self.chance(0.3):
            await self.redrive(*model.failed.pop())

    async def redrive(self, id_: str, old: Job) -> None:
        model, kind = self.model, old.kind
        goes_on = old.key in model.chains or old.key in model.waiting
        self.note("redrive", id_, goes_on)
        try:
            handle = await self.queue.redrive(id_)
        except ValueError:
            return model.demand(goes_on, "not redriven:", old)
        model.demand(not goes_on, "redriven:", old)
        now = self.clock.steady()
        job = Job(kind, old.key, old.n, True, now, old.timeout, old.expires)
        model.place(job)
        return self.hold(handle, job)

    def pause_or_resume(self) -> None:
        model, kind = self.model, self.random.choice((None, *self.kinds))
        paused = model.paused if kind is None else kind.paused
        self.note("resume" if paused else "pause", kind and kind.name)
        (self.queue.resume if paused else self.queue.pause)(None if kind is None else kind.target)
        if kind is None:
            model.paused = not paused
        else:
            kind.paused = not paused

    # -- from a start to a close

    async def run(self) -> list[tuple[object, ...]]:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, what: self.model.demand(False, what))
        try:
            for _ in range(self.random.choice((1, 1, 2))):
                await self.session()
        finally:
            self.failing = True
        return self.trace

    async def session(self) -> None:
        self.model = model = Model(self.clock, self.concurrency)
        model.paused = None in self.queue._paused
        self.held, self.waiters = [], []
        for kind in self.kinds:
            kind.starts.clear()
        await self.queue.start()
        look_into(self.queue._scheduler, model)
        for kind in self.kinds:
            if kind.rhythm is not None:
                job = Job(kind, (kind.name, OWN), None, True, 0, kind.timeout, kind.expires)
                model.begin(job, Chain(job.key, kind.rhythm, None), given=False)
        self.clock.rested = self.rest
        for _ in range(self.random.choice((5, 20, 50))):
            if self.chance(0.65):
                await self.meddle()
            elif self.chance(0.06):
                await self.stand_still()
            else:
                await self.pass_time(self.span(0, 1, 2, 5, 5, 10, 10, 20, 70))
            self.check()
        if self.chance(0.6):
            await self.come_to_an_end()
        await self.close()

    async def pass_time(self, span: int) -> None:
        self.note("time", span)
        await self.clock.advance(span / SECOND)
        self.rest()

    async def stand_still(self) -> None:
        """For so long that not all that was missed is caught up on."""
        if not self.model.paused:
            self.queue.pause()
            self.model.paused = True
            await self.pass_time(self.span(130))
            self.queue.resume()
            self.model.paused = False
            await self.pass_time(self.span(0, 5))

    def rest(self, _: int = 0) -> None:
        self.model.at_rest()
        self.check()

    def check(self) -> None:
        """What holds at every moment: the queue knows what the records say, and nothing else."""
        model, scheduler = self.model, self.queue._scheduler
        assert scheduler is not None
        known = {(key[0], key[1]) for key in scheduler.schedules if isinstance(key, tuple)}
        model.demand(known == set(model.chains), "schedules:", known, "not", set(model.chains))
        waiting, runs = scheduler.agenda.waiting, scheduler.runs
        placed = {place(call): (call.steady, call.eta) for call in waiting.values()}
        right = {key: (job.steady, job.eta) for key, job in model.waiting.items()}
        model.demand(placed == right, "waiting:", placed, "not", right)
        running = {place(run.call) for run in runs.values()}
        model.demand(running == set(model.running), "running:", running, "not", model.running)
        calls = [*waiting.values(), *(run.call for run in runs.values())]
        for schedule in scheduler.schedules.values():
            lives = sum(call.more.schedule is schedule for call in calls)
            model.demand(lives == 1, f"{lives} calls of the schedule", schedule.key)
        for held in self.held[-3:]:
            ended = model.live(held.what) is None
            model.demand(held.handle.done() is ended, "done():", held)
            if isinstance(held.what, Chain):
                model.demand(held.handle.replaced is held.what.replaced, "replaced:", held)
        try:
            scheduler.agenda._check()
            check_conservation(self.queue)
        except AssertionError as error:
            model.demand(False, repr(error))
        if model.wrongs:
            raise Violation("\n".join(model.wrongs[:5]))

    async def come_to_an_end(self) -> None:
        """Schedules are left alone for a while, and then cancelled: nothing of them is left."""
        model = self.model
        for kind in (None, *self.kinds):
            self.queue.resume(None if kind is None else kind.target)
            if kind is not None:
                kind.paused = False
        model.paused = False
        await self.pass_time(self.span(3, 50))
        for key in [*model.chains, *model.waiting]:
            handle = await self.queue.pending(*key)
            if handle is not None:
                await handle.cancel()
                model.cancel(model.waiting.get(key) or model.current(key))
        self.note("cancelled")
        self.check()

    async def close(self) -> None:
        model = self.model
        self.note("close")
        model.closing = True
        await self.queue.close()
        model.close()
        self.check()
        if self.waiters:
            _, pending = await asyncio.wait(self.waiters, timeout=GUARD)
            model.demand(not pending, "waiters hang:", pending)
        for waiter in self.waiters:
            if waiter.done():
                job, got = waiter.result()
                right = job is not None and is_outcome(job.root.outcome, got)
                model.demand(right, "a waiter got", got, "of", job, job and job.root.outcome)
        await self.clock.advance(60)
        self.check()


def is_outcome(expected: Expected | None, got: Expected) -> bool:
    if expected is None:
        return False
    if isinstance(expected[1], type):
        return type(got[1]) is expected[1]
    return got[0] is expected[0] and got[1] is expected[1]


def place(call: Any) -> Key:
    """Its task, and its key or else its id."""
    return call.task.name, call.shown_key or str(call.id)


def look_into(scheduler: Any, model: Model) -> None:
    """Tell the model what happens inside, after it has."""
    start, conclude = scheduler._start, scheduler._conclude
    drop, expire, watch = scheduler._drop, scheduler._expire, scheduler._watch

    def watched(steady: int, wall: int) -> None:
        watch(steady, wall)
        model.look_who_is_due()

    def started(call: Any, *args: Any, **options: Any) -> Any:
        run = start(call, *args, **options)
        model.start(place(call))
        return run

    def concluded(run: Any, outcome: Any) -> None:
        mine = scheduler.runs.get(run.call.key) is run
        conclude(run, outcome)
        if mine:
            model.conclude(place(run.call), str(run.call.id), outcome.error)

    def dropped(call: Any, now: int) -> None:
        drop(call, now)
        model.drop(place(call))

    def expired(call: Any, now: int) -> None:
        expire(call, now)
        model.expire(place(call))

    scheduler._start, scheduler._conclude = started, concluded
    scheduler._drop, scheduler._expire, scheduler._watch = dropped, expired, watched
