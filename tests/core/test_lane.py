from collections.abc import Callable

from asyncdefer._core.job import Call, More
from asyncdefer._core.lane import BUSY, Lane, Lanes, RateLane, Slots
from asyncdefer._core.rate import RateLimit

MakeCall = Callable[..., Call]


def test_a_lane_is_open_and_empty_at_first() -> None:
    """A lane may be left unless it was made shut."""
    assert not Lane("ready").shut
    assert Lane("busy", shut=True).shut
    assert len(Lane("ready").lines) == 0


def test_a_lane_shows_its_name_its_door_and_its_length() -> None:
    """The repr is good enough to assert on."""
    lane = Lane("paused mail", shut=True)
    lane.lines.push((1, 1, 1))
    assert repr(lane) == "<Lane paused mail shut 1 lines>"
    lane.shut = False
    assert repr(lane) == "<Lane paused mail open 1 lines>"


def test_who_stands_leaves_by_order_then_by_id() -> None:
    """Among those who stand the earliest claim goes first, then the oldest call."""
    lane = Lane("ready")
    for line in ((5, 2, "b"), (4, 9, "c"), (5, 1, "a")):
        lane.lines.push(line)
    assert [lane.lines.pop() for _ in range(3)] == [(4, 9, "c"), (5, 1, "a"), (5, 2, "b")]


def test_a_lane_that_is_drained_in_turns_keeps_its_count(make_call: MakeCall) -> None:
    """A lane that opened is emptied at most so many lines at a time, and its books stay right."""
    lanes = Lanes({number: make_call(number) for number in (1, 2, 3)})
    lanes.pause("task")
    for number in (1, 2, 3):
        lanes.standing[number] = number
        lanes.enter((number, number, number), lanes.paused["task"])
    lanes.leave(1)
    lanes.resume("task")
    lanes.drain(0, 1)
    lanes._check()
    lanes.leave(2)
    lanes._check()
    lanes.drain(0, 1)
    lanes._check()
    lanes.drain(0, 10)
    lanes._check()
    assert lanes.ready.lines.pop() == (3, 3, 3)
    assert not lanes.stirred


def test_when_one_that_was_sent_gives_up_the_next_comes_at_once(make_call: MakeCall) -> None:
    """A lane sends as many as it has room for, and one more for each that cannot start after all."""
    numbers = range(1, 6)
    lanes = Lanes({number: make_call(number) for number in numbers})
    lane = lanes.slots["task"] = Slots("full task", 2)
    for number in numbers:
        lanes.standing[number] = number
        lanes.enter((number, number, number), lane if number < 5 else lanes.ready)
    assert lanes.drain(0, 10) == 7  # two are sent, and a look finds no room for the third
    assert set(lanes.on_way) == {1, 2}
    assert lanes.give_up(5, 0, 10) == 10  # no lane had sent this one, so none is looked at
    assert set(lanes.on_way) == {1, 2}
    assert lanes.give_up(1, 0, 10) == 8
    assert set(lanes.on_way) == {2, 3}
    assert lanes.give_up(2, 0, 0) == 0  # the turn has looked at enough: the next one goes on
    assert set(lanes.on_way) == {3}
    lanes.drain(0, 10)
    assert set(lanes.on_way) == {3, 4}
    lanes._check()


def test_who_stands_where_only_a_resume_helps(make_call: MakeCall) -> None:
    """In the lane of a paused task, or in `ready` while the queue is paused; not behind a run."""
    lanes = Lanes({number: make_call(number) for number in (1, 2, 3)})
    lanes.pause("task")
    for number in (1, 2, 3):
        lanes.standing[number] = number
    lanes.enter((1, 1, 1), lanes.paused["task"])
    lanes.enter((2, 2, 2), BUSY)
    lanes.enter((3, 3, 3), lanes.ready)
    assert [lanes.is_paused(number) for number in (1, 2, 3, 4)] == [True, False, False, False]
    lanes.pause(None)
    assert [lanes.is_paused(number) for number in (1, 2, 3, 4)] == [True, False, True, False]


def test_the_lane_of_a_rate_goes_on_where_another_was() -> None:
    """After a restart it opens when it would have."""
    first = RateLane("rate", RateLimit(1, per=60))
    first.take(0)
    again = RateLane("rate", RateLimit(1, per=60))
    again.restore(first.arrival())
    assert (again.room(0), again.opens()) == (0, first.opens())


def test_jobs_with_a_crash_stand_in_one_lane(make_call: MakeCall) -> None:
    """One of them runs at a time, beside all others."""
    lanes = Lanes({})
    fresh, suspect = make_call(), make_call()
    suspect.more = More(crashes=1)
    assert lanes.gates(fresh) == []
    assert lanes.gates(suspect) == [lanes.suspects]
    lanes.suspects.take(0)
    assert lanes.suspects.room(0) == 0
