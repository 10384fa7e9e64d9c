"""The reminders of a chat bot, which can be postponed and forgotten, and spare who is busy.

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
    if who in busy:
        raise Snooze(delay=timedelta(minutes=10))  # try again
    return f"@{who}: {what}!"


class Bot:
    """Understands `remind MINUTES WHAT`, `list`, `postpone WHAT MINUTES`, `forget WHAT`."""

    def __init__(self, clock: VirtualClock, group: asyncio.TaskGroup) -> None:
        self.clock, self.group = clock, group

    def say(self, text: str, who: str = "bot") -> None:
        print(f"{self.clock.now():%H:%M}  {who}: {text}")

    async def ring(self, who: str, what: str, minutes: int) -> None:
        handle = await queue.enqueue(remind, who, what, delay=60 * minutes, key=f"{who}:{what}")
        self.say(f"at {handle.eta:%H:%M}")
        try:
            self.say(await handle)
        except JobCancelled:
            self.say(f"{what}: forgotten")

    async def hear(self, who: str, text: str) -> None:
        self.say(text, who)
        match text.split():
            case ["remind", minutes, what]:
                self.group.create_task(self.ring(who, what, int(minutes)))
            case ["list"]:
                jobs = queue.jobs(state="scheduled", key_prefix=f"{who}:")
                lines = [f"{job.eta:%H:%M} {job.key}" async for job in jobs]
                self.say(", ".join(lines) or "nothing waits")
            case ["postpone" | "forget" as verb, what, *minutes]:
                handle = await queue.pending(remind, f"{who}:{what}")
                if handle is None:
                    self.say(f"{what}: I know of no such reminder")
                elif verb == "forget":
                    await handle.cancel()
                elif await handle.reschedule(delay=60 * int(minutes[0])):
                    self.say(f"at {handle.eta:%H:%M}")
            case ["busy" | "back" as state]:
                (busy.add if state == "busy" else busy.discard)(who)


CHAT = [  # minutes to wait, who, what
    (0, "ada", "remind 30 tea"), (0, "ada", "remind 45 call"), (1, "grace", "remind 60 walk"),
    (1, "ada", "list"), (5, "ada", "postpone tea 50"), (1, "grace", "forget walk"),
    (2, "ada", "forget nap"), (30, "ada", "busy"), (19, "ada", "back"), (30, "ada", "list"),
]  # fmt: skip


async def main() -> None:
    async with virtual(queue) as clock, asyncio.TaskGroup() as group:
        bot = Bot(clock, group)
        for minutes, who, text in CHAT:
            await clock.advance(60 * minutes)
            await bot.hear(who, text)
            await clock.advance(0)  # let the answers be said


if __name__ == "__main__":
    asyncio.run(main())
