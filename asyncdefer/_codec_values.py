"""How values become JSON's own types and come back: one form for each sort of type.

A form takes what its type says and nothing else. What JSON has no type for stands as
`{"$": name, "v": …}`, with names from a closed list; nothing is looked up by a name in a text. A
form reads its own name too, so that a text outlives a change of the annotation.
"""

import datetime as dt
import math
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

NoneType: Final = type(None)
# These narrow nothing where a checker is not to wonder what is in an Any.
type_of: Final[Any] = type
_DICT: Final[Any] = dict
_TUPLE: Final[Any] = tuple

LEVELS: Final = 100
"""So many containers may be in each other."""

_SCALARS: Final[dict[type[Any], Callable[[Any], Any]]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}
"""What makes the plain value of one of a subclass, whatever that says of itself."""


class Misfit(Exception):
    """The value is not what the form is for."""


class Unkept(Misfit):
    """No value of this type can be written down."""

    def __init__(self, cls: type[Any], advice: str) -> None:
        super().__init__(f"no value of the type {cls.__qualname__} can be written down. {advice}")


class TooDeep(Exception):
    def __init__(self) -> None:
        super().__init__(f"it is nested more than {LEVELS} levels deep")


def tag_of(plain: Any) -> Any:
    return plain.get("$") if type_of(plain) is dict else None


def below(depth: int) -> int:
    if depth >= LEVELS:
        raise TooDeep
    return depth + 1


class Form:
    """`tag` is its name, `types` are those of its values, `kinds` those of the JSON it writes.

    Values of the types in `free` are their own JSON. `bare` is the name of the class alone.
    """

    free: frozenset[type[Any]] = frozenset()

    def __init__(
        self, tag: str, types: Iterable[type[Any]], kinds: Iterable[type[Any]], bare: str = ""
    ) -> None:
        self.tag = tag
        self.types = frozenset(types)
        self.kinds = frozenset(kinds)
        self.names = (tag, bare or tag)

    def write(self, value: Any, depth: int) -> Any:
        raise NotImplementedError

    def read(self, plain: Any) -> Any:
        raise NotImplementedError

    def wanted(self, value: Any) -> Misfit:
        return Misfit(f"{self.tag} is wanted, not {type(value).__qualname__}")

    def body(self, plain: Any, kind: type[Any]) -> Any:
        """The JSON of this form, without the tag that it may have."""
        if (tag := tag_of(plain)) is not None:
            if tag not in self.names:
                raise Misfit(f"{self.tag} is wanted, not {tag}")
            plain = plain["v"]
        if type_of(plain) is not kind:
            raise self.wanted(plain)
        return plain


class Atoms(Form):
    """None, bool, int, float and str, or some of them.

    A bool may stand for an int and an int for a float, and stay what they are. A value of a
    subclass comes back as one of the class itself.
    """

    def __init__(self, tag: str, types: Iterable[type[Any]]) -> None:
        kinds = set(types)
        if float in kinds:
            kinds.add(int)
        if int in kinds:
            kinds.add(bool)
        super().__init__(tag, types, kinds)
        self.free = frozenset(kinds - {float})

    def write(self, value: Any, depth: int) -> Any:
        kind = type_of(value)
        if kind in self.free:
            return value
        if kind is float and float in self.kinds:
            return value if math.isfinite(value) else {"$": "float", "v": str(value)}
        for base, plain in _SCALARS.items():
            if base in self.kinds and kind is not base and isinstance(value, base):
                return self.write(plain(value), depth)
        raise self.wanted(value)

    def read(self, plain: Any) -> Any:
        if (tag := tag_of(plain)) is not None:
            if tag == "float" and type_of(plain["v"]) is str:
                plain = float(plain["v"])
            elif tag == self.tag:
                plain = plain["v"]
        if type_of(plain) in self.kinds:
            return plain
        raise self.wanted(plain)


