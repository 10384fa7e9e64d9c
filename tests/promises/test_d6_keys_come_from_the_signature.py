"""D6: keys come from the bound signature and from values, told apart by type."""

import dataclasses
import enum
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

import asyncdefer
from asyncdefer import Defer, Queue, State
from asyncdefer.testing import VirtualClock, virtual


@dataclasses.dataclass
class Point:
    x: int
    y: int


@dataclasses.dataclass(frozen=True)
class Address:
    street: str
    at: Point


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


async def keys(queue: Queue, fn: Callable[..., Any], *values: object) -> int:
    """Enqueue one call of each value, all waiting together, and count the keys."""
    before = queue.stats().waiting
    for value in values:
        await queue.options(delay=60).enqueue(fn, value)
    return queue.stats().waiting - before


# One call, many spellings


async def test_positional_keyword_and_default_are_one_key(
    queue: Queue, clock: VirtualClock
) -> None:
    """However the call is spelled, the same arguments are the same key."""

    @queue.task(delay=10, defer=True)
    async def note(user: int, document: int = 7, *, urgent: bool = False) -> None: ...

    spellings = [
        await note.enqueue(1),
        await note.enqueue(1, 7),
        await note.enqueue(1, document=7),
        await note.enqueue(user=1, document=7),
        await note.enqueue(document=7, user=1),
        await note.enqueue(1, urgent=False),
        await note.enqueue(urgent=False, document=7, user=1),
    ]

    assert {handle.key for handle in spellings} == {spellings[0].key}
    assert [handle.replaced for handle in spellings] == [True] * 6 + [False]
    assert queue.stats().waiting == 1


async def test_every_argument_counts(queue: Queue, clock: VirtualClock) -> None:
    """With `defer=True` a difference in any one argument is another key."""

    @queue.task(delay=10, defer=True)
    async def note(user: int, document: int = 7, *, urgent: bool = False) -> None: ...

    await note.enqueue(1)
    await note.enqueue(2)
    await note.enqueue(1, 8)
    await note.enqueue(1, urgent=True)
    await note.enqueue(7, 1)

    assert queue.stats().waiting == 5


async def test_only_the_named_parameters_count(queue: Queue, clock: VirtualClock) -> None:
    """With names, the other arguments are no part of the key, and the names' order is."""

    @queue.task(delay=10, defer=["document", "user"])
    async def note(user: int, document: int, text: str = "", *, urgent: bool = False) -> None: ...

    a = await note.enqueue(1, 7, "a")
    b = await note.enqueue(text="b", document=7, user=1, urgent=True)
    c = await note.enqueue(7, 1, "a")

    assert (a.replaced, b.replaced, c.replaced) == (True, False, False)
    assert a.key == b.key != c.key


async def test_a_defaulted_parameter_may_be_named(queue: Queue, clock: VirtualClock) -> None:
    """A named parameter that the call leaves out counts with its default."""

    @queue.task(delay=10, defer=["lang"])
    async def note(user: int, lang: str = "en") -> None: ...

    await note.enqueue(1)
    await note.enqueue(2, "en")
    await note.enqueue(3, lang="de")

    assert queue.stats().waiting == 2


async def test_the_key_is_shown_as_compact_json(queue: Queue, clock: VirtualClock) -> None:
    """A computed key can be read: it is the JSON text of the values, in the order of the names."""

    @queue.task(delay=10, defer=["user", "document"])
    async def note(user: int, document: int, text: str) -> None: ...

    handle = await note.enqueue(1, 7, "typo")

    assert handle.key == "[1,7]"
    assert [job.key async for job in queue.jobs(state=State.SCHEDULED)] == ["[1,7]"]


async def test_variable_arguments(queue: Queue, clock: VirtualClock) -> None:
    """`*args` and `**kwargs` are part of the key: the former in order, the latter in any."""

    @queue.task(delay=10, defer=True)
    async def note(*parts: int, **flags: int) -> None: ...

    same = [await note.enqueue(1, 2, a=1, b=2), await note.enqueue(1, 2, b=2, a=1)]
    other = [
        await note.enqueue(2, 1, a=1, b=2),
        await note.enqueue(1, 2, a=2, b=1),
        await note.enqueue(1, a=1, b=2),
        await note.enqueue(1, 2),
        await note.enqueue(),
    ]

    assert same[0].replaced
    assert not any(handle.replaced for handle in [same[1], *other])


