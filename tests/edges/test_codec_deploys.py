"""A text that an older program wrote: it is read by name, or is `Unreadable` and says why."""

import dataclasses
import datetime as dt
import enum
import inspect
import json
import uuid
from collections.abc import Callable
from typing import Any, Literal, TypedDict

import msgspec
import pytest

from asyncdefer._codec import Codec, Unreadable


def send(user_id: int, document_id: int, update: str = "none") -> int: ...  # type: ignore[empty-body]


TEXT = Codec(send, "send").encode((1, 7, "typo"), {})[0]


def reads(fn: Callable[..., Any], text: str = TEXT) -> dict[str, Any]:
    """What the function would get, by name."""
    args, kwargs = Codec(fn, "send").decode(text)
    return dict(inspect.signature(fn).bind(*args, **kwargs).arguments)


def read_as(annotation: Any, plain: str) -> Any:
    def one(x: Any) -> None: ...

    one.__annotations__["x"] = annotation
    return Codec(one, "one").decode(f'{{"x":{plain}}}')[0][0]


class TestParameters:
    """The function has become another."""

    def test_another_order(self) -> None:
        """Arguments are found by name."""

        def later(update: str, document_id: int, user_id: int) -> None: ...

        assert reads(later) == {"user_id": 1, "document_id": 7, "update": "typo"}

    def test_a_new_parameter_with_a_default(self) -> None:
        """Wherever it stands, it has the default."""

        def later(user_id: int, kind: str = "new", document_id: int = 0, *, update: str, loud: bool = True) -> None: ...  # fmt: skip

        assert reads(later) == {"user_id": 1, "document_id": 7, "update": "typo"}

    def test_keyword_only(self) -> None:
        """A parameter may be moved behind the star."""

        def later(user_id: int, *, document_id: int, update: str = "") -> None: ...

        assert Codec(later, "send").decode(TEXT) == ((1,), {"document_id": 7, "update": "typo"})

    def test_positional_only(self) -> None:
        """It goes by position, and a new one before it has its default of today."""

        def later(user_id: int, kind: str = "new", document_id: int = 0, /, update: str = "") -> None: ...  # fmt: skip

        assert Codec(later, "send").decode(TEXT) == ((1, "new", 7, "typo"), {})
        assert Codec(later, "send").decode('{"user_id":1}') == ((1,), {})

    def test_what_goes_by_position_behind_a_new_one(self) -> None:
        """`*args` does not move into it."""

        def earlier(a: int, *more: int) -> None: ...

        def later(a: int, b: int = 5, *more: int, c: int = 6) -> None: ...

        text = Codec(earlier, "send").encode((1, 2, 3), {})[0]
        assert Codec(later, "send").decode(text) == ((1, 5, 2, 3), {})
        assert reads(later, text) == {"a": 1, "b": 5, "more": (2, 3)}
        assert Codec(later, "send").decode('{"a":1,"more":[]}') == ((1, 5), {})

    def test_a_new_parameter_of_a_name_that_was_free(self) -> None:
        """What a caller had put into `**rest` under that name is not mistaken for it."""

        def earlier(a: int, /, *more: int, **rest: str) -> None: ...

        def later(a: int, /, b: int = 5, *more: int, **rest: str) -> None: ...

        text = Codec(earlier, "send").encode((1, 2), {"a": "x", "b": "y", "rest": "z"})[0]
        assert reads(earlier, text)["rest"] == {"a": "x", "b": "y", "rest": "z"}
        with pytest.raises(Unreadable, match="'b' of 'rest' has become a parameter"):
            Codec(later, "send").decode(text)

    def test_another_default(self) -> None:
        """It is the one of the run, if the caller did not give one."""

        def later(user_id: int, document_id: int, update: str = "changed") -> None: ...

        text = Codec(send, "send").encode((1, 7), {})[0]
        assert Codec(later, "send").arguments(text)["update"] == "changed"

    def test_a_parameter_that_is_gone(self) -> None:
        """`Unreadable`, by name: the argument is not thrown away."""

        def later(user_id: int, document_id: int) -> None: ...

        with pytest.raises(
            Unreadable, match=r"^send cannot be called: there is no parameter 'update'"
        ):
            Codec(later, "send").decode(TEXT)

    @pytest.mark.parametrize(
        "later",
        [
            lambda user_id, document_id, update, new: None,
            lambda user_id, document_id, update, *, new: None,
            lambda new, /, user_id, document_id, update: None,
        ],
    )
    def test_a_new_parameter_without_a_default(self, later: Callable[..., Any]) -> None:
        """`Unreadable`, by name."""
        with pytest.raises(Unreadable, match="there is no argument 'new'"):
            Codec(later, "send").decode(TEXT)

    def test_a_default_that_is_gone(self) -> None:
        """What the caller left out is missing now."""

        def later(user_id: int, document_id: int, update: str) -> None: ...

        with pytest.raises(Unreadable, match="'update'"):
            Codec(later, "send").decode('{"user_id":1,"document_id":7}')

    @pytest.mark.parametrize(
        "text",
        ["", "{", "nonsense", "5", "null", '["user_id"]', '{"user_id":1e999}', "\ud800", "{}"],
    )
    def test_a_text_that_is_none(self, text: str) -> None:
        """Damage is `Unreadable` too, which is a `ValueError`."""
        with pytest.raises(
            Unreadable, match=r"send cannot be called|the text of a call of send is damaged"
        ):
            Codec(send, "send").decode(text)
        assert issubclass(Unreadable, ValueError)


