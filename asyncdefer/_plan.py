"""What rows say of an iteration, and the objects that are made of it again."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Any, Final

from msgspec import Struct

from asyncdefer._core.job import Call
from asyncdefer._core.report import Progress, Report
from asyncdefer._sources import Bounds, Listed, Source, Sources, first_of, rest_of, span_of
from asyncdefer._task import AsyncTask, Task, is_async

SHARD: Final = "asyncdefer.shard"
RECORD: Final = "asyncdefer.iteration"

TaskNamed = Callable[[str], Task[..., Any]]


class Record(AsyncTask[..., Report]):
    """The task of all records, the jobs that stand for iterations.

    `progress_of`: how far one is. `taken_in`: one that is held has come back after a restart.
    `ending`, `ended`: before and after its end is logged.
    """

    progress_of: Callable[[Call], Progress]
    taken_in: Callable[[Call], Awaitable[object]]
    ending: Callable[[Call], object]
    ended: Callable[[Call], object]


class Plan(Struct, frozen=True):
    """What a row says of an iteration. `args` and `last`: the arguments behind the item and behind
    the report, as text.
    """

    callback: str = ""
    finalize: str | None = None
    args: str = ""
    last: str = ""
    source: str = ""
    text: str = ""
    budget: int | None = None
    max_failures: int = 0


class Part(Struct, frozen=True):
    """What a row says of a shard: its keys, and its items where they are in no source."""

    index: int
    after: Any
    upto: Any
    items: list[str] | None = None


class Given(Struct, eq=False):
    """The objects of an iteration, as the caller gave them."""

    callback: Task[..., Any]
    finalize: Task[..., Any] | None
    args: tuple[Any, ...]
    last: tuple[Any, ...]
    source: Source


def make_plan(
    callback: Task[..., Any],
    finalize: Task[..., Any] | None,
    args: tuple[Any, ...],
    source: Source,
    budget: int | None,
    max_failures: int,
    *,
    sources: Sources | None,
) -> tuple[Plan, Given]:
    """`sources`: those that a journal finds again; None if there is no journal.

    `TypeError` for what cannot travel, and for arguments that do not fit behind the first one.
    """
    for task in (callback, finalize):
        if task is not None and task.check is not None:
            task.check(None, *args)
    if sources is None:
        plan = Plan(budget=budget, max_failures=max_failures)
        return plan, Given(callback, finalize, args, args, source)
    name, text = ("", "") if isinstance(source, Listed) else sources.pack(source)
    first, args, _ = rest_of(callback.fn, callback.name).encode(args, {})
    behind, last = "", args
    if finalize is not None:
        behind, last, _ = rest_of(finalize.fn, finalize.name).encode(args, {})
    shown = None if finalize is None else finalize.name
    plan = Plan(callback.name, shown, first, behind, name, text, budget, max_failures)
    return plan, Given(callback, finalize, args, last, source)


def make_parts(given: Given, bounds: Sequence[Bounds], *, keeps: bool) -> list[Part]:
    """What the rows of the shards say; with a journal, of a list its items too."""
    source = given.source
    if not isinstance(source, Listed) or not keeps:
        return [Part(at, *keys) for at, keys in enumerate(bounds)]
    codec = first_of(given.callback.fn, given.callback.name)
    texts = [codec.encode((item,), {})[0] for item in source.items]
    return [
        Part(at, after, upto, texts[after + 1 : upto + 1])
        for at, (after, upto) in enumerate(bounds)
    ]


def read_plan(plan: Plan, sources: Sources, task_of: TaskNamed) -> Given:
    """The objects again, after a restart; `UnknownTask` or `Unreadable` if they are not to be had."""
    callback = task_of(plan.callback)
    finalize = None if plan.finalize is None else task_of(plan.finalize)
    args, _ = rest_of(callback.fn, callback.name).decode(plan.args)
    last = args
    if finalize is not None:
        last, _ = rest_of(finalize.fn, finalize.name).decode(plan.last)
    source: Source = Listed(0, ())
    if plan.source:
        source = sources.unpack(plan.source, plan.text)
    return Given(callback, finalize, args, last, source)


def source_of_part(part: Part, given: Given) -> Source:
    """Where the items of a shard come from."""
    if part.items is None:
        return given.source
    codec = first_of(given.callback.fn, given.callback.name)
    return Listed(part.after + 1, [codec.decode(text)[0][0] for text in part.items])


def source_of(source: Any) -> Source:
    if isinstance(source, range):
        return span_of(source)
    if isinstance(source, list | tuple):
        items: list[Any] = list(source)  # pyright: ignore[reportUnknownArgumentType] - of whatever
        return Listed(0, items)
    methods = [getattr(source, method, None) for method in ("split", "page")]
    if isinstance(source, type) or not all(map(is_async, methods)):
        raise TypeError(
            "items come from a list, a range, or an instance of a class with @queue.source, "
            f"not from {_shown(source)}"
        )
    found: Source = source
    return found


async def split(source: Source, shards: int) -> list[Bounds]:
    """The bounds of the shards; `ValueError` if two of them have keys in common."""
    found = await source.split(shards)
    try:
        bounds = [(after, upto) for after, upto in found]
    except (TypeError, ValueError):
        raise TypeError(f"split gives a list of (after, upto), not {found!r}") from None
    for bound in bounds:
        if None not in bound and bound[1] < bound[0]:
            raise ValueError(f"split gave {bound!r}, where no key can be: after comes before upto")
    for one, other in pairwise(bounds):
        if one[1] is None or other[0] is None or other[0] < one[1]:
            raise ValueError(
                f"split gave {one!r} and then {other!r}, which have keys in common: "
                "the ranges come in the order of their keys, each after the one before"
            )
    return bounds


def _shown(source: object) -> str:
    if isinstance(source, type):
        return f"the class {source.__name__} itself"
    return type(source).__name__
