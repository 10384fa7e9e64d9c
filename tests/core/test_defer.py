import dataclasses
import datetime as dt
import enum
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from typing import Any, Literal, NamedTuple
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdefer._core.defer import folded, key_maker, key_text, opened, past_bounds
from asyncdefer._core.job import Call, More
from asyncdefer._core.options import Defer

MakeCall = Callable[..., Call]


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Permission(enum.IntFlag):
    READ = 1
    WRITE = 2


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int


class Pair(msgspec.Struct, frozen=True):
    x: int
    y: int


class Model:
    """As pydantic's models are."""

    def __init__(self, **values: Any) -> None:
        self.values = values

    def model_dump(self) -> dict[str, Any]:
        return self.values


class Spot(NamedTuple):
    x: int
    y: int


class Name(str):  # noqa: SLOT000 - a plain subclass is what people write
    pass


# -- the text of a key


def same(value: Any) -> Any:
    """What makes two values one: their types and their content, all the way down."""
    if isinstance(value, list | tuple):
        return ("list", tuple(same(member) for member in value))  # JSON knows one kind of list
    if isinstance(value, dict):
        pairs = frozenset((same(name), same(member)) for name, member in value.items())
        return (type(value), pairs)
    if isinstance(value, set | frozenset):
        return (type(value), frozenset(same(member) for member in value))
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        return (type(value), value.astimezone(dt.UTC))
    if isinstance(value, bytearray):
        return (bytearray, bytes(value))
    if isinstance(value, float):
        return (float, repr(value))
    if isinstance(value, Decimal):
        return (Decimal, str(value))
    return (type(value), value)


UTC_2 = dt.timezone(dt.timedelta(hours=2))
ATOMS = st.sampled_from(
    [
        None, True, False, 0, 1, -1, 1.0, 0.0, -0.0, 1e16, 10**16, 2**63, -(2**63) - 1, 2**64,
        float(2**64), float("inf"), "", "1", "1.0", "true", "null", "[]", '"', "$", "a", b"", b"a",
        bytearray(b"a"), Decimal(1), Decimal("1.0"), UUID(int=1), Colour.RED, Colour.BLUE,
        Level.LOW, Permission.READ, Permission.READ | Permission.WRITE, Point(1, 2), Point(2, 1),
        Pair(1, 2), dt.date(2027, 1, 1), dt.datetime(2027, 1, 1), dt.time(1, 2),  # noqa: DTZ001
        dt.datetime(2027, 1, 1, 2, tzinfo=UTC_2), dt.datetime(2027, 1, 1, tzinfo=dt.UTC),
        dt.timedelta(1), dt.timedelta(microseconds=1), "2027-01-01", Name("a"), "RED",
    ]
)  # fmt: skip
FREE = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=3)
    | st.decimals(allow_nan=False, places=2)
    | st.uuids()
    | st.dates()
    | st.times()
    | st.timedeltas()
    | st.datetimes(
        min_value=dt.datetime(1000, 1, 1),  # noqa: DTZ001
        max_value=dt.datetime(9000, 1, 1),  # noqa: DTZ001
        timezones=st.sampled_from([None, dt.UTC, UTC_2]),
    )
)
HASHABLE = st.recursive(
    ATOMS.filter(lambda value: type(value) is not bytearray),
    lambda inner: st.tuples(inner) | st.frozensets(inner, max_size=2),
    max_leaves=3,
)
VALUES = st.recursive(
    ATOMS | FREE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(st.sampled_from(["a", "b", "$", "v"]), inner, max_size=2)
        | st.dictionaries(HASHABLE, inner, max_size=2)
        | st.sets(HASHABLE, max_size=3)
        | st.frozensets(HASHABLE, max_size=3)
    ),
    max_leaves=6,
)


@given(st.lists(VALUES, max_size=3), st.lists(VALUES, max_size=3))
def test_distinct_values_make_distinct_keys_and_equal_ones_one(a: list[Any], b: list[Any]) -> None:
    """Keys are equal exactly when the values are equal and of the same types."""
    equal = [same(value) for value in a] == [same(value) for value in b]
    assert (key_text(tuple(a)) == key_text(tuple(b))) == equal


@given(st.lists(ATOMS, min_size=2, max_size=12), st.sampled_from(["alone", "list", "dict", "set"]))
def test_values_that_look_alike_are_told_apart(values: list[Any], within: str) -> None:
    """As many keys as values, wherever in an argument they stand."""
    if within == "set":
        values = [value for value in values if type(value) is not bytearray]
    wrap: dict[str, Callable[[Any], Any]] = {
        "alone": lambda value: value,
        "list": lambda value: [0, value],
        "dict": lambda value: {"x": value},
        "set": lambda value: {value},
    }
    keys = {key_text((wrap[within](value),)) for value in values}
    assert len(keys) == len({same(value) for value in values})


