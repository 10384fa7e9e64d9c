"""The reminders of a chat bot: remind, list, postpone, forget, and "I am busy" when one rings.

The chat takes an hour and a half, so it is played on a virtual clock, in milliseconds. With
`async with queue` instead of `virtual`, the bot runs on the clock of the machine.
"""

import asyncio
from datetime import timedelta

from asyncdefer import JobCancelled, Queue, Snooze
from asyncdefer.testing import VirtualClock, virtual

queue = Queue()
busy: set[str] = set()  # who asked not to be disturbed


@queue.task
async def remind(who: str, what: str) -> str:
    """Ring, unless the person is busy: then try again in ten minutes."""
    if who in busy:
        raise Snooze(delay=timedelta(minutes=10))
    return f"@{who}: {what}!"


class Bot:
    """Understands `remind MINUTES WHAT`, `list`, `postpone WHAT MINUTES`, `forget WHAT`."""

    def __init__(self, clock: VirtualClock) -> None:
        self.clock = clock
        self.ringing: set[asyncio.Task[None]] = set()

    def say(self, text: str) -> None:
        print(f"{self.clock.now():%H:%M}  bot: {text}")

    async def ring(self, who: str, what: str, minutes: int) -> None:
        handle = await queue.enqueue(remind, who, what, delay=60 * minutes, key=f"{who}:{what}")
        self.say(f"at {handle.eta:%H:%M}")
        try:
            self.say(await handle)
        except JobCancelled:
            self.say(f"{what}: forgotten")

    async def hear(self, who: str, text: str) -> None:
        print(f"{self.clock.now():%H:%M}  {who}: {text}")
        match text.split():
            case ["remind", minutes, what]:
                task = asyncio.create_task(self.ring(who, what, int(minutes)))
                self.ringing.add(task)
                task.add_done_callback(self.ringing.discard)
            case ["list"]:
                waiting = [job async for job in queue.jobs(state="scheduled", key_prefix=f"{who}:")]
                self.say(
                    ", ".join(f"{job.eta:%H:%M} {job.key}" for job in waiting) or "nothing waits"
                )
            case ["postpone" | "forget" as verb, what, *minutes]:
                handle = await queue.pending(remind, f"{who}:{what}")
                if handle is None:
                    self.say(f"{what}: I know of no such reminder")
                elif verb == "forget":
                    await handle.cancel()
                else:
                    await handle.reschedule(delay=60 * int(minutes[0]))
                    self.say(f"at {handle.eta:%H:%M}")
            case ["busy"]:
                busy.add(who)
            case _:
                busy.discard(who)


CHAT = [  # minutes to wait, who, what
    (0, "ada", "remind 30 tea"), (0, "ada", "remind 45 call"), (1, "grace", "remind 60 walk"),
    (1, "ada", "list"), (5, "ada", "postpone tea 50"), (1, "grace", "forget walk"),
    (2, "ada", "forget nap"), (30, "ada", "busy"), (19, "ada", "back"), (30, "ada", "list"),
]  # fmt: skip


async def main() -> None:
    """Play the chat."""
    async with virtual(queue) as clock:
        bot = Bot(clock)
        for minutes, who, text in CHAT:
            await clock.advance(timedelta(minutes=minutes))
            await bot.hear(who, text)
            await clock.advance(0)  # let the answers be said


if __name__ == "__main__":
    asyncio.run(main())
