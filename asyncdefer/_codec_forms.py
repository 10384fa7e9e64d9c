"""How values become JSON's own types and come back: one form for each sort of type.

A form takes what its type says and nothing else. What JSON has no type for stands as
`{"$": name, "v": …}`, with names from a closed list; nothing is looked up by a name in a text. A
form reads its own name too, so that a text outlives a change of the annotation.
"""

import inspect
import math
from collections.abc import Callable, Container, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import msgspec

type_of: Final[Any] = type
"""Narrows nothing, where a checker is not to wonder what is in an Any."""
_DICT: Final[Any] = dict
_TUPLE: Final[Any] = tuple
NoneType: Final = type(None)
KINDS: Final[frozenset[type[Any]]] = frozenset({NoneType, bool, int, float, str, list, dict})
LEVELS: Final = 100
"""So many containers may be in each other."""

_STAND_INS: Final[dict[type[Any], tuple[type[Any], ...]]] = {float: (int, bool), int: (bool,)}
_PLAIN: Final[Any] = {str: str.__str__, int: int.__int__, float: float.__float__}
"""What makes the plain value of one of a subclass, whatever that says of itself."""

Write = Callable[[Any, int], Any]
Read = Callable[[Any], Any]


class Misfit(Exception):
    """The value is not what the form is for."""


class Unkept(Misfit):
    """No value of this type can be written down."""


@dataclass(frozen=True, eq=False, slots=True)
class Form:
    """`write` makes JSON of a value at a depth, `read` makes the value of that."""

    tag: str
    types: frozenset[type[Any]]
    """Those of its values."""
    kinds: frozenset[type[Any]]
    """Those of the JSON that it writes."""
    write: Write
    read: Read
    free: frozenset[type[Any]] = frozenset()
    """Values of these types are their own JSON."""
    members: tuple["Form", ...] = ()
    """Those of a union."""


def tag_of(plain: Any) -> Any:
    return plain.get("$") if type_of(plain) is dict else None


def below(depth: int) -> int:
    if depth >= LEVELS:
        raise RecursionError
    return depth + 1


def wanted(tag: str, value: Any) -> Misfit:
    return Misfit(f"{tag} is wanted, not {type(value).__qualname__}")


def untagged(tag: str, plain: Any, names: Container[str], kinds: Container[type[Any]]) -> Any:
    """The JSON of a form, without the tag that it may have."""
    kind = type_of(plain)
    if kind is dict and plain.get("$") in names and type_of(plain["v"]) in kinds:
        return plain["v"]
    if kind in kinds:
        return plain
    raise wanted(tag, plain)


def atoms(tag: str, types: Iterable[type[Any]]) -> Form:
    """None, bool, int, float and str, or some of them.

    A bool may stand for an int and an int for a float, and stay what they are. A value of a
    subclass comes back as one of the class itself.
    """
    own = frozenset(types)
    kinds = own.union(*(_STAND_INS.get(cls, ()) for cls in own))
    free = kinds - {float}

    def write(value: Any, depth: int) -> Any:
        kind = type_of(value)
        if kind in free:
            return value
        if kind in kinds:
            return value if math.isfinite(value) else {"$": "float", "v": str(value)}
        for base, plain in _PLAIN.items():
            if base in kinds and kind is not base and isinstance(value, base):
                return write(plain(value), depth)
        raise wanted(tag, value)

    def read(plain: Any) -> Any:
        if type_of(plain) in kinds:
            return plain
        if float in kinds and tag_of(plain) == "float" and type_of(plain["v"]) is str:
            return float(plain["v"])
        return untagged(tag, plain, {tag}, kinds)

    return Form(tag, own, kinds, write, read, free)


def whole(tag: str, cls: Any, kind: Any, to: Write, back: Read, exact: bool = False) -> Form:
    """A class: `to` makes JSON of the type `kind` of its values, and `back` a value of that."""
    names = {tag} if exact else {tag, cls.__name__}
    kinds = frozenset({kind})

    def write(value: Any, depth: int) -> Any:
        if type_of(value) is cls or (not exact and isinstance(value, cls)):
            return to(value, depth)
        raise wanted(tag, value)

    def read(plain: Any) -> Any:
        return back(untagged(tag, plain, names, kinds))

    return Form(tag, frozenset({cls}), kinds, write, read)


