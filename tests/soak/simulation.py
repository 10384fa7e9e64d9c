"""A random program on a virtual clock, from one seed: a close at any moment, and another start.

`callers.py` and `jobs.py` have what it does, `model.py` says what should be. One seed again:

    scripts/soak --first 17 --seeds 1
"""

import argparse
import asyncio
import logging
import multiprocessing
import os
import random
import sys
from functools import partial
from time import monotonic
from typing import Any, Final

from asyncdefer import QueueClosed
from asyncdefer._core.instant import SECOND
from asyncdefer.testing import check_conservation
from tests.soak.callers import Callers
from tests.soak.jobs import Lockstep
from tests.soak.journals import WAYS, compare
from tests.soak.model import Model
from tests.soak.schedules import Schedules
from tests.soak.seams import look_into
from tests.soak.verdict import Violation, judge

GUARD: Final = 5  # real seconds after which a waiter hangs
Trace = list[tuple[object, ...]]


class Simulation(Callers):
    """One seed."""

    async def run(self) -> Trace:
        random.seed(self.seed)  # the source of the library's own jitter
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(lambda _, context: self.model.wrong(f"{context}"))
        try:
            for _ in range(self.random.choice((1, 1, 2, 3))):
                await self.session()
        finally:
            self.failing = True
        return self.trace

    async def session(self) -> None:
        """From a start to a close."""
        paused = self.queue._paused
        await self.queue.start()
        scheduler: Any = self.queue._scheduler
        self.lockstep = scheduler._threads._work = Lockstep()
        self.model = Model(
            self.queue,
            self.clock,
            self.kinds,
            concurrency=self.concurrency,
            keeps=self.keeps,
            paused=None in paused,
        )
        look_into(scheduler, self.model)
        self.clock.rested = self.rest
        self.waiters, self.helpers = [], []
        for _ in range(self.random.choice((0, 10, 60, 150))):
            await self.step()
            self.check()
        if self.chance(0.5):
            await self.come_to_an_end()
            self.check()
        await self.close()
        await self.judge()
        self.check()

    async def step(self) -> None:
        choice = self.random.random()
        if choice < 0.6:
            await self.meddle_somehow()
        elif choice < 0.7:
            await self.turns(self.random.randrange(12))
        elif choice < 0.8:
            self.help(self.disturb(self.model, self.random.randrange(30)))
        elif choice < 0.85:
            deed = partial(self.disturb, self.model, self.random.randrange(3))
            when = self.clock.steady() + self.span(0, 2, 10)
            self.clock.call_at(when, lambda: self.help(deed()))
        else:
            await self.pass_time(self.span(0, 0, 1, 4, 12))

    async def pass_time(self, span: int) -> None:
        await self.clock.advance(span / SECOND)
        self.note("time")
        self.rest()

    def rest(self, until: int = 0) -> None:
        """All that can happen at a time has happened; the clock goes on to the next."""
        self.model.observe()
        self.model.at_rest(until)

    async def disturb(self, model: Model, turns: int) -> None:
        """Something that happens while the driver is elsewhere."""
        await self.turns(turns)
        if model is self.model and not model.over:
            await self.meddle_somehow()
            self.check()

    def check(self) -> None:
        """The laws that hold at every moment."""
        scheduler: Any = self.queue._scheduler
        self.model.observe()
        try:
            scheduler.agenda._check()
            check_conservation(self.queue)
        except AssertionError as error:
            self.model.wrong(f"{error!r}")
        for run in scheduler.runs.values():
            self.model.demand(run.waits >= 0, "waits of a run:", run)
        if self.model.wrongs:
            raise Violation("\n".join(self.model.wrongs[:5]))

    async def come_to_an_end(self) -> None:
        """All that is scheduled runs; only runs that wait for each other may be left."""
        self.resume_all()
        await self.clock.run_until_idle()
        self.note("idle")
        self.rest()
        left = any(not burst.call.kind.paused for burst in self.model.waiting.values())
        stuck = any(run.awaits for run in self.queue._scheduler.runs.values())  # type: ignore[union-attr]
        self.model.demand(
            not left or stuck or self.model.paused, "wait for ever:", self.model.waiting
        )

    async def close(self) -> None:
        """Close, maybe twice at once and maybe cancelled, while time passes."""
        self.model.observe()
        self.note("close")
        closers = [asyncio.create_task(self.queue.close()) for _ in range(1 + self.chance(0.2))]
        share = self.random.choice((0, 0, 0.1))
        for turn in range(20_000):
            if all(closer.done() for closer in closers):
                break
            if turn and (self.chance(share) or turn == 10_000):  # its first step has to come
                closers[0].cancel()
            if turn > 60 and turn % 30 == 0:
                await self.clock.advance(1, patience=0)
            await asyncio.sleep(0)
        self.model.observe()
        self.model.over = True
        self.note("closed")
        ended = all(closer.done() for closer in closers)
        self.model.demand(ended, "close() does not end")
        self.model.demand(not self.model.waiting and not self.model.running, "left at the close")
        try:
            self.queue.enqueue_nowait(print)
        except QueueClosed:
            pass
        else:
            self.model.wrong("a closed queue takes calls")
        for burst in self.model.bursts[-5:]:
            await self.redrive(self.model.latest(burst))
        _, hanging = await asyncio.wait([*closers, *self.helpers], timeout=GUARD)
        self.model.demand(not hanging, "callers hang:", hanging)
        await self.clock.advance(60)
        self.check()

    async def judge(self) -> None:
        """Every waiter got exactly one outcome, the one of its burst."""
        model = self.model
        pending: set[Any] = set()
        if self.waiters:
            tasks = [waiter.task for waiter in self.waiters]
            _, pending = await asyncio.wait(tasks, timeout=GUARD)
        for waiter in self.waiters:
            if waiter.task in pending:
                model.wrong(f"a waiter hangs: {waiter.burst}")
            elif waiter.task.cancelled() or waiter.cancelled:
                both = waiter.task.cancelled() and waiter.cancelled
                model.demand(both, "a waiter was cancelled by another:", waiter.burst)
            elif (outcome := waiter.task.result()) is not None:
                waiter.burst.root.seen.append(outcome)
        states: dict[str, int] = {}
        for burst in model.bursts:
            for handle in burst.handles:
                model.demand(handle.done(), "it has not ended:", burst)
                if handle.done() and (outcome := await self.outcome(handle)) is not None:
                    burst.root.seen.append(outcome)
                last = handle is burst.root.newest
                model.demand(handle.replaced is not last, "replaced:", handle, burst)
        for burst in model.bursts:
            if burst.follows is None and burst.seen:
                states[burst.newest.state] = states.get(burst.newest.state, 0) + 1
                if (wrong := judge(burst, closing=model.closing)) is not None:
                    model.wrong(f"{burst}: {wrong}")
                self.note("ended", burst.newest.id, burst.newest.state, len(burst.seen))
        stats = self.queue.stats()
        for state in ("succeeded", "failed", "cancelled", "expired", "dropped"):
            counted = getattr(stats, state)
            model.demand(counted == states.get(state, 0), state, counted, "not", states)


