"""What can be an argument: a value of each type comes back as it was, and of the same types."""

import collections
import collections.abc as abc
import dataclasses
import datetime as dt
import enum
import math
import numbers
import pathlib
import sys
import typing
import uuid
import zoneinfo
from decimal import Decimal
from typing import (
    Annotated,
    Any,
    Final,
    Generic,
    Literal,
    LiteralString,
    NamedTuple,
    NewType,
    NotRequired,
    Required,
    TypedDict,
    TypeVar,
)

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdefer._codec import Codec

T = TypeVar("T")
K = TypeVar("K")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(enum.StrEnum):
    YES = "yes"


class Right(enum.Flag):
    READ = 1
    WRITE = 2


class Odd(enum.Enum):
    """Neither numbers nor texts."""

    PAIR = (1, 2)
    NOTHING = None
    TRUE = True


@dataclasses.dataclass
class User:
    id: int
    name: str = "?"


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Point:
    x: float
    y: float


@dataclasses.dataclass(kw_only=True)
class Counted:
    """Its `__post_init__` would change it a second time."""

    start: int
    double: int = dataclasses.field(init=False)
    seed: dataclasses.InitVar[int] = 1

    def __post_init__(self, seed: int) -> None:
        self.start += seed
        self.double = self.start * 2


@dataclasses.dataclass
class Node:
    name: str
    children: "list[Node]" = dataclasses.field(default_factory=list)
    parent: "Node | None" = None


@dataclasses.dataclass
class Box(Generic[T]):
    value: T
    more: "list[T]"


@dataclasses.dataclass
class Pairs(Box[dict[str, K]], Generic[K]):
    key: K


@dataclasses.dataclass
class Sized(Box[int]):
    unit: str


class Order(msgspec.Struct):
    id: int
    note: str | msgspec.UnsetType = msgspec.UNSET


class Event(msgspec.Struct, tag=True, rename="camel", array_like=True, frozen=True):
    at_day: dt.date
    parts: "tuple[Event, ...]" = ()


class Held(msgspec.Struct, Generic[T]):
    value: T


class Row(TypedDict):
    id: int
    day: NotRequired[dt.date]


class Loose(TypedDict, total=False):
    id: "Required[int]"
    day: dt.date


Strange = TypedDict("Strange", {"$": int, "two words": str})


class Cell(TypedDict, Generic[T]):
    value: T


class Place(NamedTuple):
    name: str
    when: dt.date = dt.date(2027, 1, 1)


Bare = collections.namedtuple("Bare", "a b")  # noqa: PYI024 - one without annotations is meant
UserId = NewType("UserId", int)

PARIS = zoneinfo.ZoneInfo("Europe/Paris")
date = dt.date


@dataclasses.dataclass
class Shadow:
    """A field of the name of its class, and a class that is only to be found inside."""

    class Inner(enum.Enum):  # noqa: D106
        ONE = 1

    date: "date | None" = None
    inner: "Inner" = Inner.ONE


DAY = dt.date(2027, 3, 28)
NOON = dt.datetime(2027, 3, 28, 12, 0, 0, 5)  # noqa: DTZ001 - a naive one is meant
NAMES = st.text(max_size=5)
TREES = st.recursive(
    st.builds(Node, NAMES),
    lambda inner: st.builds(Node, NAMES, st.lists(inner, max_size=2), st.none() | inner),
    max_leaves=5,
)
ZONES = st.sampled_from(
    [
        *(PARIS, zoneinfo.ZoneInfo("UTC"), zoneinfo.ZoneInfo("Australia/Lord_Howe"), dt.UTC),
        dt.timezone(dt.timedelta(hours=-3, minutes=-30)),
    ]
)
UNTYPED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | NAMES | st.binary(max_size=3)
    | st.datetimes() | st.datetimes(timezones=ZONES) | st.dates() | st.times() | st.timedeltas()
    | st.uuids() | st.decimals(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(NAMES | st.just("$"), inner, max_size=3)
        | st.dictionaries(st.integers() | st.dates() | st.tuples(NAMES), inner, max_size=3)
        | st.sets(st.integers() | NAMES, max_size=3)
        | st.frozensets(st.dates() | st.none(), max_size=3)
    ),
    max_leaves=8,
)  # fmt: skip


