"""What cannot be an argument: a `TypeError` at the call, which names the parameter and helps."""

import collections
import collections.abc as abc
import dataclasses
import datetime as dt
import enum
import fractions
import ipaddress
import pathlib
import re
import uuid
import zoneinfo
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, Protocol, TypedDict, TypeVar

import msgspec
import pytest

from asyncdefer._codec import Codec

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class User:
    id: int


@dataclasses.dataclass
class Admin(User):
    may: bool = True


@dataclasses.dataclass
class Seeded:
    """What its constructor was given is gone."""

    id: int
    seed: dataclasses.InitVar[int]


@dataclasses.dataclass
class Kept(dict[str, int]):
    """A dict has more to it than its fields."""

    id: int = 0


class Order(msgspec.Struct):
    id: int


class Checked(msgspec.Struct):
    """One that its constructor does not take a second time."""

    id: int

    def __post_init__(self) -> None:
        if self.id > 10:
            raise ValueError("over ten")


@dataclasses.dataclass
class Box(Generic[T]):
    """What its type variable stands for is not asked."""

    value: T


class Row(TypedDict):
    id: int


class Place(NamedTuple):
    name: str


class Session:
    """Something that lives in one process."""


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Text(str):
    __slots__ = ()


def codec(annotation: Any) -> Codec:
    def send(count: Any) -> Any: ...

    send.__annotations__ = {"count": annotation, "return": annotation}
    return Codec(send, "send")


CONTRADICTIONS: list[tuple[Any, Any, str]] = [
    (int, "1", "int is wanted, not str"),
    (int, 1.0, "int is wanted, not float"),
    (int, None, "int is wanted, not NoneType"),
    (bool, 1, "bool is wanted, not int"),
    (float, "1.5", "float is wanted, not str"),
    (float, Decimal(1), "float is wanted, not Decimal"),
    (str, 1, "str is wanted, not int"),
    (str, b"x", "str is wanted, not bytes"),
    (None, 0, "None is wanted, not int"),
    (bytes, "x", "bytes is wanted, not str"),
    (bytes, bytearray(b"x"), "bytes is wanted, not bytearray"),
    (dt.datetime, "2027-01-01T00:00:00Z", "datetime.datetime is wanted, not str"),
    (dt.datetime, dt.date(2027, 1, 1), "datetime.datetime is wanted, not date"),
    (dt.date, dt.datetime(2027, 1, 1, tzinfo=dt.UTC), "datetime.date is wanted, not datetime"),
    (uuid.UUID, str(uuid.UUID(int=1)), "uuid.UUID is wanted, not str"),
    (Decimal, 1, "decimal.Decimal is wanted, not int"),
    (pathlib.Path, "/a", "Path is wanted, not str"),
    (pathlib.Path, pathlib.PurePosixPath("/a"), "Path is wanted, not PurePosixPath"),
    (Colour, "red", "Colour is wanted, not str"),
    (Level, 1, "Level is wanted, not int"),
    (list[int], (1,), "list[int] is wanted, not tuple"),
    (list[int], ["1"], "int is wanted, not str"),
    (list[bool], [True, 1], "bool is wanted, not int"),
    (tuple[int, str], [1, "a"], "tuple[int, str] is wanted, not list"),
    (tuple[int, str], (1,), "tuple[int, str] is wanted, not a tuple of 1"),
    (tuple[()], (1,), "tuple[()] is wanted, not a tuple of 1"),
    (set[int], frozenset({1}), "set[int] is wanted, not frozenset"),
    (dict[str, int], {1: 1}, "str is wanted, not int"),
    (dict[str, int], {"a": "1"}, "int is wanted, not str"),
    (dict[str, int], [("a", 1)], "dict[str, int] is wanted, not list"),
    (Sequence[int], "12", "Sequence[int] is wanted, not str"),
    (Iterable[int], iter([1]), "Iterable[int] is wanted, not list_iterator"),
    (Mapping[str, int], [], "Mapping[str, int] is wanted, not list"),
    (User, {"id": 1}, "User is wanted, not dict"),
    (User, User("1"), "int is wanted, not str"),  # type: ignore[arg-type]
    (User, Admin(1), "User is wanted, not Admin"),
    (list[User], [User(1), None], "User is wanted, not NoneType"),
    (Order, {"id": 1}, "Order is wanted, not dict"),
    (Order, Order("1"), "int is wanted, not str"),  # type: ignore[arg-type]
    (Place, ("x",), "Place is wanted, not tuple"),
    (Row, {}, "Row needs 'id'"),
    (Row, {"id": 1, "x": 2}, "Row has no 'x'"),
    (Row, {"id": "1"}, "int is wanted, not str"),
    (Row, Order(1), "Row is wanted, not Order"),
    (int | str, 1.5, "int | str is wanted, not float"),
    (User | None, Admin(1), "User | None is wanted, not Admin"),
    (User | None, User("1"), "int is wanted, not str"),  # type: ignore[arg-type]
    (list[int] | list[str], [None], "list[int] | list[str] is wanted, not list"),
    (Literal["a", 1], "b", "Literal['a', 1] is wanted, and this is none of it"),
    (Literal["a", 1], True, "Literal['a', 1] is wanted, and this is none of it"),
    (Annotated[int, msgspec.Meta(ge=0)], -1, "Expected `int` >= 0"),
    (list[Annotated[str, msgspec.Meta(max_length=2)]], ["abc"], "Expected `str` of length <= 2"),
    (Annotated[list[User], msgspec.Meta(min_length=1)], [], "Expected `array` of length >= 1"),
    (Session, 5, "Session is wanted, not int"),
]


