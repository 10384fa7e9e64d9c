"""Orders and their follow-up timers in one SQLite file, saved in one transaction.

An order is taken only together with the timer that asks for the money; a line of it that is out of
stock is undone by a savepoint, and takes its own timer with it.
"""

import asyncio
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import aiosqlite

from asyncdefer import Queue
from asyncdefer.testing import virtual

queue = Queue()  # the file is given below
STOCK = {"Emma", "Dracula"}


@queue.task(delay=timedelta(days=14))
async def ask_for_the_money(order: int) -> None:
    print(f"order {order}: two weeks have gone by, where is the money?")


@queue.task(delay=timedelta(days=1))
async def ship(order: int, book: str) -> None:
    print(f"order {order}: {book} is on its way")


async def buy(db: aiosqlite.Connection, order: int, books: list[str]) -> None:
    async with queue.transaction(db) as tx:
        await db.execute("INSERT INTO orders VALUES (?)", (order,))
        await tx.enqueue(ask_for_the_money, order)
        taken = 0
        for book in books:
            await db.execute("SAVEPOINT line")
            await db.execute("INSERT INTO lines VALUES (?, ?)", (order, book))
            await tx.enqueue(ship, order, book)
            if book in STOCK:
                taken += 1
            else:
                print(f"order {order}: {book} is out of stock")
                await db.execute("ROLLBACK TO line")
            await db.execute("RELEASE line")
        if not taken:
            raise LookupError("nothing of it is in stock")


async def main(path: Path) -> None:
    async with virtual(queue, path) as clock, aiosqlite.connect(path) as db:  # weeks in no time
        await db.execute("CREATE TABLE orders (id INTEGER PRIMARY KEY)")
        await db.execute("CREATE TABLE lines (id INTEGER REFERENCES orders, book TEXT)")
        await buy(db, 1, ["Emma", "Ulysses", "Dracula"])
        try:
            await buy(db, 2, ["Ulysses"])
        except LookupError as error:
            print(f"order 2: {error}, so there is no order 2")
        await clock.advance(0)
        print(f"{queue.stats().waiting} timers wait")
        await clock.advance(timedelta(days=30))


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder) / "shop.db"))