async def test_positional_only_and_a_keyword_of_its_name(queue: Queue, clock: VirtualClock) -> None:
    """A positional-only parameter and a `**kwargs` entry of one name are not mixed up."""

    @queue.task(delay=10, defer=True)
    async def note(a: int, /, **rest: int) -> None: ...

    await note.enqueue(1, a=2)
    await note.enqueue(2, a=1)
    await note.enqueue(1)

    assert queue.stats().waiting == 3


async def test_without_parameters(queue: Queue, clock: VirtualClock) -> None:
    """`defer=True` on a function without parameters is one key for all its calls."""

    @queue.task(delay=10, defer=True)
    async def rebuild() -> None: ...

    await rebuild.enqueue()
    await rebuild.enqueue()

    assert queue.stats().waiting == 1


async def test_defer_for_one_call(queue: Queue, clock: VirtualClock) -> None:
    """`defer` among the options of a call makes the key of any function."""

    async def note(user: int, text: str) -> str:
        return text

    first = await queue.options(delay=10, defer=["user"]).enqueue(note, 1, "a")
    second = await queue.options(delay=10, defer=["user"]).enqueue(note, text="b", user=1)
    third = await queue.options(delay=10, defer=["user"]).enqueue(note, 2, "a")

    assert (first.replaced, second.replaced, third.replaced) == (True, False, False)
    await clock.advance(10)
    assert await first == "b"


async def test_the_key_is_that_of_the_call(queue: Queue, clock: VirtualClock) -> None:
    """An argument that is changed after the call does not change the call's key."""

    @queue.task(delay=10, defer=True)
    async def note(items: list[int]) -> None: ...

    items = [1]
    await note.enqueue(items)
    items.append(2)
    second = await note.enqueue(items)
    third = await note.enqueue([1])

    assert queue.stats().waiting == 2
    assert not second.replaced
    assert not third.replaced


# Values

DISTINCT: dict[str, object] = {
    "int": 1,
    "float": 1.0,
    "true": True,
    "str": "1",
    "bytes": b"1",
    "base64 of the bytes": "MQ==",
    "none": None,
    "null": "null",
    "zero": 0,
    "float zero": 0.0,
    "false": False,
    "empty": "",
    "empty bytes": b"",
    "empty list": [],
    "empty dict": {},
    "list": [1],
    "list of float": [1.0],
    "list of bool": [True],
    "list of str": ["1"],
    "nested list": [[1]],
    "flat pair": [1, 2],
    "pair in pair": [[1], 2],
    "dict": {"a": 1},
    "dict of float": {"a": 1.0},
    "dict of str": {"a": "1"},
    "str key": {"1": 1},
    "int key": {1: 1},
    "text of a list": "[1]",
    "text of a dict": '{"a":1}',
    "big": 2**64,
    "bigger": 2**64 + 1,
    "huge": 10**400,
    "big float": float(2**64),
    "near": 0.1 + 0.2,
    "nearer": 0.3,
    "inf": math.inf,
    "-inf": -math.inf,
    "nan": math.nan,
    "text of nan": "nan",
    "quote": '"',
    "backslash": "\\",
    "nul": "\0",
    "emoji": "🦊",
    "composed": "é",
    "decomposed": "e\u0301",
    "uuid": UUID(int=1),
    "other uuid": UUID(int=2),
    "datetime": datetime(2027, 1, 1, tzinfo=UTC),
    "other datetime": datetime(2027, 1, 1, 0, 0, 0, 1, tzinfo=UTC),
    "naive datetime": datetime(2027, 1, 1),  # noqa: DTZ001 # a value like any other here
    "date": date(2027, 1, 1),
    "colour": Colour.RED,
    "other colour": Colour.BLUE,
    "point": Point(1, 2),
    "other point": Point(2, 1),
    "decimal": Decimal("1.10"),
    "set": {1, 2},
    "set of float": {1.0, 2.0},
    "other set": {1, 3},
}


