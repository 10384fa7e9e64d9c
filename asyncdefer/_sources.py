"""Where the items of an iteration come from: a list, a range, or pages of the program's own.

A source is read by keyset: the next page begins after the key of the last item, so rows that a
callback takes out of what is looked for make none of the others be skipped.
"""

import dataclasses
import inspect
from collections.abc import Awaitable, Callable, Sequence
from functools import wraps
from itertools import pairwise
from typing import Any, Final, Protocol, TypeVar

import msgspec

from asyncdefer._codec import Codec
from asyncdefer._core.signature import signature_of
from asyncdefer._task import is_async, name_of
from asyncdefer.errors import UnknownTask

C = TypeVar("C", bound=type)

Bounds = tuple[Any, Any]
"""The keys of a shard: above the first, up to the second; None is open."""

_RANGE: Final = "asyncdefer.range"

PAGE: Final = 1_000
"""Items that are asked for at once."""


class Source(Protocol):
    """Pages of items in the order of their keys."""

    def split(self, shards: int) -> Awaitable[Sequence[Bounds]]:
        """Up to so many ranges of keys that do not overlap and hold all items."""
        ...

    def page(self, after: Any, upto: Any, limit: int) -> Awaitable[Sequence[tuple[Any, Any]]]:
        """The next (key, item) pairs with after < key <= upto, at most `limit`; none: the end."""
        ...


class Span(msgspec.Struct, frozen=True):
    """A range: its items are its keys, and come in increasing order."""

    start: int
    stop: int
    step: int

    async def split(self, shards: int) -> list[Bounds]:
        span = range(self.start, self.stop, self.step)
        parts = [span[at:upto] for at, upto in _evenly(len(span), shards)]
        return [(part[0] - self.step, part[-1]) for part in parts]

    async def page(self, after: int, upto: int, limit: int) -> list[tuple[int, int]]:
        return [(n, n) for n in range(after + self.step, upto + 1, self.step)[:limit]]


class Listed:
    """A part of a list; the keys are the places in the list."""

    def __init__(self, first: int, items: Sequence[Any]) -> None:
        self.first = first
        self.items = items

    async def split(self, shards: int) -> list[Bounds]:
        return [(at - 1, upto - 1) for at, upto in _evenly(len(self.items), shards)]

    async def page(self, after: int, upto: int, limit: int) -> list[tuple[int, Any]]:
        begin = after + 1
        end = min(upto + 1, begin + limit)
        part = self.items[begin - self.first : end - self.first]
        return list(enumerate(part, begin))


def _evenly(length: int, shards: int) -> list[tuple[int, int]]:
    """As many parts as there are shards, none of them empty, of lengths that differ by one at most."""
    shards = min(shards, length)
    cuts = [length * at // shards for at in range(shards + 1)] if shards else []
    return list(pairwise(cuts))


def span_of(numbers: range) -> Span:
    """The same numbers in increasing order."""
    if numbers.step < 0:
        numbers = numbers[::-1]
    return Span(numbers.start, numbers.stop, numbers.step)


class Sources:
    """The classes of sources that a queue knows, by their names."""

    def __init__(self) -> None:
        self._classes: dict[str, type] = {_RANGE: Span}
        self._names: dict[type, str] = {Span: _RANGE}

    def register(self, cls: C, name: str | None) -> C:
        """`TypeError` for a class that is no source or cannot travel in a journal."""
        if not isinstance(cls, type):  # pyright: ignore[reportUnnecessaryIsInstance] - not all callers are type-checked
            raise TypeError(f"a source is a class, not {type(cls).__name__}")
        shown = name_of(cls) if name is None else name
        if not shown:
            raise ValueError("a source needs a name, by which a journal finds it again")
        if not any((dataclasses.is_dataclass(cls), issubclass(cls, msgspec.Struct))):
            raise TypeError(f"the source {shown} must be a dataclass or a msgspec.Struct")
        for method, parameters in (("split", "shards"), ("page", "after, upto, limit")):
            if not is_async(getattr(cls, method, None)):
                raise TypeError(
                    f"the source {shown} needs `async def {method}(self, {parameters})`"
                )
        if shown in self._classes:
            raise ValueError(f"two sources are named {shown!r}: give one of them another name")
        self._classes[shown], self._names[cls] = cls, shown
        return cls

    def pack(self, source: Source) -> tuple[str, str]:
        """Its name and its text; `TypeError` if it is no source that can be kept."""
        cls = type(source)
        name = self._names.get(cls)
        if name is None:
            raise TypeError(
                f"a journal finds sources by their names after a restart: register {cls.__name__} "
                "with @queue.source"
            )
        return name, _codec_of(cls, name).encode((source,), {})[0]

    def unpack(self, name: str, text: str) -> Source:
        """`UnknownTask` if no such class is registered here, `Unreadable` if it has become another."""
        cls = self._classes.get(name)
        if cls is None:
            raise UnknownTask(f"no source is named {name!r} here: register it with @queue.source")
        (source,), _ = _codec_of(cls, name).decode(text)
        found: Source = source
        return found


def _codec_of(cls: type, name: str) -> Codec:
    def hold(source: object) -> None: ...

    hold.__annotations__["source"] = cls
    return Codec(hold, f"the source {name}")


def rest_of(fn: Callable[..., Any], shown: str) -> Codec:
    """How the arguments behind the first one travel."""
    return Codec(_without(fn, slice(1, None)), shown)


def first_of(fn: Callable[..., Any], shown: str) -> Codec:
    """How the first argument travels."""
    return Codec(_without(fn, slice(0, 1)), shown)


def _without(fn: Callable[..., Any], kept: slice) -> Callable[..., Any]:
    """A function with some of the parameters, in whose place their annotations are read."""
    signature = signature_of(fn)
    if signature is None:
        return fn
    parameters = list(signature.parameters.values())

    @wraps(fn)
    def part(*_: Any) -> None: ...

    if not parameters or parameters[0].kind is not inspect.Parameter.VAR_POSITIONAL:
        parameters = parameters[kept]
    part.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue] - inspect looks for it
    return part
