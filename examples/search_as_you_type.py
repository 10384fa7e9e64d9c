"""Search after the last keystroke.

Every keystroke asks for a search. The index is asked once, 0.15 s after the typist paused, and
every keystroke that still waits gets that one answer. Each typist is a key of their own.
"""

import asyncio

from asyncdefer import Queue, current

CITIES = ["Bergamo", "Berlin", "Bern", "Bordeaux", "Brest", "Lisbon", "Liverpool", "London"]

queue = Queue()
searches: list[str] = []  # what the index was really asked for


@queue.task(delay=0.15, defer=["typist"])
async def search(typist: str, text: str) -> list[str]:
    """Ask the index, which takes its time."""
    searches.append(text)
    print(f"{typist:<5} searches for {text!r}, after {current().calls} keystroke(s)")
    await asyncio.sleep(0.05)
    return [city for city in CITIES if city.lower().startswith(text)]


async def keystroke(typist: str, text: str) -> list[str]:
    """Ask for a search, wait for its result, and show it unless a later keystroke does."""
    handle = await search.enqueue(typist, text)
    found = await handle
    if not handle.replaced:
        print(f"{typist:<5} sees {', '.join(found) or 'nothing'}")
    return found


async def typing(typist: str, text: str, pause_after: int) -> None:
    """Type a text, a key each 0.03 s, with one pause to think."""
    async with asyncio.TaskGroup() as screen:
        for length in range(1, len(text) + 1):
            screen.create_task(keystroke(typist, text[:length]))
            await asyncio.sleep(0.4 if length == pause_after else 0.03)


async def main() -> None:
    """Two people type at once."""
    async with queue, asyncio.TaskGroup() as people:
        people.create_task(typing("Ada", "berlin", pause_after=3))
        people.create_task(typing("Grace", "lond", pause_after=4))
    print(f"10 keystrokes, {len(searches)} searches: {', '.join(sorted(searches))}")


if __name__ == "__main__":
    asyncio.run(main())
