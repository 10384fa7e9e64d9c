"""What the callers of the program do, and what they write down before and after it."""

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Final, Protocol

from asyncdefer import Every, Handle, JobCancelled, JobFailed, JournalError, Queue, QueueClosed
from asyncdefer._core.job import Running

HOUR: Final = 3_600.0
CHAIN: Final = "chain"
BURSTS: Final = (2, 3, 4, 5, 6, 7, 8, 60)  # the store writes many rows by one statement
FAILURES: Final = 3  # attempts of the task that fails
_KEYED: Final = ("latest", "bounded", "leading", "napping", "failing")
_PLAIN: Final = ("note", "long", "thread")


class Teller(Protocol):
    def __call__(self, word: str, *values: Any) -> None: ...


def text_of(n: int) -> str:
    """An argument that tells whether it came through unharmed."""
    return f"call {n}: ½ \\ ' \u2028"


def microseconds() -> int:
    return time.time_ns() // 1000


class Callers:
    """The callers of one life."""

    def __init__(self, queue: Queue, tell: Teller, random: Random, boot: int, chain: int) -> None:
        self.queue = queue
        self.tell = tell
        self.random = random
        self.boot = boot
        self.chain = chain  # the life in which a schedule is cancelled that was begun before
        self.calls = 0
        self.handles: list[Handle[Any]] = []
        self.waiters: list[asyncio.Task[None]] = []

    async def act(self) -> None:
        """One caller, until the queue has closed."""
        random = self.random
        while True:
            try:
                await self.step()
            except QueueClosed:
                return
            except JournalError as error:
                if not self.queue._started().closing:
                    self.tell("ended_badly", f"{error!r}")
                return
            except Exception as error:
                self.tell("ended_badly", f"{error!r}")
                return
            await asyncio.sleep(random.choice((0, 0, 0.001, 0.005)))

    async def step(self) -> None:
        choice = self.random.random()
        if choice < 0.5:
            await self.call()
        elif choice < 0.58:
            for _ in range(self.random.choice(BURSTS)):
                self.call_nowait()
        elif choice < 0.62:
            await self.call_from_thread()
        elif choice < 0.72:
            await self.cancel(await self.some())
        elif choice < 0.80:
            await self.move(await self.some())
        elif choice < 0.86:
            await self.flush(await self.some())
        elif choice < 0.89:
            await self.look_back()
        elif choice < 0.92:
            await self.look_twice()
        elif choice < 0.97:
            await self.wind_up()
        else:
            self.queue.pause()
            await asyncio.sleep(0.002)
            self.queue.resume()

    # -- calls

    def announce(self, share: float = 0.6) -> tuple[int, Any, list[Any], dict[str, Any]]:
        """A call of some kind: its number, its task, its arguments and its options.

        `share`: of those that have a key.
        """
        random = self.random
        self.calls += 1
        n = self.boot * 1_000 + self.calls
        keyed = random.random() < share
        name = random.choice(_KEYED if keyed else _PLAIN)
        key = f"k{random.randrange(3)}" if keyed else None
        delay = random.choice((0, 0, 0.005, 0.02, random.random() / 10, 0.3, HOUR))
        arguments: list[Any] = [n, text_of(n)]
        options: dict[str, Any] = {}
        if name == "latest":
            arguments.append(key)  # the library makes the key
        elif keyed:
            options["key"] = key
        early = name in ("bounded", "leading")
        if random.random() < 0.2:
            options["eta"] = datetime.now(UTC) + timedelta(seconds=delay)
        else:
            options["delay"] = delay
        floor = microseconds() + (0 if early else int(delay * 1e6))
        self.tell("calling", n, name, key, floor, FAILURES if name == "failing" else 1)
        return n, self.queue.task_of(name), arguments, options

    async def call(self) -> None:
        n, task, arguments, options = self.announce()
        try:
            if self.random.random() < 0.5:
                handle = await self.queue.enqueue(task, *arguments, **options)
            else:
                handle = await task.options(**options).enqueue(*arguments)
        except QueueClosed:
            self.tell("refused", n)
            raise
        self.tell("acked", n)
        self.keep(n, handle)

    def call_nowait(self) -> None:
        n, task, arguments, options = self.announce()
        try:
            handle = self.queue.enqueue_nowait(task, *arguments, **options)
        except QueueClosed:
            self.tell("refused", n)
            raise
        self.tell("placed", n, handle.id)
        self.keep(n, handle)
        if self.random.random() < 0.6:
            self.waiters.append(asyncio.create_task(self.accept(n, handle)))

    async def accept(self, n: int, handle: Handle[Any]) -> None:
        try:
            await handle.accepted()
        except JournalError:
            return  # it closes
        self.tell("acked", n)

    async def call_from_thread(self) -> None:
        n, task, arguments, options = self.announce(0)  # who comes first is not to be known

        def call() -> Handle[Any]:
            return self.queue.enqueue_from_thread(task, *arguments, **options)

        handle = await asyncio.to_thread(call)
        self.tell("acked", n)
        self.keep(n, handle)

    def keep(self, n: int, handle: Handle[Any]) -> None:
        self.handles.append(handle)
        if self.random.random() < 0.6:
            self.waiters.append(asyncio.create_task(self.wait(n, handle)))

    async def wait(self, n: int, handle: Handle[Any]) -> None:
        """What a waiter sees is of the call that has run in the end."""
        try:
            self.tell("seen", await handle, "its result")
        except QueueClosed:
            return
        except ValueError as error:
            self.tell("seen", error.args[0], "its error")
        except JobFailed:
            if not handle.replaced:
                self.tell("seen", n, "that it crashed")
        except JobCancelled:
            if not handle.replaced:
                self.tell("seen", n, "that it was cancelled")
        except Exception as error:
            self.tell("ended_badly", f"a waiter of call {n} got {error!r}")

    # -- what is done to calls

    async def some(self) -> Handle[Any] | None:
        """The handle of a call of this life, or of one before."""
        random, choice = self.random, self.random.random()
        if choice < 0.2:
            name, key = random.choice(_KEYED), f"k{random.randrange(3)}"
            return await self.queue.pending(name, f'["{key}"]' if name == "latest" else key)
        if self.handles and choice < 0.7:
            return random.choice(self.handles)
        jobs = [job async for job in self.queue.jobs("scheduled")]
        return await self.queue.handle(random.choice(jobs).id) if jobs else None

    def live(self, handle: Handle[Any] | None) -> tuple[int | None, bool]:
        """The number of the call that a handle stands for by now, and whether it runs."""
        if handle is None or handle.task in ("tick", CHAIN):
            return None, False
        scheduler: Any = self.queue._scheduler
        live = scheduler.books.live(handle._call)
        call = live.call if isinstance(live, Running) else live
        return None if call is None or not call.args else call.args[0], isinstance(live, Running)

    async def cancel(self, handle: Handle[Any] | None) -> None:
        n, runs = self.live(handle)
        if handle is None or n is None:
            return
        self.tell("cancelling", n)
        if await handle.cancel():
            self.tell("stopped" if runs else "cancelled", n)

    async def move(self, handle: Handle[Any] | None) -> None:
        n, runs = self.live(handle)
        if handle is None or n is None or runs:
            return
        delay = self.random.choice((0.005, 0.03, HOUR))
        floor = microseconds() + int(delay * 1e6)
        self.tell("moving", n, floor)
        if await handle.reschedule(delay=delay):
            self.tell("moved", n, floor)

    async def flush(self, handle: Handle[Any] | None) -> None:
        n, runs = self.live(handle)
        if handle is None or n is None or runs:
            return
        floor = microseconds()
        self.tell("moving", n, floor)
        if await handle.flush():
            self.tell("moved", n, floor)

    async def look_back(self) -> None:
        """Somebody waits for a call of an earlier life."""
        handle = await self.some()
        n, _ = self.live(handle)
        if handle is not None and n is not None:
            self.waiters.append(asyncio.create_task(self.wait(n, handle)))

    async def look_twice(self) -> None:
        """Two look for the same call; one cancels it before the other has found it, to run it."""
        jobs = [job async for job in self.queue.jobs("scheduled")]
        if not jobs:
            return
        number = self.random.choice(jobs[-5:]).id

        async def change(way: Callable[..., Any]) -> None:
            await way(await self.queue.handle(number))

        ways = change(self.cancel), change(self.flush)
        for error in await asyncio.gather(*ways, return_exceptions=True):
            if isinstance(error, BaseException):
                raise error

    async def wind_up(self) -> None:
        """Begin the schedule that is there until some life; from then on cancel it."""
        if self.boot < self.chain:
            call = self.queue.options(repeat=Every(timedelta(seconds=0.015)), key=CHAIN)
            await call.enqueue(self.queue.task_of(CHAIN))
            self.tell("chain_begun", CHAIN)
            return
        handle = await self.queue.pending(CHAIN, CHAIN)
        if handle is None:
            return
        scheduler: Any = self.queue._scheduler
        runs = isinstance(scheduler.books.live(handle._call), Running)
        self.tell("chain_ending", CHAIN)
        if await handle.cancel() and not runs:
            self.tell("chain_over", CHAIN)
