"""J9 on a disk that may not be written to: a start says so, and works when it may.

Modes do not hold back a superuser, so the program gets a mount of its own, which is made read-only
under it: it is a process of its own. While files are open for writing no system lets that happen.
"""

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Final

import pytest

from tests.faults.power import ROOT

PROGRAM: Final = """
import asyncio, os, subprocess, sys
from asyncdefer import JournalError, Queue

folder, what, mode = sys.argv[1:]
path = folder + "/timers.db"

def mount(*options):
    subprocess.run(["mount", *options, folder], check=True)

def content():
    names = sorted(os.listdir(folder))
    return {name: open(f"{folder}/{name}", "rb").read() for name in names}

async def main():
    mount("-t", "tmpfs", "small")
    ran = []
    queue = Queue(path)

    @queue.task("note")
    async def note(text: str) -> None:
        ran.append(text)

    if what != "empty":
        async with queue:
            queue.pause()
            await queue.enqueue("note", "kept")
            if what == "killed":  # as it stands while the queue runs, with its -wal
                for name in ("", "-wal"):
                    with open(path + name, "rb") as file, open(f"{path}{name}.copy", "wb") as copy:
                        copy.write(file.read())
        if what == "killed":
            for name in ("", "-wal"):
                os.replace(f"{path}{name}.copy", path + name)
        queue.resume()
    before = content()
    mount("-o", f"remount,{mode}")
    for _ in range(2):
        try:
            await queue.start()
        except JournalError as error:
            print("refused:", error)
        else:
            print("started")
            await queue.close()
    assert content() == before, "the files are not what they were"
    mount("-o", "remount,rw")
    async with queue:
        await queue.enqueue("note", "after")
        await queue.join()
    print("ran:", *ran)

asyncio.run(main())
"""


@cache
def _cannot_mount() -> str | None:
    if shutil.which("unshare") is None:
        return "there is no unshare"
    remounts = "mount -t tmpfs small /mnt && mount -o remount,ro /mnt"
    tried = subprocess.run(
        ["unshare", "-Urm", "sh", "-c", remounts], capture_output=True, check=False
    )
    return None if tried.returncode == 0 else "a program may not have mounts of its own here"


pytestmark = pytest.mark.skipif(_cannot_mount() is not None, reason=_cannot_mount() or "it can")


def lived(folder: Path, what: str, mode: str) -> subprocess.CompletedProcess[str]:
    """The program, in a process that has its own mounts."""
    command = ["unshare", "-Urm", sys.executable, "-W", "error", "-c", PROGRAM]
    command += [str(folder), what, mode]
    return subprocess.run(
        command, cwd=ROOT, timeout=60, check=False, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    ("what", "ran"), [("empty", "after"), ("closed", "kept after"), ("killed", "kept after")]
)
def test_a_start_on_a_read_only_disk(tmp_path: Path, what: str, ran: str) -> None:
    """It is refused with the reason, changes nothing, and leaves nothing behind that stands in the
    way of a start when the disk may be written to again.
    """
    done = lived(tmp_path, what, "ro")
    assert done.returncode == 0, done.stderr[-2000:]
    first, second, last = done.stdout.splitlines()
    assert first == second
    assert first.startswith("refused:")
    assert "cannot be" in first
    assert last == f"ran: {ran}"


def test_a_start_that_changes_files_is_seen(tmp_path: Path) -> None:
    """Control: on a disk that may be written to the same start is not refused, and writes."""
    done = lived(tmp_path, "closed", "rw")
    assert done.stdout.splitlines() == ["started", "started"]
    assert "the files are not what they were" in done.stderr