class Colour(enum.Enum):
    RED = "red"


class Right(enum.Flag):
    READ = 1


@dataclasses.dataclass
class User:
    id: int
    name: str = "?"
    tags: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass
class Other:
    id: str


class Order(msgspec.Struct):
    id: int
    note: str = "?"


class Row(TypedDict):
    id: int


class TestTypes:
    """The annotation has become another."""

    @pytest.mark.parametrize(
        ("annotation", "plain"),
        [
            (int, '"1"'),
            (int, "1.5"),
            (int, '{"$":"str","v":1}'),
            (str, "1"),
            (float, '{"$":"float","v":[]}'),
            (float, '{"$":"float","v":"one"}'),
            (bytes, '"?"'),
            (dt.date, '"tomorrow"'),
            (dt.datetime, '"2027-01-01T00:00:00[Nowhere/Land]"'),
            (dt.timedelta, '"soon"'),
            (uuid.UUID, '"1"'),
            (Colour, '"blue"'),
            (Colour, "1"),
            (Right, "64"),
            (Literal["a"], '"b"'),
            (list[int], "{}"),
            (list[int], '["1"]'),
            (list[int], '{"$":"tuple","v":[1]}'),
            (tuple[int, int], "[1]"),
            (dict[str, int], "[]"),
            (dict[str, int], '{"$":"set","v":[]}'),
            (dict[str, int], '{"$":"dict","v":[1]}'),
            (dict, '{"$":"dict","v":[[[1],2]]}'),
            (set, "[[1]]"),
            (User, "[]"),
            (User, "{}"),
            (User, '{"id":1,"gone":2}'),
            (User, '{"$":"Other","v":{"id":1}}'),
            (Order, "{}"),
            (Order, '{"id":1,"gone":2}'),
            (Row, "{}"),
            (Row, '{"id":1,"gone":2}'),
            (int | None, '"1"'),
            (User | Order, '{"$":"Gone","v":{"id":1}}'),
            (Any, '{"$":"os.system","v":"x"}'),
            (Any, '{"$":"tuple"}'),
            (Any, '{"$":["x"],"v":1}'),
            (Any, '{"$":"uuid.UUID","v":5}'),
        ],
    )
    def test_what_does_not_fit_any_more(self, annotation: Any, plain: str) -> None:
        """`Unreadable`, and the parameter is named; no name in a text is ever looked up."""
        with pytest.raises(Unreadable, match="the argument 'x' does not fit"):
            read_as(annotation, plain)

    @pytest.mark.parametrize(("annotation", "name"), [(User, "id"), (Order, "id"), (Row, "id")])
    def test_a_field_that_is_missing(self, annotation: Any, name: str) -> None:
        """Is named."""
        with pytest.raises(Unreadable, match=f"the argument 'x' does not fit: .*'{name}'"):
            read_as(annotation, "{}")

    def test_no_value_in_a_message(self) -> None:
        """It is written to a log."""
        for annotation in (int, dt.date, Colour, uuid.UUID, Literal["a"], Any, User | Order):
            for plain in ('"secret"', '{"$":"uuid.UUID","v":"secret"}'):
                if annotation is Any and plain == '"secret"':
                    continue  # which can be read
                with pytest.raises(Unreadable) as caught:
                    read_as(annotation, plain)
                assert "secret" not in str(caught.value)

    @pytest.mark.parametrize(
        ("annotation", "plain", "value"),
        [
            (User, '{"id":1}', User(1)),
            (Order, '{"id":1}', Order(1)),
            (int | None, "1", 1),
            (float, "1", 1),
            (User | Order, '{"id":1,"name":"x"}', User(1, "x")),
            (User | Order, '{"id":1,"note":"x"}', Order(1, "x")),
            (str | uuid.UUID, '"x"', "x"),
            (str | list[str], '"x"', "x"),
            (Any, '"x"', "x"),
            (object, "[1]", [1]),
        ],
    )
    def test_an_annotation_that_has_become_wider(
        self, annotation: Any, plain: str, value: Any
    ) -> None:
        """What the narrower one wrote is still read."""
        assert read_as(annotation, plain) == value

    @pytest.mark.parametrize(
        ("before", "after", "value"),
        [
            (User | Order, User, User(1)),
            (User | Order, Order, Order(1)),
            (User | Order, User | Order | None, User(1)),
            (User | Order, Order | User, User(1)),
            (User | Order | Other, Other | Order, Other("x")),
            (str | uuid.UUID, str, "x"),
            (str | uuid.UUID, uuid.UUID | str, str(uuid.UUID(int=1))),
            (str | uuid.UUID, uuid.UUID, uuid.UUID(int=1)),
            (list[int] | set[int], set[int], {1}),
            (dict[str, int] | User, dict[str, int], {"$": 1}),
            (Literal["a"] | Colour, Literal["a"], "a"),
            (Row | User, Row, {"id": 1}),
        ],
    )
    def test_a_union_that_has_lost_or_moved_a_member(
        self, before: Any, after: Any, value: Any
    ) -> None:
        """Each form reads its own tag."""
        self.moves(before, after, value)

    @pytest.mark.parametrize(
        ("after", "value"),
        [
            (tuple[int, str], (1, "a")),
            (tuple[int, ...], (1, 2)),
            (set[int], {1}),
            (frozenset[int] | None, frozenset({1})),
            (dt.date, dt.date(2027, 1, 1)),
            (dt.datetime | None, dt.datetime(2027, 1, 1)),  # noqa: DTZ001 - a naive one is meant
            (bytes, b"x"),
            (uuid.UUID, uuid.UUID(int=1)),
            (dict[int, str], {1: "a"}),
            (dict[str, Any], {"$": (1,)}),
            (float, float("inf")),
            (list[float | tuple[int, int]], [float("inf"), (1, 2)]),
        ],
    )
    def test_an_annotation_where_there_was_none(self, after: Any, value: Any) -> None:
        """What was written without one is read by it."""
        self.moves(Any, after, value)

    @staticmethod
    def moves(before: Any, after: Any, value: Any) -> None:
        def one(x: Any) -> None: ...

        one.__annotations__["x"] = before
        text = Codec(one, "one").encode((value,), {})[0]
        read = read_as(after, json.dumps(json.loads(text)["x"]))
        assert read == value
        assert type(read) is type(value)