@given(VALUES)
def test_a_key_is_a_text_of_a_bounded_size(value: Any) -> None:
    """1 to 512 bytes of UTF-8, the same each time."""
    key = key_text((value,))
    assert 1 <= len(key.encode()) <= 512
    assert key_text((value,)) == key


def test_the_text_is_compact_json() -> None:
    """What a person sees in a table can be read."""
    assert key_text(()) == "[]"
    assert key_text((1, "ü", None, True)) == '[1,"ü",null,true]'
    assert key_text((1.0, [2], {"b": 1, "a": 2})) == '[1.0,[2],{"a":2,"b":1}]'
    assert key_text((Decimal("1.50"),)) == '[{"$":"decimal.Decimal","v":"1.50"}]'
    assert key_text((b"a",)) == '[{"$":"bytes","v":"YQ=="}]'


def test_order_counts_in_a_list_and_nowhere_else() -> None:
    """Dicts and sets have no order."""
    assert key_text(([1, 2],)) != key_text(([2, 1],))
    assert key_text(({1, 2, 300},)) == key_text(({300, 2, 1},))
    assert key_text(({"a": 1, "b": 2},)) == key_text(({"b": 2, "a": 1},))
    assert key_text(({1: 1, 2: 2},)) == key_text(({2: 2, 1: 1},))
    assert key_text((OrderedDict(a=1, b=2),)) == key_text((OrderedDict(b=2, a=1),))


@pytest.mark.parametrize(
    "members",
    [
        [{"a": 1}, {"$": "dict", "v": 1}, {"$": "dict"}, {1: 1}, OrderedDict(a=1), [["a", 1]]],
        [Spot(1, 2), Spot(2, 1), [1, 2], {"x": 1, "y": 2}],
        [Point(1, 2), Point(2, 1), Pair(1, 2), {"x": 1, "y": 2}, Model(x=1, y=2), Model(x=1)],
        [memoryview(b"a"), b"a", bytearray(b"a"), "YQ==", "a", Name("a")],
        [{1}, frozenset({1}), [1], {"1"}, {True}, {1.0}, set(), frozenset()],
        [1, Level.LOW, True, 1.0, Decimal(1), "1", Permission.READ, dt.timedelta(microseconds=1)],
        [float("nan"), "nan", float("inf"), float("-inf"), None],
    ],
)
def test_containers_and_records_are_told_apart(members: list[Any]) -> None:
    """A record is not the dict of its fields, nor another record with the same."""
    assert len({key_text((member,)) for member in members}) == len(members)


def test_flags_are_told_apart_by_their_bits() -> None:
    """Distinct flags make distinct keys, also those that have no name."""
    flags = [Permission(0), Permission(8), Permission(16), Permission.READ]
    assert len({key_text((flag,)) for flag in flags}) == len(flags)


@pytest.mark.parametrize("size", [1, 508, 509, 2_000])
def test_long_keys_are_shortened_to_their_hash(size: int) -> None:
    """Over 512 bytes a key is its SHA-256, and is as distinct as before."""
    key, other = key_text(("x" * size,)), key_text(("x" * (size - 1) + "y",))
    assert key != other
    assert key.startswith("sha256:") == (size + 4 > 512)
    assert len(key) == (size + 4 if size + 4 <= 512 else 7 + 64)


@pytest.mark.parametrize("number", [2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 10**400])
def test_integers_of_any_size_are_themselves(number: int) -> None:
    """JSON has no bound for integers, so a key has none."""
    assert key_text((number,)) == f"[{number}]"
    assert key_text(([number],)) == f"[[{number}]]"


@pytest.mark.parametrize("make", [lambda v: [v], lambda v: {"a": v}, lambda v: {1: v}, lambda v: frozenset([v])])  # fmt: skip
def test_deep_values_have_a_key_or_are_a_type_error(make: Callable[[Any], Any]) -> None:
    """However deep: a text, or the TypeError that names the argument, and nothing else."""
    value: Any = frozenset()
    refused = 0
    for depth in range(1_500):
        value = make(value)
        if depth % 13:
            continue
        with suppress(TypeError):
            assert key_text((value,), ("tree",))
            assert not refused
            continue
        refused += 1
        with pytest.raises(TypeError, match="the argument 'tree'"):
            key_text((value,), ("tree",))
    assert refused