PROGRAMS: Final = (Simulation, Schedules)


def simulate(seed: int, program: type[Simulation | Schedules] = Simulation) -> Trace:
    """Run one seed; `Violation` if it breaks a promise."""
    try:
        return asyncio.run(program(seed).run())
    except Exception as error:
        note = f"seed {seed}; again with: scripts/soak --first {seed} --seeds 1"
        if isinstance(error, Violation):
            raise Violation(f"{error}\n{note}") from None
        error.add_note(note)
        raise


def quietly(seed: int) -> str | None:
    """What is wrong with a seed, as text; None if nothing is."""
    logging.getLogger("asyncdefer").setLevel(logging.CRITICAL + 1)
    try:
        for program in PROGRAMS:
            simulate(seed, program)
        for way in WAYS:
            compare(seed, way)
    except Exception as error:
        notes = getattr(error, "__notes__", [])
        return "\n".join([f"{type(error).__name__}: {error}", *notes])
    return None


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/soak", description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10_000, help="how many seeds (10,000)")
    parser.add_argument("--first", type=int, default=0, help="the first of them (0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    given = parser.parse_args()
    seeds = range(given.first, given.first + given.seeds)
    began, failed = monotonic(), 0
    with multiprocessing.get_context("spawn").Pool(given.jobs) as pool:
        for done, wrong in enumerate(pool.imap_unordered(quietly, seeds, chunksize=10), 1):
            if wrong is not None:
                failed += 1
                say(wrong + "\n")
            if done % 1000 == 0:
                say(f"{done} seeds, {failed} failed, {monotonic() - began:.0f} s")
    say(f"{given.seeds} seeds, {failed} failed, {monotonic() - began:.1f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
