"""Keys, and how an older and a newer call of one key become one."""

import dataclasses
import datetime as dt
import hashlib
import math
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from enum import Enum
from functools import partial
from typing import Any, Final
from uuid import UUID

import msgspec

from asyncdefer._core.checks import KEY_BYTES, checked_key
from asyncdefer._core.job import Call, More
from asyncdefer._core.options import Defer
from asyncdefer._core.signature import (
    bound_arguments,
    compile_binder,
    signature_of,
    split_arguments,
)  # fmt: skip

_encode: Final = msgspec.json.Encoder(order="deterministic").encode
_ATOMS: Final = frozenset({int, str, bool, type(None)})
_INT64: Final = 1 << 63
_FEW: Final = 20  # so many integers are shorter than that
_BYTES: Final[Any] = (bytes, bytearray, memoryview)
_MAPPING: Final[Any] = (
    Mapping  # what these hold is anything, which a checker is not to wonder about
)
_SETS: Final[Any] = (set, frozenset)
_LISTS: Final[Any] = (list, tuple)

KeyMaker = Callable[..., str]


def key_text(
    values: tuple[Any, ...], names: tuple[str, ...] | None = None, option: str = "defer"
) -> str:
    """The key that these values make: compact JSON, in which `1`, `1.0`, `true` and `"1"` differ.

    A value that JSON has no form for stands as `{"$": type, "v": value}`. Keys over 512 bytes
    are shortened to their SHA-256. `TypeError` for a value that has no lasting text.
    """
    for value in values:
        if type(value) not in _ATOMS:
            values = tuple(_plain_named(values, names, option))
            break
    try:
        text = _encode(values)
    except (ArithmeticError, ValueError):
        text = _encode(tuple(_plain_named(values, names, option)))
    if len(text) > KEY_BYTES:
        return "sha256:" + hashlib.sha256(text).hexdigest()
    return text.decode()


def _plain_named(values: tuple[Any, ...], names: tuple[str, ...] | None, option: str) -> list[Any]:
    result: list[Any] = []
    for at, value in enumerate(values):
        try:
            result.append(_plain(value))
        except (TypeError, ValueError, ArithmeticError, BufferError, RecursionError) as error:
            what = f"the argument {names[at]!r}" if names else "what the key function returned"
            raise TypeError(
                f"{what} ({type(value).__name__}) cannot be part of a key: {error}."
                f' Name the parameters that can, as in {option}=["user_id"], or give a function'
                " that returns the key"
            ) from error
    return result


def _tag(value: object, plain: Any) -> dict[str, Any]:
    kind = type(value)
    name = kind.__qualname__ if kind.__module__ == "builtins" else _full_name(kind)
    return {"$": name, "v": plain}


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _plain(value: Any) -> Any:
    """The value in JSON's own types, distinct for distinct values."""
    kind = type(value)  # pyright: ignore[reportUnknownVariableType] - so it calls the type of an Any
    if kind is str:
        value.encode()
        return value
    if kind is bool or value is None:
        return value
    if kind is int:
        return value if -_INT64 <= value < _INT64 else msgspec.Raw(str(value).encode())
    if kind is float:
        return value if math.isfinite(value) else _tag(value, str(value))
    if kind in (list, tuple):
        return [_plain(member) for member in value]
    if kind is dict and "$" not in value and all(type(name) is str for name in value):
        return {_plain(name): _plain(member) for name, member in value.items()}
    return _tag(value, _inside(value))


