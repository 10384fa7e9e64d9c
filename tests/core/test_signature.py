import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

from asyncdefer._core.signature import (
    bound_arguments,
    compile_binder,
    signature_of,
    split_arguments,
)


def every_kind(a: int, /, b: int, c: list[int] = [7], *more: int, d: int, e: int = 5, **rest: int) -> dict[str, Any]:  # noqa: B006  # fmt: skip
    """Every kind of parameter, with defaults."""
    return {"a": a, "b": b, "c": c, "more": more, "d": d, "e": e, "rest": rest}


class Thing:
    def method(self, x: int, y: int = 2) -> None: ...

    @classmethod
    def of_class(cls, x: int) -> None: ...

    @staticmethod
    def static(x: int) -> None: ...

    def __call__(self, x: int) -> None: ...


def signature(fn: Callable[..., Any]) -> inspect.Signature:
    found = signature_of(fn)
    assert found is not None
    return found


CALLS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1, 2), {"d": 4}),
    ((1,), {"b": 2, "d": 4}),
    ((1, 2, 3, 4, 5), {"d": 6, "e": 7, "f": 8, "a": 9}),
    ((1, 2), {}),
    ((), {"a": 1, "b": 2, "d": 4}),
    ((), {}),
    ((1, 2), {"b": 2, "d": 3}),
]


@pytest.mark.parametrize(("args", "kwargs"), CALLS)
def test_binding_is_python_s_own(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Arguments bind as a call of the function would, defaults applied, or are a TypeError."""
    known = signature(every_kind)
    names = tuple(known.parameters)
    bind = compile_binder(known, "every_kind", f"({', '.join(names)},)")
    try:
        bound = every_kind(*args, **kwargs)
    except TypeError as refused:
        with pytest.raises(TypeError, match=re.escape(str(refused))):
            bind(*args, **kwargs)
        return
    assert bind(*args, **kwargs) == tuple(bound.values())
    assert bound_arguments(known, args, kwargs) == bound


@pytest.mark.parametrize(("args", "kwargs"), CALLS[:3])
def test_splitting_is_the_reverse_of_binding(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Bound arguments give a call that binds to the same."""
    known = signature(every_kind)
    bound = bound_arguments(known, args, kwargs)
    again_args, again_kwargs = split_arguments(known, bound)
    assert bound_arguments(known, again_args, again_kwargs) == bound


def test_the_result_is_what_its_source_says() -> None:
    """With the parameters by their names, and what else it needs by a name after a `$`."""
    bind = compile_binder(signature(every_kind), "every_kind", "$make(d, b)", make=divmod)
    assert bind(1, 2, d=4) == divmod(4, 2)
    assert compile_binder(signature(every_kind), "every_kind")(1, 2, d=4) == ()


def test_no_parameter_is_mistaken_for_something_else() -> None:
    """Whatever the parameters are called, also as we call our own things."""

    def awkward(_make: int, __make: int = 2, _default1: int = 3, bind: int = 4) -> None: ...

    names = tuple(signature(awkward).parameters)
    bind = compile_binder(signature(awkward), "awkward", f"$make(({', '.join(names)}))", make=sum)
    assert bind(1) == 10
    assert bind(1, bind=0) == 6


def test_a_default_is_the_object_itself() -> None:
    """Defaults are not copied through text."""
    bind = compile_binder(signature(every_kind), "every_kind", "c")
    assert bind(1, 2, d=3) is every_kind.__defaults__[0]  # type: ignore[index]


@pytest.mark.parametrize(
    ("fn", "args"),
    [
        (Thing().method, (1,)),
        (Thing.of_class, (1,)),
        (Thing.static, (1,)),
        (Thing(), (1,)),
        (functools.partial(Thing().method, y=4), (2,)),
        (lambda x=1: x, ()),
        (len, ([],)),
    ],
)
def test_every_kind_of_callable_tells_its_parameters(
    fn: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """Methods, partials, callable objects, lambdas and honest builtins bind alike."""
    known = signature(fn)
    bind = compile_binder(known, "shown", f"({', '.join(known.parameters)},)")
    assert bind(*args) == tuple(bound_arguments(known, args, {}).values())
    with pytest.raises(TypeError, match=r"shown\(\)"):
        bind(1, 2, 3, 4, 5, nothing=6, x=7)


@pytest.mark.parametrize("fn", [dict, int.__call__, 5])
def test_a_builtin_that_tells_nothing_has_no_signature(fn: Any) -> None:
    """None, where Python knows none; the arguments are then shown as they came."""
    if fn == int.__call__:
        fn = type("Silent", (), {"__signature__": 5, "__call__": lambda self: None})()
    assert signature_of(fn) is None
    assert bound_arguments(None, (1, 2), {"x": 3}) == {"args": (1, 2), "x": 3}


def test_arguments_that_fit_no_parameter_are_refused() -> None:
    """What a merge made up is a TypeError that names it; what it left out is left to the call."""

    def fn(x: int, /, y: int, *, z: int = 0) -> None: ...

    known = signature(fn)
    for bound in ({"x": 1, "y": 2, "z": 3}, {"x": 1, "y": 2}):
        args, kwargs = split_arguments(known, bound)
        assert bound_arguments(known, args, kwargs) == {"z": 0, **bound}
    with pytest.raises(TypeError, match="no parameters: new"):
        split_arguments(known, {"x": 1, "y": 2, "new": 4})
    args, kwargs = split_arguments(known, {"y": 2})
    with pytest.raises(TypeError):
        known.bind(*args, **kwargs)


def test_star_arguments_are_spread_again() -> None:
    """`*args` and `**kwargs` come back as what they were."""

    def fn(*values: int, **names: int) -> None: ...

    known = signature(fn)
    bound = bound_arguments(known, (1, 2), {"x": 3})
    assert bound == {"values": (1, 2), "names": {"x": 3}}
    assert split_arguments(known, bound) == ((1, 2), {"x": 3})


def test_what_follows_a_gap_is_not_lost() -> None:
    """A default fills the place of an argument that is not there, so that the rest stays right."""

    def fn(a: int, b: int = 2, *more: int, c: int = 3, **rest: int) -> None: ...

    split = split_arguments(signature(fn), {"a": 1, "more": (5, 6), "rest": {"d": 7}})
    assert split == ((1, 2, 5, 6), {"c": 3, "d": 7})
