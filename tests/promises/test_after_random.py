"""`after` in random programs: no order of calls, ends, cancels and crashes makes it run early, twice or never."""

from __future__ import annotations

import random
from typing import Any

import pytest

from asyncdefer import GiveUp, Handle, Queue, State, current, sleep
from asyncdefer.testing import VirtualClock, check_conservation

SEEDS = 20
JOBS = 40


class Story:
    """What a program has seen: which jobs there are, what each waits for, and what it was told."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.after: dict[str, list[str]] = {}
        self.strict: set[str] = set()
        self.told: dict[str, dict[str, str]] = {}
        self.ended: dict[str, str] = {}
        self.crashed = False  # what still happens does so on a disk that is gone

    def program(self, store: Any, clock: VirtualClock) -> Queue:
        queue = Queue(store, clock=clock, drain_timeout=0)

        @queue.task("job", retry=2)
        async def job(seconds: float, fails: bool) -> None:
            run = current()
            told = {id: str(state) for id, state in run.after.items()}
            assert self.told.setdefault(run.id, told) == told, "it was told something else before"
            await sleep(seconds)
            if fails:
                raise GiveUp("no")

        return queue

    def heard(self, event: Any) -> None:
        """Ends are told when they are safe."""
        name = event.name.removeprefix("job_")
        if not self.crashed and name in ("succeeded", "failed", "cancelled"):
            self.ended[event.job_id] = name

    async def call(self, queue: Queue) -> None:
        draw = self.random
        known = list(self.after)
        ids = draw.sample(known, min(len(known), draw.choice([0, 1, 1, 2, 3, 8])))
        handles = [handle for id in ids if (handle := await queue.handle(id)) is not None]
        strict = draw.random() < 0.3
        options: dict[str, Any] = {"after_failure": "cancel"} if strict else {}
        if draw.random() < 0.4:
            options["delay"] = draw.choice([0, 3, 20, 5_000])
        handle: Handle[Any] = await queue.options(after=handles, **options).enqueue(
            queue.task_of("job"), draw.choice([0, 1, 10]), draw.random() < 0.2
        )
        self.after[handle.id] = [one.id for one in handles]
        if strict:
            self.strict.add(handle.id)

    async def step(self, queue: Queue, clock: VirtualClock) -> None:
        draw = self.random
        match draw.choice(["call", "call", "call", "advance", "cancel"]):
            case "call":
                await self.call(queue)
            case "cancel" if self.after:
                handle = await queue.handle(draw.choice(list(self.after)))
                if handle is not None and draw.random() < 0.5:
                    await handle.cancel()
                elif handle is not None:
                    await handle.reschedule(delay=draw.choice([0, 30]))
            case _:
                await clock.advance(draw.choice([0, 1, 5, 30]))

    def check(self) -> None:
        for id, told in self.told.items():
            assert list(told) == self.after[id]
            for one, state in told.items():
                assert self.ended.get(one, state) == state, (id, one)
            if id in self.strict:
                assert set(told.values()) <= {"succeeded"}


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_random_program(disk: Any, clock: VirtualClock, seed: int) -> None:
    """Each job runs after all that it waits for, is told how they ended, and does end."""
    story = Story(seed)
    draw = story.random
    while len(story.after) < JOBS:
        queue = story.program(disk.store(), clock)
        queue.subscribe(story.heard)
        async with queue:
            for _ in range(draw.randrange(1, 25)):
                await story.step(queue, clock)
            check_conservation(queue)
            story.check()
            if draw.random() < 0.7:
                disk.crash()
                story.crashed = True
        story.crashed = False
    queue = story.program(disk.store(), clock)
    queue.subscribe(story.heard)
    async with queue:
        await clock.advance(50_000)
        stats = queue.stats()
        assert (stats.waiting, stats.running, stats.held) == (0, 0, 0)
        assert stats.dropped == stats.replaced == stats.expired == 0
        check_conservation(queue)
    story.check()
    for id, others in story.after.items():
        assert story.ended[id]
        if story.ended[id] in ("succeeded", "failed"):
            assert [*story.told[id]] == others
            assert [*story.told[id].values()] == [story.ended[one] for one in others]
        elif id not in story.strict:
            assert State(story.ended[id]) is State.CANCELLED
