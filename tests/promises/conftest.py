"""Every promise holds on asyncio's own loop and on uvloop, on a clock that the test moves."""

import sys

import pytest

from asyncdefer import Queue
from asyncdefer.testing import VirtualClock

LOOPS = [pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio")]
if sys.platform != "win32":
    LOOPS.append(pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"))


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
def queue(defer_queue: Queue) -> Queue:
    """A started queue in memory; after the test its books must balance."""
    return defer_queue


@pytest.fixture
def clock(defer_clock: VirtualClock) -> VirtualClock:
    """The clock of `queue`."""
    return defer_clock
