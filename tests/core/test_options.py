import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from asyncdefer._core.checks import checked_key
from asyncdefer._core.options import (
    CallOptions,
    Defer,
    Options,
    TaskOptions,
    read_options,
)
from asyncdefer._core.rate import RateLimit
from asyncdefer._core.retry import Retry


def by_user(user: int) -> str:
    return str(user)


def test_options_are_read_in_microseconds() -> None:
    """Whatever a user gives in seconds, timedeltas and datetimes is an integer inside."""
    read = read_options(
        {
            "delay": 2.5,
            "defer": True,
            "timeout": timedelta(seconds=1),
            "expires": 3,
            "result_ttl": 0,
            "retry": 3,
            "priority": 2.5,
            "concurrency": 4,
            "rate_limit": RateLimit(5, per=1),
        },
        TaskOptions,
    )
    assert read == Options(
        delay=2_500_000,
        defer=Defer(),
        timeout=1_000_000,
        expires=3_000_000,
        result_ttl=0,
        retry=Retry(3),
        priority=2_500_000,
        concurrency=4,
        rate_limit=RateLimit(5, per=1),
    )
    eta = datetime(1970, 1, 2, tzinfo=UTC)
    assert read_options({"eta": eta, "key": "k"}, CallOptions) == Options(
        eta=86_400_000_000, key="k"
    )


def test_what_is_not_given_is_unset_and_none_is_nothing() -> None:
    """None says that there is none, which is not the same as saying nothing."""
    assert read_options({}, TaskOptions) == Options()
    assert read_options({"delay": None, "expires": None}, TaskOptions) == Options(
        delay=None, expires=None
    )


@pytest.mark.parametrize(
    ("option", "value", "error"),
    [
        ("concurrency", 0, ValueError),
        ("concurrency", 2.0, ValueError),
        ("concurrency", True, ValueError),
        ("rate_limit", 5, TypeError),
        ("retry", 0, ValueError),
        ("priority", -1, ValueError),
    ],
)
def test_bad_options_of_a_task_are_named(option: str, value: Any, error: type[Exception]) -> None:
    """With what would be right."""
    given: Any = {option: value}
    with pytest.raises(error, match=f"{option}|attempts"):
        read_options(given, TaskOptions)


@pytest.mark.parametrize("option", ["eta", "key", "retries"])
def test_an_option_that_is_not_for_here_is_told_with_those_that_are(option: str) -> None:
    """A decorator takes no eta and no key, and nobody takes what does not exist."""
    given: Any = {option: "x"}
    with pytest.raises(TypeError, match=f"no option '{option}' here; the options are .*delay"):
        read_options(given, TaskOptions)


def test_eta_and_delay_together_are_refused() -> None:
    """One of them says when; None is no eta and no delay."""
    eta = datetime(2027, 1, 1, tzinfo=UTC)
    with pytest.raises(TypeError, match="eta or delay, not both"):
        read_options({"eta": eta, "delay": 0}, CallOptions)
    read_options({"eta": eta, "delay": None}, CallOptions)
    read_options({"eta": None, "delay": 1}, CallOptions)


@pytest.mark.parametrize("option", ["delay", "timeout", "expires", "result_ttl"])
@pytest.mark.parametrize(("value", "error"), [(-1, ValueError), (math.nan, ValueError), ("1", TypeError), (True, TypeError)])  # fmt: skip
def test_a_bad_duration_is_told_by_the_name_of_its_option(
    option: str, value: Any, error: type[Exception]
) -> None:
    """The message names what to correct."""
    given: Any = {option: value}
    with pytest.raises(error, match=option):
        read_options(given, TaskOptions)


@pytest.mark.parametrize("option", ["timeout", "expires"])
def test_a_span_in_which_nothing_can_happen_is_refused(option: str) -> None:
    """A timeout or expiry of 0 would let no job through."""
    given: Any = {option: 0}
    with pytest.raises(ValueError, match=f"{option} must be more than 0"):
        read_options(given, TaskOptions)


