"""The fixtures `defer_clock` and `defer_queue` work under each of the ways in which async tests are run."""

import anyio.pytest_plugin
import pytest

pytest_plugins = ["pytester"]

anyio_has_auto_mode = pytest.mark.skipif(
    not hasattr(anyio.pytest_plugin, "pytest_addoption"), reason="came with anyio 4.11"
)

PROGRAM = """
    import asyncio
    import gc
    from datetime import timedelta

    import pytest

    {mark}


    @pytest.fixture
    def anyio_backend():
        return "asyncio"


    @pytest.fixture
    def hour():
        return timedelta(hours=1)


    async def test_a_month_passes(defer_queue, defer_clock, hour):
        ran = []
        handle = await defer_queue.enqueue(ran.append, "late", delay=30 * 24 * hour)
        await defer_queue.enqueue(ran.append, "early", eta=defer_clock.now() + hour)
        await defer_clock.advance(30 * 24 * hour)
        assert ran == ["early", "late"]
        assert await handle is None


    async def test_the_queue_lives_in_the_loop_of_the_test(defer_queue, defer_clock):
        async def loop():
            return asyncio.get_running_loop()

        handle = await defer_queue.enqueue(loop)
        await defer_clock.run_until_idle()
        assert await handle is asyncio.get_running_loop()


    async def test_nothing_is_left_from_the_test_before(defer_queue, defer_clock):
        assert defer_queue.stats().accepted == 0
        await defer_queue.enqueue(print, delay=60)  # left behind: it waits, and is counted


    async def test_no_queue_outlives_its_test(defer_queue):
        gc.collect()
        queues = [one for one in gc.get_objects() if isinstance(one, type(defer_queue))]
        assert queues == [defer_queue]


    async def test_the_clock_alone(defer_clock):
        began = defer_clock.now()
        await defer_clock.advance(60)
        assert (defer_clock.now() - began).total_seconds() == 60
"""
PASSED = 5


def run(
    pytester: pytest.Pytester,
    *args: str,
    mark: str = "",
    ini: str = "",
    fixture_loop: str = "function",
) -> None:
    if "no:asyncio" not in args:  # pytest-asyncio warns of what is left unsaid
        ini += f"\nasyncio_default_fixture_loop_scope = {fixture_loop}"
    pytester.makeini(f"[pytest]\n{ini}\nfilterwarnings = error")
    pytester.makepyfile(PROGRAM.format(mark=mark))
    pytester.runpytest_subprocess(*args).assert_outcomes(passed=PASSED)


@anyio_has_auto_mode
def test_anyio_auto(pytester: pytest.Pytester) -> None:
    """`anyio_mode = auto`, and no pytest-asyncio."""
    run(pytester, "-p", "no:asyncio", ini="anyio_mode = auto")


def test_anyio_marked(pytester: pytest.Pytester) -> None:
    """`pytest.mark.anyio`, and no pytest-asyncio."""
    run(pytester, "-p", "no:asyncio", mark="pytestmark = pytest.mark.anyio")


def test_pytest_asyncio_strict(pytester: pytest.Pytester) -> None:
    """`asyncio_mode = strict`, with anyio's plugin switched off."""
    run(
        pytester,
        "-p",
        "no:anyio",
        mark="pytestmark = pytest.mark.asyncio",
        ini="asyncio_mode = strict",
    )


def test_pytest_asyncio_auto(pytester: pytest.Pytester) -> None:
    """`asyncio_mode = auto`, with anyio's plugin switched off."""
    run(pytester, "-p", "no:anyio", ini="asyncio_mode = auto")


def test_pytest_asyncio_strict_beside_anyio(pytester: pytest.Pytester) -> None:
    """Both plugins are installed, as they are for everyone who has pytest-asyncio; it runs the tests it is told to."""
    run(pytester, mark="pytestmark = pytest.mark.asyncio", ini="asyncio_mode = strict")


def test_pytest_asyncio_auto_beside_anyio(pytester: pytest.Pytester) -> None:
    """Both plugins are installed, and pytest-asyncio takes every test."""
    run(pytester, ini="asyncio_mode = auto")


def test_anyio_marked_beside_pytest_asyncio(pytester: pytest.Pytester) -> None:
    """Both plugins are installed, and anyio runs the tests it is told to."""
    run(pytester, mark="pytestmark = pytest.mark.anyio", ini="asyncio_mode = strict")


@anyio_has_auto_mode
def test_anyio_auto_beside_pytest_asyncio(pytester: pytest.Pytester) -> None:
    """Both plugins are installed, and anyio takes every test."""
    run(pytester, ini="anyio_mode = auto\nasyncio_mode = strict")


def test_one_loop_for_a_module(pytester: pytest.Pytester) -> None:
    """pytest-asyncio's wider loops hold the queue as well as the loop of one test."""
    run(
        pytester,
        ini="asyncio_mode = auto\nasyncio_default_test_loop_scope = module",
        fixture_loop="module",
    )


def test_it_gives_back_what_it_took(pytester: pytest.Pytester) -> None:
    """A queue that a running test asks for finds a wrapper of pytest-asyncio's in the test's place."""
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function")
    pytester.makeconftest(
        """
        import inspect

        import pytest

        @pytest.hookimpl(wrapper=True)
        def pytest_runtest_teardown(item):
            yield
            assert inspect.iscoroutinefunction(item.obj)
        """
    )
    pytester.makepyfile(
        """
        async def test_early(defer_queue):
            pass

        async def test_late(request):
            request.getfixturevalue("defer_queue")
        """
    )
    pytester.runpytest_subprocess("-p", "no:anyio").assert_outcomes(passed=2)
