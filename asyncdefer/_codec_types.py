"""Which form an annotation asks for. What cannot be resolved counts as `Any`."""

import builtins
import collections.abc as abc
import dataclasses
import inspect
import ipaddress
import pathlib
import sys
import typing
from collections.abc import Iterable, Mapping
from enum import Enum
from fractions import Fraction
from types import SimpleNamespace, UnionType
from typing import Any, Final
from zoneinfo import ZoneInfo

import msgspec

from asyncdefer._codec_classes import (
    Checked,
    Choice,
    Foreign,
    Keys,
    Late,
    Make,
    Member,
    OneOf,
    Other,
    Record,
    maker,
)
from asyncdefer._codec_values import (
    ANYTHING,
    TEXTS,
    UNKNOWN,
    Anything,
    Atoms,
    Fixed,
    Form,
    Items,
    NoneType,
    Table,
    Text,
)

Scope = dict[Any, Any]
"""What type variables stand for."""

UNRESOLVED: Final = object()
"""Stands for an annotation with a name in it that is not to be had."""

_OWN_TEXT: Final[tuple[type[Any], ...]] = (
    *(pathlib.Path, pathlib.PosixPath, pathlib.WindowsPath),
    *(pathlib.PurePath, pathlib.PurePosixPath, pathlib.PureWindowsPath),
    *(ipaddress.IPv4Address, ipaddress.IPv4Interface, ipaddress.IPv4Network),
    *(ipaddress.IPv6Address, ipaddress.IPv6Interface, ipaddress.IPv6Network),
    *(complex, Fraction),
)
"""These are made of what `str` says of them."""

_ATOMS: Final = (bool, int, float, str, NoneType)
_TEXTS: Final[dict[type[Any], Form]] = {
    **TEXTS,
    **{cls: Text(cls.__qualname__, cls, str, cls) for cls in _OWN_TEXT},
    ZoneInfo: Text("ZoneInfo", ZoneInfo, lambda zone: zone.key, ZoneInfo),
}
_ALL: Final = (list, tuple, set, frozenset)
_ITEMS: Final[dict[Any, tuple[type[Any], ...]]] = {
    **{cls: (cls,) for cls in (list, set, frozenset)},
    abc.MutableSequence: (list,),
    abc.MutableSet: (set,),
    abc.Sequence: (list, tuple),
    abc.Set: (set, frozenset),
    **dict.fromkeys((abc.Collection, abc.Container, abc.Iterable, abc.Reversible), _ALL),
}
_UNIONS: Final = (typing.Union, UnionType)
_STRUCT: Final[Any] = msgspec.Struct
_TUPLE: Final[Any] = tuple
_TABLES: Final = (dict, abc.Mapping, abc.MutableMapping)
_QUALIFIERS: Final = ("Required", "NotRequired", "ReadOnly", "Final")


def resolved(annotation: Any, names: Mapping[str, Any], local: Mapping[str, Any]) -> Any:
    """The annotation without texts in it, or `UNRESOLVED`."""
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, dict(names), dict(local), include_extras=True)["it"]
    except Exception:  # noqa: BLE001 - the text of an annotation may be any expression
        return UNRESOLVED


