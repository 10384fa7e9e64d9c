"""Bugs to plant in the lives that are killed: each breaks one law, and the ledger has to show it.

They are installed in the process that is to die; the last life of a seed, which lets everything
come to its end, is always in good health.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from msgspec import structs

from asyncdefer import _claims
from asyncdefer._claims import Claims
from asyncdefer._core.job import Call
from asyncdefer._core.lifecycle import Event
from asyncdefer._entry import Line
from asyncdefer._jobs import Jobs
from asyncdefer._journal import Journal
from asyncdefer._recording import Recording
from asyncdefer.stores._base import Add, Change, Command, Drop, Owner, Row, Set, Written
from asyncdefer.stores.sqlite import SQLiteStore


def acknowledged_before_the_commit() -> None:
    """Whoever waits for an entry is told at once."""

    async def through(self: Journal, line: Line) -> None:
        return

    Journal.through = through  # type: ignore[method-assign]


def a_start_before_it_is_recorded() -> None:
    """A run begins in the breath in which its start was logged."""
    start = Jobs._start

    def started(self: Jobs, call: Call, steady: int, *, told: bool) -> Any:
        run = start(self, call, steady, told=told)
        self._launch(run, steady)
        return run

    Jobs._start = started  # type: ignore[method-assign]
    Jobs._begin = lambda self, run, out: None  # type: ignore[method-assign]


def an_outcome_before_it_is_recorded() -> None:
    """Waiters are told in the breath in which the end was logged."""
    record = Recording._record_end

    def recorded(self: Recording, *given: Any) -> None:
        *others, settle = given
        record(self, *others, lambda out: None)  # type: ignore[call-arg]
        settle(frozenset())

    Recording._record_end = recorded  # type: ignore[method-assign, assignment]


def _rewriting(change: Callable[[list[Command]], Sequence[Command]]) -> None:
    """A store that writes something else than it is given."""
    write = SQLiteStore.write

    async def written(self: SQLiteStore, owner: Owner, commands: Any, **more: Any) -> Written:
        return await write(self, owner, change(list(commands)), **more)

    SQLiteStore.write = written  # type: ignore[method-assign]


def a_forgotten_group() -> None:
    """Every seventh group is not written, and the store says that it was."""
    written = 0

    def change(commands: list[Command]) -> list[Command]:
        nonlocal written
        written += 1
        return [] if written % 7 == 0 else commands

    _rewriting(change)


def a_group_that_is_not_whole() -> None:
    """Of a group of several commands the last one is left out."""
    _rewriting(lambda commands: commands[:-1] if len(commands) > 1 else commands)


def _map_rows(change: Callable[[Change], Sequence[Change]]) -> None:
    _rewriting(
        lambda commands: [
            tuple(new for old in command for new in change(old)) for command in commands
        ]
    )


def the_older_call_of_a_key_stays() -> None:
    """The key rule is broken: in the file each call has a key of its own."""

    def own(row: Row) -> Row:
        shared = row.key is not None and "#" not in row.key
        return structs.replace(row, key=f"{row.key}#{row.id}") if shared else row

    def change(old: Change) -> list[Change]:
        return [structs.replace(old, row=own(old.row)) if isinstance(old, Add | Set) else old]

    _map_rows(change)


def a_cancel_that_is_not_logged() -> None:
    record = Recording._record_end

    def recorded(self: Recording, call: Call, answer: Any, outcome: Any, *more: Any) -> None:
        if outcome.event is Event.CANCEL:
            more[-1](frozenset())
        else:
            record(self, call, answer, outcome, *more)

    Recording._record_end = recorded  # type: ignore[method-assign, assignment]


def an_end_that_is_not_logged() -> None:
    """What has succeeded stays in the journal as running."""
    record = Recording._record_end

    def recorded(self: Recording, call: Call, answer: Any, outcome: Any, *more: Any) -> None:
        if outcome.event is Event.SUCCEED:
            more[-1](frozenset())
        else:
            record(self, call, answer, outcome, *more)

    Recording._record_end = recorded  # type: ignore[method-assign, assignment]


def a_move_that_is_not_logged() -> None:
    Recording._log_again = lambda self, call: None  # type: ignore[method-assign]


def an_eta_that_is_rounded() -> None:
    """In the file an eta is a tenth of a second early."""

    def change(old: Change) -> list[Change]:
        if not isinstance(old, Add):
            return [old]
        return [Add(structs.replace(old.row, at=old.row.at - 100_000))]

    _map_rows(change)


def an_attempt_that_is_not_counted() -> None:
    """The start of a run is recorded without its number."""

    def change(old: Change) -> list[Change]:
        if isinstance(old, Set) and old.row.state == "running":
            return [Set(structs.replace(old.row, body=""), old.was)]
        return [old]

    _map_rows(change)


def running_rows_are_left() -> None:
    """A claim brings what waits, and forgets what ran.

    The last life, which has no bug, runs it, so that no call is lost; but the books do not balance.
    """
    claim = SQLiteStore.claim

    async def claimed(self: SQLiteStore, owner: Owner, **asked: Any) -> list[Row]:
        return [row for row in await claim(self, owner, **asked) if row.state != "running"]

    SQLiteStore.claim = claimed  # type: ignore[method-assign]


def a_claim_without_a_guard() -> None:
    """Rows whose last word is still to be written are taken in as they were.

    No control: what is taken in wrongly is stopped by the store, which writes no row that is not in
    the state it should come from. Only the books go wrong, once in some three hundred lives, though
    the answers of claims are slow here.
    """
    Journal.unwritten = lambda self: iter(())  # type: ignore[method-assign]
    claim = SQLiteStore.claim

    async def claimed(self: SQLiteStore, owner: Owner, **asked: Any) -> list[Row]:
        rows = await claim(self, owner, **asked)
        await asyncio.sleep(0.005)
        return rows

    SQLiteStore.claim = claimed  # type: ignore[method-assign]


def an_interrupted_run_is_dropped() -> None:
    """A run during which the process died is not run again."""

    def interrupted(self: Claims, call: Call, **_: Any) -> None:
        assert self.journal is not None
        self.journal.log(Drop(call.id, "running"))

    Claims._interrupted = interrupted  # type: ignore[method-assign]


def too_few_crashes() -> None:
    """A job fails the first time that the process dies during its run."""
    _claims.CRASHES = 1  # type: ignore[misc]


LOST: Final = "was acknowledged and is lost"
TOLD: Final = r"starts \(.*, but (a waiter saw|job_\w+ was told|its end was recorded)"
AGAIN: Final = r"attempt \d+ after attempt \d+|starts as attempt \d+ again"
EARLY: Final = "microseconds early"

BUGS: Final[dict[str, tuple[Callable[[], None], str]]] = {
    bug.__name__: (bug, law)
    for bug, law in (
        (acknowledged_before_the_commit, LOST),
        (a_start_before_it_is_recorded, AGAIN),
        (an_outcome_before_it_is_recorded, TOLD),
        (a_forgotten_group, LOST),
        (a_group_that_is_not_whole, LOST),
        (the_older_call_of_a_key_stays, r"starts \(.*, but call \d+ has replaced it"),
        (a_cancel_that_is_not_logged, r"starts \(.*, but cancel\(\) has returned True"),
        (an_end_that_is_not_logged, TOLD),
        (a_move_that_is_not_logged, EARLY),
        (an_eta_that_is_rounded, EARLY),
        (an_attempt_that_is_not_counted, AGAIN),
        (running_rows_are_left, "jobs were lost or counted twice"),
        (an_interrupted_run_is_dropped, LOST),
        (too_few_crashes, f"is failed Crashed|{LOST}"),
    )
}
"""And how the law that each breaks is found broken: what else goes wrong does not count."""

MASKED: Final[dict[str, tuple[Callable[[], None], str]]] = {
    a_claim_without_a_guard.__name__: (a_claim_without_a_guard, "")
}
"""Of these the ledger sees little or nothing, since something else in the library stops them."""
