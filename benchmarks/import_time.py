"""Milliseconds of importing the library when everything it depends on is there already.

A script of its own, without `stage`, which would bring in parts of the standard library beforehand.
"""

from __future__ import annotations

import sys
import time

side = sys.argv[1]
start = time.perf_counter()
if side != "ours_alone":
    import asyncio  # noqa: F401

    import aiosqlite  # noqa: F401
    import anyio  # noqa: F401
    import cronsim  # noqa: F401
    import msgspec  # noqa: F401
    import structlog  # noqa: F401
if side == "ours":
    start = time.perf_counter()
if side != "floor":
    import asyncdefer  # noqa: F401
print(f'{{"import_ms": {(time.perf_counter() - start) * 1e3:.3f}}}')
