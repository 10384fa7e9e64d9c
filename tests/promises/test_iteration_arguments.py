"""Iteration: what is wrong with a call is said at the call, and then nothing has changed."""

import dataclasses
from collections import deque
from typing import Any

import pytest

from asyncdefer import JournalError, NotStarted, Queue, QueueClosed, Report, Tasks, UnknownTask
from asyncdefer.stores.memory import MemoryStore
from asyncdefer.testing import VirtualClock, check_conservation


@dataclasses.dataclass
class Numbers:
    n: int = 10

    async def split(self, shards: int) -> list[tuple[int, int]]:
        return [(0, self.n)]

    async def page(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
        return [(n, n) for n in range(after + 1, upto + 1)][:limit]


async def callback(n: int) -> None: ...


async def with_tag(n: int, tag: str) -> None: ...


async def finalize(report: Report) -> None: ...


class Plain:
    def split(self, shards: int) -> list[Any]:
        return []

    def page(self, after: Any, upto: Any, limit: int) -> list[Any]:
        return []


async def nothing_changed(queue: Queue) -> None:
    stats = queue.stats()
    assert (stats.accepted, stats.waiting, stats.held, stats.running) == (0, 0, 0, 0)
    assert [job async for job in queue.jobs()] == []


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("abc", "list, a range"),
        (b"abc", "list, a range"),
        (7, "not from int"),
        (None, "not from NoneType"),
        ({1: 2}, "not from dict"),
        ({1, 2}, "not from set"),
        (deque([1]), "not from deque"),
        (iter([1]), "not from list_iterator"),
        ((n for n in [1]), "not from generator"),
        (Plain(), "not from Plain"),
        (Numbers, "the class Numbers itself"),
    ],
    ids=repr,
)
async def test_a_source_is_one_of_three_things(queue: Queue, source: Any, text: str) -> None:
    """A list, a range or an instance of a source; the error says what it got."""
    with pytest.raises(TypeError, match=text):
        await queue.iterate(source, callback)
    await nothing_changed(queue)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"shards": 0}, ValueError, "shards"),
        ({"shards": -1}, ValueError, "shards"),
        ({"shards": 1.5}, ValueError, "shards"),
        ({"shards": True}, ValueError, "shards"),
        ({"shards": "2"}, ValueError, "shards"),
        ({"shards": None}, ValueError, "shards"),
        ({"max_failures": -1}, ValueError, "max_failures"),
        ({"max_failures": None}, ValueError, "max_failures"),
        ({"max_failures": 1.0}, ValueError, "max_failures"),
        ({"budget": 0}, ValueError, "budget"),
        ({"budget": -1}, ValueError, "budget"),
        ({"budget": float("nan")}, ValueError, "budget"),
        ({"budget": "1"}, TypeError, "budget"),
        ({"result_ttl": -1}, ValueError, "result_ttl"),
        ({"result_ttl": "1"}, TypeError, "result_ttl"),
        ({"args": "abc"}, TypeError, "args takes a list or a tuple, not str"),
        ({"args": 5}, TypeError, "args takes a list or a tuple, not int"),
        ({"args": (1,)}, TypeError, "positional argument"),
        ({"args": (1, 2)}, TypeError, "positional argument"),
        ({"limit": 5}, TypeError, "limit"),
    ],
    ids=str,
)
async def test_an_option_that_is_wrong(
    queue: Queue, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    """It is named, with what it takes."""
    with pytest.raises(error, match=text):
        await queue.iterate(range(10), callback, finalize, **options)
    await nothing_changed(queue)


async def test_arguments_must_fit_both_functions(queue: Queue) -> None:
    """`args` go to the callback and to finalize, and one that lacks a parameter for them is an error."""
    with pytest.raises(TypeError):
        await queue.iterate(range(10), with_tag, finalize, args=("x",))
    with pytest.raises(TypeError):
        await queue.iterate(range(10), with_tag)
    await nothing_changed(queue)


@pytest.mark.parametrize("bad", [5, None, "no such task"])
async def test_functions_that_are_none(queue: Queue, bad: Any) -> None:
    """A callback or a finalize must be a function or the name of a task."""
    with pytest.raises((TypeError, UnknownTask)):
        await queue.iterate(range(10), bad)
    if bad is not None:
        with pytest.raises((TypeError, UnknownTask)):
            await queue.iterate(range(10), callback, bad)
    await nothing_changed(queue)


async def test_a_journal_wants_names(disk: Any, clock: VirtualClock) -> None:
    """With a journal the functions and the class of a source have to be registered."""
    async with Queue(disk.store(), clock=clock) as queue:
        each = queue.task("each")(callback)
        with pytest.raises(TypeError, match=r"@queue\.task"):
            await queue.iterate(range(10), callback)
        with pytest.raises(TypeError, match=r"@queue\.task"):
            await queue.iterate(range(10), each, finalize)
        with pytest.raises(TypeError, match=r"register Numbers with @queue\.source"):
            await queue.iterate(Numbers(), each)
        with pytest.raises(UnknownTask):
            await queue.iterate(range(10), Tasks().task("other")(callback))
        await nothing_changed(queue)
        queue.source(Numbers)
        handle = await queue.iterate(Numbers(), "each")
        await clock.run_until_idle()
        assert (await handle).items == 10


async def test_what_cannot_travel(disk: Any, clock: VirtualClock) -> None:
    """An item, an argument or a field of a source that no journal can hold is a TypeError."""

    @dataclasses.dataclass
    class Holding(Numbers):
        what: Any = None

    async with Queue(disk.store(), clock=clock) as queue:
        queue.source(Holding)
        each = queue.task("each")(callback)
        tagged = queue.task("tagged")(with_tag)
        with pytest.raises(TypeError, match="contradicts"):
            await queue.iterate([1, "2"], each)
        with pytest.raises(TypeError, match="cannot be kept"):
            await queue.iterate(Holding(what=object()), each)
        with pytest.raises(TypeError, match="contradicts"):
            await queue.iterate([1], tagged, args=(5,))
        await nothing_changed(queue)


async def test_a_list_that_is_too_long_for_its_rows(disk: Any, clock: VirtualClock) -> None:
    """Items of a list are in the rows of the shards: if one is too large, none is accepted."""
    async with Queue(disk.store(), clock=clock) as queue:

        @queue.task("each")
        async def each(text: str) -> None: ...

        texts = ["short", "x" * 600_000, "x" * 600_000]
        with pytest.raises(ValueError, match="more shards or a source"):
            await queue.iterate(texts, each, shards=2)
        await nothing_changed(queue)
        handle = await queue.iterate(texts, each, shards=3)
        await clock.run_until_idle()
        assert (await handle).items == 3


@pytest.mark.parametrize("bad", [5, "", type("Bare", (), {}), Plain, lambda: None])
def test_what_is_no_source(bad: Any) -> None:
    """A source is a dataclass or a Struct with two async methods."""
    queue = Queue()
    with pytest.raises((TypeError, ValueError)):
        queue.source("")(Numbers) if bad == "" else queue.source(bad)

    @dataclasses.dataclass
    class Half:
        async def split(self, shards: int) -> list[Any]:
            return []

    with pytest.raises(TypeError, match="async def page"):
        queue.source(Half)


def test_names_of_sources_are_unique() -> None:
    """A class is registered under its own name or a given one, and no name is used twice."""
    queue = Queue()
    assert queue.source(Numbers) is Numbers
    with pytest.raises(ValueError, match="give one of them another name"):
        queue.source(Numbers)
    queue.source("other")(Numbers)
    with pytest.raises(ValueError, match="give one of them another name"):
        queue.source("asyncdefer.range")(Numbers)


async def test_a_source_named_range(disk: Any, clock: VirtualClock) -> None:
    """No name that a program may choose is taken by a source of the library's own."""
    for _ in range(2):
        async with Queue(disk.store(), clock=clock) as queue:
            queue.source("range")(Numbers)
            each = queue.task("each")(callback)
            if not queue.stats().held:
                await queue.iterate(Numbers(3), each)
                disk.crash()
            else:
                await clock.run_until_idle()
                [job] = [job async for job in queue.jobs()]
                handle = await queue.handle(job.id)
                assert handle is not None
                assert (await handle).items == 3


async def test_before_the_start_and_after_the_close() -> None:
    """As with any call."""
    queue = Queue()
    with pytest.raises(NotStarted):
        await queue.iterate(range(10), callback)
    async with queue:
        pass
    with pytest.raises(QueueClosed):
        await queue.iterate(range(10), callback)


class Refusing(MemoryStore):
    """It does not take rows of a task, or not all of them."""

    task = "none"
    text = ""

    def _refuses(self, change: Any) -> bool:
        row = getattr(change, "row", None)
        return row is not None and row.task == self.task and self.text in row.arguments

    async def write(self, owner: Any, commands: Any, **options: Any) -> Any:
        if any(self._refuses(change) for command in commands for change in command):
            raise JournalError("no room")
        return await super().write(owner, commands, **options)


@pytest.mark.parametrize(
    ("task", "text"),
    [
        ("asyncdefer.iteration", ""),
        ("asyncdefer.shard", ""),
        ("asyncdefer.shard", '"index":0'),
        ("asyncdefer.shard", '"index":4'),
    ],
)
async def test_what_the_journal_refuses(clock: VirtualClock, task: str, text: str) -> None:
    """If one row is refused the call raises, and nothing of the iteration runs or is left."""
    ran: list[int] = []
    store = Refusing()
    async with Queue(store, clock=clock) as queue:

        @queue.task("each")
        async def each(n: int) -> None:
            ran.append(n)

        store.task, store.text = task, text
        with pytest.raises(JournalError):
            await queue.iterate(range(10), each)
        store.task = "none"
        await clock.run_until_idle()
        check_conservation(queue)
        left = [job async for job in queue.jobs() if job.state != "cancelled"]
        assert (ran, left) == ([], [])