async def test_different_values_are_different_keys(defer_queue: Queue, clock: VirtualClock) -> None:
    """`1`, `1.0`, `True`, `"1"` and everything else that differs never fold together."""
    queue = defer_queue

    @queue.task(defer=["value"])
    async def note(value: object) -> None: ...

    handles = {
        name: await note.options(delay=60).enqueue(value) for name, value in DISTINCT.items()
    }

    assert [name for name, handle in handles.items() if handle.replaced] == []
    assert queue.stats().waiting == len(DISTINCT)


EQUAL: dict[str, tuple[object, ...]] = {
    "dict order": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "nested dict order": (
        [{"a": {"x": 1, "y": [{"p": 1, "q": 2}]}, "b": 2}],
        [{"b": 2, "a": {"y": [{"q": 2, "p": 1}], "x": 1}}],
    ),
    "int keys in any order": ({1: "a", 2: "b"}, {2: "b", 1: "a"}),
    "mixed keys in any order": ({1: "a", "1": "b"}, {"1": "b", 1: "a"}),
    "set order": ({"a", "b", "c"}, {"c", "b", "a"}, set("abc")),
    "mixed set": ({1, "1", None}, {None, "1", 1}),
    "set of tuples": ({(1, 2), (2, 1)}, {(2, 1), (1, 2)}),
    "nan": (math.nan, float("nan"), -math.nan, math.inf - math.inf),
    "minus zero": (-0.0, -0.0),
    "big": (2**70, 2**35 * 2**35),
    "float": (0.5, 1 / 2),
    "dataclass": (Point(1, 2), Point(1, 2)),
    "nested dataclass": (Address("a", Point(1, 2)), Address("a", Point(1, 2))),
    "uuid": (UUID(int=7), UUID(str(UUID(int=7)))),
    "datetime": (datetime(2027, 1, 1, tzinfo=UTC), datetime.fromisoformat("2027-01-01T00:00Z")),
    "enum": (Colour.RED, Colour("red")),
    "bytes": (b"ab", bytes([97, 98])),
    "long text": ("x" * 5000, "x" * 5000),
}


@pytest.mark.parametrize("name", EQUAL)
async def test_equal_values_are_one_key(defer_queue: Queue, clock: VirtualClock, name: str) -> None:
    """Equal values of one type fold together, whatever the order of their dicts and sets."""
    queue = defer_queue

    @queue.task(defer=["value"])
    async def note(value: object) -> None: ...

    assert await keys(queue, note, *EQUAL[name]) == 1


async def test_long_values_are_not_cut(queue: Queue, clock: VirtualClock) -> None:
    """Two long arguments that differ in their last character are two keys."""

    @queue.task(defer=True)
    async def note(text: str) -> None: ...

    assert await keys(queue, note, "x" * 5000 + "a", "x" * 5000 + "b") == 2