def test_a_value_that_contains_itself_is_a_type_error() -> None:
    """A key would have no end."""
    value: list[Any] = []
    value.append(value)
    with pytest.raises(TypeError, match="the argument 'loop'"):
        key_text((1, value), ("x", "loop"))


@pytest.mark.parametrize(
    "value", [object(), len, int, range(3), "\ud800", ["\ud800"], {"a": object()}, {object()}]
)
def test_a_value_without_a_lasting_text_is_a_type_error_with_the_fix(value: Any) -> None:
    """The error names the argument and says what to do."""
    with pytest.raises(TypeError, match=r"the argument 'second' .*defer=\[\"user_id\"\]"):
        key_text((1, value), ("first", "second"))
    with pytest.raises(TypeError, match="what the key function returned"):
        key_text((value,))


@pytest.mark.parametrize(
    "value",
    [
        dt.datetime.max.replace(tzinfo=dt.timezone(dt.timedelta(hours=-12))),
        memoryview(b"abcd")[::2],
        10**5_000,
        {"\ud800": 1},
    ],
    ids=["OverflowError", "BufferError", "ValueError", "UnicodeEncodeError"],
)
def test_a_value_whose_text_fails_is_a_type_error_too(value: Any) -> None:
    """Whatever stands in the way of a text, the error names the argument."""
    with pytest.raises(TypeError, match="the argument 'it'"):
        key_text((value,), ("it",))


# -- the maker of keys


def job(user: int, document: int = 7, *more: int, update: str = "", **rest: int) -> None: ...


def test_the_key_comes_from_the_bound_signature() -> None:
    """Positional or keyword, defaults applied."""
    make = key_maker(job, Defer(["user", "document"]), "job")
    assert make(1, 7) == make(1) == make(user=1) == make(document=7, user=1, update="x") == "[1,7]"
    assert make(1, 8) != make(1, 7)


def test_all_parameters_make_the_key_of_true() -> None:
    """`defer=True`: one changed argument is another key."""
    make = key_maker(job, Defer(), "job")
    assert make(1, 7, update="a") == make(1, update="a") == '[1,7,[],"a",{}]'
    keys = {make(1), make(2), make(1, 8), make(1, 7, 9), make(1, update="b"), make(1, other=1)}
    assert len(keys) == 6
    assert make(1, a=1, b=2) == make(1, b=2, a=1)


def test_no_parameters_make_one_key() -> None:
    """`defer=[]`: all calls are one."""
    make = key_maker(job, Defer([]), "job")
    assert make(1) == make(2, 3) == "[]"


def test_arguments_that_do_not_fit_are_python_s_own_error() -> None:
    """The key of a wrong call is the TypeError that the call would be."""
    make = key_maker(job, Defer(["user"]), "send")
    with pytest.raises(TypeError, match=r"send\(\) missing 1 required positional argument: 'user'"):
        make()


def test_a_key_function_gets_the_arguments_and_its_answer_counts() -> None:
    """A text is the key as given; anything else is made one."""
    rule = Defer(key=lambda user, **rest: user)
    make = key_maker(job, rule, "job")
    assert make("alice", update="x") == "alice"
    assert make(5) == "[5]"
    assert make((1, "a")) == '[[1,"a"]]'
    with pytest.raises(ValueError, match="1 to 512 bytes"):
        make("")
    with pytest.raises(TypeError, match="what the key function returned"):
        make(object())


def test_an_unknown_name_is_an_error_with_the_names_there_are() -> None:
    """At decoration, not at the call."""
    with pytest.raises(ValueError, match=r"'usr', but the parameters of job are: user, document"):
        key_maker(job, Defer(["user", "usr"]), "job")
    with pytest.raises(ValueError, match="are: none"):
        key_maker(lambda: None, Defer(["x"]), "nothing")


def test_a_builtin_that_tells_nothing_can_have_a_key_function_only() -> None:
    """The error says so, and where it was asked for."""
    with pytest.raises(ValueError, match="defer needs a function that returns the key"):
        key_maker(dict, Defer(), "dict")
    with pytest.raises(ValueError, match="RateLimit key names 'b', but the parameters of f are: a"):
        key_maker(lambda a: a, Defer(["b"]), "f", "RateLimit key")
    assert key_maker(dict, Defer(key=lambda **values: "k"), "dict")(a=1) == "k"


def make_with(_make: int, _make_: int = 1) -> None: ...