def take(x: Any) -> None: ...


def codec(annotation: Any) -> Codec:
    def one(x: Any) -> Any: ...

    one.__annotations__ = {"x": annotation, "return": annotation}
    return Codec(one, "one")


def alike(a: Any, b: Any) -> bool:
    """Equal, of the same types all the way down; NaN is NaN, and -0.0 is not 0.0."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float | Decimal):
        return repr(a) == repr(b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return alike(list(a.items()), list(b.items()))
    if isinstance(a, set | frozenset):
        return a == b and {(type(it), it) for it in a} == {(type(it), it) for it in b}
    if dataclasses.is_dataclass(a):
        return alike(vars_of(a), vars_of(b))
    if isinstance(a, dt.datetime):
        return a.replace(tzinfo=None) == b.replace(tzinfo=None) and alike_zone(a, b)
    return bool(a == b)


def vars_of(it: Any) -> dict[str, Any]:
    return {field.name: getattr(it, field.name) for field in dataclasses.fields(it)}


def alike_zone(a: dt.datetime, b: dt.datetime) -> bool:
    return str(a.tzinfo) == str(b.tzinfo) and a.utcoffset() == b.utcoffset()


def comes_back(annotation: Any, value: Any) -> str:
    """The text of the value, after a trip as an argument and one as a result."""
    made = codec(annotation)
    text, (now,), _ = made.encode((value,), {})
    ((later,), _) = made.decode(text)
    assert alike(now, value)
    assert alike(later, value)
    assert alike(made.decode_result(made.encode_result(value)), value)
    return text.removeprefix('{"x":').removesuffix("}")


TABLE: list[tuple[Any, Any, str]] = [
    (None, None, "null"),
    (bool, True, "true"),
    (int, 2**70, str(2**70)),
    (int, True, "true"),
    (float, 1.0, "1.0"),
    (float, 1, "1"),
    (float, True, "true"),
    (str, "é\0", '"é\\u0000"'),
    (LiteralString, "x", '"x"'),
    (bytes, b"\xff", '"/w=="'),
    (dt.datetime, NOON, '"2027-03-28T12:00:00.000005"'),
    (dt.datetime, NOON.replace(tzinfo=dt.UTC), '"2027-03-28T12:00:00.000005+00:00"'),
    (dt.datetime, NOON.replace(tzinfo=PARIS), '"2027-03-28T12:00:00.000005+02:00[Europe/Paris]"'),
    (dt.date, DAY, '"2027-03-28"'),
    (dt.time, dt.time(1, 2, tzinfo=PARIS), '"01:02:00[Europe/Paris]"'),
    (dt.time, dt.time(1, 2, tzinfo=dt.UTC), '"01:02:00+00:00"'),
    (dt.timedelta, dt.timedelta(days=1, microseconds=-1), '"PT86399.999999S"'),
    (uuid.UUID, uuid.UUID(int=1), '"00000000-0000-0000-0000-000000000001"'),
    (Decimal, Decimal("-0.10"), '"-0.10"'),
    (Decimal, Decimal("NaN"), '"NaN"'),
    (Colour, Colour.RED, '"red"'),
    (Level, Level.HIGH, "2"),
    (Word, Word.YES, '"yes"'),
    (Right, Right.READ | Right.WRITE, "3"),
    (Right, Right(0), "0"),
    (Odd, Odd.PAIR, '"PAIR"'),
    (Odd, Odd.NOTHING, '"NOTHING"'),
    (list[int], [1, 2], "[1,2]"),
    (typing.List[int], [1], "[1]"),  # noqa: UP006 - the older name is meant
    (list, [(1,)], '[{"$":"tuple","v":[1]}]'),
    (tuple[int, str], (1, "a"), '[1,"a"]'),
    (tuple[int, ...], (1, 2), "[1,2]"),
    (tuple[()], (), "[]"),
    (tuple, (1, "a"), '[1,"a"]'),
    (tuple[int, *tuple[str, ...]], (1, "a"), '[1,"a"]'),
    (set[int], {1}, "[1]"),
    (frozenset[Colour], frozenset({Colour.RED}), '["red"]'),
    (dict[str, int], {"a": 1}, '{"a":1}'),
    (dict[str, int], {"$": 1}, '{"$":"dict","v":[["$",1]]}'),
    (dict[int, str], {1: "a"}, '{"$":"dict","v":[[1,"a"]]}'),
    (dict[dt.date, list[Colour]], {DAY: [Colour.RED]}, '{"2027-03-28":["red"]}'),
    (dict[Colour, int], {Colour.RED: 1}, '{"red":1}'),
    (dict[tuple[int, int], int], {(1, 2): 3}, '{"$":"dict","v":[[[1,2],3]]}'),
    (dict, {1: 2}, '{"$":"dict","v":[[1,2]]}'),
    (abc.Sequence[int], [1], '{"$":"list","v":[1]}'),
    (abc.MutableSequence[int], [1], "[1]"),
    (abc.Sequence[int], (1,), '{"$":"tuple","v":[1]}'),
    (abc.Iterable[str], {"a"}, '{"$":"set","v":["a"]}'),
    (abc.Set[int], frozenset({1}), '{"$":"frozenset","v":[1]}'),
    (abc.Mapping[str, Point], {"a": Point(1.0, 2)}, '{"a":{"x":1.0,"y":2}}'),
    (User, User(1), '{"id":1,"name":"?"}'),
    (Point, Point(1.5, math.inf), '{"x":1.5,"y":{"$":"float","v":"inf"}}'),
    (Counted, Counted(start=1), '{"start":2,"double":4}'),
    (Node, Node("a", [Node("b")]), '{"name":"a","children":[{"name":"b","children":[],"parent":null}],"parent":null}'),
    (Box[int], Box(1, [2]), '{"value":1,"more":[2]}'),
    (Box, Box(DAY, []), '{"value":{"$":"datetime.date","v":"2027-03-28"},"more":[]}'),
    (Sized, Sized(1, [2], "m"), '{"value":1,"more":[2],"unit":"m"}'),
    (Pairs[dt.date], Pairs({"a": DAY}, [], DAY), '{"value":{"a":{"$":"datetime.date","v":"2027-03-28"}},"more":[],"key":{"$":"datetime.date","v":"2027-03-28"}}'),
    (Shadow, Shadow(DAY), '{"date":"2027-03-28","inner":1}'),
    (Order, Order(1), '{"id":1}'),
    (Order, Order(1, "x"), '{"id":1,"note":"x"}'),
    (Event, Event(DAY, (Event(DAY),)), '{"at_day":"2027-03-28","parts":[{"at_day":"2027-03-28","parts":[]}]}'),
    (Held[dt.date], Held(DAY), '{"value":{"$":"datetime.date","v":"2027-03-28"}}'),
    (Row, {"id": 1}, '{"id":1}'),
    (Row, {"id": 1, "day": DAY}, '{"id":1,"day":"2027-03-28"}'),
    (Loose, {"id": 1, "day": DAY}, '{"id":1,"day":"2027-03-28"}'),
    (Strange, {"$": 1, "two words": "x"}, '{"$":"Strange","v":{"$":1,"two words":"x"}}'),
    (Cell[dt.date], {"value": DAY}, '{"value":{"$":"datetime.date","v":"2027-03-28"}}'),
    (Place, Place("x"), '{"name":"x","when":"2027-01-01"}'),
    (Bare, Bare(1, (2,)), '{"a":1,"b":{"$":"tuple","v":[2]}}'),
    (UserId, 1, "1"),
    (Annotated[int, msgspec.Meta(ge=0)], 1, "1"),
    (Annotated[list[User], msgspec.Meta(min_length=1)], [User(1)], '[{"id":1,"name":"?"}]'),
    (Annotated[User, "a note"], User(1), '{"id":1,"name":"?"}'),
    (Final[int], 1, "1"),
    (T, (1,), '{"$":"tuple","v":[1]}'),
    (TypeVar("B", bound=User), User(1), '{"id":1,"name":"?"}'),
    (TypeVar("C", int, dt.date), DAY, '{"$":"datetime.date","v":"2027-03-28"}'),
    (pathlib.Path, pathlib.Path("/a/b"), '"/a/b"'),
    (pathlib.PurePosixPath, pathlib.PurePosixPath("a"), '"a"'),
    (abc.Hashable, (1,), '{"$":"tuple","v":[1]}'),
    (numbers.Number, 1.5, "1.5"),
    (object, {1}, '{"$":"set","v":[1]}'),
    (Any, b"x", '{"$":"bytes","v":"eA=="}'),
    (Any, {"$": 1}, '{"$":"dict","v":[["$",1]]}'),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "text"), TABLE)
def test_a_value_of_the_annotated_type(annotation: Any, value: Any, text: str) -> None:
    """It comes back equal and of the same types, and its text is for people too."""
    assert comes_back(annotation, value) == text


UNIONS: list[tuple[Any, Any, str]] = [
    (int | None, None, "null"),
    (int | None, 1, "1"),
    (int | str | None, "a", '"a"'),
    (int | float, math.nan, '{"$":"float","v":"nan"}'),
    (User | None, User(1), '{"id":1,"name":"?"}'),
    (dt.date | None, DAY, '"2027-03-28"'),
    (User | int, 1, "1"),
    (User | Point, User(1), '{"$":"User","v":{"id":1,"name":"?"}}'),
    (Point | User | None, User(1), '{"$":"User","v":{"id":1,"name":"?"}}'),
    (User | dict[str, int], {"id": 1}, '{"$":"dict[str, int]","v":{"id":1}}'),
    (User | dict, {"$": 1}, '{"$":"dict","v":{"$":"dict","v":[["$",1]]}}'),
    (str | uuid.UUID, "x", '{"$":"str","v":"x"}'),
    (str | uuid.UUID, uuid.UUID(int=1), '{"$":"uuid.UUID","v":"00000000-0000-0000-0000-000000000001"}'),
    (str | Colour, Colour.RED, '{"$":"Colour","v":"red"}'),
    (str | Word, Word.YES, '{"$":"Word","v":"yes"}'),
    (int | Level, Level.LOW, '{"$":"Level","v":1}'),
    (float | Level, 1, '{"$":"float","v":1}'),
    (dt.date | dt.datetime, NOON, '{"$":"datetime.datetime","v":"2027-03-28T12:00:00.000005"}'),
    (dt.datetime | dt.date, DAY, '{"$":"datetime.date","v":"2027-03-28"}'),
    (list[int] | list[str], ["a"], '{"$":"list[str]","v":["a"]}'),
    (list[int] | tuple[int, ...], (1,), '{"$":"tuple[int, ...]","v":[1]}'),
    (list[int | str] | int, ["a", 1], '["a",1]'),
    (float | User, math.inf, '{"$":"float","v":"inf"}'),
    (User | float, math.inf, '{"$":"float","v":"inf"}'),
    (Literal["a", 1, True] | None, True, "true"),
    (Literal[b"a", Colour.RED, "red"], "red", '{"$":"str","v":"red"}'),
    (Literal[b"a", Colour.RED, "red"], Colour.RED, '{"$":"Colour","v":"red"}'),
    (Literal[b"a"], b"a", '"YQ=="'),
    (Literal["auto"] | int, "auto", '"auto"'),
    (Literal["auto"] | str, "other", '"other"'),  # noqa: PYI051 - people write it for their editor
    (Literal["auto"] | uuid.UUID, "auto", '{"$":"Literal[\'auto\']","v":"auto"}'),
    (Annotated[int, msgspec.Meta(ge=10)] | Literal[1], 1, '{"$":"Literal[1]","v":1}'),
    (User | Any, User(1), '{"$":"User","v":{"id":1,"name":"?"}}'),
    (int | Any, (1,), '{"$":"tuple","v":[1]}'),
    (typing.Optional["list[Node]"], [Node("a")], '[{"name":"a","children":[],"parent":null}]'),
]  # fmt: skip


@pytest.mark.parametrize(("annotation", "value", "text"), UNIONS)
def test_a_union(annotation: Any, value: Any, text: str) -> None:
    """Members whose JSON would look alike are told apart by a tag, and others have none."""
    assert comes_back(annotation, value) == text


@dataclasses.dataclass
class Report:
    path: str
    size: int = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.path = f"/{self.path}"
        self.lines: list[str] = []
        self.size = 0


class Total(msgspec.Struct, frozen=True):
    amount: int

    def __post_init__(self) -> None:
        msgspec.structs.force_setattr(self, "amount", self.amount + 1)


def test_a_class_with_a_post_init() -> None:
    """It has all that it needs, and the fields that it had."""
    assert comes_back(Report, Report("a")) == '{"path":"/a","size":0}'
    assert comes_back(Total, Total(1)) == '{"amount":2}'
    made = codec(Report)
    ((back,), _) = made.decode('{"x":{"path":"/a"}}')
    assert (back.path, back.size, back.lines) == ("/a", 0, [])


def test_two_classes_of_one_name() -> None:
    """In a union their modules tell them apart."""

    def made(module: str) -> Any:
        return dataclasses.make_dataclass("Same", [("a", int)], namespace={"__module__": module})

    one, two = made("one"), made("two")
    one.__module__, two.__module__ = "one", "two"
    assert comes_back(one | two, one(1)) == '{"$":"one.Same","v":{"a":1}}'
    assert comes_back(one | two, two(1)) == '{"$":"two.Same","v":{"a":1}}'


class Text(str):
    """What some frameworks have instead of a str."""

    __slots__ = ()


class Day(dt.date):
    pass


class Moment(dt.datetime):
    pass


@pytest.mark.parametrize(
    ("annotation", "value", "arrives"),
    [
        (str, Text("a"), "a"),
        (str, Word.YES, "yes"),
        (int, Level.HIGH, 2),
        (float, Level.HIGH, 2),
        (int | None, Level.HIGH, 2),
        (dt.date, Day(2027, 3, 28), DAY),
        (dt.datetime, Moment(2027, 3, 28, 12, 0, 0, 5), NOON),
        (pathlib.PurePath, pathlib.Path("a"), pathlib.PurePath("a")),
        (dict[str, int], collections.Counter("a"), {"a": 1}),
        (dict[str, int], collections.defaultdict(int, a=1), {"a": 1}),
        (dict[str, int], {Text("a"): 1}, {"a": 1}),
        (tuple[str, dt.date], Place("x"), ("x", dt.date(2027, 1, 1))),
        (list[str], [Text("a")], ["a"]),
    ],
)
def test_a_subclass_of_a_plain_type(annotation: Any, value: Any, arrives: Any) -> None:
    """It arrives as the annotated type, at once and after a restart."""
    made = codec(annotation)
    text, (now,), _ = made.encode((value,), {})
    assert alike(now, arrives)
    assert alike(made.decode(text)[0][0], arrives)


@pytest.mark.parametrize(
    ("annotation", "values"),
    [
        (int, st.integers()),
        (float, st.floats() | st.integers()),
        (str, st.text()),
        (bytes, st.binary()),
        (dt.datetime, st.datetimes() | st.datetimes(timezones=ZONES)),
        (dt.date, st.dates()),
        (dt.time, st.times() | st.times(timezones=ZONES)),
        (dt.timedelta, st.timedeltas()),
        (Decimal, st.decimals()),
        (list[float], st.lists(st.floats())),
        (dict[str, int | None], st.dictionaries(st.text() | st.just("$"), st.none() | st.integers())),
        (dict[int, bytes], st.dictionaries(st.integers(), st.binary())),
        (dict[dt.date | str, int], st.dictionaries(st.dates() | st.text(), st.integers())),
        (set[tuple[int, str]], st.sets(st.tuples(st.integers(), NAMES))),
        (frozenset[dt.date | None], st.frozensets(st.dates() | st.none())),
        (int | float | str | bool | None, st.none() | st.booleans() | st.floats() | NAMES | st.integers()),
        (str | bytes | Colour | dt.date, NAMES | st.binary() | st.sampled_from(Colour) | st.dates()),
        (Right | Level | int, st.integers(0, 3).map(Right) | st.sampled_from(Level) | st.integers()),
        (Node, TREES),
        (Node | list[Node] | User, TREES | st.lists(TREES, max_size=2) | st.builds(User, st.integers())),
        (Box[int | str] | None, st.none() | st.builds(Box, st.integers() | NAMES, st.lists(NAMES))),
        (abc.Sequence[int] | abc.Set[int], st.lists(st.integers()) | st.tuples(st.integers()) | st.sets(st.integers())),
        (Any, UNTYPED),
        (list[Any] | User, st.lists(UNTYPED, max_size=3)),
    ],
)  # fmt: skip
@given(data=st.data())
def test_any_value_of_the_annotated_type(annotation: Any, values: Any, data: Any) -> None:
    """Written and read again, it is what the call got, and that is what was given."""
    comes_back(annotation, data.draw(values))


@given(st.datetimes(timezones=ZONES, allow_imaginary=True))
def test_a_datetime_is_the_same_instant(value: dt.datetime) -> None:
    """Also in the hour that comes twice and in the one that there is not."""
    _, (now,), _ = codec(dt.datetime).encode((value,), {})
    assert now.astimezone(dt.UTC) == value.astimezone(dt.UTC)
    assert now == value


def test_a_zone_whose_rules_have_changed() -> None:
    """The instant counts: a meeting at an offset that the zone no longer has is moved to its clock."""
    (value,), _ = codec(dt.datetime).decode('{"x":"2027-07-01T12:00:00+05:00[Europe/Paris]"}')
    assert value == dt.datetime(2027, 7, 1, 9, tzinfo=PARIS)
    assert value.tzinfo is PARIS


def test_another_zone_becomes_an_offset() -> None:
    """A zone of another library is one that nobody knows by name."""

    class Zone(dt.tzinfo):
        def utcoffset(self, at: dt.datetime | None) -> dt.timedelta:
            return dt.timedelta(hours=3)

    _, (now,), _ = codec(Any).encode((NOON.replace(tzinfo=Zone()),), {})
    assert now.tzinfo == dt.timezone(dt.timedelta(hours=3))
    assert now == NOON.replace(tzinfo=Zone())


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax came with Python 3.12")
def test_aliases_and_parameters_of_python_3_12() -> None:
    """A `type` statement means its value; what it has inside of itself, and type variables, count
    as `Any`, or as what bounds them.
    """
    names: dict[str, Any] = {"User": User, "date": dt.date, "dataclass": dataclasses.dataclass}
    source = """
