"""Names of tasks, and registries for programs of many modules."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import asyncdefer
from asyncdefer import DeferError, Queue, State, Task, Tasks
from asyncdefer.testing import VirtualClock, virtual


async def charge(n: int = 0) -> int:
    return n


async def refund(n: int = 0) -> int:
    return -n


def plain(n: int = 0) -> int:
    return n


# Names


def test_the_default_name_is_module_and_qualname() -> None:
    """A task is called after its function, in full."""
    queue = Queue()

    class Shop:
        @staticmethod
        async def close() -> None: ...

    assert queue.task(charge).name == f"{__name__}.charge"
    assert queue.task()(refund).name == f"{__name__}.refund"
    assert queue.task(Shop.close).name == (
        f"{__name__}.test_the_default_name_is_module_and_qualname.<locals>.Shop.close"
    )


def test_a_name_of_its_own() -> None:
    """A stable name is given as the first argument or by keyword."""
    queue = Queue()

    assert queue.task("billing.charge")(charge).name == "billing.charge"
    assert queue.task(name="billing.refund", delay=5)(refund).name == "billing.refund"


@pytest.mark.parametrize("name", ["", 3, b"x"], ids=repr)
def test_a_bad_name_is_refused(name: Any) -> None:
    """A name is a text that is not empty."""
    with pytest.raises((TypeError, ValueError)):
        Queue().task(name=name)(charge)


def test_two_tasks_of_one_name() -> None:
    """Names are unique in a queue: the second is a ValueError that says which."""
    queue = Queue()
    queue.task("billing.charge")(charge)

    with pytest.raises(ValueError, match=r"billing\.charge"):
        queue.task("billing.charge")(refund)
    with pytest.raises(ValueError, match=r"billing\.charge"):
        queue.task("billing.charge")(charge)
    queue.task("billing.refund")(refund)


def test_two_queues_may_use_one_name() -> None:
    """Each queue has names of its own."""
    for queue in (Queue(), Queue()):
        assert queue.task("billing.charge")(charge).name == "billing.charge"


MAIN = """
from asyncdefer import Queue, Tasks

queue = Queue()
tasks = Tasks()

@queue.task
async def send(): ...

@tasks.task
async def fetch(): ...

print(send.name, fetch.name)
"""


def run_python(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


@pytest.mark.parametrize(
    ("file", "arguments", "module"),
    [
        ("report.py", ["report.py"], "report"),
        ("shop/jobs.py", ["-m", "shop.jobs"], "shop.jobs"),
        ("shop/__main__.py", ["-m", "shop"], "shop.__main__"),
        ("shop/tool.py", ["shop/tool.py"], "tool"),
    ],
)
def test_a_task_of_the_main_program(
    tmp_path: Path, file: str, arguments: list[str], module: str
) -> None:
    """`__main__` is no stable name: it is the name of the program's spec or file."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop/__init__.py").touch()
    (tmp_path / file).write_text(MAIN)

    done = run_python(arguments, tmp_path)

    assert done.stderr == ""
    assert done.stdout.split() == [f"{module}.send", f"{module}.fetch"]


def test_a_task_of_a_program_without_a_file(tmp_path: Path) -> None:
    """`python -c` has neither spec nor file, and works."""
    done = run_python(["-c", MAIN], tmp_path)

    assert done.stderr == ""
    assert done.stdout.split()[0].endswith("send")


# Kinds


def test_what_the_decorator_returns() -> None:
    """Bare or called, it returns a Task: one kind for coroutine functions, one for plain ones."""
    queue = Queue()
    later, now = queue.task(charge), queue.task(delay=5)(plain)

    assert isinstance(later, Task)
    assert isinstance(now, Task)
    assert type(later) is not type(now)
    assert [type(task).__name__ for task in (later, now)] == ["AsyncTask", "SyncTask"]


# Registries


async def test_include(defer_clock: VirtualClock) -> None:
    """The tasks of an included registry are the queue's own, options and all."""
    tasks = Tasks()
    note = tasks.task("note", delay=10, defer=["n"])(charge)
    now = tasks.task(plain)
    queue = Queue()
    queue.include(tasks)

    async with virtual(queue) as clock:
        first = await note.enqueue(1)
        second = await queue.enqueue(note, n=1)
        other = await now.enqueue(3)
        assert first.replaced
        await clock.advance(10)
        assert (await first, await second, await other) == (1, 1, 3)
        assert (first.task, other.task) == ("note", f"{__name__}.plain")


async def test_a_prefix() -> None:
    """A registry's prefix stands before each of its names, given or default."""
    tasks = Tasks(prefix="billing.")
    named, default = tasks.task("charge")(charge), tasks.task(refund)
    queue = Queue()
    queue.include(tasks)

    assert named.name == "billing.charge"
    assert default.name.startswith("billing.")
    assert default.name.endswith("refund")
    async with virtual(queue) as clock:
        handle = await named.enqueue(1)
        await clock.advance(0)
        assert handle.task == "billing.charge"
        found = [job.task async for job in queue.jobs(task="billing.charge")]
        assert found == ["billing.charge"]


