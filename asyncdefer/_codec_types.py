"""Which form an annotation asks for. What cannot be resolved counts as `Any`."""

import builtins
import collections.abc as abc
import dataclasses
import datetime as dt
import inspect
import sys
import typing
from collections import ChainMap
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum, Flag
from functools import partial
from pathlib import PurePath
from types import SimpleNamespace, UnionType
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from asyncdefer import _codec_forms as forms
from asyncdefer._codec_forms import Form, NoneType, leaf


def _with_zone(value: dt.datetime | dt.time) -> str:
    key = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return f"{value.isoformat()}[{key}]" if key else value.isoformat()


def _in_zone(cls: Any, text: str) -> Any:
    text, _, key = text.removesuffix("]").partition("[")
    value = cls.fromisoformat(text)
    if not key:
        return value
    for fold in (0, 1):
        local = value.replace(tzinfo=ZoneInfo(key), fold=fold)
        if local.utcoffset() == value.utcoffset():
            return local
    return value.astimezone(ZoneInfo(key))  # the zone's rules have changed, the instant has not


_LEAVES: Final[dict[Any, Form]] = {
    bytes: leaf("bytes", bytes, msgspec.to_builtins),
    dt.datetime: leaf("datetime.datetime", dt.datetime, _with_zone, partial(_in_zone, dt.datetime)),
    dt.date: leaf("datetime.date", dt.date, dt.date.isoformat),
    dt.time: leaf("datetime.time", dt.time, _with_zone, partial(_in_zone, dt.time)),
    dt.timedelta: leaf("datetime.timedelta", dt.timedelta, msgspec.to_builtins),
    UUID: leaf("uuid.UUID", UUID, str),
    Decimal: leaf("decimal.Decimal", Decimal, str),
}
"""What an untyped value may be, besides JSON's own types and containers."""

ANYTHING: Final = forms.anything(
    _LEAVES,
    "Annotate the parameter with that type if it is a dataclass, a msgspec.Struct, an enum or a"
    " pydantic model; else pass what identifies the value, as its id, and look it up in the job",
)
UNKNOWN: Final = forms.anything(
    _LEAVES,
    "The parameter is annotated, but with a name that is not to be found where the function is"
    " defined: define or import it in the module, and not only for type checkers",
)
_UNTYPED: Final = (Any, object, inspect.Parameter.empty)
_ATOMS: Final = (bool, int, float, str, NoneType)
_ITEMS: Final[dict[Any, tuple[type[Any], ...]]] = {
    **{cls: (cls,) for cls in (list, set, frozenset)},
    abc.Sequence: (list, tuple),
    abc.Set: (set, frozenset),
    **dict.fromkeys((abc.Collection, abc.Iterable), (list, tuple, set, frozenset)),
}
_UNIONS: Final = (typing.Union, UnionType)
_QUALIFIERS: Final = ("Required", "NotRequired", "ReadOnly", "Final")


def resolved(annotation: Any, names: Mapping[str, Any]) -> Any:
    """The annotation without texts in it, or None if a name in it is not to be had."""
    holder = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return typing.get_type_hints(holder, {}, names, include_extras=True)["it"]
    except Exception:  # noqa: BLE001 - the text of an annotation may be any expression
        return None


