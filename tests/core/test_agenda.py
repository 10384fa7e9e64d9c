"""The agenda: its promises one by one, and how many lines it holds.

That it keeps them in every order of events is proved in test_agenda_model.py.
"""

from collections.abc import Callable

import pytest

from asyncdefer._core.agenda import EVERYTHING, Agenda
from asyncdefer._core.job import Call

FAR = 1 << 50
MakeCall = Callable[..., Call]


def started(agenda: Agenda, now: int = FAR, wall: int = FAR) -> list[int]:
    """The ids of those who may start, in their order."""
    agenda.take_due(now, wall, EVERYTHING)
    ids = []
    while (call := agenda.take(now, wall, [])) is not None:
        ids.append(call.id)
    agenda._check()
    return ids


def test_due_calls_start_by_eta_then_in_the_order_of_acceptance(make_call: MakeCall) -> None:
    """Equal etas run in the order of their ids, on both clocks together."""
    agenda = Agenda(10)
    for eta, steady in ((5, True), (3, False), (3, True), (3, False), (9, True)):
        agenda.place(make_call(eta, steady=steady))
    assert started(agenda, 5, 5) == [2, 3, 4, 1]
    assert agenda.next_times() == (9, None)


def test_the_wall_clock_is_compared_with_the_steady_one_of_the_same_moment(
    make_call: MakeCall,
) -> None:
    """Two calls that are due on different clocks start in the order of real time."""
    agenda = Agenda(10)
    agenda.place(make_call(1_000_007, steady=False))
    agenda.place(make_call(5))
    agenda.place(make_call(1_000_003, steady=False))
    assert started(agenda, 10, 1_000_010) == [3, 2, 1]


def test_nobody_starts_before_the_eta(make_call: MakeCall) -> None:
    """A microsecond early is early."""
    agenda = Agenda(1)
    agenda.place(make_call(5))
    assert started(agenda, 4) == []
    assert started(agenda, 5) == [1]


def test_a_wall_clock_that_is_set_back_holds_calls_back(make_call: MakeCall) -> None:
    """An eta follows the wall clock through a step; a delay does not notice it."""
    agenda = Agenda(10)
    agenda.place(make_call(100, steady=False))
    agenda.place(make_call(100))
    assert started(agenda, 100, 50) == [2]
    assert started(agenda, 110, 60) == []
    assert started(agenda, 110, 100) == [1]


def test_the_newest_call_replaces_the_older_one(make_call: MakeCall) -> None:
    """At most one call of a key waits; `place` returns the one that gave way."""
    agenda = Agenda(10)
    first, second, third = make_call(5, "k"), make_call(9, "k"), make_call(3, "k")
    assert agenda.place(first) is None
    assert agenda.place(second) is first
    assert agenda.place(third) is second
    assert len(agenda) == 1
    assert agenda.waiting == {third.key: third}
    assert started(agenda, 3) == [3]


def test_a_call_takes_the_place_in_the_lane_of_the_one_it_replaces(make_call: MakeCall) -> None:
    """Who folds into a call that waits for a slot does not go to the end."""
    agenda = Agenda(10)
    agenda.place(make_call(1, "k"), True, 1)
    agenda.place(make_call(2), True, 2)
    agenda.place(make_call(3, "k"), True, 3)
    assert started(agenda) == [3, 2]


@pytest.mark.parametrize("shut", ["paused", "busy"])
def test_a_place_in_a_lane_is_kept_from_lane_to_lane(shut: str, make_call: MakeCall) -> None:
    """Who took the place of an older call still has it when that lane opens again."""
    agenda = Agenda(10)
    if shut == "busy":
        agenda.place(make_call(0, "a"), True, 0)
        agenda.place(make_call(0, "b"), True, 0)
        assert len(started(agenda, 0)) == 2
    else:
        agenda.lanes.pause("task")
    first, second = make_call(5, "a"), make_call(5, "b")
    agenda.place(first, True, 5)
    agenda.place(second, True, 5)
    assert started(agenda, 5) == []
    newest = make_call(6, "a")
    assert agenda.place(newest, True, 6) is first
    if shut == "busy":
        agenda.release(first.key)
        agenda.release(second.key)
    else:
        agenda.lanes.resume("task")
    assert started(agenda, 6) == [newest.id, second.id]


