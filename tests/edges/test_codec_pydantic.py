"""Pydantic's models travel where pydantic is; asyncdefer itself does without it."""

import datetime as dt
import subprocess
import sys
import textwrap
import uuid
from typing import Any, Generic, TypeVar

import pytest

from asyncdefer._codec import Codec, Unreadable

pydantic = pytest.importorskip("pydantic")
from pydantic import BaseModel, ConfigDict, Field, HttpUrl, RootModel, SecretStr  # noqa: E402
from pydantic.dataclasses import dataclass  # noqa: E402

T = TypeVar("T")


class User(BaseModel):
    id: int
    seen: dt.datetime | None = None
    tags: set[str] = set()
    full_name: str = Field("?", alias="fullName")


class Team(BaseModel):
    users: list[User] = []
    lead: User | None = None


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="allow")
    point: tuple[int, int]
    day: dt.date
    data: bytes


class Numbers(RootModel[list[int]]):
    pass


class Box(BaseModel, Generic[T]):
    value: T


class Renamed(BaseModel):
    given: int = Field(validation_alias="readAs", serialization_alias="writtenAs")


class Hidden(BaseModel):
    id: int
    cache: int = Field(0, exclude=True)


class Login(BaseModel):
    password: SecretStr


@dataclass
class Point:
    x: int
    id: uuid.UUID


SEEN = dt.datetime(2027, 3, 28, 12, tzinfo=dt.UTC)
USER = User(id=1, seen=SEEN, tags={"a"}, fullName="Ann")


def codec(annotation: Any) -> Codec:
    def one(x: Any) -> Any: ...

    one.__annotations__ = {"x": annotation, "return": annotation}
    return Codec(one, "one")


@pytest.mark.parametrize(
    ("annotation", "value", "text"),
    [
        (User, USER, '{"id":1,"seen":"2027-03-28T12:00:00Z","tags":["a"],"full_name":"Ann"}'),
        (User | None, None, "null"),
        (list[Team], [Team(users=[USER], lead=USER)], None),
        (dict[uuid.UUID, User], {uuid.UUID(int=1): USER}, None),
        (Strict, Strict(point=(1, 2), day=dt.date(2027, 1, 1), data=b"x", more="y"), None),  # type: ignore[call-arg]
        (Numbers, Numbers([1]), "[1]"),
        (Box[int], Box[int](value=1), '{"value":1}'),
        (Renamed, Renamed(readAs=1), '{"given":1}'),  # type: ignore[call-arg]
        (Hidden, Hidden(id=1), '{"id":1}'),
        (Point, Point(1, uuid.UUID(int=1)), '{"x":1,"id":"00000000-0000-0000-0000-000000000001"}'),
        (HttpUrl, HttpUrl("http://a.example/"), '"http://a.example/"'),
        (User | Team, Team(), '{"$":"Team","v":{"users":[],"lead":null}}'),
        (User | int, 5, '{"$":"int","v":5}'),
    ],
)
def test_a_model(annotation: Any, value: Any, text: str | None) -> None:
    """It comes back equal, through its own validators; aliases do not matter."""
    made = codec(annotation)
    written, (now,), _ = made.encode((value,), {})
    assert text is None or written == f'{{"x":{text}}}'
    assert now == value == made.decode(written)[0][0]
    assert type(now) is type(value)
    assert made.decode_result(made.encode_result(value)) == value


def test_a_model_is_a_copy() -> None:
    """As any argument."""
    mine = USER.model_copy(deep=True)
    _, (now,), _ = codec(User).encode((mine,), {})
    mine.tags.add("b")
    assert now == USER


class Admin(User):
    pass


@pytest.mark.parametrize(
    ("annotation", "value", "says"),
    [
        (User, {"id": "?", "seen": SEEN}, "id: Input should be a valid integer"),
        (User, {"id": 1}, "this dict does not come back equal"),
        (User, Admin(id=1), "this Admin does not come back equal"),
        (User, User.model_construct(id="one"), "pydantic says: "),
        (Login, Login(password=SecretStr("x")), "this Login does not come back equal"),
        (Hidden, Hidden(id=1, cache=5), "this Hidden does not come back equal"),
        (User | None, 5, "User | None is wanted|pydantic says: "),
    ],
)
def test_a_model_that_does_not_come_back_equal(annotation: Any, value: Any, says: str) -> None:
    """Is a `TypeError`: a secret that is written as stars, a field that is not written."""
    with pytest.raises(TypeError, match=f"the argument 'x' contradicts its annotation: .*{says}"):
        codec(annotation).encode((value,), {})


def test_a_model_of_another_time() -> None:
    """What today's model refuses is `Unreadable`; what it has a default for is read."""
    assert codec(User).decode('{"x":{"id":1}}')[0] == (User(id=1),)
    with pytest.raises(Unreadable, match="the argument 'x' does not fit"):
        codec(User).decode('{"x":{"seen":null}}')


def test_a_model_without_an_annotation() -> None:
    """Is told to get one."""
    with pytest.raises(TypeError, match=r"Annotate the parameter .* or a pydantic model"):
        codec(Any).encode((USER,), {})


def test_the_library_does_without_pydantic() -> None:
    """It is imported by nothing of ours, and only a class that asks for it needs it."""
    program = """
        import sys
        sys.modules["pydantic"] = None  # importing it fails

        from asyncdefer._codec import Codec

        class Foreign:
            @classmethod
            def __get_pydantic_core_schema__(cls, source, handler): ...

        def send(x: int, y: Foreign | None = None): ...

        made = Codec(send, "send")
        assert made.encode((1, None), {})[0] == '{"x":1,"y":null}'
        try:
            made.encode((1, Foreign()), {})
        except TypeError as error:
            assert "'y' cannot be kept" in str(error), error
        else:
            raise AssertionError
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(program)], check=True)