def leaf(tag: str, cls: Any, to: Read, back: Read | None = None, kind: Any = str) -> Form:
    """A class whose values are a text or a number each; one of a subclass arrives as one of it."""
    made: Read = back or partial(msgspec.convert, type=cls)

    def write(value: Any, depth: int) -> Any:
        plain = to(value)
        if type(value) is not cls and made(plain) != value:  # something would be lost
            raise wanted(tag, value)
        return plain

    return whole(tag, cls, kind, write, made)


def items(tag: str, cls: Any, member: Form) -> Form:
    """A list, a tuple of any length, a set or a frozenset."""
    free = member.free.issuperset

    def to(value: Any, depth: int) -> Any:
        depth, values = below(depth), list(value)
        return values if free(map(type, values)) else [member.write(it, depth) for it in values]

    def back(plain: Any) -> Any:
        values = plain if free(map(type, plain)) else list(map(member.read, plain))
        return values if cls is list else cls(values)

    return whole(tag, cls, list, to, back)


def fixed(tag: str, members: list[Form]) -> Form:
    """A tuple whose members have a type each."""

    def pairs(values: Any) -> Iterable[tuple[Form, Any]]:
        if len(values) != len(members):
            raise Misfit(f"{tag} is wanted, not a tuple of {len(values)}")
        return zip(members, values, strict=True)

    def to(value: Any, depth: int) -> Any:
        depth = below(depth)
        return [form.write(it, depth) for form, it in pairs(value)]

    def back(plain: Any) -> Any:
        return tuple(form.read(it) for form, it in pairs(plain))

    return whole(tag, tuple, list, to, back)


def table(tag: str, key: Form, member: Form) -> Form:
    """A dict: an object if all its keys are texts in JSON, else a list of pairs with the tag."""

    def to(value: Any, depth: int) -> Any:
        depth = below(depth)
        pairs = [(key.write(name, depth), member.write(it, depth)) for name, it in value.items()]
        names = {name for name, _ in pairs if type_of(name) is str and name != "$"}
        return dict(pairs) if len(names) == len(pairs) else {"$": "dict", "v": pairs}

    def back(plain: Any) -> Any:
        if plain.get("$", "dict") != "dict":
            raise Misfit(f"{tag} is wanted, not {plain['$']}")
        pairs = plain["v"] if "$" in plain else plain.items()
        return {key.read(name): member.read(it) for name, it in pairs}

    return whole(tag, dict, dict, to, back)


def record(
    tag: str, cls: Any, names: Iterable[str], members: Mapping[str, Form], needed: set[str]
) -> Form:
    """A class of named fields, or a `TypedDict`, which needs some keys.

    An instance is made by the constructor, and all fields are set again to what they were: a
    `__post_init__` changes nothing a second time.
    """
    declared = getattr(cls, "__dataclass_fields__", {})
    late = {name for name in names if name in declared and not declared[name].init}
    is_struct, is_dict = hasattr(cls, "__struct_fields__"), issubclass(cls, _DICT)
    put: Any = msgspec.structs.force_setattr if is_struct else object.__setattr__
    unset = msgspec.UNSET

    def known(fields: dict[str, Any]) -> dict[str, Any]:
        for name in needed - fields.keys():
            raise Misfit(f"{tag} needs {name!r}")
        for name in fields.keys() - members.keys():
            raise Misfit(f"{tag} has no {name!r}")
        return fields

    def to(value: Any, depth: int) -> Any:
        depth = below(depth)
        if is_dict:
            plain = {name: members[name].write(it, depth) for name, it in known(value).items()}
            return {"$": tag, "v": plain} if "$" in plain else plain
        return {
            name: form.write(it, depth)
            for name, form in members.items()
            if (it := getattr(value, name, unset)) is not unset
        }

    def back(plain: Any) -> Any:
        values = {name: members[name].read(it) for name, it in known(plain).items()}
        made = cls(**{name: values[name] for name in values.keys() - late} if late else values)
        if not is_dict and not issubclass(cls, _TUPLE):
            for name, value in values.items():
                put(made, name, value)
        return made

    return whole(tag, dict if is_dict else cls, dict, to, back, exact=True)


def checked(tag: str, form: Form, check: Callable[[Any], str | None]) -> Form:
    """A form with a check of the value itself, which says what is wrong, or None."""

    def passed(value: Any) -> Any:
        if wrong := check(value):
            raise Misfit(f"{tag} is wanted, {wrong}")
        return value

    def read(plain: Any) -> Any:
        return passed(form.read(plain["v"] if tag_of(plain) == tag else plain))

    return Form(tag, form.types, form.kinds, lambda it, depth: form.write(passed(it), depth), read)