def test_no_name_of_a_parameter_is_in_the_way() -> None:
    """A function may name its parameters as it likes."""
    assert key_maker(make_with, Defer(["_make"]), "make_with")(5) == "[5]"


def test_one_of_our_names_is_no_problem() -> None:
    """Also the name that the compiled binder uses itself."""
    assert key_maker(lambda _make: None, Defer(), "fn")(5) == "[5]"


# -- an older and a newer call become one


NOW, AHEAD = 1_000, 50_000


def fold(old: Call, new: Call, rule: Defer, fn: Callable[..., Any] = job) -> Call:
    return folded(old, new, rule, fn, NOW, AHEAD)


def test_the_first_call_of_a_plain_rule_stays_as_it_is(make_call: MakeCall) -> None:
    """Nothing is remembered that nobody asked for."""
    call = make_call(5_000, "k")
    assert opened(call, Defer(), NOW, AHEAD) is call


@pytest.mark.parametrize("steady", [True, False])
@pytest.mark.parametrize(("wait", "expected"), [(4_000, 4_000), (9_000, 7_000)])
def test_max_wait_bounds_the_burst_from_its_first_call(
    wait: int, expected: int, steady: bool, make_call: MakeCall
) -> None:
    """No call of a burst is later than `max_wait` after the first, whatever its clock."""
    rule = Defer(max_wait=0.007)
    shift = 0 if steady else AHEAD
    first = opened(make_call(NOW + wait + shift, "k", steady=steady), rule, NOW, AHEAD)
    assert first.more.bound == NOW + 7_000
    assert first.eta - (0 if first.steady else AHEAD) == NOW + expected
    assert first.steady or wait < 7_000
    newer = make_call(NOW + 20_000 + shift, "k", steady=steady)
    second = folded(first, newer, rule, job, NOW + 3_000, AHEAD)
    assert (second.eta, second.steady) == (NOW + 7_000, True)
    assert second.more.bound == NOW + 7_000
    early = folded(second, make_call(NOW + 5_000, "k"), rule, job, NOW + 4_000, AHEAD)
    assert early.eta == NOW + 5_000
    assert early.more.bound == NOW + 7_000


def test_a_burst_ends_with_its_run(make_call: MakeCall) -> None:
    """A call that folds into one without a bound begins a burst of its own."""
    snoozed = make_call(9_000, "k")
    call = fold(snoozed, make_call(99_000, "k"), Defer(max_wait=0.007))
    assert (call.eta, call.more.bound) == (NOW + 7_000, NOW + 7_000)


@pytest.mark.parametrize("steady", [True, False])
def test_a_leading_call_is_due_at_once_and_remembers_its_window(
    steady: bool, make_call: MakeCall
) -> None:
    """The window ends at the eta that the call would have had."""
    eta = NOW + 5_000 + (0 if steady else AHEAD)
    call = opened(make_call(eta, "k", steady=steady), Defer(leading=True), NOW, AHEAD)
    assert (call.eta, call.steady, call.more.window) == (NOW, True, NOW + 5_000)


def test_a_leading_call_that_is_due_has_no_window(make_call: MakeCall) -> None:
    """Without a delay there is nothing to keep open."""
    call = opened(make_call(NOW, "k"), Defer(leading=True), NOW, AHEAD)
    assert call.more.window is None
    assert call.eta == NOW


def test_a_call_folds_into_a_leading_one_that_waits_for_its_slot(make_call: MakeCall) -> None:
    """It takes over the window and the eta: the leading run is still to come."""
    rule = Defer(leading=True)
    first = opened(make_call(NOW + 5_000, "k"), rule, NOW, AHEAD)
    second = fold(first, make_call(NOW + 6_000, "k", args=(2,)), rule)
    assert (second.eta, second.steady, second.more.window) == (NOW, True, NOW + 5_000)
    assert second.args == (2,)


@pytest.mark.parametrize("keep", ["last", "first", lambda old, new: old])
def test_an_empty_call_has_nothing_to_keep(keep: Any, make_call: MakeCall) -> None:
    """The call that replaces the empty one of a window keeps its own arguments and its eta."""
    rule = Defer(leading=True, keep=keep, max_wait=0.004)
    empty = make_call(NOW + 2_000, "k", calls=0)
    call = fold(empty, make_call(NOW + 9_000, "k", args=(5,)), rule)
    assert call.args == (5,)
    assert call.eta == NOW + 4_000
    plain = fold(empty, make_call(NOW + 9_000, "k"), Defer(leading=True))
    assert plain.eta == NOW + 9_000
    assert plain.more.bound is None