def test_a_later_call_takes_the_waiting_one_out_of_its_lane(make_call: MakeCall) -> None:
    """A call that waits for a slot is debounced like any other."""
    agenda = Agenda(10)
    first, second = make_call(1, "k"), make_call(50, "k")
    agenda.place(first, True, 1)
    assert agenda.standing(first.key)
    agenda.renew(second, first)
    assert not agenda.standing(first.key)
    assert started(agenda, 49) == []
    assert started(agenda, 50) == [2]


def test_a_busy_key_waits_for_its_run(make_call: MakeCall) -> None:
    """Runs of one key never overlap; others are not held up."""
    agenda = Agenda(10)
    agenda.place(make_call(1, "k"))
    assert started(agenda, 1) == [1]
    agenda.place(make_call(1, "k"), True, 1)
    agenda.place(make_call(2), True, 2)
    assert started(agenda, 2) == [3]
    agenda.release(("task", "k"))
    assert started(agenda, 2) == [2]


def test_no_more_than_the_slots(make_call: MakeCall) -> None:
    """At most `concurrency` run at once, and a slot that is free is filled."""
    agenda = Agenda(2)
    for _ in range(5):
        agenda.place(make_call(1))
    assert started(agenda, 1) == [1, 2]
    assert not agenda.startable()
    agenda.release(1)
    assert agenda.startable()
    assert started(agenda, 1) == [3]


def test_a_paused_task_keeps_its_calls(make_call: MakeCall) -> None:
    """The calls of a paused task stand until it is resumed; those of others run."""
    agenda = Agenda(10)
    agenda.lanes.pause("mail")
    agenda.lanes.pause("mail")
    agenda.place(make_call(1, task="mail", key="a"))
    agenda.place(make_call(2, task="other", key="a"))
    agenda.place(make_call(3, task="mail", key="b"))
    assert started(agenda, 5) == [2]
    agenda.lanes.resume("mail")
    agenda.lanes.resume("mail")
    assert agenda.startable()
    assert started(agenda, 5) == [1, 3]


def test_a_paused_queue_starts_nobody(make_call: MakeCall) -> None:
    """`pause()` without a task shuts everything."""
    agenda = Agenda(10)
    agenda.lanes.pause(None)
    agenda.place(make_call(1))
    assert started(agenda, 5) == []
    assert not agenda.startable()
    agenda.lanes.resume(None)
    assert started(agenda, 5) == [1]


@pytest.mark.parametrize("where", ["timeline", "ready", "paused", "busy"])
def test_expiry_strikes_wherever_a_call_stands(where: str, make_call: MakeCall) -> None:
    """A call that has not started at eta + expires is taken out and returned, once."""
    agenda = Agenda(10)
    if where == "paused":
        agenda.lanes.pause("task")
    if where == "busy":
        agenda.place(make_call(0, "k"), True, 0)
        assert agenda.take(0, 0, []) is not None
    call = make_call(10, "k", expires=5)
    agenda.place(call)
    if where != "timeline":
        assert agenda.take_due(10, 10, EVERYTHING) == []
        assert agenda.standing(call.key)
    if where in ("paused", "busy"):
        assert agenda.take(10, 10, []) is None
        assert agenda.take_due(14, 14, EVERYTHING) == []
    assert agenda.next_times()[0] == (10 if where == "timeline" else 15)
    assert agenda.take_due(15, 15, EVERYTHING) == [call]
    assert agenda.take_due(15, 15, EVERYTHING) == []
    assert not agenda.waiting
    agenda._check()


def test_a_call_that_expired_while_it_stood_does_not_start(make_call: MakeCall) -> None:
    """Time that passes between the turn and the start counts for `expires` too."""
    agenda = Agenda(1)
    call, other = make_call(10, "k", expires=5), make_call(11)
    agenda.place(call)
    agenda.place(other)
    assert agenda.take_due(12, 12, EVERYTHING) == []
    expired: list[Call] = []
    assert agenda.take(15, 15, expired) is other
    assert expired == [call]
    agenda._check()


