"""The figures of the documentation show what is so."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

import asyncdefer
from asyncdefer import JobDropped, Queue, current
from asyncdefer.testing import VirtualClock

ROOT = Path(__file__).parents[2]


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_figures", ROOT / "scripts" / "_figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_figures"] = module
    spec.loader.exec_module(module)
    return module


figures = load()


@pytest.mark.parametrize("path", figures.figures(), ids=lambda path: path.name)
def test_a_committed_figure_is_up_to_date(path: Path) -> None:
    """What is committed is what `scripts/figures` draws from the library of today."""
    assert path.read_text(encoding="utf-8") == figures.figures()[path], "run scripts/figures"


def test_every_state_has_its_place() -> None:
    """The figure of the lifecycle shows each state and each event of the table."""
    drawn = figures.lifecycle()
    assert set(figures.PLACES) == set(figures.State)
    for _, event in figures.TRANSITIONS:
        assert event in drawn


PICTURES = [*figures.SCENARIOS, *figures.RULES]


@pytest.mark.parametrize("scenario", PICTURES, ids=lambda scenario: scenario.name)
async def test_a_picture_of_calls_is_true(
    scenario, defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """The calls of the picture, made on a virtual clock, become its runs, and the rest is dropped."""
    runs: list[tuple[float, str, int]] = []
    begin = defer_clock.monotonic()

    @defer_queue.task(**scenario.options)
    async def job(key: str, name: str) -> str:
        runs.append((round(defer_clock.monotonic() - begin, 3), name, current().calls))
        await asyncdefer.sleep(scenario.takes)
        return name

    handles = {}
    for at, name in scenario.named():
        await defer_clock.advance(at - (defer_clock.monotonic() - begin))
        handles[name] = await job.enqueue("key", name)
    await defer_clock.run_until_idle()

    assert runs == [(at, calls[-1], len(calls)) for at, calls in scenario.runs]
    for _, calls in scenario.runs:
        assert {await handles[name] for name in calls} == {calls[-1]}
    for name in scenario.drops:
        with pytest.raises(JobDropped):
            await handles[name]


@pytest.mark.parametrize("scenario", PICTURES, ids=lambda scenario: scenario.name)
def test_a_picture_of_calls_is_whole(scenario) -> None:
    """Each call is in a run or dropped, and each run that its first call waits for has its line."""
    called = {name: at for at, name in scenario.named()}
    shown = "".join(calls for _, calls in scenario.runs) + scenario.drops
    assert sorted(shown) == sorted(called)
    late = [(called[calls[0]], start) for start, calls in scenario.runs if called[calls[0]] < start]
    assert [until for _, until in scenario.waits] == [start for _, start in late]
    for (since, _), (first, _) in zip(scenario.waits, late, strict=True):
        assert since <= first  # a leading window waits from the call that opened it
