"""C2: a queue that nobody closed never keeps the interpreter from exiting."""

# Each case is a program of its own, on the real clock: what is tested is the end of a process.

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

LIMIT = 20  # seconds, for a slow machine; every timer and every block in the programs below is far longer

PROGRAM = """
import asyncio
import sys
import threading
import time

from asyncdefer import Queue

queue = Queue(drain_timeout=60)

async def noop():
    return "done"

async def waits():
    await asyncio.sleep(3600)

def plain():
    return "done"

def blocks():
    print("blocks", flush=True)
    time.sleep(3600)

async def main():
    await queue.start()
{body}

{run}
print("end of the program", flush=True)
"""

BODIES = {
    "idle": "    pass",
    "has run a coroutine": "    assert await (await queue.enqueue(noop)) == 'done'",
    "has run a thread": "    assert await (await queue.enqueue(plain)) == 'done'",
    "has a far timer": "    await queue.enqueue(noop, delay=3600)",
    "has a waiter": (
        "    handle = await queue.enqueue(noop, delay=3600)\n"
        "    asyncio.ensure_future(handle)\n"
        "    await asyncio.sleep(0)"
    ),
    "has a running job": "    await queue.enqueue(waits)\n    await asyncio.sleep(0.05)",
    "is at work": "    for _ in range(1000): queue.enqueue_nowait(noop)",
}

RUNS = {
    "asyncio.run": "asyncio.run(main())",
    "loop never closed": "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())",
    "loop closed": (
        "loop = asyncio.new_event_loop()\nloop.run_until_complete(main())\nloop.close()"
    ),
    "uvloop": (
        "import uvloop\n"
        "with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:\n"
        "    runner.run(main())"
    ),
    "loop in a thread": (
        "thread = threading.Thread(target=asyncio.run, args=(main(),))\n"
        "thread.start()\n"
        "thread.join()"
    ),
}


def exits(tmp_path: Path, body: str, run: str) -> str:
    """Run the program, see it exit in time and without an error, and return what it printed."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM.format(body=body, run=run))
    started = time.monotonic()
    try:
        ran = subprocess.run(
            [sys.executable, str(script)], capture_output=True, text=True, timeout=40, check=False
        )
    except subprocess.TimeoutExpired as hung:
        pytest.fail(f"the interpreter does not exit; it printed {hung.stdout!r}")
    took = time.monotonic() - started
    assert ran.returncode == 0, ran.stderr
    assert "end of the program" in ran.stdout, ran.stderr
    assert took < LIMIT, ran.stderr
    return ran.stdout


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("body", ["has a far timer", "has a running job"])
def test_however_the_loop_ends(tmp_path: Path, body: str, run: str) -> None:
    """A program that forgets to close its queue exits, however its loop was run and ended."""
    if run == "uvloop":
        pytest.importorskip("uvloop")
    exits(tmp_path, BODIES[body], RUNS[run])


@pytest.mark.parametrize("body", [body for body in BODIES if body != "has a far timer"])
def test_whatever_the_queue_was_doing(tmp_path: Path, body: str) -> None:
    """A program that forgets its queue exits, whatever the queue was doing."""
    exits(tmp_path, BODIES[body], RUNS["asyncio.run"])


@pytest.mark.parametrize("run", ["asyncio.run", "loop never closed"])
def test_a_function_that_blocks_for_ever(tmp_path: Path, run: str) -> None:
    """A plain function that still blocks in its thread does not keep the interpreter either."""
    body = "    await queue.enqueue(blocks)\n    await asyncio.sleep(0.1)"
    assert "blocks" in exits(tmp_path, body, RUNS[run])


def test_a_queue_that_never_started(tmp_path: Path) -> None:
    """A queue that was only made holds nothing: no thread, no loop, no file."""
    script = tmp_path / "program.py"
    script.write_text(
        "import threading\n"
        "from asyncdefer import Queue\n"
        "queue = Queue()\n"
        "print(threading.active_count())\n"
    )
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=30, check=False
    )
    assert (ran.returncode, ran.stdout) == (0, "1\n"), ran.stderr


def test_the_collector_tells_nobody(tmp_path: Path) -> None:
    """A run that is swept up with its dead loop is no failed job: nothing is logged."""
    script = tmp_path / "program.py"
    script.write_text(
        PROGRAM.format(body=BODIES["has a running job"], run=RUNS["loop never closed"])
    )
    ran = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=40, check=False
    )
    assert "end of the program" in ran.stdout
    assert "job_failed" not in ran.stderr
