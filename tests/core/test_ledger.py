from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from msgspec import structs

from asyncdefer._core.instant import SECOND
from asyncdefer._core.job import Answer, Call
from asyncdefer._core.ledger import KEPT, Ledger
from asyncdefer._core.lifecycle import State

MakeCall = Callable[..., Call]
ENDS = (State.SUCCEEDED, State.FAILED, State.CANCELLED, State.EXPIRED, State.DROPPED)


@pytest.fixture
def ended(make_call: MakeCall) -> MakeCall:
    """`ended(until)`: a job that has ended and can be looked up before a time."""

    def make(until: int, **values: Any) -> Call:
        return make_call(answer=Answer(State.SUCCEEDED, until=until), **values)

    return make


# -- the ended jobs


def test_an_ended_job_is_kept_until_its_time(ended: MakeCall) -> None:
    """It can be looked up before, and not from then on; then nothing is held of it."""
    ledger = Ledger()
    call = ended(10)
    ledger.keep(call)
    assert ledger.find(call.id, 9) is call
    assert ledger.kept(9) == [call]
    assert ledger.find(call.id, 10) is None
    assert ledger.find(call.id, 9) is None
    assert ledger.kept(0) == []


def test_each_ended_job_has_a_time_of_its_own(ended: MakeCall) -> None:
    """Those that are over are left out, those that are not stay, in the order of their ends."""
    ledger = Ledger()
    calls = [ended(until) for until in (30, 10, 20, 10, 40)]
    for call in calls:
        ledger.keep(call)
    assert ledger.kept(0) == calls
    assert ledger.kept(10) == [calls[0], calls[2], calls[4]]
    assert ledger.kept(35) == [calls[4]]
    assert ledger.kept(40) == []


def test_an_ended_job_of_a_shared_answer_follows_it(ended: MakeCall) -> None:
    """The time that counts is that of the answer which the job gave way to."""
    ledger = Ledger()
    call, newer = ended(10), ended(20)
    call.shared().follow(newer.shared())
    ledger.keep(call)
    assert ledger.find(call.id, 15) is call
    assert ledger.find(call.id, 20) is None


def test_a_job_can_be_forgotten(ended: MakeCall) -> None:
    """Discarded or redriven, it is not found; what is not there is no error."""
    ledger = Ledger()
    call = ended(10)
    ledger.keep(call)
    ledger.forget(call.id)
    ledger.forget(call.id)
    assert ledger.find(call.id, 0) is None
    assert ledger.find(99, 0) is None


def test_a_purge_lets_go_of_those_whose_time_is_over(ended: MakeCall) -> None:
    """Nothing is held of them, as far as they ended before all that are still to be kept."""
    ledger = Ledger()
    ledger.purge(100)
    calls = [ended(until) for until in (10, 20, 90, 30)]
    for call in calls:
        ledger.keep(call)
    ledger.purge(9)
    assert ledger.kept(0) == calls
    ledger.purge(20)
    assert ledger.kept(0) == calls[2:]
    ledger.purge(50)
    assert ledger.kept(0) == calls[2:]
    ledger.purge(90)
    assert ledger.kept(0) == []


def test_no_more_than_ten_thousand_are_kept(ended: MakeCall) -> None:
    """The books have a bound whatever the result_ttl; the job that ended first goes."""
    ledger = Ledger()
    calls = [ended(1 << 62) for _ in range(KEPT + 25)]
    for call in calls:
        ledger.keep(call)
    assert ledger.kept(0) == calls[25:]
    assert ledger.find(calls[24].id, 0) is None
    assert ledger.find(calls[25].id, 0) is calls[25]


# -- counts


def test_a_new_ledger_is_balanced() -> None:
    """Nothing came in, nothing went out, nobody was late."""
    stats = Ledger().stats(0, 0)
    assert stats.balanced
    assert not any(value for value in structs.asdict(stats).values() if isinstance(value, int))
    assert stats.lateness == type(stats.lateness)(0.0, 0.0, 0.0)


def test_conservation() -> None:
    """Accepted + claimed = succeeded + failed + cancelled + replaced + expired + dropped
    + waiting + running + held, at every moment.
    """
    random = Random(3)
    ledger = Ledger()
    waiting = running = 0
    for _ in range(5_000):
        match random.randrange(5):
            case 0 | 1:
                ledger.accepted += 1
                waiting += 1
            case 2 if waiting:
                waiting, running = waiting - 1, running + 1
            case 3 if running:
                ledger.counts[random.choice(ENDS)] += 1
                running -= 1
            case 4 if waiting:
                ledger.replaced += 1
                waiting -= 1
            case _:
                pass
        assert ledger.stats(waiting, running).balanced
    stats = ledger.stats(waiting, running)
    assert (stats.waiting, stats.running, stats.replaced) == (waiting, running, ledger.replaced)
    assert [stats.succeeded, stats.failed, stats.cancelled, stats.expired, stats.dropped] == [
        ledger.counts[state] for state in ENDS
    ]
    assert not ledger.stats(waiting + 1, running).balanced


@pytest.mark.parametrize(
    "field",
    ["accepted", "claimed", "waiting", "running", "held", "succeeded", "failed", "cancelled", "replaced", "expired", "dropped"],
)  # fmt: skip
def test_every_count_is_in_the_balance(field: str) -> None:
    """One job more anywhere, and the law does not hold."""
    stats = Ledger().stats(0, 0)
    assert not structs.replace(stats, **{field: 1}).balanced


# -- lateness


def test_lateness_is_told_in_seconds() -> None:
    """The median, the 99th of a hundred and the worst."""
    ledger = Ledger()
    late = [number * SECOND for number in range(100)]
    Random(1).shuffle(late)
    for span in late:
        ledger.started(span)
    lateness = ledger.stats(0, 0).lateness
    assert (lateness.p50, lateness.p99, lateness.max) == (49.0, 98.0, 99.0)


def test_lateness_is_that_of_the_last_runs() -> None:
    """A bad minute is forgotten after a thousand runs or so, and the samples are bounded."""
    ledger = Ledger()
    ledger.started(500 * SECOND)
    for _ in range(2_000):
        ledger.started(SECOND)
    assert ledger.stats(0, 0).lateness.max == 1.0