class Text(Form):
    """A class whose values have a text each. One of a subclass comes back as one of the class."""

    def __init__(
        self,
        tag: str,
        cls: type[Any],
        to_text: Callable[[Any], str],
        from_text: Callable[[str], Any],
    ) -> None:
        super().__init__(tag, {cls}, {str})
        self._cls = cls
        self._to_text = to_text
        self._from_text = from_text

    def write(self, value: Any, depth: int) -> Any:
        if type(value) is self._cls:
            return self._to_text(value)
        if isinstance(value, self._cls):
            text = self._to_text(value)
            if self._to_text(self._from_text(text)) == text:  # nothing was lost
                return text
        raise self.wanted(value)

    def read(self, plain: Any) -> Any:
        return self._from_text(self.body(plain, str))


def _with_zone(value: dt.datetime | dt.time) -> str:
    key = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return f"{value.isoformat()}[{key}]" if key else value.isoformat()


def _day(value: dt.date) -> str:
    if isinstance(value, dt.datetime):
        raise Misfit("datetime.date is wanted, not datetime")
    return value.isoformat()


def _datetime(text: str) -> dt.datetime:
    text, _, key = text.removesuffix("]").partition("[")
    value = dt.datetime.fromisoformat(text)
    if not key:
        return value
    zone = ZoneInfo(key)
    for fold in (0, 1):
        local = value.replace(tzinfo=zone, fold=fold)
        if local.utcoffset() == value.utcoffset():
            return local
    return value.astimezone(zone)  # the rules of the zone have changed, the instant has not


def _time(text: str) -> dt.time:
    text, _, key = text.removesuffix("]").partition("[")
    value = dt.time.fromisoformat(text)
    return value.replace(tzinfo=ZoneInfo(key)) if key else value


def _base64(value: bytes) -> str:
    return b64encode(value).decode()


def _bytes(text: str) -> bytes:
    return b64decode(text, validate=True)


def _duration(text: str) -> dt.timedelta:
    return msgspec.convert(text, dt.timedelta)


TEXTS: Final[dict[type[Any], Form]] = {
    bytes: Text("bytes", bytes, _base64, _bytes),
    dt.datetime: Text("datetime.datetime", dt.datetime, _with_zone, _datetime),
    dt.date: Text("datetime.date", dt.date, _day, dt.date.fromisoformat),
    dt.time: Text("datetime.time", dt.time, _with_zone, _time),
    dt.timedelta: Text("datetime.timedelta", dt.timedelta, msgspec.to_builtins, _duration),
    UUID: Text("uuid.UUID", UUID, str, UUID),
    Decimal: Text("decimal.Decimal", Decimal, str, Decimal),
}
"""What an untyped value may be, besides JSON's own types and containers."""


class Items(Form):
    """A list, a tuple of any length, a set, a frozenset; of several, all but the first tagged."""

    def __init__(self, tag: str, classes: tuple[type[Any], ...], member: Form) -> None:
        super().__init__(tag, classes, {list} if len(classes) == 1 else {list, dict})
        self._classes = {cls.__name__: cls for cls in classes}
        self._first = classes[0]
        self._member = member

    def write(self, value: Any, depth: int) -> Any:
        name = next((it for it, cls in self._classes.items() if isinstance(value, cls)), None)
        if name is None:
            raise self.wanted(value)
        values: list[Any] = list(value)
        depth = below(depth)
        if not self._member.free.issuperset(map(type, values)):
            write = self._member.write
            values = [write(member, depth) for member in values]
        return values if self._classes[name] is self._first else {"$": name, "v": values}

    def read(self, plain: Any) -> Any:
        cls = self._first
        if (tag := tag_of(plain)) is not None:
            if tag not in self._classes:
                plain = self.body(plain, list)
            else:
                cls, plain = self._classes[tag], plain["v"]
        if type_of(plain) is not list:
            raise self.wanted(plain)
        if not self._member.free.issuperset(map(type, plain)):
            plain = list(map(self._member.read, plain))
        return plain if cls is list else cls(plain)


