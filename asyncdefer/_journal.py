"""The journal: one writer, in the order in which things were logged.

`log` is synchronous and belongs to the breath in which the state changed; what was logged is
an *entry* until the store has it. One task takes the entries that piled up while the previous
group was being written, and writes them in one transaction. Between two groups the event loop goes
round twice; no time is waited for to make groups larger. A claim stands in the same line, so it
finds the store as it was when it was asked for; what was logged after it is known here until it is
written.

An entry that the store refuses is given back to whoever logged it, if it was a call; all others
are true whether or not they can be written, so they stay at the front until they are.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from contextvars import Context
from typing import Final

from asyncdefer._clock import Clock
from asyncdefer._core.instant import SECOND
from asyncdefer._core.job import Call
from asyncdefer._door import check_outside
from asyncdefer._entry import Claim, Entry, Line, as_journal_error, is_there, visible
from asyncdefer.errors import JournalError
from asyncdefer.stores._base import LAST_ID, Busy, Change, Owner, Store, Unknown, Written

BACKLOG: Final = 20_000  # entries; who awaits an enqueue waits until there are fewer
_GROUP: Final = 5_000  # entries of one transaction
_ROUNDS: Final = 2
"""Of the loop, before the next group: so it has what the callers and runs do that this one woke."""
LEASE: Final = 30 * SECOND
_RENEWAL: Final = 10.0  # real seconds
_PURGE: Final = 10 * SECOND
_SHORTEST: Final = 0.02  # seconds to the next try after a failed write; it doubles
_LONGEST: Final = 1.0
_LAST_TRIES: Final = 3  # at the close
_NOBODY: Final[frozenset[int]] = frozenset()
_TAKEN: Final = "the journal has another job of this id: enqueue it again"
_ENDED: Final = "the journal is closed"


class Journal:
    """Entries in order, and the one task that writes them.

    `refused` is told of a call that could not be written, with the error that its caller gets;
    `out` of ids that were lost or replaced in the store; `failed` of every error, for the log.
    """

    def __init__(
        self,
        store: Store,
        owner: Owner,
        clock: Clock,
        *,
        refused: Callable[[Call, JournalError], object],
        out: Callable[[Written], object],
        failed: Callable[[JournalError], object],
    ) -> None:
        self.store = store
        self.owner = owner
        self._clock = clock
        self._refused = refused
        self._out = out
        self._failed = failed
        self._loop = asyncio.get_running_loop()
        self._line: deque[Entry] = deque()
        self._claims: deque[Claim] = deque()
        self._stuck: list[Entry] = []  # of them nobody can be told that they did not happen
        self._doubt: list[Entry] = []  # nobody knows how far they got
        self._group: list[Entry] = []  # under way
        self._last: Entry | None = None
        self._writer: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self._room: list[asyncio.Future[None]] = []
        self.lent = 0  # transactions of the program's own that are open
        self.groups: int = 0  # that were begun
        self.written: int = 0  # the last one that was
        self._closing = False
        self._closed = False
        self._held = False  # by somebody else, at the last write
        self._wait = _SHORTEST
        self._renew_at = clock.wall() + _PURGE
        self._renewal = self._loop.call_later(_RENEWAL, self._is_due, context=Context())

    # -- what others do

    def log(
        self,
        *changes: Change,
        call: Call | None = None,
        done: Callable[[frozenset[int] | None], object] | None = None,
    ) -> Entry:
        """Changes that belong together, in the breath in which they became true."""
        entry = Entry(command=changes, call=call, done=done)
        self._line.append(entry)
        self._last = entry
        if self._idle is not None or self._writer is None:
            self._wake()
        return entry

    def claim(self, claim: Claim) -> Claim:
        """Ask the store; rows of what is still to be written by then will be thrown away."""
        claim.behind = self._last
        self._claims.append(claim)
        self._wake()
        return claim

    async def through(self, line: Line) -> None:
        """Wait until the store has it; `JournalError` if a try has failed, `RuntimeError` as `room`."""
        while not line.through:
            if line.error is not None:
                raise line.error.with_traceback(None)
            if self.lent and (self._line or self._group or self._stuck):
                check_outside(self)
            waiter = self._loop.create_future()
            if line.waiters is None:
                line.waiters = []
            line.waiters.append(waiter)
            await waiter

    async def recorded(self) -> None:
        """Wait until the store has all that was logged so far, but for calls that it refused."""
        line = self._last
        while line is not None and not line.through:
            try:
                await self.through(line)
            except JournalError:
                if line.call is None:
                    raise
                left = self._doubt + self._stuck
                line = left[-1] if left else None

    @property
    def is_full(self) -> bool:
        """Who makes a call is to wait for `room` before."""
        return bool(self.lent) or len(self._line) >= BACKLOG

    async def room(self) -> None:
        """Wait for a place in line; `RuntimeError` for who holds the file, and would wait for itself."""
        if self.lent:
            check_outside(self)
        while len(self._line) >= BACKLOG:
            waiter = self._loop.create_future()
            self._room.append(waiter)
            await waiter

    @property
    def is_busy(self) -> bool:
        """Something is on its way."""
        return bool(self._line or self._group or self._claims or self._stuck or self._doubt)

    def unwritten(self) -> Iterator[Change]:
        """Every change that the store does not have yet."""
        for entries in (self._doubt, self._stuck, self._group, self._line):
            for entry in entries:
                yield from entry.command

    async def close(self) -> None:
        """Write what is left; what cannot be written after some tries stays unwritten."""
        self._closing = True
        self._renewal.cancel()
        while not self._closed:
            self._wake()
            if (writer := self._writer) is not None:
                with suppress(asyncio.CancelledError):  # what has begun to close does so to the end
                    await asyncio.wait([writer])
                self._closed = writer.done() and not writer.cancelled()
        self._abandon()

    def _abandon(self) -> None:
        """Nothing is written any more: whoever waits is told."""
        closed = JournalError(_ENDED)
        left: list[Line] = [*self._doubt, *self._stuck, *self._line, *self._claims]
        for lines in (self._doubt, self._stuck, self._line, self._claims):
            lines.clear()
        for line in left:
            line.error = line.error or closed
            line.wake()
            if isinstance(line, Entry) and line.done is not None:
                line.done(None)
        self._give_room()

    # -- the writer

    def _wake(self) -> None:
        if self._closed:
            self._abandon()
        elif self._writer is None:
            # Not loop.create_task: a task factory of the program has no say here.
            own = Context()
            self._writer = asyncio.Task(
                self._write_all(), loop=self._loop, name="asyncdefer journal", context=own
            )
            self._writer.add_done_callback(self._ended, context=own)
        elif self._idle is not None:
            idle, self._idle = self._idle, None
            if not idle.done():
                idle.set_result(None)

    def _is_due(self) -> None:
        """Time for the lease, whatever the queue's own clock says."""
        self._renew_at = 0
        self._renewal = self._loop.call_later(_RENEWAL, self._is_due, context=Context())
        self._wake()

    def _ended(self, writer: asyncio.Task[None]) -> None:
        """It has closed; or was cancelled, as by `asyncio.run`, and then another goes on."""
        self._writer = None
        self._doubt += self._group
        self._group = []
        if writer.cancelled() and self.is_busy:
            self._loop.call_later(_SHORTEST, self._wake, context=Context())

    async def _write_all(self) -> None:
        tries = 0
        while True:
            if self._clock.wall() >= self._renew_at and not self._closing:
                await self._renew()
            asked = self._claims and not self._closing
            if not (self._line or asked or self._stuck or self._doubt):
                if self._closing:
                    return
                self._idle = self._loop.create_future()
                await self._idle
                continue
            ailing = False
            if self._doubt:
                ailing = not await self._read_again()
            if not self._doubt:
                group, self._stuck = self._stuck, []
                while self._line and len(group) < _GROUP:
                    group.append(self._line.popleft())
                if group:
                    await self._write(group)
                    del group  # else it lives for as long as there is nothing else to write
                    if self._held and self._closing:
                        return
                    for _ in range(_ROUNDS):
                        await asyncio.sleep(0)
                ailing = bool(self._stuck or self._doubt)
            if self._room and len(self._line) < BACKLOG:
                self._give_room()
            if not self._closing and not ailing:
                ailing = not await self._ask_all()
            if ailing:
                tries += 1
                if self._closing and tries >= _LAST_TRIES:
                    return
                await asyncio.sleep(self._wait)
                self._wait = min(2 * self._wait, _LONGEST)
            else:
                tries, self._wait = 0, _SHORTEST

    def _give_room(self) -> None:
        room, self._room = self._room, []
        for waiter in room:
            if not waiter.done():
                waiter.set_result(None)

    async def _write(self, group: list[Entry]) -> None:
        """One transaction; if it fails, one for each entry, so that a bad one fails by itself."""
        self._group = group
        self._held = False
        commands = [entry.command for entry in group]
        self.groups = number = self.groups + 1
        try:
            written = await self.store.write(self.owner, commands)
        except Exception as error:  # noqa: BLE001 - the writer must not end, whatever a store raises
            self._group = []
            self._held = isinstance(error, Busy)
            if len(group) == 1 or isinstance(error, Busy | Unknown):
                told = as_journal_error(error)
                self._failed(told)
                kept = self._refuse(group, told)
                if isinstance(error, Unknown):
                    self._doubt += kept
                else:
                    self._stuck += kept
                return
        else:
            self._group = []
            self.written = number
            commands.clear()  # a store's thread may hold it until there is something else to do
            self._finish(group, written)
            return
        rest = deque(group)
        try:
            while rest and not self._held:
                entry = rest.popleft()
                if entry.call is None and (self._stuck or self._doubt):
                    self._stuck.append(entry)  # it may build on those
                else:
                    await self._write([entry])
        finally:
            self._stuck += rest  # they have not been tried

    def _refuse(self, group: list[Entry], error: JournalError) -> list[Entry]:
        """Tell those who wait; calls are given back, and the others stay."""
        kept: list[Entry] = []
        for entry in group:
            entry.error = error
            if entry.call is None:
                kept.append(entry)
            else:
                self._refused(entry.call, error)
            entry.wake()
        return kept

    def _finish(self, group: list[Entry], written: Written) -> None:
        out = _NOBODY
        if written.lost or written.replaced:
            out = frozenset((*written.lost, *written.replaced))
            self._out(written)
        for entry in group:
            if entry.call is not None:
                # One that gave way to a newer call is lost to what was logged of it afterwards.
                if entry.call.id in written.lost and entry.call.id not in written.replaced:
                    self._refuse([entry], JournalError(_TAKEN))
                    continue
                entry.call.entry = None
            entry.through = True
            if entry.done is not None:
                try:
                    entry.done(out)
                except Exception as error:  # noqa: BLE001 - the others are written all the same
                    self._report("after a write", error)
            if entry.waiters is not None:
                entry.wake()

    def _report(self, when: str, error: Exception) -> None:
        about = {"message": f"asyncdefer: {when}", "exception": error}
        self._loop.call_exception_handler(about)

    async def _read_again(self) -> bool:
        """What was one transaction is there as a whole, or is still to be written."""
        last = visible(self._doubt)
        try:
            scan = self.store.scan(ids=list(last), limit=len(last))
            found = {row.id: row async for row in scan}
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(as_journal_error(error))
            return False
        doubt, self._doubt = self._doubt, []
        if all(is_there(change, found) for change in last.values()):
            self._finish(doubt, Written())
        else:
            self._stuck = doubt + self._stuck
        return True

    async def _ask_all(self) -> bool:
        """Ask what is not behind something unwritten; False if a try failed."""
        for _ in range(len(self._claims)):
            claim = self._claims[0]
            if claim.behind is not None and not claim.behind.through and not claim.behind.error:
                break
            if not await self._ask(claim):
                return False
            self._claims.popleft()
        return True

    async def _ask(self, claim: Claim) -> bool:
        try:
            rows = await self.store.claim(
                self.owner,
                now=self._clock.wall(),
                until=claim.until,
                limit=claim.limit,
                after=claim.after,
                keys=claim.keys,
                ids=claim.ids,
            )
            if claim.limit and len(rows) < claim.limit:
                after = claim.until, LAST_ID
                async for row in self.store.scan(state="scheduled", after=after, limit=1):
                    claim.beyond = row
        except Exception as error:  # noqa: BLE001 - as above
            claim.error = as_journal_error(error)
            self._failed(claim.error)
            claim.wake()
            return False
        try:
            claim.arrived(claim, rows)
        except Exception as error:  # noqa: BLE001 - as above; to ask again would bring the same
            claim.error = as_journal_error(error, "what the store has could not be taken in")
            self._report("after a claim", error)
        else:
            claim.through = True
        claim.wake()
        return True

    async def _renew(self) -> None:
        now = self._clock.wall()
        self._renew_at = now + _PURGE
        try:
            await self.store.renew(self.owner, now=now, until=now + LEASE)
        except Exception as error:  # noqa: BLE001 - as above; it is tried again in time
            self._failed(as_journal_error(error))
