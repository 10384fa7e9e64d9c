"""What should become of schedules, by own records: a job for each run, and chains of jobs."""

from asyncdefer import (
    GiveUp,
    JobCancelled,
    JobDropped,
    JobExpired,
    QueueClosed,
    Run,
    Snooze,
)  # fmt: skip
from asyncdefer._core.instant import SECOND, instant
from asyncdefer.testing import VirtualClock
from tests.soak.schedule_records import GRACE, Chain, Expected, Job, Key, Kind, Rhythm


class Model:
    """One session of a queue."""

    def __init__(self, clock: VirtualClock, concurrency: int) -> None:
        self.clock = clock
        self.concurrency = concurrency
        self.waiting: dict[Key, Job] = {}
        self.running: dict[Key, Job] = {}
        self.chains: dict[Key, Chain] = {}
        self.failed: list[tuple[str, Job]] = []
        self.paused = self.closing = False
        self.wrongs: list[str] = []

    def demand(self, right: object, *what: object) -> None:
        if not right:
            self.wrongs.append(f"{self.clock.steady()}: " + " ".join(map(str, what)))

    def time(self, steady: bool) -> int:
        return self.clock.steady() if steady else self.clock.wall()

    def look_who_is_due(self, *jobs: Job) -> None:
        """The queue looks at the clocks, or somebody gives it a job whose time has come."""
        for job in jobs or self.waiting.values():
            job.due |= self.time(job.steady) >= job.eta

    def own_time(self, job: Job, rhythm: Rhythm) -> int:
        """The eta of a job on the clock of its schedule."""
        return job.eta - self.time(job.steady) + self.time(rhythm.steady)

    # -- calls

    def place(self, job: Job) -> None:
        """The newest call of a key wins, and who waited follows."""
        old = self.waiting.get(job.key)
        self.waiting[job.key] = job
        self.look_who_is_due(job)
        if old is not None:
            old.follows = job
            self.end_chain(old, job, replaced=True)

    def current(self, key: Key) -> Job | None:
        """The job that a live schedule has: the one that waits, or else the one that runs."""
        chain = self.chains.get(key)
        jobs = (self.waiting.get(key), self.running.get(key))
        return next((job for job in jobs if job and job.chain is chain is not None), None)

    def is_same(self, key: Key, asked: object) -> bool:
        """The newest call of the key is the same one, so that it changes nothing."""
        chain = self.chains.get(key)
        job = self.waiting.get(key)
        mine = job is None or job.chain is chain
        return chain is not None and chain.asked == asked and mine

    def begin(self, job: Job, chain: Chain, *, given: bool) -> None:
        """A schedule begins; `given`: the caller said when the first run is."""
        rhythm, live, old = chain.rhythm, self.current(job.key), self.chains.get(job.key)
        if old is not None and old.rhythm == rhythm and not given:
            chain.ran = old.ran
        now = self.time(rhythm.steady)
        if given:
            job.moved = True
        elif live is None or live.chain is None or live.chain.rhythm != rhythm:
            self.put_on_grid(job, rhythm, rhythm.after(now, now))
        elif live is self.waiting.get(job.key):
            job.eta, job.steady, job.moved = live.eta, live.steady, live.moved
            job.grid, job.ends = live.grid, live.ends
        else:
            self.put_on_grid(job, rhythm, rhythm.next(live.grid or 0, live.seen, now, live.caught))
        job.chain = chain
        self.place(job)
        if live is not None:
            self.end_chain(live, job, replaced=True)
        self.chains[job.key] = chain

    def put_on_grid(self, job: Job, rhythm: Rhythm, time: int) -> None:
        job.eta = job.grid = time
        job.steady, job.ends, job.moved = rhythm.steady, rhythm.ends(time), False
        job.due = False

    # -- what is done to a job

    def end_chain(self, job: Job, answer: Job, *, replaced: bool = False) -> None:
        chain = job.chain
        if chain is not None and not chain.ended:
            chain.ended, chain.answer, chain.replaced = True, answer, replaced
            if self.chains.get(job.key) is chain:
                del self.chains[job.key]

    def live(self, what: Chain | Job) -> Job | None:
        """What a handle stands for; None if that has ended."""
        if isinstance(what, Chain):
            job = self.current(what.key) if not what.ended else what.answer
            self.demand(job is not None, "a schedule that died:", what)
        else:
            job = what
        return None if job is None or job.root.outcome is not None else job.root

    def runs(self, job: Job) -> bool:
        return self.running.get(job.key) is job

    def cancel(self, job: Job | None) -> bool:
        if job is not None and self.runs(job):
            job.cancelled = True
        elif job is not None:
            self.take(job, JobCancelled)
        return job is not None

    def take(self, job: Job, error: type[BaseException]) -> None:
        """It ends before its start."""
        del self.waiting[job.key]
        if job.chain is not None:
            job.seen = self.own_time(job, job.chain.rhythm)
        self.end(job, (None, error))

    def move(self, job: Job | None, eta: int, *, steady: bool) -> bool:
        if job is None or self.runs(job):
            return False
        self.fix_grid(job)
        job.eta, job.steady, job.ends, job.moved, job.due = eta, steady, None, True, False
        self.look_who_is_due(job)
        return True

    def fix_grid(self, job: Job) -> None:
        if job.chain is not None and job.grid is None:
            job.grid = self.own_time(job, job.chain.rhythm)

    def discard(self, job: Job | None) -> bool | None:
        """None: it cannot be discarded."""
        if job is None or self.runs(job):
            return None
        self.take(job, JobDropped)
        return True

    # -- what the queue does

    def start(self, key: Key) -> None:
        now, job = self.clock.steady(), self.waiting.pop(key, None)
        if job is None:
            return self.demand(False, "it runs, and no such job waits:", key)
        kind, time = job.kind, self.time(job.steady)
        self.demand(job.due, "early:", job)
        self.demand(key not in self.running, "runs overlap:", job)
        self.demand(not (self.paused or kind.paused), "it runs in a pause:", job)
        self.demand(job.ends is None or time < job.ends, "it should be skipped:", job)
        self.demand((job.expiry() or time + 1) > time, "it should have expired:", job)
        self.demand(self.has_slot(kind), "no slot is free:", job)
        if kind.rate is not None:
            self.demand(kind.rate.opens(kind.starts) <= now, "its rate is shut:", job)
            kind.starts.append(now)
        self.fix_grid(job)
        self.running[key] = job
        job.attempt += 1
        job.set_back, job.inside = time < job.eta, False
        job.begun, job.ahead, job.left = now, self.clock.wall() - now, None
        if job.chain is not None:
            rhythm = job.chain.rhythm
            job.seen = max(self.time(rhythm.steady), self.own_time(job, rhythm))
        return None

    def has_slot(self, kind: Kind) -> bool:
        taken = sum(job.kind is kind for job in self.running.values())
        return len(self.running) < self.concurrency and taken < (kind.concurrency or 1000)

    def enter(self, key: Key, n: int | None, run: Run) -> Job | None:
        """The function of a run was called. These are the laws without any model of the next time."""
        job = self.running.get(key)
        if job is None:
            self.demand(False, "it runs, and was not started:", key)
            return None
        self.demand((job.n, job.attempt) == (n, run.attempt), "called with", n, run, "not", job)
        self.demand(not job.inside, "runs overlap:", job)
        job.inside = True
        chain, wall = job.chain, instant(run.eta)
        self.demand(job.begun + job.ahead >= wall or job.set_back, "early:", job)
        if chain is None or job.moved or job.attempt > 1:
            return job
        rhythm = chain.rhythm
        eta = wall - job.ahead if rhythm.steady else wall
        late = round(run.lateness * SECOND)
        if rhythm.missed == "skip":
            self.demand(late < min(GRACE, rhythm.period // 2), "late:", late, job)
        last = chain.ran[-1] if chain.ran else None
        self.demand(last is None or eta > last, "a time that was run before:", eta, job)
        behind = eta - (last or eta) if rhythm.steady else eta
        self.demand(behind % rhythm.period == 0, "not on the grid:", eta, "after", last, job)
        chain.ran.append(eta)
        return job

    def conclude(self, key: Key, id_: str, error: BaseException | None) -> None:
        """A run has ended; `error` only tells whether the close ended it, or it was sooner."""
        job, now = self.running.pop(key, None), self.clock.steady()
        if job is None:
            return self.demand(False, "it ends, and did not run:", key)
        closed = self.closing and type(error) is QueueClosed
        if job.cancelled:
            self.end(job, (None, JobCancelled))
        elif closed:
            self.end(job, (None, QueueClosed))
        elif job.timeout is not None and now >= job.begun + job.timeout:
            self.fail(job, id_, TimeoutError)
        elif job.left is None:
            self.demand(False, "it ended without having run:", job)
        elif isinstance(snooze := job.left[1], Snooze):
            at = snooze.eta if snooze.eta is not None else now + (snooze.delay or 0)
            self.again(job, at, steady=snooze.eta is None)
        elif job.left[1] is not None:
            self.fail(job, id_, job.left[1])
        else:
            self.end(job, job.left)
        return None

    def fail(self, job: Job, id_: str, error: BaseException | type[BaseException]) -> None:
        retry = job.kind.retry
        if retry is None or isinstance(error, GiveUp) or job.failures + 1 >= retry[0]:
            self.failed.append((id_, job))
            self.end(job, (None, error))
        else:
            job.failures += 1
            self.again(job, self.clock.steady() + retry[1], steady=True)

    def again(self, job: Job, eta: int, *, steady: bool) -> None:
        """Another attempt; it gives way to a newer call."""
        newer = self.waiting.get(job.key)
        if newer is not None:
            job.follows = newer
            self.end_chain(job, newer, replaced=True)
        else:
            job.eta, job.steady, job.ends, job.moved, job.due = eta, steady, None, True, False
            self.waiting[job.key] = job

    def end(self, job: Job, outcome: Expected) -> None:
        """A job has ended; its schedule goes on, unless it was cancelled, replaced or closed."""
        job.outcome = outcome
        chain, newer = job.chain, self.waiting.get(job.key)
        if chain is None or chain.ended:
            return
        if newer is not None:
            self.end_chain(job, newer, replaced=True)
        elif outcome[1] in (JobCancelled, QueueClosed):
            self.end_chain(job, job)
        else:
            self.fix_grid(job)
            rhythm, grid = chain.rhythm, job.grid or 0
            again = Job(job.kind, job.key, job.n, True, 0, job.timeout, job.expires, chain)
            now = self.time(rhythm.steady)
            time = rhythm.next(grid, job.seen, now, job.caught)
            self.put_on_grid(again, rhythm, time)
            if rhythm.missed == "all" and rhythm.after(grid, grid) <= now:
                again.caught = job.caught if job.caught and time <= job.caught else now
            self.waiting[job.key] = again
            self.look_who_is_due(again)

    def drop(self, key: Key) -> None:
        """Its rate has no room."""
        job = self.waiting[key]
        rate, now = job.kind.rate, self.clock.steady()
        right = rate is not None and rate.drop and rate.opens(job.kind.starts) > now
        self.demand(right and not job.attempt, "dropped for no reason:", job)
        self.take(job, JobDropped)

    def expire(self, key: Key) -> None:
        """Its time is over, and nobody started it: it is left out, or it expires."""
        job = self.waiting[key]
        ends, time = job.expiry(), self.time(job.steady)
        self.demand(ends is not None and ends <= time, "it expires for no reason:", job)
        if job.chain is not None and job.ends is not None and job.ends == ends:
            rhythm = job.chain.rhythm
            self.put_on_grid(job, rhythm, rhythm.next(job.grid or 0, job.grid or 0, time))
        else:
            self.take(job, JobExpired)

    def close(self) -> None:
        """What is left in a closed queue."""
        for job in tuple(self.waiting.values()):
            self.take(job, QueueClosed)
        self.demand(not self.running, "they run in a closed queue:", self.running)
        self.demand(not self.chains, "schedules of a closed queue:", self.chains)

    # -- rest

    def at_rest(self) -> None:
        """All that can happen at this time has happened: who is due and may start has started."""
        now = self.clock.steady()
        for key, job in self.waiting.items():
            time, ends, kind = self.time(job.steady), job.expiry(), job.kind
            self.demand(ends is None or time < ends, "it should be gone:", job)
            shut = self.paused or kind.paused or key in self.running or not self.has_slot(kind)
            self.demand(job.due or time < job.eta, "nobody knows that it is due:", job)
            if job.due and not shut:
                opens = 0 if kind.rate is None else kind.rate.opens(kind.starts)
                self.demand(opens > now, "it is due and does not start:", job)