class Types:
    """Makes the forms of one function, so that a class that leads back to itself has one."""

    def __init__(self) -> None:
        self._known: dict[Any, Form] = {}

    def form(self, annotation: Any, scope: Scope | None = None) -> Form:
        """The form of an annotation whose type variables stand for what `scope` says."""
        scope = scope or {}
        if isinstance(annotation, typing.TypeVar):
            return self._variable(annotation, scope)
        annotation = _filled(annotation, scope)
        args, origin = typing.get_args(annotation), typing.get_origin(annotation)
        if annotation is UNRESOLVED:
            return UNKNOWN
        if any(annotation is untyped for untyped in (Any, object, inspect.Parameter.empty)):
            return ANYTHING
        if origin is typing.Annotated:
            return self._bounded(annotation, *args)
        if origin in _UNIONS:
            return self.union(_shown(annotation), args)
        if origin is typing.Literal:
            return Choice(_shown(annotation), self._choices(args))
        if _qualifier(annotation):
            return self.form(args[0])
        if hasattr(annotation, "__supertype__"):  # a NewType
            return self.form(annotation.__supertype__)
        cls: Any = origin or annotation
        if hasattr(cls, "__value__") and hasattr(cls, "__type_params__"):
            return self._alias(annotation, cls, args)
        if cls is typing.LiteralString:
            return Atoms("str", {str})
        return self._class(annotation, cls, args) if _is_class(cls) else ANYTHING

    def _variable(self, variable: Any, scope: Scope) -> Form:
        meant = scope.get(variable, variable)
        if meant is not variable:
            return self.form(meant)
        if variable.__constraints__:
            return self.union(_shown(variable), variable.__constraints__)
        return ANYTHING if variable.__bound__ is None else self.form(variable.__bound__)

    def _bounded(self, annotation: Any, bare: Any, *extras: Any) -> Form:
        form = self.form(bare)
        bounds = tuple(extra for extra in extras if isinstance(extra, msgspec.Meta))
        if not bounds:
            return form
        outer = typing.get_origin(bare)
        plain = bare if outer in (None, *_UNIONS) else outer  # its members have been checked
        return Checked(_shown(annotation), form, typing.Annotated[(plain, *bounds)])

    def _choices(self, values: tuple[Any, ...]) -> list[tuple[Any, Any]]:
        """The values of a `Literal`, each with its JSON; the second that looks the same is tagged."""
        choices: list[tuple[Any, Any]] = []
        for value in values:
            form = self.form(type(value)) if isinstance(value, Enum) else ANYTHING
            plain = form.write(value, 0)
            if any(type(plain) is type(other) and plain == other for _, other in choices):
                plain = {"$": type(value).__qualname__, "v": plain}
            choices.append((value, plain))
        return choices

    def union(self, tag: str, members: tuple[Any, ...]) -> Form:
        forms: list[Form] = []
        atoms: set[type[Any]] = set()
        for member in (self.form(it) for it in members if it is not msgspec.UnsetType):
            for form in member.members if isinstance(member, OneOf) else [member]:
                if isinstance(form, Atoms):
                    atoms |= form.types
                elif form not in forms:
                    forms.append(form)
        if atoms and forms and isinstance(forms[0], Anything) and len(forms) == 1:
            return forms[0]
        if atoms:
            forms = [it for it in forms if not (isinstance(it, Choice) and it.types <= atoms)]
            names = " | ".join(_shown(cls) for cls in _ATOMS if cls in atoms)
            forms.insert(0, Atoms(names, atoms))
        return forms[0] if len(forms) == 1 else OneOf(tag, forms)

    def _alias(self, annotation: Any, alias: Any, args: tuple[Any, ...]) -> Form:
        if annotation not in self._known:
            late = self._known[annotation] = Late(_shown(annotation))
            late.form = self.form(alias.__value__, _paired(alias.__type_params__, args))
            self._known[annotation] = late.form
        return self._known[annotation]

    def _class(self, annotation: Any, cls: type[Any], args: tuple[Any, ...]) -> Form:
        """The form of a class, with its type arguments if it has some."""
        tag = _shown(annotation)
        if cls in _ATOMS:
            return Atoms(tag, {cls})
        if cls in _TEXTS:
            return _TEXTS[cls]
        if cls is tuple:
            return self._tuple(tag, args)
        if cls in _ITEMS:
            member = self.form(args[0]) if args else ANYTHING
            return Items(tag, _ITEMS[cls], member)
        if cls in _TABLES:
            key, member = map(self.form, args or (Any, Any))
            return Table(tag, key, member)
        if annotation not in self._known:
            self._known[annotation] = self._named(annotation, cls, tag)
        return self._known[annotation]

    def _tuple(self, tag: str, args: tuple[Any, ...]) -> Form:
        if any(unpacked(arg) for arg in args) or tag in ("tuple", "Tuple"):
            return Items(tag, (tuple,), ANYTHING)
        if args[1:] == (...,):
            return Items(tag, (tuple,), self.form(args[0]))
        return Fixed(tag, tuple(map(self.form, args)))

    def _named(self, annotation: Any, cls: Any, tag: str) -> Form:
        """The form of an enum, of a class with fields, of one that pydantic knows, or of another."""
        if issubclass(cls, Enum):
            return Member(tag, cls)
        names: Iterable[str] | None = None
        make: Make = lambda values: cls(**values)  # noqa: E731 - as a named tuple is made
        if issubclass(cls, _STRUCT):
            names = cls.__struct_fields__
            make = maker(cls, cls.__struct_fields__, msgspec.structs.force_setattr)
        elif hasattr(cls, "__dataclass_fields__") and not _is_built_in(cls):
            fields = dataclasses.fields(cls)
            names = [field.name for field in fields]
            make = maker(cls, [field.name for field in fields if field.init], object.__setattr__)
        elif issubclass(cls, _TUPLE):
            names = getattr(cls, "_fields", None)
        elif hasattr(cls, "__required_keys__"):
            required = cls.__required_keys__
            return Keys(
                tag,
                lambda: self._members(annotation, cls, _hints(annotation, cls)),
                lambda: _required(required, _hints(annotation, cls)),
            )
        elif hasattr(cls, "__get_pydantic_core_schema__"):
            return Foreign(tag, cls, sys.modules["pydantic"].TypeAdapter(annotation))
        if names is None:
            return Other(tag, cls)
        found = names
        return Record(tag, cls, lambda: self._members(annotation, cls, found), make)

    def _members(self, annotation: Any, cls: Any, names: Iterable[str]) -> dict[str, Form]:
        hints = _hints(annotation, cls)
        return {name: self.form(*hints.get(name, (Any, None))) for name in names}