@pytest.mark.parametrize(("keep", "args"), [("last", (2,)), ("first", (1,))])
def test_keep_is_about_arguments_only(
    keep: Literal["last", "first"], args: tuple[int], make_call: MakeCall
) -> None:
    """The newest call's eta, id and options count, whosever arguments are kept."""
    old = make_call(5_000, "k", args=(1,), kwargs={"update": "old"})
    new = make_call(8_000, "k", args=(2,), kwargs={"update": "new"}, more=More(attempt=3))
    call = fold(old, new, Defer(keep=keep))
    assert call.args == args
    assert call.kwargs == (old if keep == "first" else new).kwargs
    assert (call.id, call.eta, call.more) == (new.id, 8_000, new.more)


def test_merge_gets_and_returns_bound_arguments(make_call: MakeCall) -> None:
    """Both calls as dicts with defaults applied; what comes back is what the run gets."""
    seen: list[dict[str, Any]] = []

    def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
        seen.extend([dict(old), dict(new)])
        return {**new, "update": old["update"] + new["update"]}

    old = make_call(5_000, "k", args=(1,), kwargs={"update": "a"})
    new = make_call(8_000, "k", args=(1, 8), kwargs={"update": "b"})
    call = fold(old, new, Defer(keep=merge))
    common = {"user": 1, "more": (), "rest": {}}
    assert seen == [{**common, "document": 7, "update": "a"}, {**common, "document": 8, "update": "b"}]  # fmt: skip
    make = key_maker(job, Defer(), "job")
    assert make(*call.args, **call.kwargs) == make(1, 8, update="ab")
    assert call.eta == 8_000


@pytest.mark.parametrize(
    "merged", [{"user": 1, "document": 2, "nothing": 3}, {"document": 2}, {}], ids=str
)
def test_a_merge_that_makes_no_call_is_an_error(
    merged: dict[str, Any], make_call: MakeCall
) -> None:
    """What does not fit the function is a TypeError at the call, and nothing was changed."""

    def fn(user: int, document: int = 0) -> None: ...

    old, new = make_call(5, "k", args=(1,)), make_call(8, "k", args=(2,))
    with pytest.raises(TypeError):
        fold(old, new, Defer(keep=lambda old, new: merged), fn)
    assert (old.args, new.args) == ((1,), (2,))


@pytest.mark.parametrize("merged", [None, [1], (1, 2)])
def test_a_merge_that_returns_no_dict_is_an_error(merged: Any, make_call: MakeCall) -> None:
    """The error says what it should return."""
    with pytest.raises(TypeError, match="must return the arguments as a dict"):
        fold(
            make_call(5, "k", args=(1,)),
            make_call(8, "k", args=(1,)),
            Defer(keep=lambda *_: merged),
        )


def test_a_function_that_tells_nothing_cannot_be_merged(make_call: MakeCall) -> None:
    """The error says why."""
    rule = Defer(key=lambda: "k", keep=lambda old, new: new)
    with pytest.raises(TypeError, match="does not tell its parameters"):
        fold(make_call(5, "k"), make_call(8, "k"), rule, dict)


def test_a_wall_clock_set_back_takes_calls_past_their_bound(make_call: MakeCall) -> None:
    """Of those that it takes there, and of no others, the eta becomes the bound."""
    more = More(bound=NOW + 10)
    taken = make_call(NOW + 8, "a", steady=False, more=more)
    others = [
        make_call(NOW + 8, "b", steady=False),  # no bound
        make_call(NOW + 8, "c", more=more),  # its delay does not follow the clock
        make_call(NOW + 7, "d", steady=False, more=more),  # still in time
        make_call(NOW + 11, "e", steady=False, more=more),  # rescheduled past it on purpose
    ]
    (moved,) = past_bounds([taken, *others], 0, -3)
    assert (moved.id, moved.eta, moved.steady) == (taken.id, NOW + 10, True)
    assert moved.answer is taken.answer is not None


def test_a_key_of_many_integers_is_shortened_like_others() -> None:
    """The short cut for integers ends where a key could be longer than 512 bytes."""
    names = [f"p{n}" for n in range(25)]
    scope: dict[str, Any] = {}
    exec(f"def fn({', '.join(names)}): ...", scope)  # noqa: S102 - its names are ours
    key = key_maker(scope["fn"], Defer(), "fn")(*[-(2**63)] * 25)
    assert key.startswith("sha256:")
    assert key_maker(scope["fn"], Defer(params=names[:2]), "fn")(*range(25)) == "[0,1]"
