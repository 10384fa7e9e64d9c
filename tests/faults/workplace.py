"""Where journals are put that are made only to be broken, and how a harness says what it found."""

import gc
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Final

from asyncdefer.stores import _room, _sound

_ROOM: Final = 1 << 30  # bytes; a container may have very little there


def _memory() -> Path | None:
    shm = Path("/dev/shm")
    if not os.access(shm, os.W_OK) or shutil.disk_usage(shm).free < _ROOM:
        return None
    return shm


MEMORY: Final = _memory()
"""A file system in memory, where there is one: a hundred thousand journals are written."""


@contextmanager
def workplace() -> Iterator[Path]:
    """A folder in memory, for a while."""
    folder = tempfile.mkdtemp(dir=MEMORY)
    try:
        yield Path(folder).resolve()
    finally:
        shutil.rmtree(folder)


def checkpoint_every(pages: int) -> None:
    """Have the -wal brought home after so many pages of it, whatever is written."""
    _sound._PRAGMAS["wal_autocheckpoint"] = pages
    _room.AUTOCHECKPOINT = _room._SHORT = pages  # type: ignore[misc]


def ready_to_fork() -> None:
    """What every life would import late is imported once, and what none of them touches stays shared."""
    for late in ("anyio._backends._asyncio", "concurrent.futures.thread"):
        import_module(late)
    gc.freeze()


def say(text: str) -> None:
    """Figures, and what is wrong."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def progress(text: str) -> None:
    """How far it is, for whoever waits."""
    sys.stderr.write(f"  {text}\n")
    sys.stderr.flush()