def _is_class(annotation: Any) -> bool:
    return isinstance(annotation, type)


def _is_built_in(cls: Any) -> bool:
    """It has more to it than its fields: a list, a dict, an exception."""
    return any(getattr(builtins, base.__name__, None) is base for base in cls.__mro__[:-1])


def _shown(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return "None" if annotation is NoneType else annotation.__qualname__
    return repr(annotation).replace("typing.", "")


def _qualifier(annotation: Any) -> str | None:
    name = getattr(typing.get_origin(annotation), "_name", None)
    return name if name in _QUALIFIERS else None


def unpacked(annotation: Any) -> bool:
    """It is `*tuple[int, str]` or `Unpack[…]`."""
    own = typing.get_origin(annotation) is typing.Unpack
    return own or getattr(annotation, "__unpacked__", False) is True


def _filled(annotation: Any, scope: Scope) -> Any:
    """The annotation with what its type variables stand for."""
    variables = () if _is_class(annotation) else getattr(annotation, "__parameters__", ())
    if not any(variable in scope for variable in variables):
        return annotation
    return annotation[tuple(scope.get(variable, variable) for variable in variables)]


def _paired(variables: Iterable[Any], args: Iterable[Any]) -> Scope:
    return dict(zip(variables, args, strict=False))  # a class may stand without its arguments


def _required(names: Iterable[str], hints: dict[str, tuple[Any, Scope]]) -> set[str]:
    """The keys that must be there: a mark in an annotation that was a text has its say late."""
    marks = {name: _qualifier(hint) for name, (hint, _) in hints.items()}
    needed = {name for name in names if marks.get(name) != "NotRequired"}
    return needed | {name for name, mark in marks.items() if mark == "Required"}


def _hints(annotation: Any, cls: Any) -> dict[str, tuple[Any, Scope]]:
    """The annotations of a class by name, each with what its type variables stand for."""
    found: dict[str, tuple[Any, Scope]] = {}
    scopes = {cls: _paired(getattr(cls, "__parameters__", ()), typing.get_args(annotation))}
    for owner in cls.__mro__:
        scope = scopes.setdefault(owner, {})
        for base in getattr(owner, "__orig_bases__", ()):
            origin = typing.get_origin(base)
            if origin not in (None, typing.Generic, typing.Protocol):
                args = typing.get_args(_filled(base, scope))
                scopes.setdefault(origin, _paired(getattr(origin, "__parameters__", ()), args))
        names = getattr(sys.modules.get(owner.__module__), "__dict__", {})
        local: dict[str, Any] = {it.__name__: it for it in getattr(owner, "__type_params__", ())}
        local[owner.__name__] = owner
        for name, hint in inspect.get_annotations(owner).items():
            meant = resolved(hint, names, local)
            if meant is UNRESOLVED:  # not at once: in `date: date = …` the field hides the class
                meant = resolved(hint, names, owner.__dict__)
            found.setdefault(name, (meant, scope))
    return found
