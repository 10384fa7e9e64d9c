"""Where the model looks into a queue: at each look at the clocks, each start, end and drop.

And a clock that says when everything that can happen at a time has happened.
"""

from collections.abc import Callable
from typing import Any, Final

from asyncdefer._core.instant import LAST
from asyncdefer.testing import VirtualClock
from tests.soak.model import Model

FOREVER: Final = LAST


class RestingClock(VirtualClock):
    """A clock that tells, before it moves on, to which time it would go."""

    rested: Callable[[int], None] | None = None

    async def _settle(self, patience: float) -> None:
        await super()._settle(patience)
        if self.rested is not None and patience > 0:
            until = self._next()
            self.rested(FOREVER if until is None else until)


def look_into(scheduler: Any, model: Model) -> None:
    """Tell the model what happens inside, after it has."""
    watch, start = scheduler._watch, scheduler._start
    conclude, drop = scheduler._conclude, scheduler._drop

    def watched(steady: int, wall: int) -> None:
        before = scheduler._highest
        watch(steady, wall)
        model.clock_was_read(before, wall - steady)

    def started(call: Any, *args: Any, **options: Any) -> Any:
        run = start(call, *args, **options)
        model.begin(*name(call))
        return run

    def concluded(run: Any, outcome: Any) -> None:
        mine = scheduler.runs.get(run.call.key) is run
        conclude(run, outcome)
        if mine:
            model.end(*name(run.call))

    def dropped(call: Any, now: int) -> None:
        drop(call, now)
        model.drop(*name(call))

    scheduler._watch, scheduler._start = watched, started
    scheduler._conclude, scheduler._drop = concluded, dropped


def name(call: Any) -> tuple[Callable[..., Any], str]:
    """Its function, and its key or else its id."""
    return call.task.fn, call.shown_key or str(call.id)