async def test_several_registries() -> None:
    """A program of many modules includes one registry of each, before and while it runs."""
    queue = Queue()
    registries = [Tasks(prefix=f"module{n}.") for n in range(3)]
    tasks = [registry.task("charge")(charge) for registry in registries]
    for registry in registries[:2]:
        queue.include(registry)

    async with virtual(queue) as clock:
        queue.include(registries[2])
        handles = [await task.enqueue(n) for n, task in enumerate(tasks)]
        await clock.advance(0)
        assert [await handle for handle in handles] == [0, 1, 2]


def test_two_tasks_of_one_name_in_a_registry() -> None:
    """Names are unique in a registry, too."""
    tasks = Tasks(prefix="billing.")
    tasks.task("charge")(charge)

    with pytest.raises(ValueError, match=r"billing\.charge"):
        tasks.task("charge")(refund)


async def test_an_include_that_collides_includes_nothing() -> None:
    """A name that the queue has already is a ValueError, and no half of the registry is included."""
    queue = Queue()
    own = queue.task("charge")(charge)
    tasks = Tasks()
    fresh = tasks.task("refund")(refund)
    tasks.task("charge")(charge)

    with pytest.raises(ValueError, match="charge"):
        queue.include(tasks)
    async with virtual(queue) as clock:
        handle = await own.enqueue(5)
        with pytest.raises((DeferError, RuntimeError)):
            await fresh.enqueue(1)
        await clock.advance(0)
        assert await handle == 5
    queue.task("refund")(refund)


def test_included_in_a_second_queue() -> None:
    """A task has one queue: including its registry elsewhere is a ValueError."""
    tasks = Tasks()
    tasks.task("charge")(charge)
    Queue().include(tasks)

    with pytest.raises(ValueError, match="include"):
        Queue().include(tasks)


def test_included_twice() -> None:
    """Including a registry twice in one queue is a ValueError as well."""
    tasks = Tasks()
    tasks.task("charge")(charge)
    queue = Queue()
    queue.include(tasks)

    with pytest.raises(ValueError, match="charge"):
        queue.include(tasks)


async def test_a_task_of_a_registry_that_is_not_included() -> None:
    """Without a queue there is nothing to enqueue into: the error says to include the registry."""
    tasks = Tasks(prefix="billing.")
    task = tasks.task("charge")(charge)

    with pytest.raises((DeferError, RuntimeError), match="include"):
        await task.enqueue(1)
    with pytest.raises((DeferError, RuntimeError), match="include"):
        await task.options(delay=5).enqueue(1)
    assert await task(5) == 5


async def test_a_task_of_another_queue(defer_queue: Queue) -> None:
    """A task belongs to its queue: another one refuses it and accepts nothing."""
    task = Queue().task("charge")(charge)

    with pytest.raises((DeferError, ValueError), match="charge"):
        await defer_queue.enqueue(task, 1)
    assert defer_queue.stats().accepted == 0


def test_a_registry_checks_at_the_decoration() -> None:
    """Wrong options are found where they are written, not at `include`."""
    tasks = Tasks()

    with pytest.raises(ValueError, match="usr"):
        tasks.task(defer=["usr"])(charge)
    with pytest.raises(ValueError, match="delay"):
        tasks.task(delay=-1)(charge)


async def test_tasks_may_be_registered_while_the_queue_runs(
    defer_queue: Queue, defer_clock: VirtualClock
) -> None:
    """A plugin that is loaded late registers its tasks late."""
    await defer_queue.enqueue(charge)
    task = defer_queue.task("late", delay=5)(charge)
    handle = await task.enqueue(7)
    await defer_clock.advance(5)

    assert await handle == 7
    assert handle.state is State.SUCCEEDED


async def test_a_task_is_kept_over_restarts() -> None:
    """A program's own tasks work again when its queue is started again."""
    queue = Queue()
    task = queue.task("charge", delay=5)(charge)

    for n in range(3):
        async with virtual(queue) as clock:
            handle = await task.enqueue(n)
            await clock.advance(5)
            assert await handle == n


def test_public_names() -> None:
    """The names that a program needs are found in `asyncdefer` itself."""
    names = [
        "Queue",
        "Defer",
        "Task",
        "Tasks",
        "Handle",
        "Job",
        "Run",
        "State",
        "Stats",
        "Snooze",
        "GiveUp",
        "current",
        "sleep",
        "DeferError",
        "NotStarted",
        "QueueClosed",
        "WrongLoop",
        "JobCancelled",
        "JobExpired",
        "JobDropped",
        "JobFailed",
        "UnknownTask",
    ]

    assert [name for name in names if not hasattr(asyncdefer, name)] == []
    assert [name for name in names if name not in asyncdefer.__all__] == []
    for name in names[11:]:
        error = getattr(asyncdefer, name)
        if name not in {"current", "sleep"}:
            assert issubclass(error, asyncdefer.DeferError)


async def test_one_function_under_two_names() -> None:
    """What is remembered of a function has the name of neither task: errors name the right one."""

    def greet(name: str) -> str:
        return name

    queue, first, second = Queue(), Tasks("a."), Tasks("b.")
    tasks = [registry.task("greet")(greet) for registry in (first, second)]
    queue.include(first)
    queue.include(second)
    async with queue:
        for task, name in zip(tasks, ("a.greet", "b.greet"), strict=True):
            with pytest.raises(TypeError, match=rf"^{name}\(\)"):
                await task.enqueue()  # type: ignore[call-arg]
