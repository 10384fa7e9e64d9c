"""Jobs as they are listed: each as it is when its turn comes."""

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from asyncdefer import _rows as rows
from asyncdefer._books import Books
from asyncdefer._codec import Unreadable
from asyncdefer._core.instant import moment
from asyncdefer._core.job import Job, Key
from asyncdefer._core.lifecycle import State
from asyncdefer._journal import Journal
from asyncdefer._scheduler import Scheduler
from asyncdefer.stores._base import PAGE, START, Row


async def listed(
    scheduler: Scheduler, wanted: State | str | None, task: str | None, key_prefix: str | None
) -> AsyncIterator[Job]:
    """Every job that fits, in eta order: those of the journal, or where there is none, in memory."""
    state = None if wanted is None else State.named(wanted)
    if scheduler.journal is None:
        found = _in_memory(scheduler.books)
    else:
        found = _in_journal(scheduler, scheduler.journal, state, task, key_prefix)
    async for job in found:
        if (
            (state is None or job.state is state)
            and (task is None or job.task == task)
            and (key_prefix is None or (job.key or "").startswith(key_prefix))
        ):
            yield job


async def _in_memory(books: Books) -> AsyncIterator[Job]:
    for at, (eta, _, what) in enumerate(books.jobs()):
        job = books.view(eta, what)
        if job is not None:
            yield job
        if at % PAGE == PAGE - 1:
            await asyncio.sleep(0)


async def _in_journal(
    scheduler: Scheduler,
    journal: Journal,
    state: State | None,
    task: str | None,
    key_prefix: str | None,
) -> AsyncIterator[Job]:
    await scheduler.recorded()  # so that rows have the states that jobs have here
    kept = None if state is None or state is State.HELD else str(state)
    after = START
    # Those in a transaction have a row that nobody else sees.
    unseen = sorted(
        (scheduler.books.wall_eta(one.call), id) for id, one in scheduler.lodged.items()
    )
    while True:
        found = journal.store.scan(
            state=kept, task=task, key_prefix=key_prefix, after=after, limit=PAGE
        )
        page = [row async for row in found]
        for row in page:
            while unseen and unseen[0] <= (row.at, row.id):
                job = _lodged(scheduler, unseen.pop(0)[1], row)
                if job is not None:
                    yield job
            job = _shown(scheduler, row)
            if job is not None:
                yield job
        if len(page) < PAGE:
            break
        after = page[-1].at, page[-1].id
    for _, id in unseen:
        job = _lodged(scheduler, id)
        if job is not None:
            yield job


def _lodged(scheduler: Scheduler, id: int, row: Row | None = None) -> Job | None:
    """The job of a call in a transaction, unless it is told by its row."""
    lodged = scheduler.lodged.get(id)
    if lodged is None or (row is not None and row.id == id):
        return None
    return scheduler.books.view(scheduler.books.wall_eta(lodged.call), lodged.call)


def _shown(scheduler: Scheduler, row: Row) -> Job | None:
    """The job of a row: as memory has it if it is there, else as the row says."""
    books = scheduler.books
    key: Key = row.id if row.key is None else (row.task, row.key)
    waiting, run = books.agenda.waiting.get(key), books.runs.get(key)
    if run is not None and run.call.id == row.id:
        return books.view(run.due, run)
    if waiting is not None and waiting.id == row.id:
        return books.view(books.wall_eta(waiting), waiting)
    held = books.on_hold.get(row.id)
    if held is not None:
        return books.view(books.wall_eta(held.call), held.call)
    if row.until is not None and row.until <= scheduler.clock.wall():
        return None
    return job_of(scheduler, row)


def job_of(scheduler: Scheduler, row: Row) -> Job:
    """The public record of a row."""
    state = State(row.state)
    unknown = scheduler.task_of(row.task) is None
    if row.id in scheduler.books.parked or (unknown and not state.ended):
        state = State.HELD
    try:
        body = rows.body_of(row)
    except Unreadable:
        body = rows.Body()
    return Job(
        id=str(row.id),
        task=row.task,
        key=row.key,
        state=state,
        eta=moment(row.at),
        attempt=body.attempt,
        calls=body.calls,
        enqueued_at=moment((row.id >> 20) * 1000),
        started_at=None if body.started is None else moment(body.started),
        finished_at=None if body.finished is None else moment(body.finished),
        error=body.error,
        read_arguments=partial(_arguments, scheduler, row),
    )


def _arguments(scheduler: Scheduler, row: Row) -> dict[str, Any]:
    task = scheduler.task_of(row.task)
    if task is None:
        raise Unreadable(f"no task is named {row.task!r} here, so its arguments cannot be read")
    return task.codec.arguments(row.arguments)
