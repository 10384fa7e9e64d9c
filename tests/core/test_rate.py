from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdefer._core.instant import SECOND
from asyncdefer._core.rate import Gcra, RateLimit


def starts(rate: RateLimit, count: int, step: int = 1000) -> list[int]:
    """When so many start that all want to start at 0, each as soon as there is room."""
    gcra, now, at = Gcra(rate), 0, list[int]()
    while len(at) < count:
        if gcra.room(now) > 0:
            gcra.take(now)
            at.append(now)
        else:
            assert gcra.opens() > now
            now = gcra.opens()
    return at


def test_starts_are_spaced_evenly() -> None:
    """Ten at 5 per second: one each 0.2 s."""
    assert starts(RateLimit(5, per=1), 10) == [n * 200_000 for n in range(10)]


def test_a_burst_goes_first() -> None:
    """After a rest so many start at once; then the rate holds."""
    at = starts(RateLimit(2, per=timedelta(seconds=1), burst=3), 6)
    assert at == [0, 0, 0, 500_000, 1_000_000, 1_500_000]


def test_a_rest_gives_back_no_more_than_the_burst() -> None:
    """However long nothing happened."""
    gcra = Gcra(RateLimit(1, per=1, burst=3))
    assert gcra.room(0) == gcra.room(3600 * SECOND) == 3
    for _ in range(3):
        gcra.take(0)
    assert gcra.room(0) == 0
    assert gcra.room(SECOND - 1) == 0
    assert [gcra.room(n * SECOND) for n in (1, 2, 3, 4)] == [1, 2, 3, 3]
    assert not gcra.idle(3 * SECOND - 1)
    assert gcra.idle(3 * SECOND)


@given(
    st.integers(1, 50), st.floats(0.001, 1000), st.none() | st.integers(1, 10), st.integers(1, 200)
)
def test_never_more_than_the_rate(limit: int, per: float, burst: int | None, count: int) -> None:
    """In no window of `per` start more than limit + burst - 1, and little is lost to rounding."""
    at = starts(RateLimit(limit, per=per, burst=burst), count)
    window, most = round(per * SECOND), limit + (burst or 1) - 1
    for first, after in zip(at, at[most:], strict=False):
        assert after - first >= window - 1
    free = burst or 1
    if count > free:
        assert at[-1] <= -(-(count - free) * window // limit) + count


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((0, 1), {}),
        ((1.5, 1), {}),
        ((True, 1), {}),
        ((5, 0), {}),
        ((5, -1), {}),
        ((5, "1"), {}),
        ((5, 1), {"burst": 0}),
        ((5, 1), {"burst": 2.0}),
        ((5, 1), {"key": "user"}),
    ],
)
def test_a_bad_rate_is_refused_where_it_is_written(arguments: Any, options: Any) -> None:
    """With a TypeError or ValueError that names what is wrong."""
    with pytest.raises((TypeError, ValueError), match=r"limit|per|burst|key"):
        RateLimit(*arguments, **options)


@pytest.mark.parametrize("bad", [{"key": 5}, {"key": "user"}, {"drop": "no"}, {"drop": 1}])
def test_what_a_rate_does_not_take(bad: dict[str, Any]) -> None:
    """It is an error where it is written."""
    with pytest.raises(TypeError):
        RateLimit(1, per=1, **bad)


def test_a_rate_goes_on_where_another_was() -> None:
    """What there is to remember of it is one time, rounded up to a microsecond."""
    first = Gcra(RateLimit(3, per=1))
    first.take(10)
    again = Gcra(RateLimit(3, per=1))
    again.restore(first.arrival())
    opens = first.opens()
    assert opens is not None
    assert again.room(10) == 0
    assert again.opens() in (opens, opens + 1)
    assert Gcra(RateLimit(3, per=1)).arrival() == 0
