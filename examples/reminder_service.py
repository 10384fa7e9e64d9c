"""A service of reminders that is killed in the middle, started again, and goes on.

Without arguments this is the operator: it starts itself as a service, with a journal in a
temporary folder, orders reminders, kills it with SIGKILL while one rings, and starts it again.
"""

import asyncio
import sys
from subprocess import PIPE, Popen
from tempfile import TemporaryDirectory

from asyncdefer import LogEvent, Queue, current

queue = Queue(sys.argv[1] if sys.argv[1:] else None)  # the file is all that the service needs


@queue.task
async def remind(what: str) -> None:
    print(f"{what}! (attempt {current().attempt})")
    await asyncio.sleep(0.5)  # it rings


async def serve() -> None:
    """Take orders from standard input, `SECONDS WHAT`, until it ends."""

    def on_event(event: LogEvent) -> None:
        if event.name == "job_succeeded":  # the journal has it: it never rings again
            print(f"{event.key} is done")

    queue.subscribe(on_event)
    async with queue:
        print(f"the service starts, with {queue.stats().claimed} in its journal")
        while order := await asyncio.to_thread(sys.stdin.readline):
            seconds, what = order.split()
            await queue.enqueue(remind, what, delay=float(seconds), key=what)
            print(f"{what} is accepted")  # it is on the disk
        print(f"the service ends, and leaves {queue.stats().waiting}")


class Service(Popen[str]):
    """The service as its operator sees it."""

    def __init__(self, journal: str) -> None:
        command = [sys.executable, "-u", __file__, journal]
        super().__init__(command, stdin=PIPE, stdout=PIPE, text=True)

    def order(self, seconds: float, what: str) -> None:
        print(seconds, what, file=self.stdin, flush=True)
        self.hear(f"{what} is accepted")

    def hear(self, wanted: str) -> None:
        """Show what the service says, up to the line that is wanted."""
        for line in self.stdout or ():
            print("  ", line, end="")
            if line.startswith(wanted):
                break


def operate(journal: str) -> None:
    """Tea is done; the oven rings when the service dies; the walk and the dentist are to come."""
    with Service(journal) as first:
        for seconds, what in [(2_592_000, "dentist"), (4, "walk"), (0, "tea")]:
            first.order(seconds, what)
        first.hear("tea is done")
        first.order(0.1, "oven")
        first.hear("oven!")
        print("kill -9")
        first.kill()
    with Service(journal) as second:
        second.hear("walk is done")
        print("  ", second.communicate()[0], end="")  # its orders end, and so does it


if __name__ == "__main__":
    if sys.argv[1:]:
        asyncio.run(serve())
    else:
        with TemporaryDirectory() as folder:
            operate(f"{folder}/timers.db")
