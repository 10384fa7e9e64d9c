"""What a function's signature says, worked out once: are these arguments right, and which of
them make the key.

The check is Python's own: a function with the same parameters is compiled, and calling it binds
the arguments as the job's function would, with the same TypeError, at the speed of a call.
"""

import inspect
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

Binder = Callable[..., Any]


class _Source(str):
    """A name that stands for a default value."""

    __slots__ = ()
    __repr__ = str.__str__


def signature_of(fn: Callable[..., Any]) -> inspect.Signature | None:
    """The signature without annotations; None for the builtins that do not tell theirs."""
    try:
        return inspect.signature(fn)
    except (ValueError, TypeError):
        return None


def compile_binder(
    signature: inspect.Signature, shown: str, result: str = "()", **scope: Any
) -> Binder:
    """A function that binds its arguments as `signature` does and returns `result`.

    `result` is source text in which the parameters stand by their names, and what `scope` has by
    its name after a `$`, so that the two cannot be mistaken for each other.
    """
    own = "_"
    while any(name.startswith(own) for name in signature.parameters):
        own += "_"
    names: dict[str, Any] = {own + name: value for name, value in scope.items()}
    parameters: list[inspect.Parameter] = []
    for at, parameter in enumerate(signature.parameters.values()):
        bare = parameter.replace(annotation=inspect.Parameter.empty)
        if parameter.default is not inspect.Parameter.empty:
            names[f"{own}default{at}"] = parameter.default
            bare = bare.replace(default=_Source(f"{own}default{at}"))
        parameters.append(bare)
    head = f"def bind{inspect.Signature(parameters)}"
    exec(f"{head}: return {result.replace('$', own)}", names)  # noqa: S102 - names come from a signature
    binder: Binder = names["bind"]
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
    bound.apply_defaults()  # what follows a gap would be lost
    return bound.args, bound.kwargs
