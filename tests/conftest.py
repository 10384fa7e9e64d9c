"""What every test shares: asyncio as the backend, and how hard hypothesis tries.

Async tests need no mark (`anyio_mode = "auto"` in pyproject.toml).
"""

import gc
import inspect
import os
from collections.abc import Callable
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, settings

# Timings of a shared machine say nothing about our code, so no example has a deadline.
settings.register_profile("default", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("long", settings.get_profile("default"), max_examples=2_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def anyio_backend() -> object:
    return "asyncio"


@pytest.fixture(autouse=True, scope="module")
def collector() -> None:
    """What thousands of tests leave behind is no garbage of this one's: a collection passes it over."""
    gc.collect()
    gc.freeze()


# anyio before 4.11 has no auto mode: give it the option's name, and every async test its mark.
def pytest_addoption(parser: pytest.Parser) -> None:
    with suppress(ValueError):  # anyio has defined it
        parser.addini("anyio_mode", "see anyio's documentation")


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(
    collector: pytest.Module | pytest.Class, name: str, obj: Callable[..., object]
) -> None:
    if collector.istestfunction(obj, name):
        hypothesis = getattr(obj, "hypothesis", None)
        if inspect.iscoroutinefunction(hypothesis.inner_test if hypothesis else obj):
            pytest.mark.anyio(obj)