def test_every_way_to_say_defer() -> None:
    """True, names, a function and a Defer; False and None are none."""
    rule = Defer(["user"], max_wait=3)
    for given, read in [
        (True, Defer()),
        (False, None),
        (None, None),
        (["a", "b"], Defer(params=("a", "b"))),
        ((), Defer(params=())),
        (by_user, Defer(key=by_user)),
        (rule, rule),
    ]:
        options: Any = {"defer": given}
        assert read_options(options, TaskOptions).defer == read


def test_a_defer_without_conditions_is_plain() -> None:
    """Newest call wins, and there is nothing else to remember."""
    assert Defer().plain
    assert Defer(["a"]).plain
    assert not Defer(max_wait=1).plain
    assert not Defer(leading=True).plain
    assert not Defer(keep="first").plain
    assert Defer(max_wait=1.5).bound == 1_500_000
    assert Defer(max_wait=timedelta(seconds=2)).bound == 2_000_000
    assert Defer().bound is None


@pytest.mark.parametrize(
    ("values", "error", "match"),
    [
        ({"params": "user_id"}, TypeError, r'defer=\["user_id"\]'),
        ({"params": ["a"], "key": by_user}, TypeError, "not both"),
        ({"key": "user_id"}, TypeError, "callable"),
        ({"keep": "newest"}, ValueError, "'newest'"),
        ({"max_wait": -1}, ValueError, "max_wait"),
        ({"max_wait": "1"}, TypeError, "max_wait"),
    ],
)
def test_a_defer_that_makes_no_sense_is_refused(
    values: dict[str, Any], error: type[Exception], match: str
) -> None:
    """At the decoration, with the fix."""
    with pytest.raises(error, match=match):
        Defer(**values)


def test_one_name_as_a_text_is_refused() -> None:
    """`defer="user_id"` would be seven parameters."""
    with pytest.raises(TypeError, match=r'defer=\["user_id"\]'):
        read_options({"defer": "user_id"}, TaskOptions)


@pytest.mark.parametrize("key", ["k", "x" * 512, "ü" * 256, "\U0001f600", " "])
def test_a_key_is_taken_as_it_is(key: str) -> None:
    """1 to 512 bytes of UTF-8."""
    assert checked_key(key) is key


@pytest.mark.parametrize(
    ("key", "error", "match"),
    [
        ("", ValueError, "1 to 512 bytes of UTF-8, not 0"),
        ("x" * 513, ValueError, "not 513"),
        ("ü" * 257, ValueError, "not 514"),
        ("a\0b", ValueError, "NUL"),
        ("\ud800", ValueError, "surrogate"),
        (5, TypeError, "a str, not int"),
        (b"k", TypeError, "a str, not bytes"),
    ],
)
def test_a_key_that_no_journal_could_hold_is_refused(
    key: Any, error: type[Exception], match: str
) -> None:
    """At the call, not at the disk."""
    with pytest.raises(error, match=match):
        checked_key(key)


def test_what_to_wait_for_is_a_list() -> None:
    """Any iterable of whatever; what is in it is looked at by those who know handles."""
    options = read_options({"after": [1, 2], "after_failure": "cancel"}, CallOptions)
    assert (options.after, options.after_failure) == ((1, 2), "cancel")
    assert read_options({"after": None}, CallOptions).after is None


@pytest.mark.parametrize("value", [7, object()])
def test_one_that_is_no_list_is_refused(value: Any) -> None:
    """A handle by itself is the likely mistake."""
    with pytest.raises(TypeError, match="after takes a list of handles"):
        read_options({"after": value}, CallOptions)


@pytest.mark.parametrize("value", ["stop", True, 1])
def test_an_unknown_after_failure_is_refused(value: Any) -> None:
    """It says which there are."""
    with pytest.raises(ValueError, match='"run" or "cancel"'):
        read_options({"after_failure": value}, CallOptions)