@pytest.mark.parametrize(("annotation", "value", "says"), CONTRADICTIONS)
def test_an_argument_that_contradicts_its_annotation(
    annotation: Any, value: Any, says: str
) -> None:
    """Nothing is converted: what the checker would refuse is refused."""
    start = "send: the argument 'count' contradicts its annotation: "
    with pytest.raises(TypeError, match=f"^{re.escape(start)}.*{re.escape(says)}") as caught:
        codec(annotation).encode((value,), {})
    assert caught.value.__cause__ is None
    with pytest.raises(TypeError, match=f"^send: the result contradicts .*{re.escape(says)}"):
        codec(annotation).encode_result(value)


HELP = r"pass what identifies the value, as its id, and look it up in the job"
ANNOTATE = r"Annotate the parameter with that type if it is a dataclass"
UNKEPT: list[tuple[Any, Any, str]] = [
    (Any, Session(), rf"type Session can .*{ANNOTATE}.*{HELP}"),
    (Any, User(1), f"type User can .*{ANNOTATE}"),
    (Any, Colour.RED, "type Colour can"),
    (Any, Text("x"), "type Text can"),
    (Any, collections.Counter(), "type Counter can"),
    (Any, pathlib.Path("x"), f"type {type(pathlib.Path()).__name__} can"),
    (Any, [1, {"a": (Session(),)}], "type Session can"),
    (Any, max, "type builtin_function_or_method can"),
    (Session, Session(), f"type Session can be written down. .*{HELP}"),
    (Session | None, Session(), f"type Session can be written down. .*{HELP}"),
    (list[Session], [Session()], f"type Session can be written down. .*{HELP}"),
    (Named, Session(), "type Session can"),
    (Callable[[], int], len, "type builtin_function_or_method can"),
    (type[int], int, "type type can"),
    (bytearray, bytearray(), "type bytearray can"),
    (re.Pattern[str], re.compile("x"), "type Pattern can"),
    (Exception, ValueError(), "type ValueError can"),
    (Kept, Kept(), "type Kept can"),
    (complex, 1 + 2j, "type complex can"),
    (fractions.Fraction, fractions.Fraction(1, 3), "type Fraction can"),
    (ipaddress.IPv4Address, ipaddress.IPv4Address("10.0.0.1"), "type IPv4Address can"),
    (zoneinfo.ZoneInfo, zoneinfo.ZoneInfo("UTC"), "type ZoneInfo can"),
    (abc.MutableSequence[User], [User(1)], f"type User can .*{ANNOTATE}"),
    (Box[Colour], Box(Colour.RED), f"type Colour can .*{ANNOTATE}"),
    (Box[Box[int]], Box(Box(1)), f"type Box can .*{ANNOTATE}"),
]


@pytest.mark.parametrize(("annotation", "value", "says"), UNKEPT)
def test_an_argument_that_cannot_be_written_down(annotation: Any, value: Any, says: str) -> None:
    """No pickle: the message says what to pass instead."""
    with pytest.raises(TypeError, match=f"^send: the argument 'count' cannot be kept .*{says}"):
        codec(annotation).encode((value,), {})
    with pytest.raises(TypeError, match=r"^send: the result cannot be kept"):
        codec(annotation).encode_result(value)


@pytest.mark.parametrize("annotation", [Any, str, str | None, list[str], dict[str, str], Sequence[Any]])  # fmt: skip
def test_text_that_is_none(annotation: Any) -> None:
    """A lone surrogate, as in the name of a file that is not UTF-8."""
    given: Any = "a\udcff"
    if annotation in (list[str], Sequence[Any]):
        given = [given]
    if annotation == dict[str, str]:
        given = {given: ""}
    with pytest.raises(TypeError, match=r"'count' .* lone surrogate, which is no text: pass bytes"):
        codec(annotation).encode((given,), {})


def test_the_argument_at_fault_is_named() -> None:
    """Also when all of them are written in one go."""

    def send(a: str, b: Any, *more: str, c: Any = 0) -> None: ...

    made = Codec(send, "send")
    for args, kwargs, name in [
        (("\ud800", 1), {}, "a"),
        (("x", "\ud800"), {}, "b"),
        (("x", ["\ud800"]), {}, "b"),
        (("x", 1, "ok", "\ud800"), {}, "more"),
        (("x", [1]), {"c": "\ud800"}, "c"),
        (("x", [1]), {"c": 10**5000}, "c"),
    ]:
        with pytest.raises(TypeError, match=f"the argument '{name}' cannot be kept"):
            made.encode(args, kwargs)


def test_a_constructor_that_does_not_take_it_again() -> None:
    """Its own words are passed on."""
    value = Checked(1)
    value.id = 11
    with pytest.raises(TypeError, match="'count' does not fit: over ten, once written"):
        codec(Checked).encode((value,), {})
    with pytest.raises(TypeError, match=r"'count' does not fit: .*'seed', once written"):
        codec(Seeded).encode((Seeded(1, 2),), {})


def test_a_property_that_fails() -> None:
    """What a value raises when it is read is the cause."""

    @dataclasses.dataclass
    class Lazy:
        id: int = dataclasses.field(default=0, init=False)

        def __getattribute__(self, name: str) -> Any:
            if name == "id":
                raise LookupError("gone")
            return super().__getattribute__(name)

    with pytest.raises(TypeError, match="'count' cannot be kept until the run: gone") as caught:
        codec(Lazy).encode((object.__new__(Lazy),), {})
    assert isinstance(caught.value.__cause__, LookupError)


def test_no_value_in_a_message() -> None:
    """What was passed may be secret, and messages get around."""
    secret = "the-password"
    for annotation in (int, int | float, list[int], Literal["x"], User, Colour, dict[str, int]):
        with pytest.raises(TypeError) as caught:
            codec(annotation).encode((secret,), {})
        assert secret not in str(caught.value)