def canon(value: Any) -> object:
    """What makes two values the same key, written down in the dullest way."""
    if isinstance(value, float):
        return ("float", value.hex())
    if isinstance(value, dict):
        return ("dict", frozenset((canon(k), canon(v)) for k, v in value.items()))
    if isinstance(value, list):
        return ("list", tuple(canon(item) for item in value))
    if isinstance(value, set):
        return ("set", frozenset(canon(item) for item in value))
    return (type(value).__name__, value)


ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2),
    st.integers(2**62, 2**66),
    st.sampled_from([0.0, 1.0, -1.0, 2.0, 0.1, 1e300, math.inf, -math.inf, math.nan]),
    st.text(alphabet='01a"\\,[]{}:é🦊\0', max_size=3),
    st.binary(max_size=2),
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-2, 2), st.text("01a", max_size=2))
VALUES = st.recursive(
    st.one_of(ATOMS, st.sets(SCALARS, max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab1", max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(values=st.lists(VALUES, min_size=2, max_size=12))
async def test_any_values_fold_when_and_only_when_they_are_the_same(values: list[Any]) -> None:
    """For any JSON-like values, sets and bytes: as many waiting jobs as different values."""
    queue = Queue()

    @queue.task(defer=["value"])
    async def note(value: object) -> None: ...

    async with virtual(queue):
        handles = [await note.options(delay=60).enqueue(value) for value in values]
        assert queue.stats().waiting == len({canon(value) for value in values})
        last = {canon(value): n for n, value in enumerate(values)}
        for n, handle in enumerate(handles):
            assert handle.replaced is (last[canon(values[n])] != n)


class Thing:
    """Equal to nothing but itself, and shown with its address."""


@pytest.mark.parametrize(
    "value", [Thing(), [Thing()], {"a": Thing()}, lambda: None, (n for n in "ab")], ids=type
)
async def test_a_value_that_cannot_be_a_key_is_a_type_error(
    queue: Queue, clock: VirtualClock, value: object
) -> None:
    """An object without a value of its own is refused; the message names parameter and way out."""

    @queue.task(delay=10, defer=True)
    async def note(user: int, request: object) -> None: ...

    with pytest.raises(TypeError, match="request") as error:
        await note.enqueue(1, value)

    assert "defer=[" in str(error.value)
    assert queue.stats().accepted == 0


# The key function


async def test_a_key_function_gets_the_arguments(queue: Queue, clock: VirtualClock) -> None:
    """A callable gets the call's arguments, and a str that it returns is the key as it is."""

    @queue.task(delay=10, defer=lambda user, text: f"user:{user['id']}")
    async def note(user: dict[str, int], text: str) -> str:
        return text

    first = await note.enqueue({"id": 1}, "a")
    second = await note.enqueue(text="b", user={"id": 1, "age": 40})
    third = await note.enqueue({"id": 2}, text="c")

    assert first.key == second.key == "user:1"
    assert (first.replaced, third.replaced) == (True, False)
    await clock.advance(10)
    assert [await handle for handle in (first, second, third)] == ["b", "b", "c"]


async def test_a_key_function_of_a_defer(queue: Queue, clock: VirtualClock) -> None:
    """`Defer(key=…)` is the same callable among further wishes."""

    @queue.task(delay=10, defer=Defer(key=lambda user, text: f"user:{user}", keep="first"))
    async def note(user: int, text: str) -> str:
        return text

    first = await note.enqueue(1, "a")
    await note.enqueue(1, "b")

    assert first.key == "user:1"
    await clock.advance(10)
    assert await first == "a"


async def test_a_key_function_may_return_values(queue: Queue, clock: VirtualClock) -> None:
    """What is not a str is made into a key as an argument would be."""

    @queue.task(defer=lambda value: value)
    async def note(value: object) -> None: ...

    assert await keys(queue, note, (1, 2), (1, 2), (2, 1), {"a": 1, "b": 2}, {"b": 2, "a": 1}) == 3
    assert await keys(queue, note, 1, 1.0, True) == 3


async def test_a_key_function_that_returns_an_object(queue: Queue, clock: VirtualClock) -> None:
    """A key function whose answer cannot be a key is a TypeError at the call."""

    @queue.task(delay=10, defer=lambda value: Thing())
    async def note(value: object) -> None: ...

    with pytest.raises(TypeError):
        await note.enqueue(1)
    assert queue.stats().accepted == 0


async def test_a_failing_key_function_leaves_everything_as_it_was(
    queue: Queue, clock: VirtualClock
) -> None:
    """The exception reaches the caller, and the job that waits keeps arguments, eta and waiters."""
    events: list[str] = []

    def key(user: dict[str, int]) -> str:
        return f"user:{user['id']}"

    @queue.task(delay=10, defer=key)
    async def note(user: dict[str, int]) -> int:
        return user["id"]

    handle = await note.enqueue({"id": 1})
    eta, before = handle.eta, queue.stats()
    await clock.advance(5)
    unsubscribe = queue.subscribe(lambda event: events.append(event.name))
    with pytest.raises(KeyError, match="id"):
        await note.enqueue({"name": 1})
    unsubscribe()

    assert events == []
    assert queue.stats() == before
    assert (handle.eta, handle.replaced, handle.state) == (eta, False, State.SCHEDULED)
    await clock.advance(5)
    assert await handle == 1


# Errors at the decoration and at the call


@pytest.mark.parametrize("defer", [["user", "docment"], Defer(params=["docment"]), ["docment"]])
def test_an_unknown_name_is_an_error_at_decoration(defer: Any) -> None:
    """A misspelled parameter is a ValueError that names it, before the first call."""
    queue = Queue()

    with pytest.raises(ValueError, match="docment"):

        @queue.task(delay=10, defer=defer)
        async def note(user: int, document: int) -> None: ...


async def test_an_unknown_name_for_one_call_is_an_error_at_the_call(
    queue: Queue, clock: VirtualClock
) -> None:
    """The same mistake in `.options` is a ValueError there, and nothing is accepted."""

    @queue.task(delay=10)
    async def note(user: int) -> None: ...

    with pytest.raises(ValueError, match="usr"):
        await note.options(defer=["usr"]).enqueue(1)
    assert queue.stats().accepted == 0


def test_params_and_key_together_are_refused() -> None:
    """A key is made of parameters or by a function, not both."""
    with pytest.raises((TypeError, ValueError)):
        Defer(params=["user"], key=lambda user: "k")


@pytest.mark.parametrize("args", [(), (1, 2, 3)])
async def test_wrong_arguments_are_a_type_error_at_the_call(
    queue: Queue, clock: VirtualClock, args: tuple[int, ...]
) -> None:
    """A call that the function could not take is refused when it is made, not when it runs."""

    @queue.task(delay=10, defer=["user"])
    async def note(user: int, text: int) -> None: ...

    with pytest.raises(TypeError):
        await note.enqueue(*args)  # type: ignore[call-arg,arg-type]
    with pytest.raises(TypeError, match="usr"):
        await note.enqueue(1, text=2, usr=3)  # type: ignore[call-arg]
    assert queue.stats().accepted == 0


@pytest.mark.parametrize("key", ["k", "é" * 256, "x" * 512, "🦊", " ", "[1,7]"])
async def test_an_explicit_key_is_shown_as_given(
    queue: Queue, clock: VirtualClock, key: str
) -> None:
    """`key=` is the key, character for character, and wins over the task's own `defer`."""

    @queue.task(delay=10, defer=True)
    async def note(n: int) -> int:
        return n

    first = await note.options(key=key).enqueue(1)
    second = await queue.enqueue(note, 2, key=key)

    assert first.key == second.key == key
    assert first.replaced
    await clock.advance(10)
    assert await first == 2


@pytest.mark.parametrize(
    ("key", "error"),
    [
        ("", ValueError),
        ("x" * 513, ValueError),
        ("é" * 257, ValueError),
        ("a\0b", ValueError),
        ("\ud800", ValueError),
        (1, TypeError),
        (b"k", TypeError),
        (("a", 1), TypeError),
    ],
    ids=repr,
)
async def test_a_bad_explicit_key_is_refused(
    queue: Queue, clock: VirtualClock, key: Any, error: type[Exception]
) -> None:
    """A key is 1 to 512 bytes of UTF-8 without NUL: anything else changes nothing."""

    @queue.task(delay=10)
    async def note() -> None: ...

    with pytest.raises(error):
        await queue.enqueue(note, key=key)
    with pytest.raises(error):
        await note.options(key=key).enqueue()
    assert queue.stats().accepted == 0


async def test_the_key_of_a_method_task(queue: Queue, clock: VirtualClock) -> None:
    """A bound method's key is made of the arguments of the call, without the object."""

    class Bot:
        async def say(self, user: int, text: str) -> str:
            return text

    bot = Bot()
    options = queue.options(delay=10, defer=["user"])
    first = await options.enqueue(bot.say, 1, "a")
    second = await options.enqueue(bot.say, user=1, text="b")

    assert first.key == "[1]"
    assert first.replaced
    await clock.advance(10)
    assert await second == "b"
    assert asyncdefer.State.SUCCEEDED is second.state
