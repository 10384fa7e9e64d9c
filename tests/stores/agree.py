"""Two stores that get the same orders: what they report, find and keep must be the same.

A step is a value, so that hypothesis can draw, show and shrink a list of them. There are few ids,
keys, states and times, so that rows meet all the time.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

from asyncdefer.errors import JournalError
from asyncdefer.stores._base import (
    START,
    Add,
    Change,
    Command,
    Drop,
    Note,
    Opened,
    Owner,
    Place,
    Row,
    Set,
    Store,
    Written,
)  # fmt: skip
from asyncdefer.stores.memory import MemoryStore
from tests.stores.desk import LEASE, LIVE, NOW, Kind, Memory, new_owner, rows_of

# -- steps


@dataclass(frozen=True)
class Write:
    commands: tuple[Command, ...]


@dataclass(frozen=True)
class Claim:
    """`until` and `after` count from `NOW`; `after=None` goes on from the farthest place."""

    until: int = 3
    limit: int = 9
    after: Place | None = None
    keys: tuple[tuple[str, str], ...] = ()
    ids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Renew:
    """After so many microseconds."""

    later: int


@dataclass(frozen=True)
class Reopen:
    """By another owner, which may begin with a claim; `crash`: the one before did not close."""

    crash: bool = False
    first: Claim | None = Claim()


@dataclass(frozen=True)
class Look:
    """A scan with filters."""

    filters: tuple[tuple[str, Any], ...]


Step = Write | Claim | Renew | Reopen | Look


# -- both


Report = Any  # what can be compared


def report_of_write(written: Written) -> Report:
    return sorted(set(written.lost)), sorted(set(written.replaced))


def report_of_open(opened: Opened) -> Report:
    live = {state: opened.counts.get(state, 0) for state in LIVE}
    return opened.last_id, opened.clean, live, opened.notes


def report_of_claim(rows: list[Row], named: bool) -> Report:
    """Running rows come first and pinned ones then, those in any order, as all that were named."""
    if named:
        return sorted(rows, key=lambda row: row.id)
    groups: list[list[Row]] = [[], [], []]
    ranks = [0 if row.state == "running" else 1 if row.pinned else 2 for row in rows]
    for rank, row in zip(ranks, rows, strict=True):
        groups[rank].append(row)
    return ranks == sorted(ranks), report_of_claim(groups[0], True), report_of_claim(groups[1], True), groups[2]  # fmt: skip


@dataclass
class Side:
    """One of the two stores, and who has it open."""

    kind: Kind
    room: Path
    folder: Path = field(init=False)
    store: Store = field(init=False)
    opening: AbstractAsyncContextManager[Opened] | None = None
    crashes: int = 0

    def __post_init__(self) -> None:
        self.folder = self.room
        self.store = self.kind.make(self.folder)

    async def open(self, owner: Owner, now: int) -> Report:
        self.opening = self.store.open(owner, now=now, until=now + LEASE)
        return report_of_open(await self.opening.__aenter__())

    async def close(self) -> None:
        if self.opening is not None:
            opening, self.opening = self.opening, None
            await opening.__aexit__(None, None, None)

    async def crash(self) -> None:
        self.crashes += 1
        there = self.room / f"crash{self.crashes}"
        crashed = self.kind.crashed(self.store, self.folder, there)
        if crashed is self.store:
            self.opening = None  # nobody ends it
        else:
            await self.close()
            self.folder = there
        self.store = crashed

    async def report(self, ask: Callable[[], Any]) -> Report:
        """What an order gives: its result, or that it fails."""
        try:
            return await ask()
        except JournalError:
            return JournalError


class Pair:
    """Two stores, one clock, and owners that open both."""

    def __init__(self, one: Side, other: Side) -> None:
        self.sides = one, other
        self.now = NOW
        self.owner = new_owner()
        self.upto = START  # as far as it has claimed

    async def both(self, order: Callable[[Side], Any], what: object) -> Report:
        """What both report, which must be the same."""
        one, other = [await order(side) for side in self.sides]
        assert one == other, f"{what}\nin memory: {one}\n    other: {other}"
        return one

    async def open(self) -> None:
        self.owner, self.upto = new_owner(), START
        await self.both(lambda side: side.open(self.owner, self.now), "open")

    async def do(self, step: Step) -> None:
        """A step, and a look at all rows."""
        report = await self.both(lambda side: self.done(side, step), step)
        match step:
            case Claim(keys=(), ids=()):
                rows: list[Row] = report[-1]
                full = len(rows) >= step.limit
                upto = (rows[-1].at, rows[-1].id) if full else (NOW + step.until, 1 << 62)
                self.upto = max(self.upto, upto)
            case Reopen(crash, first):
                self.now += 2 * LEASE if crash else 1
                await self.open()
                if first is not None:
                    await self.do(first)
            case _:
                pass
        await self.both(lambda side: rows_of(side.store), f"rows after {step}")

    async def done(self, side: Side, step: Step) -> Report:
        store, now, owner = side.store, self.now, self.owner
        match step:
            case Write(commands):
                return await side.report(lambda: self.written(store, commands))
            case Claim():
                rows = await self.claimed(store, step)
                return report_of_claim(rows, bool(step.keys or step.ids))
            case Renew(later):
                if side is self.sides[0]:
                    self.now = now = now + later
                return await store.renew(owner, now=now, until=now + LEASE)
            case Reopen(crash):
                return await (side.crash() if crash else side.close())
            case Look(filters):
                return await rows_of(store, **dict(filters))

    async def claimed(self, store: Store, step: Claim) -> list[Row]:
        after = self.upto if step.after is None else (NOW + step.after[0], step.after[1])
        return await store.claim(
            self.owner,
            now=self.now,
            until=NOW + step.until,
            limit=step.limit,
            after=after,
            keys=step.keys,
            ids=step.ids,
        )

    async def written(self, store: Store, commands: Sequence[Command]) -> Report:
        return report_of_write(await store.write(self.owner, commands))


@asynccontextmanager
async def pair_of(kind: Kind, folder: Path) -> AsyncIterator[Pair]:
    """The store in memory, and one of this kind, which an owner has opened."""
    pair = Pair(Side(Memory(), folder), Side(kind, folder))
    try:
        await pair.open()
        yield pair
    finally:
        for side in pair.sides:
            await side.close()


async def play(kind: Kind, folder: Path, steps: Sequence[Step]) -> None:
    """These steps, and a look at what the next owner finds."""
    async with pair_of(kind, folder) as pair:
        for step in steps:
            await pair.do(step)
        await pair.do(Reopen())


# -- steps that hypothesis draws

IDS = range(1, 8)
KEYS = (None, "a", "b")
TASKS = ("x", "y")
STATES = ("scheduled", "scheduled", "running", "held", "failed")
TIMES = range(4)
BAD = Add(Row(1 << 63, "x", None, "held", NOW))

ids = st.sampled_from(IDS)
states = st.sampled_from(STATES)
times = st.sampled_from([NOW + time for time in TIMES])
names = st.sampled_from([(task, key) for task in TASKS for key in KEYS if key is not None])
places = st.tuples(st.sampled_from(TIMES), ids)
rows = st.builds(
    Row, ids, st.sampled_from(TASKS), st.sampled_from(KEYS), states, times, st.none() | times,
    st.sampled_from((False, False, False, True)), st.sampled_from("123"), st.sampled_from("456"),
)  # fmt: skip
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(Add, rows),
    st.builds(Set, rows, states),
    st.builds(Add, rows),
    st.builds(Set, rows, states),
    st.builds(Drop, ids, states),
    st.builds(Note, st.sampled_from("no"), st.sampled_from((None, "1", "2"))),
)
commands = st.lists(changes, min_size=1, max_size=4).map(tuple)
writes = st.lists(commands, min_size=1, max_size=4).map(tuple).map(Write)
spoiled = st.builds(lambda write, at: Write((*write.commands[:at], (BAD,), *write.commands[at:])), writes, st.integers(0, 3))  # fmt: skip
claims = st.one_of(
    st.builds(Claim, st.integers(-1, 4), st.integers(1, 4), st.none() | places),
    st.builds(Claim, keys=st.lists(names, min_size=1).map(tuple), ids=st.lists(ids).map(tuple)),
    st.builds(Claim, ids=st.lists(ids, min_size=1).map(tuple)),
)
FILTERS: dict[str, st.SearchStrategy[Any]] = {
    "ids": st.lists(ids).map(tuple),
    "state": states,
    "task": st.sampled_from(TASKS),
    "key_prefix": st.sampled_from(("a", "b", "c")),
    "after": st.builds(lambda place: (NOW + place[0], place[1]), places),
    "limit": st.integers(1, 4),
}
looks = st.fixed_dictionaries({}, optional=FILTERS).map(lambda each: Look(tuple(each.items())))
step: st.SearchStrategy[Step] = st.one_of(
    writes, writes, claims, claims, looks, spoiled,
    st.builds(Renew, st.integers(0, 2)), st.builds(Reopen, st.booleans(), st.none() | st.builds(Claim, st.integers(-1, 4), st.integers(1, 4))),
)  # fmt: skip
filled = st.lists(rows, min_size=2, max_size=9).map(lambda rows: Write((tuple(map(Add, rows)),)))
steps = st.builds(lambda first, others: [first, *others], filled, st.lists(step, max_size=20))


# -- steps of a seeded driver, which knows what is there


def random_row(random: Random, id: int, now: int) -> Row:
    return Row(
        id,
        random.choice(TASKS),
        random.choice(KEYS),
        random.choice(STATES),
        NOW + random.choice(TIMES),
        random.choice((None, *(now + time for time in TIMES))),
        random.random() < 0.2,
        random.choice("123"),
        random.choice("456"),
    )


def random_change(random: Random, there: dict[int, str], now: int) -> Change:
    """Most of the time one that finds its row; `there`: the states after the changes before."""
    draw = random.random()
    if draw < 0.05:
        return Note(random.choice("no"), random.choice((None, "1", "2")))
    likely = random.random() < 0.8
    if draw < 0.4 or not there:
        id = max(there, default=0) + 1 if likely else random.randint(1, 30)
        row = random_row(random, id, now)
        there.setdefault(id, row.state)
        return Add(row)
    id = max(there) if random.random() < 0.2 else random.choice([*there])
    was = there[id] if likely else random.choice(STATES)
    found = was == there[id]
    if draw < 0.8:
        row = random_row(random, id, now)
        if found:
            there[id] = row.state
        return Set(row, was)
    if found:
        del there[id]
    return Drop(id, was)


def random_write(random: Random, there: dict[int, str], now: int) -> Write:
    groups: list[Command] = [
        tuple(random_change(random, there, now) for _ in range(random.randint(1, 3)))
        for _ in range(random.choice((1, 1, 2, 5, 30)))
    ]
    if random.random() < 0.05:
        groups.insert(random.randint(0, len(groups)), (BAD,))
    return Write(tuple(groups))


def random_look(random: Random, known: list[int]) -> Look:
    filters: dict[str, Any] = {
        "ids": tuple(random.choices(known, k=9)),
        "state": random.choice(STATES),
        "task": random.choice(TASKS),
        "key_prefix": random.choice("ab"),
        "after": (NOW + random.choice(TIMES), random.choice(known)),
        "limit": random.randint(1, 9),
    }
    chosen = random.sample([*filters], random.randint(1, 3))
    return Look(tuple((name, filters[name]) for name in chosen))


def random_step(random: Random, there: dict[int, str], now: int) -> Step:
    draw = random.random()
    known = [*there, 0]
    if draw < 0.5:
        return random_write(random, there, now)
    if draw < 0.7:
        after = random.choice((None, (random.choice(TIMES), random.choice(known))))
        return Claim(random.randint(-1, 4), random.randint(1, 9), after)
    if draw < 0.8:
        names = [(random.choice(TASKS), random.choice("ab")) for _ in range(random.randint(0, 3))]
        return Claim(keys=tuple(names), ids=tuple(random.choices(known, k=random.randint(1, 4))))
    if draw < 0.85:
        return random_look(random, known)
    if draw < 0.92:
        return Renew(random.randint(0, 1))
    first = Claim(random.randint(-1, 4), random.randint(1, 9))
    return Reopen(random.random() < 0.3, random.choice((first, None)))


async def drive(kind: Kind, folder: Path, seed: int, length: int) -> None:
    """So many random steps, most of which mean something to the rows there are."""
    random = Random(seed)
    async with pair_of(kind, folder) as pair:
        reference = pair.sides[0].store
        assert isinstance(reference, MemoryStore)
        for _ in range(length):
            rows = await rows_of(reference)
            step = random_step(random, {row.id: row.state for row in rows}, pair.now)
            await pair.do(step)
            if len(rows) > 60:  # there is room for new ones again
                drops = tuple(Drop(row.id, row.state) for row in rows[:40])
                await pair.do(Write((drops,)))
