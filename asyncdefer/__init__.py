"""asyncdefer: the scheduler that an asyncio program carries inside itself."""

from asyncdefer._after_commit import AfterCommit
from asyncdefer._clock import Clock, SystemClock, sleep
from asyncdefer._core.job import Job, JobError, Run, current
from asyncdefer._core.ledger import Lateness, Stats
from asyncdefer._core.lifecycle import State
from asyncdefer._core.options import Defer
from asyncdefer._core.rate import RateLimit
from asyncdefer._core.recurrence import Cron, Every
from asyncdefer._core.report import ItemFailure, Progress, Report, ShardReport
from asyncdefer._core.retry import Retry
from asyncdefer._handle import Handle
from asyncdefer._log import LogEvent
from asyncdefer._queue import Queue
from asyncdefer._task import AsyncTask, SyncTask, Task, Tasks
from asyncdefer._transaction import AsyncTransaction, Transaction
from asyncdefer.errors import (
    DeferError,
    GiveUp,
    IterationFailed,
    JobCancelled,
    JobDropped,
    JobExpired,
    JobFailed,
    JournalError,
    JournalFull,
    JournalLocked,
    NotStarted,
    QueueClosed,
    ResultUnavailable,
    Snooze,
    UnknownTask,
    WrongLoop,
)  # fmt: skip
from asyncdefer.stores.memory import MemoryStore
from asyncdefer.stores.sqlite import SQLiteStore

__all__ = [
    "AfterCommit",
    "AsyncTask",
    "AsyncTransaction",
    "Clock",
    "Cron",
    "Defer",
    "DeferError",
    "Every",
    "GiveUp",
    "Handle",
    "ItemFailure",
    "IterationFailed",
    "Job",
    "JobCancelled",
    "JobDropped",
    "JobError",
    "JobExpired",
    "JobFailed",
    "JournalError",
    "JournalFull",
    "JournalLocked",
    "Lateness",
    "LogEvent",
    "MemoryStore",
    "NotStarted",
    "Progress",
    "Queue",
    "QueueClosed",
    "RateLimit",
    "Report",
    "ResultUnavailable",
    "Retry",
    "Run",
    "SQLiteStore",
    "ShardReport",
    "Snooze",
    "State",
    "Stats",
    "SyncTask",
    "SystemClock",
    "Task",
    "Tasks",
    "Transaction",
    "UnknownTask",
    "WrongLoop",
    "current",
    "sleep",
]  # fmt: skip
