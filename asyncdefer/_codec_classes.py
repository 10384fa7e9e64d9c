"""The forms of classes: records with named fields, enums, unions, and what pydantic knows."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from enum import Flag
from functools import cached_property
from typing import Any

import msgspec

from asyncdefer._codec_values import (
    ANYTHING,
    Anything,
    Form,
    Misfit,
    NoneType,
    Unkept,
    below,
    tag_of,
    type_of,
)

Make = Callable[[dict[str, Any]], Any]
Members = Callable[[], Mapping[str, Form]]


class Record(Form):
    """A class of named fields. They are asked for late, since they may lead back to it."""

    def __init__(self, tag: str, cls: type[Any], members: Members, make: Make) -> None:
        super().__init__(tag, {cls}, {dict})
        self._cls = cls
        self._ask = members
        self._make = make

    @cached_property
    def _members(self) -> Mapping[str, Form]:
        return self._ask()

    def write(self, value: Any, depth: int) -> Any:
        if type(value) is not self._cls:
            raise self.wanted(value)
        depth = below(depth)
        plain: dict[str, Any] = {}
        for name, form in self._members.items():
            member = getattr(value, name, msgspec.UNSET)
            if member is not msgspec.UNSET:
                plain[name] = form.write(member, depth)
        return plain

    def read(self, plain: Any) -> Any:
        fields: dict[str, Any] = self.body(plain, dict)
        return self._make({name: self._known(name).read(it) for name, it in fields.items()})

    def _known(self, name: str) -> Form:
        form = self._members.get(name)
        if form is None:
            raise Misfit(f"{self.tag} has no {name!r}")
        return form


class Keys(Record):
    """A `TypedDict`: a dict with the keys that it names."""

    def __init__(self, tag: str, members: Members, needed: Callable[[], Iterable[str]]) -> None:
        super().__init__(tag, dict, members, self._complete)
        self._ask_needed = needed

    @cached_property
    def _needed(self) -> Iterable[str]:
        return self._ask_needed()

    def write(self, value: Any, depth: int) -> Any:
        if type_of(value) is not dict:
            raise self.wanted(value)
        depth = below(depth)
        table: dict[str, Any] = self._complete(value)
        plain = {name: self._known(name).write(it, depth) for name, it in table.items()}
        return {"$": self.tag, "v": plain} if "$" in plain else plain

    def _complete(self, table: Any) -> Any:
        for name in self._needed:
            if name not in table:
                raise Misfit(f"{self.tag} needs {name!r}")
        return table


def maker(cls: Any, names: Iterable[str], put: Callable[[Any, str, Any], None]) -> Make:
    """Makes an instance by the constructor, which takes `names`; `put` sets a field of it.

    All fields are set again to what they were: a `__post_init__` changes nothing a second time.
    """
    taken = frozenset(names)

    def make(values: dict[str, Any]) -> Any:
        made = cls(**{name: value for name, value in values.items() if name in taken})
        for name, value in values.items():
            put(made, name, value)
        return made

    return make


class Member(Form):
    """An enum: by value if all its values are int or all are str, else by name."""

    def __init__(self, tag: str, cls: Any) -> None:
        values = {type_of(member.value) for member in cls.__members__.values()}
        self._by_value = issubclass(cls, Flag) or values in ({int}, {str})
        self._kind = int if self._by_value and str not in values else str
        super().__init__(tag, {cls}, {self._kind})
        self._cls = cls

    def write(self, value: Any, depth: int) -> Any:
        if type(value) is not self._cls:
            raise self.wanted(value)
        return value.value if self._by_value else value.name

    def read(self, plain: Any) -> Any:
        plain = self.body(plain, self._kind)
        return self._cls(plain) if self._by_value else self._cls[plain]


class Choice(Form):
    """A `Literal`: pairs of a value and its JSON."""

    def __init__(self, tag: str, choices: list[tuple[Any, Any]]) -> None:
        types, kinds = ({type_of(pair[at]) for pair in choices} for at in (0, 1))
        super().__init__(tag, types, kinds)
        self._choices = choices

    def write(self, value: Any, depth: int) -> Any:
        return self._other(value, 0, 1)

    def read(self, plain: Any) -> Any:
        if tag_of(plain) == self.tag:
            plain = plain["v"]
        return self._other(plain, 1, 0)

    def _other(self, value: Any, mine: int, yours: int) -> Any:
        for pair in self._choices:
            if type(pair[mine]) is type(value) and pair[mine] == value:
                return pair[yours]
        raise Misfit(f"{self.tag} is wanted, and this is none of it")


class OneOf(Form):
    """A union: the form of the value's own type, else the first that takes it.

    Members whose JSON looks like that of another are tagged. What came without a tag was written
    before there was that other, and is read by the first that can.
    """

    def __init__(self, tag: str, members: list[Form]) -> None:
        types = {cls for form in members for cls in form.types}
        super().__init__(tag, types, {kind for form in members for kind in form.kinds})
        self.members = members
        tags = [form.tag for form in members]
        self._tags: dict[Form, str] = {}
        for form in members:
            if any(form is not other and form.kinds & other.kinds for other in members):
                twin = tags.count(form.tag) > 1 and len(form.types) == 1
                module = f"{next(iter(form.types)).__module__}." if twin else ""
                self._tags[form] = module + form.tag
        self._tagged = {label: form for form, label in self._tags.items()}

    def write(self, value: Any, depth: int) -> Any:
        kind = type_of(value)
        own = [form for form in self.members if kind in form.types]
        failed: list[Misfit] = []
        for form in [*own, *(form for form in self.members if form not in own)]:
            try:
                plain = form.write(value, depth)
            except Misfit as error:
                failed.append(error)
            else:
                return {"$": self._tags[form], "v": plain} if form in self._tags else plain
        if len(own) == 1:
            raise failed[0]  # which says most
        raise next((error for error in failed if isinstance(error, Unkept)), self.wanted(value))

    def read(self, plain: Any) -> Any:
        inner = self._tagged.get(tag_of(plain))
        tagged = [] if inner is None else [(inner, plain["v"])]
        for form, it in [*tagged, *((form, plain) for form in self.members)]:
            try:
                return form.read(it)
            except Exception:  # noqa: BLE001, S112 - whatever a class says of what is not for it
                continue
        raise self.wanted(plain)


class Late(Form):
    """Stands for an alias inside of itself."""

    def __init__(self, tag: str) -> None:
        super().__init__(tag, (), ANYTHING.kinds)
        self.form: Form = ANYTHING

    def write(self, value: Any, depth: int) -> Any:
        return self.form.write(value, depth)

    def read(self, plain: Any) -> Any:
        return self.form.read(plain)


class Checked(Form):
    """A form with the bounds of `msgspec.Meta`, as an annotation that msgspec understands."""

    def __init__(self, tag: str, form: Form, bounds: Any) -> None:
        super().__init__(tag, form.types, form.kinds)
        self._form = form
        self._bounds = bounds

    def write(self, value: Any, depth: int) -> Any:
        plain = self._form.write(value, depth)
        self._check(value)
        return plain

    def read(self, plain: Any) -> Any:
        value = self._form.read(plain)
        self._check(value)
        return value

    def _check(self, value: Any) -> None:
        try:
            msgspec.convert(value, self._bounds)
        except msgspec.ValidationError as error:
            raise Misfit(f"{self.tag} is wanted, and msgspec says: {error}") from None


def _without_values(error: Any) -> str:
    """What pydantic says, in one line."""
    if not hasattr(error, "errors"):
        return str(error)
    found = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in found)


class Foreign(Form):
    """A class that tells pydantic what it is: it must come back equal and of the same type."""

    def __init__(self, tag: str, cls: Any, adapter: Any) -> None:
        super().__init__(tag, {cls}, {bool, int, float, str, list, dict})
        self._adapter = adapter
        # By the names of the fields, which go both ways; by alias before pydantic 2.11.
        by_name = "by_name" in inspect.signature(adapter.validate_json).parameters
        self._by: dict[str, bool] = {"by_alias": False, "by_name": True} if by_name else {}

    def write(self, value: Any, depth: int) -> Any:
        below(depth)
        try:
            plain = self._adapter.dump_python(
                value, mode="json", by_alias=not self._by, round_trip=True, warnings=False
            )
            back = self._validated(plain)
        except Exception as error:  # validators are the user's own
            raise Misfit(
                f"{self.tag} is wanted, and pydantic says: {_without_values(error)}"
            ) from error
        if type(back) is not type(value) or back != value:
            what = type(value).__qualname__
            raise Misfit(f"{self.tag} is wanted, and this {what} does not come back equal")
        return {"$": self.tag, "v": plain} if tag_of(plain) is not None else plain

    def read(self, plain: Any) -> Any:
        if tag_of(plain) == self.tag:
            plain = plain["v"]
        return self._validated(plain)

    def _validated(self, plain: Any) -> Any:
        return self._adapter.validate_json(msgspec.json.encode(plain), **self._by)


class Other(Form):
    """Any other class: its values go as untyped ones do, if they can."""

    def __init__(self, tag: str, cls: Any) -> None:
        super().__init__(tag, {cls}, ANYTHING.kinds - {NoneType})
        self._cls = cls
        self._untyped = Anything(
            "Pass what identifies the value, as its id, and look it up in the job"
        )

    def write(self, value: Any, depth: int) -> Any:
        try:
            fits = isinstance(value, self._cls)
        except TypeError:  # a protocol that cannot be asked
            fits = True
        if not fits:
            raise self.wanted(value)
        return self._untyped.write(value, depth)

    def read(self, plain: Any) -> Any:
        return self._untyped.read(plain)
