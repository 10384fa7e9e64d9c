"""Arguments as text: by parameter name, without what the caller left out, and the same again."""

import functools
import inspect
import math
import operator
from collections.abc import Callable, Coroutine
from typing import Any, TypedDict, Unpack

import pytest

from asyncdefer._codec import Codec, Unreadable


def codec(fn: Callable[..., Any], limit: int = 1 << 20) -> Codec:
    return Codec(fn, "send", limit=limit)


def trip(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The text of a call, which gives the same arguments now and later, and which `fn` takes."""
    made = codec(fn)
    text, now, now_named = made.encode(args, kwargs)
    assert made.decode(text) == (now, now_named)
    signature = inspect.signature(fn)
    assert signature.bind(*now, **now_named) == signature.bind(*args, **kwargs)
    return text


async def send(user_id: int, document_id: int, update: str = "none") -> int:
    return user_id


async def every(a: int, /, b: int, c: int = 3, *more: int, d: int, e: int = 5, **rest: int) -> None: ...  # fmt: skip


def untyped(a, b=None, *more, c=0, **rest): ...  # type: ignore[no-untyped-def]


class Options(TypedDict, total=False):
    deep: bool
    name: str


def told(*args: *tuple[int, str], **options: Unpack[Options]) -> None: ...


class Thing:
    def method(self, x: int, y: "Thing | None" = None) -> None: ...

    @classmethod
    def of_class(cls, x: int) -> None: ...

    @staticmethod
    def static(x: int) -> None: ...

    async def __call__(self, x: int) -> None: ...


def wraps(fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return wrapper


class TestTheText:
    """What stands in the journal."""

    def test_it_is_an_object_by_parameter_name(self) -> None:
        """Positional or by keyword, it is the same text."""
        text = '{"user_id":1,"document_id":7,"update":"typo"}'
        assert trip(send, 1, 7, "typo") == text
        assert trip(send, 1, document_id=7, update="typo") == text
        assert trip(send, update="typo", document_id=7, user_id=1) == text

    def test_what_was_left_out_is_left_out(self) -> None:
        """A default is read from the function at the run, so that a deploy changes it."""
        assert trip(send, 1, 7) == '{"user_id":1,"document_id":7}'
        assert trip(send, document_id=7, user_id=1) == '{"user_id":1,"document_id":7}'
        assert trip(untyped, [1]) == '{"a":[1]}'
        assert codec(send).encode((1, 7), {})[1:] == ((1, 7), {})

    def test_a_default_that_was_given_is_there(self) -> None:
        """It is the caller's own value, whatever the default becomes."""
        assert trip(send, 1, 7, "none") == '{"user_id":1,"document_id":7,"update":"none"}'

    def test_every_kind_of_parameter(self) -> None:
        """`*args` and `**kwargs` stand under their own names, if something is in them."""
        assert trip(every, 1, 2, d=4) == '{"a":1,"b":2,"d":4}'
        assert trip(every, 1, b=2, d=4, e=6) == '{"a":1,"b":2,"d":4,"e":6}'
        assert (
            trip(every, 1, 2, 3, 4, 5, d=6, f=7, a=8)
            == '{"a":1,"b":2,"c":3,"more":[4,5],"d":6,"rest":{"f":7,"a":8}}'
        )
        assert trip(untyped, 1, 2, 3, c=4, d=(5,)) == (
            '{"a":1,"b":2,"more":[3],"c":4,"rest":{"d":{"$":"tuple","v":[5]}}}'
        )

    def test_a_typed_star(self) -> None:
        """What `*args: *tuple[…]` and `**kwargs: Unpack[…]` take goes as if it were untyped."""
        assert trip(told, 1, "a", deep=True) == '{"args":[1,"a"],"options":{"deep":true}}'
        assert trip(told, (1,)) == '{"args":[{"$":"tuple","v":[1]}]}'
        with pytest.raises(TypeError, match="the argument 'options' cannot be kept"):
            codec(told).encode((1, "a"), {"deep": Thing()})

    def test_no_arguments(self) -> None:
        """An empty object."""
        assert trip(lambda: None) == "{}"
        assert trip(untyped, None) == '{"a":null}'

    @pytest.mark.parametrize(
        "fn",
        [
            Thing().method,
            Thing.of_class,
            Thing.static,
            Thing(),
            functools.partial(Thing().method, y=None),
            functools.partial(functools.partial(Thing.method, Thing())),
            wraps(Thing.static),
            functools.lru_cache(Thing.static),
        ],
        ids=lambda fn: type(fn).__name__,
    )
    def test_anything_that_can_be_called(self, fn: Callable[..., Any]) -> None:
        """Methods, partials, objects and wrapped functions have the annotations of what is inside."""
        assert trip(fn, 1) == '{"x":1}'
        with pytest.raises(TypeError, match="'x' contradicts its annotation: int is wanted"):
            codec(fn).encode(("1",), {})

    def test_a_class(self) -> None:
        """Its annotations are those of its constructor."""

        class Made:
            def __init__(self, x: int) -> None: ...

        assert trip(Made, 1) == '{"x":1}'
        with pytest.raises(TypeError, match="'x' contradicts"):
            codec(Made).encode(("1",), {})
        with pytest.raises(TypeError, match="the result cannot be kept"):
            codec(Made).encode_result(Made(1))

    def test_a_wrapper_sees_the_same_call_with_and_without_a_restart(self) -> None:
        """What may go by position does, however the caller had it."""
        made = codec(wraps(send))
        text, args, kwargs = made.encode((), {"update": "x", "document_id": 7, "user_id": 1})
        assert (args, kwargs) == ((1, 7, "x"), {}) == made.decode(text)
        text, args, kwargs = made.encode((), {"document_id": 7, "user_id": 1})
        assert (args, kwargs) == ((1, 7), {}) == made.decode(text)

    def test_a_builtin_that_does_not_tell(self) -> None:
        """Its arguments stand under `args` and `kwargs`, untyped."""
        made = codec(max)
        text, args, kwargs = made.encode((1, (2,)), {"key": "x"})
        assert text == '{"args":[1,{"$":"tuple","v":[2]}],"kwargs":{"key":"x"}}'
        assert (args, kwargs) == ((1, (2,)), {"key": "x"}) == made.decode(text)
        assert made.arguments(text) == {"args": (1, (2,)), "key": "x"}
        assert codec(operator.neg).encode((1,), {})[0] == '{"a":1}'

    def test_names_that_are_not_ascii_or_look_like_ours(self) -> None:
        """Any name that Python takes is fine."""

        def odd(größe: int, _free0: int, type: int = 0, bind: int = 0, f0: int = 0) -> None: ...  # noqa: A002, PLC2401

        assert trip(odd, 1, 2, f0=3) == '{"größe":1,"_free0":2,"f0":3}'
        assert trip(odd, 1, 2, 3, 4, 5).endswith('"type":3,"bind":4,"f0":5}')

    def test_the_wrong_shape(self) -> None:
        """Is what Python says of it."""
        for args, kwargs in [((), {}), ((1, 2, "x", 4), {}), ((1, 2), {"nope": 1})]:
            with pytest.raises(TypeError, match=r"^send\(\) "):
                codec(send).encode(args, kwargs)


class TestCopies:
    """The function gets its own."""

    def test_what_the_caller_does_afterwards_changes_nothing(self) -> None:
        """A list or a dict is copied at the call."""

        def take(typed: list[int], free: Any) -> None: ...

        typed, free = [1, 2], {"a": [1]}
        made = codec(take)
        text, args, _ = made.encode((typed, free), {})
        typed.append(3)
        free["a"].append(2)
        assert args == ([1, 2], {"a": [1]}) == made.decode(text)[0]

    def test_one_object_twice(self) -> None:
        """Identity is not kept: two copies of one list are two lists."""
        same = [1]
        _, args, _ = codec(untyped).encode((same, same), {})
        assert args == ([1], [1])
        assert args[0] is not args[1]


class TestListings:
    """Arguments by name, for people."""

    def test_defaults_are_there(self) -> None:
        """A listing shows what the function would get."""
        assert codec(every).arguments('{"a":1,"b":2,"d":4}') == {
            "a": 1, "b": 2, "c": 3, "more": (), "d": 4, "e": 5, "rest": {},
        }  # fmt: skip

    def test_what_cannot_be_read(self) -> None:
        """Is `Unreadable` there too."""
        with pytest.raises(Unreadable, match="'nope'"):
            codec(send).arguments('{"nope":1}')


class TestLimits:
    """How much an argument may be."""

    def test_a_text_over_the_limit(self) -> None:
        """Is a `ValueError` that names size and limit; at the limit it is fine."""
        made = codec(send, limit=44)
        assert len(made.encode((1, 2, "xxx"), {})[0]) == 44
        for over in ("xxxx", "xxé"):
            with pytest.raises(ValueError, match="take 45 bytes, and the limit is 44"):
                made.encode((1, 2, over), {})

    def test_the_limit_holds_for_what_is_not_an_atom(self) -> None:
        """As it does for the others."""
        with pytest.raises(ValueError, match="take 13 bytes, and the limit is 12"):
            codec(untyped, limit=12).encode(([1, 2, 3],), {})

    def test_the_limit_holds_for_results(self) -> None:
        """A result over it is not recorded."""
        with pytest.raises(ValueError, match="the result takes 12 bytes, and the limit is 10"):
            codec(untyped, limit=10).encode_result("x" * 10)

    def test_nesting(self) -> None:
        """A hundred levels are fine; more, or an end that never comes, is a `ValueError`."""
        deep: list[Any] = []
        for _ in range(99):
            deep = [deep]
        assert codec(untyped).encode((deep,), {})[1] == (deep,)
        endless: list[Any] = []
        endless.append(endless)
        round_and_round: dict[str, Any] = {}
        round_and_round["x"] = (round_and_round,)
        far: list[Any] = []
        for _ in range(100_000):
            far = [far]
        for value in ([deep], endless, round_and_round, far):
            with pytest.raises(ValueError, match=r"'a' cannot be kept .* more than 100 levels"):
                codec(untyped).encode((value,), {})
        with pytest.raises(ValueError, match=r"the result cannot be kept .* more than 100 levels"):
            codec(untyped).encode_result(endless)

    def test_a_deep_text(self) -> None:
        """One that somebody made is `Unreadable`, not a `RecursionError`."""
        for levels in (600, 100_000):
            with pytest.raises(Unreadable):
                codec(untyped).decode('{"a":' + '{"$":"tuple","v":[' * levels + "]}" * levels + "}")


class TestNumbers:
    """They arrive as they were, type and all."""

    @pytest.mark.parametrize(
        "value", [0, -1, 2**63, 2**64, -(2**63) - 1, 10**100, True, False, 1.5, 1e300, 5e-324, None]
    )
    def test_numbers_without_an_annotation(self, value: Any) -> None:
        """Whole numbers of any size, and what is finite."""
        text, args, _ = codec(untyped).encode((value,), {})
        assert args == (value,) == codec(untyped).decode(text)[0]
        assert type(args[0]) is type(codec(untyped).decode(text)[0][0]) is type(value)

    def test_the_sign_of_zero(self) -> None:
        """Is kept."""
        text, (value,), _ = codec(untyped).encode((-0.0,), {})
        assert math.copysign(1, value) == math.copysign(1, codec(untyped).decode(text)[0][0]) == -1

    @pytest.mark.parametrize("annotation", [Any, float, float | None, list[float]])
    def test_what_is_not_finite(self, annotation: Any) -> None:
        """JSON has no word for it, so it is tagged."""

        def take(x: Any) -> None: ...

        take.__annotations__["x"] = annotation
        for value in (math.nan, math.inf, -math.inf):
            given = [value] if annotation == list[float] else value
            text, now, _ = codec(take).encode((given,), {})
            assert f'{{"$":"float","v":"{value}"}}' in text
            assert repr(now) == repr(codec(take).decode(text)[0]) == repr((given,))

    def test_a_number_of_too_many_digits(self) -> None:
        """Python itself does not write it down."""
        with pytest.raises(TypeError, match="'a' cannot be kept until the run: Exceeds the limit"):
            codec(untyped).encode((10**5_000,), {})


class TestResults:
    """By the return annotation."""

    def test_a_coroutine_function(self) -> None:
        """Its annotation is the result itself."""
        assert codec(send).encode_result(5) == "5"
        assert codec(send).decode_result("5") == 5

    def test_without_an_annotation(self) -> None:
        """A result goes as untyped arguments do."""
        made = codec(untyped)
        assert made.encode_result((1, {2})) == '{"$":"tuple","v":[1,{"$":"set","v":[2]}]}'
        assert made.decode_result(made.encode_result((1, {2}))) == (1, {2})
        assert made.encode_result(None) == "null"

    def test_a_type(self) -> None:
        """It comes back as what the annotation says."""

        def pair() -> tuple[int, bytes]: ...  # type: ignore[empty-body]

        made = codec(pair)
        assert made.decode_result(made.encode_result((1, b"x"))) == (1, b"x")

    @pytest.mark.parametrize(
        ("fn", "value"),
        [
            (every, 5),
            (send, "5"),
            (send, None),
            (untyped, Thing()),
            (untyped, "\ud800"),
            (max, max),
        ],
    )
    def test_a_result_that_cannot_be_recorded(self, fn: Callable[..., Any], value: Any) -> None:
        """A `TypeError`, which names the result."""
        with pytest.raises(TypeError, match=r"^send: the result "):
            codec(fn).encode_result(value)

    def test_a_result_of_another_time(self) -> None:
        """What the annotation of today does not take is `Unreadable`."""
        for text in ('"5"', "", "{", '{"$":"nope","v":1}'):
            with pytest.raises(Unreadable, match="a result of send cannot be read"):
                codec(send).decode_result(text)


class TestWhatIsInside:
    """Annotations that are hard to get at."""

    def test_an_annotation_that_cannot_be_resolved(self) -> None:
        """Counts as `Any`: no error where the task is declared, and atoms travel."""

        def take(x: "Nowhere", y: "list[Nowhere]", z: "1 +") -> "Nowhere": ...  # type: ignore  # noqa: F821, F722, PGH003

        assert trip(take, 1, ["a"], z=(2,)) == '{"x":1,"y":["a"],"z":{"$":"tuple","v":[2]}}'
        assert codec(take).encode_result(5) == "5"
        with pytest.raises(
            TypeError, match=r"'x' cannot be kept .* a name that is not to be found"
        ):
            codec(take).encode((Thing(), [], ()), {})

    def test_one_that_can_be_beside_one_that_cannot(self) -> None:
        """Each annotation is for itself."""

        def take(x: "Nowhere", y: "int") -> None: ...  # type: ignore[name-defined]  # noqa: F821

        with pytest.raises(TypeError, match="'y' contradicts"):
            codec(take).encode((1, "2"), {})

    @pytest.mark.parametrize("annotation", [5, "a note", [int], {"a": 1}, ..., print, "[" * 500])
    def test_an_annotation_that_is_no_type(self, annotation: Any) -> None:
        """Counts as `Any` too: annotations were not always types."""

        def take(x: Any) -> None: ...

        take.__annotations__["x"] = annotation
        assert trip(take, [1]) == '{"x":[1]}'

    def test_none_as_the_default(self) -> None:
        """`x: int = None` takes None also when it is given."""

        def take(x: int = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

        assert trip(take, None) == '{"x":null}'
        assert trip(take) == "{}"
        with pytest.raises(TypeError, match="'x' contradicts"):
            codec(take).encode(("1",), {})

    def test_a_returned_coroutine_type_is_not_asked(self) -> None:
        """The codec of what cannot be recorded is made all the same."""

        def start(x: int) -> Coroutine[Any, Any, int]: ...  # type: ignore[empty-body]

        assert trip(start, 1) == '{"x":1}'
        with pytest.raises(TypeError, match="the result contradicts"):
            codec(start).encode_result(5)
