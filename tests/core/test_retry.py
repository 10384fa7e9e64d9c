from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asyncdefer._core.instant import SECOND
from asyncdefer._core.retry import Retry, read_retry
from asyncdefer.errors import GiveUp

BROKEN = ValueError("broken")
HOUR = 3600 * SECOND


def waits(retry: Retry, error: BaseException = BROKEN) -> list[float | None]:
    """The waits after the first failure, the second, …, in seconds, to the one that is the last."""
    found: list[float | None] = []
    while None not in found:
        wait = retry.wait(len(found) + 1, error)
        found.append(None if wait is None else wait / SECOND)
    return found


@pytest.mark.parametrize(
    ("retry", "expected"),
    [
        (Retry(1), [None]),
        (Retry(4, jitter=False), [1, 2, 4, None]),
        (Retry(4, delay=3, factor=1, jitter=False), [3, 3, 3, None]),
        (Retry(4, delay=timedelta(minutes=1), factor=0, jitter=False), [60, 0, 0, None]),
        (Retry(5, factor=10, max_delay=50, jitter=False), [1, 10, 50, 50, None]),
        (Retry(3, delay=0.5, jitter=lambda: 0.5), [0.25, 0.5, None]),
        (Retry(3, delay=9, max_delay=timedelta(seconds=4), jitter=False), [4, 4, None]),
        (Retry(4, delay=lambda n, error: n * 10), [10, 20, 30, None]),
        (Retry(2, delay=lambda n, error: timedelta(hours=n)), [3600, None]),
    ],
)
def test_the_waits_grow_to_their_bound(retry: Retry, expected: list[float | None]) -> None:
    """`min(delay * factor ** (n - 1), max_delay)`; a function of (n, error) says it itself."""
    assert waits(retry) == expected


@given(
    st.integers(1, 5000),
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(0, 1e9),
    st.booleans(),
)
def test_no_wait_is_out_of_bounds(
    failures: int, delay: float, factor: float, most: float, jitter: bool
) -> None:
    """However often it failed, the wait is from zero to `max_delay`, with jitter or without."""
    retry = Retry(failures + 1, delay=delay, factor=factor, max_delay=most, jitter=jitter)
    wait = retry.wait(failures, BROKEN)
    assert wait is not None
    assert 0 <= wait <= round(most * SECOND)


def test_jitter_is_full() -> None:
    """Drawn evenly from zero to the bound, so that jobs that failed together come back apart."""
    retry = Retry(5, delay=100)
    drawn = [(retry.wait(1, BROKEN) or 0) / SECOND for _ in range(2000)]
    assert min(drawn) < 5
    assert max(drawn) > 95
    assert 45 < sum(drawn) / len(drawn) < 55


@pytest.mark.parametrize(
    ("on", "unless", "error", "again"),
    [
        (Exception, (), ValueError(), True),
        (Exception, (), SystemExit(), False),
        (BaseException, (), SystemExit(), True),
        (ValueError, (), UnicodeError(), True),
        (ValueError, (), KeyError(), False),
        ((OSError, KeyError), (), KeyError(), True),
        (OSError, TimeoutError, TimeoutError(), False),
        (OSError, (TimeoutError, FileNotFoundError), ConnectionError(), True),
        (BaseException, (), GiveUp("no use"), False),
    ],
)
def test_which_errors_are_tried_again(
    on: Any, unless: Any, error: BaseException, again: bool
) -> None:
    """Those of the kinds `on`, but none of the kinds `unless`, and never a GiveUp."""
    assert (Retry(2, on=on, unless=unless).wait(1, error) is not None) is again


@pytest.mark.parametrize(
    "make",
    [
        lambda: Retry(0),
        lambda: Retry(-1),
        lambda: Retry(True),
        lambda: Retry(2.0),  # type: ignore[arg-type]
        lambda: Retry("3"),  # type: ignore[arg-type]
        lambda: Retry(2, delay=-1),
        lambda: Retry(2, delay="1"),  # type: ignore[arg-type]
        lambda: Retry(2, max_delay=float("nan")),
        lambda: Retry(2, factor=-1),
        lambda: Retry(2, factor=float("inf")),
        lambda: Retry(2, factor="2"),  # type: ignore[arg-type]
        lambda: Retry(2, jitter=0.5),  # type: ignore[arg-type]
        lambda: Retry(2, on=ValueError()),  # type: ignore[arg-type]
        lambda: Retry(2, unless=(int,)),  # type: ignore[arg-type]
        lambda: Retry(2, on="ValueError"),  # type: ignore[arg-type]
        lambda: read_retry("5"),  # type: ignore[arg-type]
    ],
)
def test_a_bad_rule_is_refused_where_it_is_written(make: Callable[[], Retry]) -> None:
    """With a TypeError or ValueError that names what is wrong."""
    with pytest.raises((TypeError, ValueError), match=r"attempts|delay|factor|jitter|on|unless"):
        make()


def test_a_number_is_a_rule() -> None:
    """`retry=5` is `Retry(5)`."""
    assert read_retry(5) == Retry(5)
    assert read_retry(Retry(2)) == Retry(2)


def test_no_delay_is_no_delay_for_ever() -> None:
    """Also where the factor's power is more than a float can be."""
    retry = Retry(5_000, delay=0)
    assert {retry.wait(failures, ValueError()) for failures in (1, 1_024, 1_025, 4_999)} == {0}
