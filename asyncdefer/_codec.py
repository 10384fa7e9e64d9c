"""Arguments and results as JSON text, and back.

The text of a call is an object by parameter name. Arguments are written and read again when the
call is accepted, by the function's annotations, so that the function gets the same ones with and
without a restart: copies, of exactly the types that its annotations say.
"""

import functools
import inspect
from collections import ChainMap
from collections.abc import Callable
from typing import Any, Final

import msgspec

from asyncdefer._codec_forms import LEVELS, Form, Misfit, Unkept, type_of
from asyncdefer._codec_types import UNKNOWN, Types, resolved
from asyncdefer._core.signature import bound_arguments, compile_binder, signature_of

_dump: Final = msgspec.json.Encoder().encode
_load: Final = msgspec.json.Decoder().decode
_LEFT_OUT: Final = object()
_EMPTY: Final = inspect.Parameter.empty
_POSITIONAL: Final = inspect.Parameter.POSITIONAL_ONLY
_BY_POSITION: Final = (_POSITIONAL, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_KEYWORD: Final = inspect.Parameter.KEYWORD_ONLY
_ARGS: Final = inspect.Parameter.VAR_POSITIONAL
_KWARGS: Final = inspect.Parameter.VAR_KEYWORD
_MANY: Final = (_ARGS, _KWARGS)
_UNTOLD: Final = inspect.Signature(
    [inspect.Parameter("args", _ARGS), inspect.Parameter("kwargs", _KWARGS)]
)


class Unreadable(ValueError):
    """The text cannot be read by the function as it is now."""


class _Wrong(Exception):
    """What is wrong with which argument."""


class Codec:
    """The codec of one function. `shown` is its name in messages, `limit` is in bytes.

    - An annotation is strict: `"1"` is no int and a dict no dataclass. As in Python's own rules
      an int may stand for a float and a bool for an int, and stay what they are.
    - A value of a subclass of str, int, float, list, dict, datetime and their like arrives as one
      of the annotated class; one of a subclass of a dataclass, struct or model is a `TypeError`.
    - A dataclass or a struct is made by its constructor and gets the fields that it had. A
      pydantic model is made by its validators, and must come back equal.
    - A datetime comes back as the same instant: in its zone if that is a `ZoneInfo`, else at its
      offset from UTC. A naive one stays naive.
    - An enum is written by value, or by name if its values are neither all int nor all str.
    - Members of a union whose JSON looks alike are written with their type.
    - A type variable counts as what bounds it, if anything. `Unpack`, an alias that leads back to
      itself and any other class count as no annotation; a value must be of that class all the same.
    - Without an annotation values travel as themselves: JSON's own types, tuple, set, frozenset,
      bytes, datetime, date, time, timedelta, UUID and Decimal, and nothing else.
    """

    def __init__(self, fn: Callable[..., Any], shown: str, *, limit: int = 1 << 20) -> None:
        self._shown = shown
        self._limit = limit
        self._known = signature_of(fn)
        signature = self._known or _UNTOLD
        self._parameters = dict(signature.parameters)
        names = _names_of(fn)
        self._forms: dict[str, Form] = {}
        self._needed: list[str] = []
        self._firm: dict[str, int] = {}
        """Up to these nothing is left out or goes by name: the default of today fills a gap."""
        for at, (name, parameter) in enumerate(self._parameters.items()):
            self._forms[name] = _form(parameter, resolved(parameter.annotation, names))
            if parameter.default is _EMPTY and parameter.kind not in _MANY:
                self._needed.append(name)
            if parameter.kind in (_POSITIONAL, _ARGS):
                self._firm[name] = at
        result = fn if isinstance(fn, type) else resolved(signature.return_annotation, names)
        self._result = _form(None, result)
        bare = signature.replace(parameters=list(map(_defaultless, self._parameters.values())))
        given = [
            f"{name!r}: {name}{' or $out' if it.kind in _MANY else ''}"
            for name, it in self._parameters.items()
        ]
        self._given = compile_binder(bare, shown, f"{{{', '.join(given)}}}", out=_LEFT_OUT)
        self._quick = _quick(bare, shown, self._forms)
        self._complete = compile_binder(bare, shown, _call_of(bare), out=_LEFT_OUT)

    def encode(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[str, tuple[Any, ...], dict[str, Any]]:
        """The text of the arguments, and the arguments as the function gets them.

        `TypeError` for one that contradicts its annotation or cannot be written down,
        `ValueError` for one that is nested too deep and for a text over the limit.
        """
        try:
            text = self._quick(*args, **kwargs)
        except ValueError:  # a lone surrogate, or a number of too many digits: whose is said below
            text = None
        if text is not None and len(text) <= self._limit:
            if kwargs:
                complete = self._complete(*args, **kwargs)
                args, kwargs = complete or self._call(self._left(args, kwargs))
            return text.decode(), args, kwargs
        text = self._sized(self._text(self._left(args, kwargs)), "the arguments take")
        try:
            return text.decode(), *self._call(self._read(_load(text), str))
        except _Wrong as error:
            raise TypeError(f"{self._shown}: {error}, once written and read again") from error

    def decode(self, text: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments; `Unreadable` if the function has become another."""
        try:
            return self._call(self._read(_load(text), _discreet))
        except _Wrong as error:
            raise Unreadable(f"{self._shown} cannot be called: {error}") from error
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise Unreadable(f"the text of a call of {self._shown} is damaged: {error}") from error

    def arguments(self, text: str) -> dict[str, Any]:
        """The arguments by parameter name, defaults applied; `Unreadable` as above."""
        return bound_arguments(self._known, *self.decode(text))

    def encode_result(self, value: Any) -> str:
        """The text of a result; `TypeError` or `ValueError` if it cannot be recorded."""
        text = self._written("the result", self._result, value)
        if type(value) not in self._result.free:
            try:
                self._result.read(_load(text))
            except Exception as error:  # the user's classes may raise anything
                raise self._refusal("the result", error) from error
        return self._sized(text, "the result takes").decode()

    def decode_result(self, text: str) -> Any:
        """The result, by the return annotation; `Unreadable` if that has become another."""
        try:
            return self._result.read(_load(text))
        except Exception as error:  # as above
            raise Unreadable(
                f"a result of {self._shown} cannot be read: {_discreet(error)}"
            ) from error

    def _left(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The arguments that were given, by parameter name."""
        given: dict[str, Any] = self._given(*args, **kwargs)
        return {name: value for name, value in given.items() if value is not _LEFT_OUT}

    def _text(self, given: dict[str, Any]) -> bytes:
        try:
            return _dump({name: self._forms[name].write(it, 0) for name, it in given.items()})
        except Exception as error:
            for name, value in given.items():  # again, one by one: whose error it is
                self._written(f"the argument {name!r}", self._forms[name], value)
            raise self._refusal("an argument", error) from error

    def _written(self, what: str, form: Form, value: Any) -> bytes:
        try:
            return _dump(form.write(value, 0))
        except Exception as error:  # noqa: BLE001 - properties and validators raise anything
            ours = isinstance(error, Misfit | RecursionError | UnicodeEncodeError)
            raise self._refusal(what, error) from None if ours else error

    def _refusal(self, what: str, error: Exception) -> Exception:
        """What to raise to the caller instead of `error`."""
        kept = f"{self._shown}: {what} cannot be kept until the run:"
        if isinstance(error, RecursionError):
            return ValueError(f"{kept} it is nested more than {LEVELS} levels deep")
        if isinstance(error, UnicodeEncodeError):
            return TypeError(f"{kept} it has a lone surrogate, which is no text: pass bytes")
        if isinstance(error, Misfit) and not isinstance(error, Unkept):
            return TypeError(f"{self._shown}: {what} contradicts its annotation: {error}")
        return TypeError(f"{kept} {error}")

    def _sized(self, text: bytes, what: str) -> bytes:
        if len(text) > self._limit:
            raise ValueError(
                f"{self._shown}: {what} {len(text)} bytes, and the limit is {self._limit}:"
                " keep large data elsewhere and pass what identifies it"
            )
        return text

    def _read(self, plain: Any, said: Callable[[Exception], str]) -> dict[str, Any]:
        """The arguments by parameter name."""
        if type_of(plain) is not dict:
            raise _Wrong("the text is no object")
        values: dict[str, Any] = {}
        for name, inner in plain.items():
            form = self._forms.get(name)
            if form is None:
                raise _Wrong(f"there is no parameter {name!r}")
            try:
                values[name] = form.read(inner)
            except Exception as error:
                raise _Wrong(f"the argument {name!r} does not fit: {said(error)}") from error
            if self._parameters[name].kind is _KWARGS:
                for other in values[name]:
                    if other in self._parameters and other not in (name, *self._firm):
                        raise _Wrong(f"{other!r} of {name!r} has become a parameter")
        for name in self._needed:
            if name not in values:
                raise _Wrong(f"there is no argument {name!r}")
        return values

    def _call(self, values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """What to call the function with: by position as far as that goes, as `inspect` does."""
        firm = max((at for name, at in self._firm.items() if name in values), default=-1)
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        by_name = False
        for at, (name, parameter) in enumerate(self._parameters.items()):
            kind = parameter.kind
            if kind is _ARGS:
                args.extend(values.get(name, ()))
            elif kind is _KWARGS:
                kwargs.update(values.get(name, {}))
            elif name not in values:
                if at < firm:
                    args.append(parameter.default)
                else:
                    by_name = True
            elif by_name or kind is _KEYWORD:
                kwargs[name] = values[name]
            else:
                args.append(values[name])
        return tuple(args), kwargs


def _discreet(error: Exception) -> str:
    """What others say of a value may show it, and who reads a journal's log is not who called."""
    return str(error) if isinstance(error, Misfit | TypeError) else type(error).__name__


def _form(parameter: inspect.Parameter | None, annotation: Any) -> Form:
    """The form of all that the parameter takes, or of a result."""
    try:
        if parameter is not None and annotation is not None:
            if parameter.kind is _ARGS:
                annotation = tuple[annotation, ...]
            elif parameter.kind is _KWARGS:
                annotation = dict[str, annotation]
            elif parameter.default is None:
                annotation = annotation | None
        return Types().form(annotation)
    except Exception:  # noqa: BLE001 - an annotation may be anything at all
        return UNKNOWN


def _defaultless(parameter: inspect.Parameter) -> inspect.Parameter:
    """The parameter, which says by its default that it was left out."""
    return parameter if parameter.default is _EMPTY else parameter.replace(default=_LEFT_OUT)


def _names_of(fn: Any) -> ChainMap[str, Any]:
    """The names that the annotations of a function are made of."""
    fn = inspect.unwrap(fn)
    while isinstance(fn, functools.partial):
        fn = inspect.unwrap(fn.func)
    if isinstance(fn, type):
        fn = getattr(fn, "__init__", fn)
    elif not hasattr(fn, "__globals__") and not hasattr(fn, "__func__"):
        fn = getattr(type_of(fn), "__call__", fn)  # noqa: B004 - the function is wanted
    fn = inspect.unwrap(getattr(fn, "__func__", fn))
    local = {variable.__name__: variable for variable in getattr(fn, "__type_params__", ())}
    return ChainMap(local, getattr(fn, "__globals__", {}))


def _call_of(signature: inspect.Signature) -> str:
    """The source of what to call the function with if nothing was left out, else None."""
    parameters = signature.parameters.items()
    args = "".join(f"{name}, " for name, it in parameters if it.kind in _BY_POSITION)
    args += "".join(f"*{name}, " for name, it in parameters if it.kind is _ARGS)
    kwargs = "".join(f"{name!r}: {name}, " for name, it in parameters if it.kind is _KEYWORD)
    kwargs += "".join(f"**{name}" for name, it in parameters if it.kind is _KWARGS)
    left = " or ".join(f"{name} is $out" for name, it in parameters if it.default is not _EMPTY)
    return f"None if {left or False} else (({args}), {{{kwargs}}})"


def _quick(
    signature: inspect.Signature, shown: str, forms: dict[str, Form]
) -> Callable[..., bytes | None]:
    """A function that binds its arguments and returns their text, or None.

    It does so if they are atoms of the types that their annotations say: then they are their own
    JSON, and nobody can change them. What was left out is left out by msgspec.
    """
    scope: dict[str, Any] = {"dump": _dump, "out": _LEFT_OUT, "unset": msgspec.UNSET}
    scope |= {"type": type, "float": float}
    checks: list[str] = []
    values: list[str] = []
    fields: dict[str, str] = {}
    for at, (name, parameter) in enumerate(signature.parameters.items()):
        if parameter.kind in _MANY:
            checks.append(f"not {name}")
            continue
        form = forms[name]
        scope[f"free{at}"] = form.free
        check, value = f"$type({name}) in $free{at}", name
        if form.free and float in form.kinds:
            check = f"({check} or $type({name}) is $float and {name} - {name} == 0)"  # finite
        if parameter.default is not _EMPTY:
            check, value = f"({name} is $out or {check})", f"$unset if {name} is $out else {name}"
        checks.append(check)
        values.append(value)
        fields[f"f{at}"] = name
    scope["Arguments"] = msgspec.defstruct(
        "Arguments", [(field, Any, msgspec.UNSET) for field in fields], rename=fields, gc=False
    )
    made = f"$dump($Arguments({', '.join(values)}))"
    source = f"{made} if {' and '.join(checks) or 'True'} else None"
    return compile_binder(signature, shown, source, **scope)