def union(tag: str, members: list[Form]) -> Form:
    """The form of the value's own type, else the first that takes it.

    Members whose JSON looks like that of another are tagged. What came without a tag was written
    before there was that other, and is read by the first that can.
    """
    tags: dict[Form, str] = {}
    for form in members:
        others = [it for it in members if it is not form]
        if any(form.kinds & it.kinds for it in others):
            twin = len(form.types) == 1 and any(form.tag == it.tag for it in others)
            module = f"{next(iter(form.types)).__module__}." if twin else ""
            tags[form] = module + form.tag
    tagged = {label: form for form, label in tags.items()}

    def write(value: Any, depth: int) -> Any:
        kind = type_of(value)
        own = [form for form in members if kind in form.types]
        failed: list[Misfit] = []
        for form in [*own, *(form for form in members if form not in own)]:
            try:
                plain = form.write(value, depth)
            except Misfit as error:
                failed.append(error)
            else:
                return {"$": tags[form], "v": plain} if form in tags else plain
        if len(own) == 1:
            raise failed[0]  # which says most
        raise next((it for it in failed if isinstance(it, Unkept)), wanted(tag, value))

    def read(plain: Any) -> Any:
        named = tagged.get(tag_of(plain))
        first = [] if named is None else [(named, plain["v"])]
        for form, it in [*first, *((form, plain) for form in members)]:
            try:
                return form.read(it)
            except Exception:  # noqa: BLE001, S112 - whatever a class says of what is not for it
                continue
        raise wanted(tag, plain)

    types = frozenset(cls for form in members for cls in form.types)
    kinds = frozenset(kind for form in members for kind in form.kinds)
    return Form(tag, types, kinds, write, read, members=tuple(members))


def foreign(tag: str, cls: Any, adapter: Any) -> Form:
    """A class that tells pydantic what it is: it must come back equal and of the same type."""
    # By the names of the fields, which go both ways; by alias before pydantic 2.11.
    named = "by_name" in inspect.signature(adapter.validate_json).parameters
    by = {"by_alias": False, "by_name": True} if named else {}
    dump = partial(adapter.dump_python, mode="json", by_alias=not named, round_trip=True)

    def validated(plain: Any) -> Any:
        return adapter.validate_json(msgspec.json.encode(plain), **by)

    def write(value: Any, depth: int) -> Any:
        below(depth)
        try:
            plain = dump(value, warnings=False)
            back = validated(plain)
        except Exception as error:  # validators are the user's own
            said = _without_values(error)
            raise Misfit(f"{tag} is wanted, and pydantic says: {said}") from error
        if type(back) is not type(value) or back != value:
            what = type(value).__qualname__
            raise Misfit(f"{tag} is wanted, and this {what} does not come back equal")
        return {"$": tag, "v": plain} if tag_of(plain) is not None else plain

    def read(plain: Any) -> Any:
        return validated(plain["v"] if tag_of(plain) == tag else plain)

    return Form(tag, frozenset({cls}), KINDS - {NoneType}, write, read)


def _without_values(error: Any) -> str:
    """What pydantic says, in one line."""
    if not hasattr(error, "errors"):
        return str(error)
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in found)


def anything(leaves: Mapping[type[Any], Form], advice: str) -> Form:
    """What has no annotation: JSON's own types, and `leaves` and containers, each with its tag."""
    free: frozenset[type[Any]] = frozenset({int, str, bool, NoneType})

    def write(value: Any, depth: int) -> Any:
        kind = type_of(value)
        if kind in free:
            return value
        form = forms.get(kind)
        if form is None:
            raise Unkept(f"no value of the type {kind.__qualname__} can be written down. {advice}")
        plain = form.write(value, depth)
        return plain if kind in own else {"$": form.tag, "v": plain}

    def read(plain: Any) -> Any:
        kind = type_of(plain)
        if kind in free:
            return plain
        if kind is not dict or "$" not in plain:
            return own[kind].read(plain)
        form = named.get(plain["$"])
        if form is None:
            raise Misfit(f"{plain['$']} is no name of an untyped value")
        return form.read(plain)

    any_ = Form("Any", frozenset(), KINDS, write, read, free)
    own = {
        float: atoms("float", {float}),
        list: items("list", list, any_),
        dict: table("dict", any_, any_),
    }
    many = {cls: items(cls.__name__, cls, any_) for cls in (tuple, set, frozenset)}
    forms: dict[Any, Form] = {**many, **leaves, **own}
    named = {form.tag: form for form in forms.values()}
    return any_
