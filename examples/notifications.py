"""Notifications, debounced per user and document.

Edits come in bursts. One notification goes out per user and document, 0.4 s after the last edit
and at the latest 0.7 s after the first one. Whoever announced an edit gets the answer of the
notification that was sent.
"""

import asyncio
import time

from asyncdefer import Defer, LogEvent, Queue, current

EDITS = [  # seconds from the start, user, document, update
    (0.00, 1, 7, "typo"),
    (0.10, 1, 7, "heading"),
    (0.15, 2, 7, "comment"),
    (0.25, 1, 7, "figure"),
    *((0.9 + 0.2 * n, 3, 8, f"word {n}") for n in range(6)),  # somebody who does not stop typing
]

queue = Queue()
began = time.monotonic()
update_of: dict[str, str] = {}  # by job id: events carry no arguments


def show(what: str, text: str) -> None:
    """Print one line of the timeline."""
    print(f"{time.monotonic() - began:5.2f} s  {what:<8}  {text}")


def on_event(event: LogEvent) -> None:
    """Show the calls that gave way to a newer one."""
    if event.name == "job_replaced" and event.job_id is not None:
        show("replaced", f"{event.key}  {update_of[event.job_id]!r}")


@queue.task(delay=0.4, defer=Defer(["user_id", "document_id"], max_wait=0.7))
async def send_notification(user_id: int, document_id: int, update: str) -> str:
    """Send the newest update, and say how many calls became this one."""
    run = current()
    late = f"{run.lateness * 1000:.1f} ms late"
    show("run", f"{run.key}  {update!r}, calls folded into it: {run.calls}, {late}")
    return f"user {user_id} was told about {update!r}"


async def edit(at: float, user_id: int, document_id: int, update: str) -> str:
    """Edit a document at a time, and wait for the notification."""
    await asyncio.sleep(max(0.0, began + at - time.monotonic()))
    show("call", f"[{user_id},{document_id}]  {update!r}")
    handle = await send_notification.enqueue(user_id, document_id, update)
    update_of[handle.id] = update
    answer = await handle
    show("result", f"[{user_id},{document_id}]  to {update!r}: {answer}")
    return answer


async def main() -> None:
    """Play the edits, then count."""
    async with queue:
        unsubscribe = queue.subscribe(on_event)
        answers = await asyncio.gather(*(edit(*one) for one in EDITS))
        unsubscribe()
        stats = queue.stats()
    print(
        f"\n{len(answers)} edits, {stats.succeeded} notifications, {stats.replaced} calls replaced"
    )


if __name__ == "__main__":
    asyncio.run(main())