def _inside(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.name or _plain(value.value)  # a flag need not have a name
    if isinstance(value, _BYTES):
        return b64encode(value).decode()
    if isinstance(value, dt.datetime):
        return (value if value.utcoffset() is None else value.astimezone(dt.UTC)).isoformat()
    if isinstance(value, dt.timedelta):
        return value // dt.timedelta(microseconds=1)
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, UUID | Decimal):
        return str(value)
    if isinstance(value, _MAPPING):
        pairs = [[_plain(name), _plain(member)] for name, member in value.items()]
        return sorted(pairs, key=_encode)
    if isinstance(value, _SETS):
        return sorted((_plain(member) for member in value), key=_encode)
    if isinstance(value, _LISTS):
        return [_plain(member) for member in value]
    for base in (str, bool, int, float):
        if isinstance(value, base):
            return _plain(base(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        members = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return _plain(members)
    if isinstance(value, msgspec.Struct):
        return _plain(msgspec.structs.asdict(value))
    if callable(dump := getattr(value, "model_dump", None)):
        return _plain(dump())
    raise TypeError(f"{type(value).__name__} has no lasting text")


def key_maker(fn: Callable[..., Any], rule: Defer, shown: str, option: str = "defer") -> KeyMaker:
    """The function that makes the key of a call of `fn`; `ValueError` for an unknown name.

    `option` is where the rule was given.
    """
    if rule.key is not None:
        return _by_function(rule.key)
    signature = signature_of(fn)
    if signature is None:
        raise ValueError(
            f"{shown} does not tell its parameters, so {option} needs a function that returns the key"
        )
    known = tuple(signature.parameters)
    names = known if rule.params is None else tuple(rule.params)
    for name in names:
        if name not in signature.parameters:
            has = ", ".join(known) or "none"
            raise ValueError(f"{option} names {name!r}, but the parameters of {shown} are: {has}")
    values = "".join(f"{name}, " for name in names)
    make = f"$make(({values}))"
    if names and len(names) <= _FEW:
        # Small integers, the common keys, are their own JSON: `[1,2]`.
        ints = " and ".join(
            f"$type({name}) is $int and {-_INT64} <= {name} < {_INT64}" for name in names
        )
        text = ",".join(f"{{{name}}}" for name in names)
        make = f"f'[{text}]' if {ints} else {make}"
    scope = {"make": partial(key_text, names=names, option=option), "type": type, "int": int}
    return compile_binder(signature, shown, make, **scope)


def _by_function(function: Callable[..., Any]) -> KeyMaker:
    def make(*args: Any, **kwargs: Any) -> str:
        key = function(*args, **kwargs)
        return checked_key(key) if isinstance(key, str) else key_text((key,))

    return make


def opened(call: Call, rule: Defer, now: int, ahead: int) -> Call:
    """The first call of a burst, with what the rule wants remembered. `now` is steady time."""
    wanted = call.eta if call.steady else call.eta - ahead
    if rule.leading and wanted > now:
        more = msgspec.structs.replace(call.more, window=wanted)
        return msgspec.structs.replace(call, eta=now, steady=True, more=more)
    return _bounded(call, None if rule.bound is None else now + rule.bound, ahead)


def folded(old: Call, new: Call, rule: Defer, fn: Callable[..., Any], now: int, ahead: int) -> Call:
    """The newer call as it waits in the place of the older one; `ahead`: wall minus steady.

    The empty call of a leading window has no arguments to keep and starts no burst of its own:
    the first call that replaces it does.
    """
    first = None if rule.bound is None else now + rule.bound
    if not old.calls:
        return _bounded(new, first, ahead)
    args, kwargs = new.args, new.kwargs
    if rule.keep == "first":
        args, kwargs = old.args, old.kwargs
    elif callable(rule.keep):
        signature = signature_of(fn)
        if signature is None:
            raise TypeError(f"keep: {fn!r} does not tell its parameters, so it cannot be merged")
        merged = rule.keep(
            bound_arguments(signature, old.args, old.kwargs),
            bound_arguments(signature, new.args, new.kwargs),
        )
        if not isinstance(merged, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - a user's function
            raise TypeError(f"keep: {rule.keep!r} must return the arguments as a dict")
        args, kwargs = split_arguments(signature, merged)
        signature.bind(*args, **kwargs)
    more: More = new.more
    eta, steady = new.eta, new.steady
    if old.more.window is not None:  # the leading call itself still waits for its slot
        more = msgspec.structs.replace(more, window=old.more.window)
        eta, steady = old.eta, old.steady
    result = msgspec.structs.replace(
        new, args=args, kwargs=kwargs, eta=eta, steady=steady, more=more
    )
    # A job that snoozed waits without a bound: its burst ended when it ran.
    return _bounded(result, first if old.more.bound is None else old.more.bound, ahead)


def _bounded(call: Call, bound: int | None, ahead: int) -> Call:
    """The call with an eta not later than the bound of its burst."""
    if bound is None:
        return call
    more: More = msgspec.structs.replace(call.more, bound=bound)
    if (call.eta if call.steady else call.eta - ahead) > bound:
        return msgspec.structs.replace(call, eta=bound, steady=True, more=more)
    return msgspec.structs.replace(call, more=more)


def past_bounds(calls: Iterable[Call], before: int, ahead: int) -> list[Call]:
    """Those of the calls that a wall clock set back took past the bound of their burst, at it.

    Etas follow that clock, and bounds do not. It was `before` ahead of the steady one. A call
    that was past its bound already has been rescheduled by somebody, who has the last word.
    """
    return [
        call.again(bound, steady=True)
        for call in calls
        if (bound := call.more.bound) is not None
        and not call.steady
        and call.eta - before <= bound < call.eta - ahead
    ]
