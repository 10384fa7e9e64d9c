"""Where a workload is measured: one side, in one fresh process, printing one line of JSON.

Owns the stopwatch, the scales (resident memory, processor time, wake-ups) and the way in and out of the process. Knows no library: each side
imports its own, because the peers live in another environment than ours.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import math
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Self

Figures = dict[str, float]


class Job(argparse.Namespace):
    """What a side is asked to do: how many calls, and for the timed workloads over how many seconds."""

    side: str
    n: int
    window: float
    uvloop: bool


Side = Callable[[Job], Awaitable[Figures]]

request_id: ContextVar[int] = ContextVar("request_id")
"""A context is never empty in a real program, so every side has one variable set."""


class Stopwatch:
    """Wall and processor seconds of a block. Garbage of the set-up is collected before; what the block itself leaves is part of its cost."""

    def __enter__(self) -> Self:
        gc.collect()
        self._cpu = time.process_time()
        self._wall = time.perf_counter()
        return self

    def __exit__(self, *exc: object) -> None:
        self.wall = time.perf_counter() - self._wall
        self.cpu = time.process_time() - self._cpu

    def rates(self, calls: int) -> Figures:
        """Calls a second, by the wall and by the processor: on a busy machine the second is the steadier one."""
        return {"rate": calls / self.wall, "cpu_rate": calls / self.cpu}


class Window:
    """Processor time and voluntary wake-ups during a stretch of time in which the measured side does all the work."""

    def __init__(self) -> None:
        self._wakes = resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw
        self._cpu = time.process_time()

    def cpu(self) -> float:
        return time.process_time() - self._cpu

    def wakes(self) -> int:
        """Without the one that ends the measuring sleep itself."""
        return max(0, resource.getrusage(resource.RUSAGE_SELF).ru_nvcsw - self._wakes - 1)


def resident() -> float:
    """Bytes of this process in memory after a full collection; NaN where there is no /proc."""
    gc.collect()
    try:
        with open("/proc/self/statm", "rb") as statm:
            return float(int(statm.read().split()[1]) * resource.getpagesize())
    except OSError:
        return math.nan


def percentile(values: list[float], percent: float) -> float:
    """The nearest-rank percentile of values that are not empty."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)]


def main(sides: Mapping[str, Side]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=sides)
    parser.add_argument("--n", type=int, required=True, help="calls")
    parser.add_argument(
        "--window", type=float, default=5.0, help="seconds, for the timed workloads"
    )
    parser.add_argument("--uvloop", action="store_true")
    job = parser.parse_args(namespace=Job())

    async def measure() -> Figures:
        request_id.set(1)
        return await sides[job.side](job)

    factory: Callable[[], asyncio.AbstractEventLoop] | None = None
    if job.uvloop:
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        print(json.dumps(runner.run(measure())))
        sys.stdout.flush()
        os._exit(0)  # taking down a million timers is nobody's workload
