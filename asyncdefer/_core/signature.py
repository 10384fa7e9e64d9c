"""What a function's signature says, worked out once: are these arguments right, and which of
them make the key.

The check is Python's own: a function with the same parameters is compiled, and calling it binds
the arguments as the job's function would, with the same TypeError, at the speed of a call.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

Binder = Callable[..., tuple[Any, ...]]


class _Default:
    """Stands for a default value in source text."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def signature_of(fn: Callable[..., Any]) -> inspect.Signature | None:
    """The signature without annotations; None for the builtins that do not tell theirs."""
    try:
        return inspect.signature(fn)
    except (ValueError, TypeError):
        return None


def compile_binder(
    signature: inspect.Signature,
    names: Sequence[str],
    shown: str,
    make: Callable[[tuple[Any, ...]], Any] = tuple,
) -> Callable[..., Any]:
    """A function that binds its arguments as `signature` does, and makes something of the named."""
    scope: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for at, parameter in enumerate(signature.parameters.values()):
        bare = parameter.replace(annotation=inspect.Parameter.empty)
        if parameter.default is not inspect.Parameter.empty:
            scope[f"_default{at}"] = parameter.default
            bare = bare.replace(default=_Default(f"_default{at}"))
        parameters.append(bare)
    own = "_make"
    while own in signature.parameters:
        own += "_"
    scope[own] = make
    values = "".join(f"{name}, " for name in names)
    exec(f"def _bind{inspect.Signature(parameters)}: return {own}(({values}))", scope)  # noqa: S102 - names come from a signature
    binder: Callable[..., Any] = scope["_bind"]
    binder.__qualname__ = binder.__name__ = shown
    return binder


def bound_arguments(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """The arguments by parameter name, defaults applied."""
    if signature is None:
        return {"args": args, **kwargs}
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    return dict(bound.arguments)


def split_arguments(
    signature: inspect.Signature, arguments: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The reverse: what to call the function with; `TypeError` where names do not fit."""
    unknown = ", ".join(arguments.keys() - signature.parameters.keys())
    if unknown:
        raise TypeError(f"merge returned arguments that are no parameters: {unknown}")
    bound = inspect.BoundArguments(signature, OrderedDict(arguments))
    return bound.args, bound.kwargs