def test_a_turn_looks_at_no_more_lines_than_it_may(make_call: MakeCall) -> None:
    """A turn is short, whatever has piled up: on the timelines and in a lane that opened."""
    agenda = Agenda(1_000)
    agenda.lanes.pause("task")
    for _ in range(100):
        agenda.place(make_call(1))
    agenda.take_due(1, 1, 30)
    assert agenda.lines() == 70
    agenda.take_due(1, 1, EVERYTHING)
    assert agenda.take(1, 1, []) is None
    agenda.lanes.resume("task")
    agenda.take_due(1, 1, 40)
    assert agenda.startable()
    ids = []
    while (call := agenda.take(1, 1, [])) is not None:
        ids.append(call.id)
    assert ids == list(range(1, 41))
    agenda._check()
    assert started(agenda, 1) == list(range(41, 101))


def test_an_empty_call_holds_a_window_open_and_stands_for_nobody(make_call: MakeCall) -> None:
    """The empty call of a leading window is not counted, can be replaced, and vanishes."""
    agenda = Agenda(10)
    empty = make_call(10, "k", calls=0)
    agenda.place(empty)
    assert len(agenda) == 0
    assert agenda.waiting
    agenda._check()
    real = make_call(10, "k")
    agenda.renew(real, empty)
    assert len(agenda) == 1
    assert started(agenda, 10) == [2]
    agenda.place(make_call(20, "other", calls=0))
    assert started(agenda, 20) == []
    assert not agenda.waiting


def test_remove_takes_a_call_out_of_any_place(make_call: MakeCall) -> None:
    """A call that is cancelled never starts; what is not there is not removed."""
    agenda = Agenda(1)
    agenda.lanes.pause("task")
    waits, stands, paused = make_call(50, "a"), make_call(2, "b", expires=9), make_call(1, "c")
    for call in (waits, stands, paused):
        agenda.place(call)
    agenda.take_due(2, 2, EVERYTHING)
    agenda.take(2, 2, [])
    for call in (waits, stands, paused):
        assert agenda.remove(call.key) is call
        assert agenda.remove(call.key) is None
        agenda._check()
    agenda.lanes.resume("task")
    assert started(agenda) == []
    assert agenda.lines() == 0


def test_next_times_are_not_later_than_any_eta(make_call: MakeCall) -> None:
    """The loop that sleeps until the next time oversleeps nobody; without calls it sleeps on."""
    agenda = Agenda(1)
    assert agenda.next_times() == (None, None)
    assert not agenda.is_due(FAR, FAR)
    agenda.place(make_call(9, "k"))
    agenda.place(make_call(7, steady=False))
    assert agenda.next_times() == (9, 7)
    agenda.place(make_call(4, "k"))
    assert agenda.next_times() == (4, 7)
    assert not agenda.is_due(3, 6)
    assert agenda.is_due(4, 6)
    assert agenda.is_due(3, 7)
    agenda.place(make_call(8, "k", steady=False))
    assert agenda.next_times() == (None, 7)
    agenda.remove(2)
    assert agenda.next_times() == (None, 8)


def test_an_agenda_shows_how_full_it_is(make_call: MakeCall) -> None:
    """The repr tells who waits, runs and stands, and how many lines there are."""
    agenda = Agenda(3)
    for eta in (1, 2, 30):
        agenda.place(make_call(eta, steady=eta != 30))
    agenda.take_due(2, 2, EVERYTHING)
    agenda.take(2, 2, [])
    assert repr(agenda) == "<Agenda waiting=2 running=1/3 standing=1 lines=0+1>"


# -- heap lines stay bounded


@pytest.mark.slow
@pytest.mark.parametrize("how", ["renew", "place"])
def test_a_million_debounces_leave_one_line(how: str, make_call: MakeCall) -> None:
    """State per key is O(1): a million calls of one key leave one line, and one call waits."""
    agenda = Agenda(1)
    old = make_call(0, "k")
    agenda.place(old)
    for eta in range(1, 1_000_000):
        call = make_call(eta, "k")
        if how == "renew":
            agenda.renew(call, old)
        else:
            agenda.place(call)
        old = call
    assert agenda.lines() == 1
    assert len(agenda) == 1
    agenda._check()
    assert started(agenda, 999_998) == []
    assert agenda.lines() == 1
    assert started(agenda, 999_999) == [1_000_000]
    assert agenda.lines() == 0


def test_debounces_of_many_keys_leave_a_line_each(make_call: MakeCall) -> None:
    """Heap lines = keys, also while the timers come near and are pushed on."""
    agenda = Agenda(1)
    for eta in range(20_000):
        agenda.place(make_call(eta + 500, str(eta % 100)))
        if eta % 50 == 0:
            assert started(agenda, eta) == []
        assert agenda.lines() == len(agenda) <= 100
    agenda._check()


