from random import Random

from hypothesis import given
from hypothesis import strategies as st

from asyncdefer._core.timeline import Line, Timeline

LINES = st.tuples(st.integers(0, 20), st.integers(0, 5), st.sampled_from("abc"))


def drain(timeline: Timeline) -> list[Line]:
    lines = []
    while (first := timeline.first()) is not None:
        assert timeline.pop() == first
        lines.append(first)
    assert timeline.pop() is None
    return lines


@given(st.lists(LINES | st.none()))
def test_lines_come_out_in_order(todo: list[Line | None]) -> None:
    """Pushed in any order, mixed with pops, lines come out as a sorted list gives them."""
    timeline = Timeline()
    model: list[Line] = []
    for line in todo:
        if line is not None:
            timeline.push(line)
            model.append(line)
        else:
            model.sort()
            assert timeline.first() == (model[0] if model else None)
            assert timeline.pop() == (model.pop(0) if model else None)
        timeline._check()
        assert len(timeline) == len(model)
        assert sorted(timeline) == sorted(model)
    assert drain(timeline) == sorted(model)


def test_lines_that_come_in_order_and_others_mix() -> None:
    """The fast lane and the heap behave as one."""
    random = Random(7)
    times = [at if at % 3 else random.randrange(5_000) for at in range(5_000)]
    timeline = Timeline()
    for id, time in enumerate(times):
        timeline.push((time, id, id))
    timeline._check()
    assert drain(timeline) == sorted((time, id, id) for id, time in enumerate(times))


def test_stale_lines_are_forgotten_when_they_are_the_greater_half() -> None:
    """Not before, and not in a short timeline, where they cost nothing."""
    for size in (63, 64, 200):
        timeline = Timeline()
        for at in range(size):
            timeline.push((at if at % 2 else size - at, at, at))
        for stale in range(1, size + 1):
            timeline.stale = stale
            timeline.compact(lambda line, stale=stale: line[1] >= stale)  # type: ignore[misc]
            if size < 64 or stale <= size // 2:
                assert len(timeline) == size
            else:
                break
        timeline._check()
        if size >= 64:
            assert timeline.stale == 0
            assert len(timeline) == size - size // 2 - 1
            assert {line[1] for line in drain(timeline)} == set(range(size // 2 + 1, size))