class Fixed(Form):
    """A tuple whose members have a type each."""

    def __init__(self, tag: str, members: tuple[Form, ...]) -> None:
        super().__init__(tag, {tuple}, {list}, "tuple")
        self._members = members

    def write(self, value: Any, depth: int) -> Any:
        if not isinstance(value, _TUPLE):
            raise self.wanted(value)
        depth = below(depth)
        return [form.write(member, depth) for form, member in self._pairs(value)]

    def read(self, plain: Any) -> Any:
        return tuple(form.read(member) for form, member in self._pairs(self.body(plain, list)))

    def _pairs(self, values: Any) -> Iterable[tuple[Form, Any]]:
        if len(values) != len(self._members):
            raise Misfit(f"{self.tag} is wanted, not a tuple of {len(values)}")
        return zip(self._members, values, strict=True)


class Table(Form):
    """A dict: an object if all its keys are texts in JSON, else a list of pairs with the tag."""

    def __init__(self, tag: str, key: Form, member: Form) -> None:
        super().__init__(tag, {dict}, {dict}, "dict")
        self._key = key
        self._member = member

    def write(self, value: Any, depth: int) -> Any:
        if not isinstance(value, _DICT):
            raise self.wanted(value)
        depth = below(depth)
        key, member = self._key.write, self._member.write
        pairs = [(key(name, depth), member(inner, depth)) for name, inner in value.items()]
        names = {name for name, _ in pairs if type_of(name) is str and name != "$"}
        return dict(pairs) if len(names) == len(pairs) else {"$": "dict", "v": pairs}

    def read(self, plain: Any) -> Any:
        tag, pairs = tag_of(plain), plain
        if tag in self.names:
            pairs = plain["v"]
            if type_of(pairs) is dict:
                return self.read(pairs)
        elif tag is None and type_of(plain) is dict:
            pairs = plain.items()
        else:
            raise self.wanted(plain)
        key, member = self._key.read, self._member.read
        return {key(name): member(inner) for name, inner in pairs}


class Anything(Form):
    """What has no annotation: JSON's own types, and a closed list of others, each with its tag."""

    free = frozenset({int, str, bool, NoneType})

    def __init__(self, advice: str) -> None:
        super().__init__("Any", (), {NoneType, bool, int, float, str, list, dict})
        self._own: dict[type[Any], Form] = {
            float: Atoms("float", {float}),
            list: Items("list", (list,), self),
            dict: Table("dict", self, self),
        }
        many: tuple[type[Any], ...] = (tuple, set, frozenset)
        self._forms = {cls: Items(cls.__name__, (cls,), self) for cls in many} | TEXTS | self._own
        self._advice = advice
        self._named = {form.tag: form for form in self._forms.values()}

    def write(self, value: Any, depth: int) -> Any:
        kind = type_of(value)
        if kind in self.free:
            return value
        form = self._forms.get(kind)
        if form is None:
            raise Unkept(kind, self._advice)
        plain = form.write(value, depth)
        return plain if kind in self._own else {"$": form.tag, "v": plain}

    def read(self, plain: Any) -> Any:
        kind = type_of(plain)
        if kind in self.free:
            return plain
        if kind is not dict or "$" not in plain:
            return self._own[kind].read(plain)
        form = self._named.get(plain["$"])
        if form is None:
            raise Misfit(f"{plain['$']} is no name of an untyped value")
        return form.read(plain)


ANYTHING: Final = Anything(
    "Annotate the parameter with that type if it is a dataclass, a msgspec.Struct, an enum or a"
    " pydantic model; else pass what identifies the value, as its id, and look it up in the job"
)
UNKNOWN: Final = Anything(
    "The parameter is annotated, but with a name that is not to be found where the function is"
    " defined: define or import it in the module, and not only for type checkers"
)