@pytest.mark.parametrize("steady", [True, False])
def test_debounces_to_earlier_times_are_swept(steady: bool, make_call: MakeCall) -> None:
    """A call that moves earlier leaves a stale line; the stale ones stay below half."""
    agenda = Agenda(1)
    most = 0
    for eta in range(20_000, 0, -1):
        agenda.place(make_call(eta, "k", steady=steady))
        most = max(most, agenda.lines())
    agenda._check()
    assert most <= 64
    assert started(agenda, 1, 1) == [20_000]


def test_debounces_across_the_clocks_are_swept(make_call: MakeCall) -> None:
    """Neither timeline grows when calls go from one clock to the other."""
    agenda = Agenda(1)
    most = 0
    for eta in range(20_000):
        agenda.place(make_call(eta, "k", steady=eta % 2 == 0))
        most = max(most, agenda.lines())
    agenda._check()
    assert most <= 128


@pytest.mark.parametrize("waiting", [0, 1_000])
@pytest.mark.parametrize("expires", [None, 5])
def test_enqueue_and_cancel_is_swept(
    waiting: int, expires: int | None, make_call: MakeCall
) -> None:
    """Timers that are made and cancelled leave less than twice the lines of those that wait."""
    agenda = Agenda(1)
    for _ in range(waiting):
        agenda.place(make_call(1_000))
    most = 0
    for eta in range(20_000):
        call = make_call(100_000 - eta, expires=expires)
        agenda.place(call)
        assert agenda.remove(call.key) is call
        most = max(most, agenda.lines())
    agenda._check()
    assert most <= 64 + 2 * (waiting + 1)


@pytest.mark.parametrize("expires", [None, 1_000])
@pytest.mark.parametrize("paused", ["swept_queue", "swept_task"])
def test_enqueue_and_cancel_in_a_lane_is_swept(
    paused: str, expires: int | None, make_call: MakeCall
) -> None:
    """Calls that stand in a lane and are cancelled leave less than twice the lines as well."""
    agenda = Agenda(1)
    agenda.lanes.pause(paused if paused == "swept_task" else None)
    lines = agenda.lanes.paused.get(paused, agenda.ready).lines
    stay = [make_call(0, str(at), task=paused) for at in range(100)]
    for call in stay:
        agenda.place(call, True, 0)
    most = held = 0
    for order in range(5_000):
        call = make_call(order, "k", task=paused, expires=expires)
        agenda.place(call, True, order)
        assert agenda.take(order, order, []) is None
        assert agenda.standing(call.key)
        assert agenda.remove(call.key) is call
        most, held = max(most, len(lines)), max(held, agenda.lines())
    agenda._check()
    assert 100 <= most <= 64 + 2 * 101
    assert held <= 64
    agenda.lanes.resume(paused if paused == "swept_task" else None)
    for call in stay:
        assert agenda.remove(call.key) is call
    assert started(agenda) == []
    assert agenda.lines() == 0


def test_nothing_of_a_call_is_left_when_it_has_run(make_call: MakeCall) -> None:
    """An agenda that has served many keys is as empty as a new one."""
    agenda = Agenda(1)
    for at in range(3_000):
        call = make_call(at, str(at), steady=at % 3 > 0, expires=7 if at % 2 else None)
        agenda.place(call)
        if at % 5 == 0:
            agenda.place(make_call(at - 1, str(at), steady=at % 3 > 0))
        assert len(started(agenda, at, at)) == 1
        agenda.release(call.key)
    assert started(agenda) == []
    sizes = {name: len(value) for name, value in vars(agenda).items() if hasattr(value, "__len__")}
    assert sizes
    assert not any(sizes.values()), sizes


def test_a_turn_looks_at_so_many_lines_and_no_more(make_call: MakeCall) -> None:
    """Calls that may not start cost a turn no more than its share; the next turn goes on."""
    agenda = Agenda(10)
    agenda.lanes.pause("shut")
    for number in range(50):
        agenda.place(make_call(task="shut" if number < 49 else "open"), True, number)
    for looks in (20, 20):
        agenda.looks = looks
        assert agenda.take(50, 50, []) is None
        assert agenda.startable()
        agenda._check()
    agenda.looks = 20
    call = agenda.take(50, 50, [])
    assert call is not None
    assert call.task.name == "open"