type Users = list[User]
type Tree = int | list[Tree] | dict[str, Tree]
type Pair[A] = tuple[A, A]
def users(x: Users): ...
def tree(x: Tree): ...
def pair(x: Pair[date]): ...
def bound[V: User](x: "V"): ...
class Held[V]:
    def __init__(self, x: V): ...
@dataclass
class Box[V]:
    value: "V"
def box(x: Box[date]): ...
"""
    exec(source, names)  # noqa: S102 - older Pythons could not read it in this file
    for name, value, wrong in [
        ("users", [User(1)], [{"id": 1}]),
        ("tree", [1, {"a": [2]}], [1, {"a": [take]}]),
        ("pair", (DAY, DAY), (DAY, take)),
        ("bound", User(1), {"id": 1}),
        ("Held", 1, take),
        ("box", names["Box"](DAY), names["Box"](take)),
    ]:
        made = Codec(names[name], name)
        text, now, _ = made.encode((value,), {})
        assert alike(now, (value,))
        assert alike(made.decode(text)[0], (value,))
        with pytest.raises(TypeError, match="'x'"):
            made.encode((wrong,), {})


def test_an_alias_of_typing_extensions() -> None:
    """What `type` statements are before Python 3.12."""
    from typing_extensions import TypeAliasType

    tree = TypeAliasType("tree", "int | list[tree]")  # type: ignore[misc]
    pair = TypeAliasType("pair", tuple[T, T], type_params=(T,))
    tagged = '{"$":"datetime.date","v":"2027-03-28"}'
    assert comes_back(pair[dt.date], (DAY, DAY)) == f"[{tagged},{tagged}]"
    assert comes_back(tree | None, None) == "null"