class Types:
    """Makes the form of one annotation; a class in it that leads back to itself has one."""

    def __init__(self) -> None:
        self._known: dict[Any, Form] = {}

    def form(self, annotation: Any) -> Form:
        args, origin = typing.get_args(annotation), typing.get_origin(annotation)
        if annotation is None:
            return UNKNOWN
        if any(annotation is it for it in _UNTYPED) or _unpacked(annotation):
            return ANYTHING
        if isinstance(annotation, typing.TypeVar):
            return self.form(annotation.__bound__ or Any)
        if origin is typing.Annotated:
            return self._bounded(annotation, *args)
        if origin in _UNIONS:
            return self.union(_shown(annotation), args)
        if origin is typing.Literal:
            return self._literal(_shown(annotation), args)
        if _qualifier(annotation):
            return self.form(args[0])
        for inner in ("__supertype__", "__value__"):  # of a NewType and of an alias
            if hasattr(annotation, inner):
                return self.form(getattr(annotation, inner))
        cls: Any = origin or annotation
        return self._class(annotation, cls, args) if isinstance(cls, type) else ANYTHING

    def union(self, tag: str, annotations: Iterable[Any]) -> Form:
        atoms: set[type[Any]] = set()
        members: list[Form] = []
        for outer in (self.form(it) for it in annotations if it is not msgspec.UnsetType):
            for form in outer.members or [outer]:
                if form.free and form.types:
                    atoms |= form.types
                elif form not in members:
                    members.append(form)
        if atoms and members != [ANYTHING]:
            members = [form for form in members if not form.types or not form.types <= atoms]
            names = " | ".join(_shown(cls) for cls in _ATOMS if cls in atoms)
            members.insert(0, forms.atoms(names, atoms))
        return members[0] if len(members) == 1 else forms.union(tag, members)

    def _bounded(self, annotation: Any, bare: Any, *extras: Any) -> Form:
        bounds = tuple(extra for extra in extras if isinstance(extra, msgspec.Meta))
        outer = typing.get_origin(bare)
        plain = bare if outer in (None, *_UNIONS) else outer  # its members have been checked
        form = self.form(bare)

        def wrong(value: Any) -> str | None:
            form.write(value, 0)  # first: of another type msgspec might show the value
            try:
                msgspec.convert(value, typing.Annotated[(plain, *bounds)])
            except msgspec.ValidationError as error:
                return f"and msgspec says: {error}"
            return None

        return forms.checked(_shown(annotation), form, wrong) if bounds else form

    def _literal(self, tag: str, values: tuple[Any, ...]) -> Form:
        def wrong(value: Any) -> str | None:
            fits = any(type(it) is type(value) and it == value for it in values)
            return None if fits else "and this is none of it"

        return forms.checked(tag, self.union(tag, map(type, values)), wrong)

    def _class(self, annotation: Any, cls: Any, args: tuple[Any, ...]) -> Form:
        """The form of a class, with its type arguments if it has some."""
        tag = _shown(annotation)
        if cls in _ATOMS:
            return forms.atoms(tag, {cls})
        if cls in _LEAVES:
            return _LEAVES[cls]
        if cls in _ITEMS:
            member = self.form(args[0]) if args else ANYTHING
            several = [forms.items(it.__name__, it, member) for it in _ITEMS[cls]]
            return forms.union(tag, several) if several[1:] else forms.items(tag, cls, member)
        if cls in (dict, abc.Mapping):
            return forms.table(tag, *map(self.form, args or (Any, Any)))
        if cls is tuple and (any(map(_unpacked, args)) or tag in ("tuple", "Tuple")):
            return forms.items(tag, tuple, ANYTHING)
        if cls is tuple and args[1:] == (...,):
            return forms.items(tag, tuple, self.form(args[0]))
        if cls is tuple:
            return forms.fixed(tag, list(map(self.form, args)))
        if annotation not in self._known:
            self._known[annotation] = self._named(annotation, cls, tag)
        return self._known[annotation]

    def _named(self, annotation: Any, cls: Any, tag: str) -> Form:
        """The form of an enum, of a class with fields, of one that pydantic knows, or of another."""
        if issubclass(cls, Enum):
            return _enum(tag, cls)
        if issubclass(cls, PurePath):
            return leaf(tag, cls, str, cls)
        if (hints := _fields(cls)) is not None:
            members: dict[str, Form] = {}
            form = forms.record(tag, cls, hints, members, _required(cls, hints))
            self._known[annotation] = form
            members.update((name, self.form(hint)) for name, hint in hints.items())
            return form
        if hasattr(cls, "__get_pydantic_core_schema__"):
            return forms.foreign(tag, cls, sys.modules["pydantic"].TypeAdapter(annotation))
        try:
            isinstance(None, cls)
        except TypeError:  # a protocol that cannot be asked
            return ANYTHING
        return forms.checked(
            tag,
            ANYTHING,
            lambda value: None if isinstance(value, cls) else f"not {type(value).__qualname__}",
        )


def _enum(tag: str, cls: Any) -> Form:
    """By value if all values are int or all are str, else by name."""
    kinds: set[Any] = {type(member.value) for member in cls}
    if issubclass(cls, Flag) or kinds in ({int}, {str}):
        return leaf(tag, cls, lambda it: it.value, cls, str if str in kinds else int)
    return leaf(tag, cls, lambda it: it.name, cls.__getitem__)


def _fields(cls: Any) -> dict[str, Any] | None:
    """The annotations of the fields that make up a class, by name."""
    built_in = any(getattr(builtins, base.__name__, None) is base for base in cls.__mro__[:-1])
    if hasattr(cls, "__struct_fields__"):
        names = cls.__struct_fields__
    elif hasattr(cls, "__dataclass_fields__") and not built_in:  # which has more to it
        names = [field.name for field in dataclasses.fields(cls)]
    elif hasattr(cls, "_fields") and hasattr(cls, "_asdict"):
        names = cls._fields
    elif hasattr(cls, "__required_keys__"):
        names = inspect.get_annotations(cls)
    else:
        return None
    hints = _hints(cls)
    return {name: hints.get(name, Any) for name in names}


def _shown(annotation: Any) -> str:
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return "None" if annotation is NoneType else annotation.__qualname__
    return repr(annotation).replace("typing.", "")


def _qualifier(annotation: Any) -> str | None:
    name = getattr(typing.get_origin(annotation), "_name", None)
    return name if name in _QUALIFIERS else None


def _unpacked(annotation: Any) -> bool:
    """It is `*tuple[int, str]` or `Unpack[…]`."""
    own = typing.get_origin(annotation) is typing.Unpack
    return own or getattr(annotation, "__unpacked__", False) is True


def _required(cls: Any, hints: Mapping[str, Any]) -> set[str]:
    """The keys that a `TypedDict` needs. The mark in a text was unknown when it was made."""
    marks = {name: _qualifier(hint) for name, hint in hints.items()}
    needed = {name for name, mark in marks.items() if mark == "Required"}
    declared = getattr(cls, "__required_keys__", ())
    return needed | {name for name in declared if marks.get(name) != "NotRequired"}


def _hints(cls: Any) -> dict[str, Any]:
    """The annotations of a class by name."""
    hints: dict[str, Any] = {}
    for owner in reversed(cls.__mro__):
        module: dict[str, Any] = getattr(sys.modules.get(owner.__module__), "__dict__", {})
        # The module first: in `date: date = …` the field hides the class.
        own: dict[str, Any] = {**vars(owner)}
        names = ChainMap({owner.__name__: owner}, module, own)
        for name, hint in inspect.get_annotations(owner).items():
            hints[name] = resolved(hint, names)
    return hints
