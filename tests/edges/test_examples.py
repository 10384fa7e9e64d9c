"""Each example runs as its reader would run it: a process of its own, in real time, to its end."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(*command: str, seconds: float = 30) -> str:
    """The output of a Python program that ends well and in time, and warns of nothing."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-W", "ignore:SQLite:RuntimeWarning", *command],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


@contextmanager
def served(app: str) -> Iterator[tuple["subprocess.Popen[str]", httpx.Client]]:
    """An application under a real uvicorn on a free port, and a client of it."""
    command = [sys.executable, "-m", "uvicorn", app, "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            address = None
            while address is None:
                line = output(process).readline()
                assert line, "the server ended before it listened"
                address = re.search(r"running on (http://\S+)", line)
            with httpx.Client(base_url=address[1], timeout=10) as client:
                yield process, client
        finally:
            process.kill()


def output(process: "subprocess.Popen[str]"):
    assert process.stdout is not None
    return process.stdout


def interrupt(process: "subprocess.Popen[str]") -> tuple[int, float, str]:
    """Press Ctrl-C: the exit code, the seconds until the end, and what was still printed."""
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    code = process.wait(timeout=20)
    return code, time.monotonic() - began, output(process).read()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short(path: Path) -> None:
    """An example has fewer than 80 lines and says what it is."""
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(lines) < 80
    assert lines[0].startswith('"""')


def test_every_example_is_tried() -> None:
    """No example is added without a test here."""
    here = Path(__file__).read_text(encoding="utf-8")
    assert EXAMPLES
    assert [path.name for path in EXAMPLES if f"examples/{path.name}" not in here] == []


def test_notifications_are_folded() -> None:
    """`scripts/demo`: a timeline of calls, replacements, runs and results that adds up."""
    assert "examples/notifications.py" in (ROOT / "scripts/demo").read_text(encoding="utf-8")
    shown = run("examples/notifications.py")
    lines = re.findall(r"^ *([\d.]+) s +(\w+) +(.*)$", shown, re.MULTILINE)
    kinds = [kind for _, kind, _ in lines]
    assert kinds.count("call") == kinds.count("result") == 10
    assert kinds.count("run") == 4
    assert kinds.count("replaced") == 6
    assert "10 edits, 4 notifications, 6 calls replaced" in shown

    runs = [(float(at), text) for at, kind, text in lines if kind == "run"]
    for (at, text), (expected, update) in zip(
        runs, [(0.55, "comment"), (0.65, "figure"), (1.6, "word 3"), (2.3, "word 5")], strict=True
    ):
        assert update in text
        assert expected - 0.02 < at < expected + 1  # never early; late only on a busy machine
    assert [float(at) for at, _, _ in lines] == sorted(float(at) for at, _, _ in lines)


def test_search_follows_the_last_keystroke() -> None:
    """Ten keystrokes, one search for each pause in typing."""
    shown = run("examples/search_as_you_type.py")
    assert "Ada   sees Bergamo, Berlin, Bern" in shown
    assert "Ada   sees Berlin\n" in shown
    assert "Grace sees London" in shown
    assert "10 keystrokes, 3 searches: ber, berlin, lond" in shown


def test_a_bot_reminds() -> None:
    """Reminders ring at their time, are postponed, forgotten and snoozed; an hour and a half passes at once."""
    began = time.monotonic()
    shown = run("examples/bot_reminders.py")
    assert time.monotonic() - began < 10
    for line in (
        "00:02  bot: 00:30 ada:tea, 00:45 ada:call",
        "00:07  bot: at 00:57",
        "00:08  bot: walk: forgotten",
        "00:10  bot: nap: I know of no such reminder",
        "01:05  bot: @ada: call!",
        "01:07  bot: @ada: tea!",
        "01:29  bot: nothing waits",
    ):
        assert line in shown, shown


def test_a_trial_ends_or_is_paid() -> None:
    """A trial ends at its time, which a reschedule and a call of its key move and a purchase takes away."""
    began = time.monotonic()
    shown = run("examples/trial.py")
    assert time.monotonic() - began < 10
    for line in (
        "01 January  ada begins, until 15 January",
        "06 January  mary begins anew, until 26 January",
        "10 January  grace pays, in time: True",
        "14 January  linus gets another week: True",
        "15 January  the trial of ada has ended",
        "22 January  the trial of linus has ended",
        "26 January  the trial of mary has ended",
        "26 January  ada asks for a week, too late: False",
        "'grace': 'customer'",
    ):
        assert line in shown, shown
    assert shown.count("has ended") == 3


def test_what_is_due_is_read_by_range() -> None:
    """A range of etas shows what waits in it, in their order; what was cancelled or moved out is not there."""
    shown = run("examples/due_by_range.py").splitlines()
    assert shown == [
        "Fri 01  this week: acme:7 on Sun 03, core:11 on Mon 04, acme:9 on Tue 05, acme:10 on Thu 07",
        "Fri 01  this week, to acme: acme:7 on Sun 03, acme:9 on Tue 05, acme:10 on Thu 07",
        "Fri 01  9 is paid, 7 was put off: core:11 on Mon 04, acme:10 on Thu 07",
        "Mon 04  to core: invoice 11 is due",
        "Wed 06  the week from here: acme:10 on Thu 07, acme:7 on Sun 10",
        "Thu 07  to acme: invoice 10 is due",
        "Sun 10  to acme: invoice 7 is due",
        "Wed 13  to bolt: invoice 8 is due",
        "Wed 13  and now: nothing",
    ]


def test_an_api_is_asked_politely() -> None:
    """Starts are spaced, a 429 is waited for as long as it says, a 503 is tried again, a 404 is not."""
    shown = run("examples/api_client.py")
    asked = re.findall(r"^([\d.]+) s  /parts/(\d)  attempt (\d): (\d+)$", shown, re.MULTILINE)
    answers = {
        part: [status for _, other, _, status in asked if other == part] for part in "1234567"
    }
    assert answers == {
        "1": ["200"],
        "2": ["503", "503", "200"],
        "3": ["200"],
        "4": ["429", "200"],
        "5": ["503", "200"],
        "6": ["200"],
        "7": ["404"],
    }
    starts = sorted(float(at) for at, *_ in asked)
    assert all(at >= 0.1 * place - 0.01 for place, at in enumerate(starts))  # ten in a second
    first, second = (float(at) for at, part, *_ in asked if part == "4")
    assert second - first > 1 - 0.02
    assert shown.endswith("\nbolt, nut, gear, belt, cam, rod, there is no /parts/7\n")


def test_a_month_takes_no_time() -> None:
    """The test in the examples passes, with the fixtures of the library and nothing else."""
    began = time.monotonic()
    # Without this project's own settings, as a copy of it would run in the reader's project.
    alone = ("-c", os.devnull, "-p", "no:cacheprovider", "-p", "no:asyncio")
    shown = run("-m", "pytest", "-q", *alone, "examples/test_month_of_reminders.py")
    assert time.monotonic() - began < 20
    assert re.search(r"^4 passed", shown, re.MULTILINE), shown


def test_nightly_batch() -> None:
    """Three places, three midnights; a bad night is tried again; a schedule that was cancelled ends."""
    assert run("examples/nightly_batch.py").splitlines() == [
        "Oslo: At 00:00 every day (Europe/Oslo), first at Sun 23:00 UTC",
        "New York: At 00:00 every day (America/New_York), first at Sun 04:00 UTC",
        "Tokyo: At 00:00 every day (Asia/Tokyo), first at Sun 15:00 UTC",
        "Oslo is closed",
        "21 nights, 1 of them not at the first attempt",
        "2 shops left",
    ]


def test_reminders_outlive_kill_9() -> None:
    """What was done is not done again, what rang rings again, and what waited comes in its time."""
    shown = run("examples/reminder_service.py")
    assert shown.splitlines() == [
        "   the service starts, with 0 in its journal",
        "   dentist is accepted",
        "   walk is accepted",
        "   tea is accepted",
        "   tea! (attempt 1)",
        "   tea is done",
        "   oven is accepted",
        "   oven! (attempt 1)",
        "kill -9",
        "   the service starts, with 3 in its journal",
        "   oven! (attempt 2)",
        "   oven is done",
        "   walk! (attempt 1)",
        "   walk is done",
        "   the service ends, and leaves 1",
    ]


@pytest.mark.parametrize("rich", [True, False])
def test_a_table_is_indexed_anew(*, rich: bool) -> None:
    """Every row but the one that cannot be, with a bar or, where rich is not installed, with lines."""
    hidden = "import sys, runpy; sys.modules['rich'] = None; runpy.run_path('examples/reindex.py')"
    shown = run("examples/reindex.py") if rich else run("-c", hidden)
    assert "version 2 is in use: 1999 texts" in shown
    assert shown.endswith("text 1234: there are no words in it\n")
    if not rich:
        told = [int(done) for done in re.findall(r"^(\d+) of 2000$", shown, re.MULTILINE)]
        assert told == sorted(told)
        assert len(told) > 2
        assert told[-1] == 1_999


def test_orders_and_their_timers() -> None:
    """What is saved has its timers, what is undone has none, and a savepoint takes its own with it."""
    assert run("examples/orders.py").splitlines() == [
        "order 1: Ulysses is out of stock",
        "order 2: Ulysses is out of stock",
        "order 2: nothing of it is in stock, so there is no order 2",
        "3 timers wait",
        "order 1: Emma is on its way",
        "order 1: Dracula is on its way",
        "order 1: two weeks have gone by, where is the money?",
    ]


def test_fastapi_serves_itself() -> None:
    """As a script, the application answers real requests and ends."""
    shown = run("examples/fastapi_app.py")
    assert shown.count("indexing 7") == 1
    assert "asked: {'result': 3, 'state': 'succeeded'}" in shown
    assert "asked: {'result': 'report of 2027-01', 'state': 'succeeded'}" in shown


def test_fastapi_under_uvicorn() -> None:
    """`uvicorn examples.fastapi_app:app`: coroutine and plain endpoints, jobs found by id, a clean end."""
    with served("examples.fastapi_app:app") as (process, client):
        saved = [
            client.put("/documents/7", params={"text": text}).json()["job"]
            for text in ("a", "a b", "a b c")
        ]
        other = client.put("/documents/8", params={"text": "other"}).json()["job"]
        report = client.post("/reports/2027-01").json()["job"]
        assert len({*saved, other, report}) == 5
        assert client.get(f"/jobs/{saved[-1]}").json() == {"state": "scheduled"}
        for job_id, result in [(saved[-1], 3), (other, 1), (report, "report of 2027-01")]:
            found = client.get(f"/jobs/{job_id}", params={"wait": 5}).json()
            assert found == {"result": result, "state": "succeeded"}
        assert client.get(f"/jobs/{saved[0]}").status_code == 404  # replaced
        assert client.get("/jobs/1").status_code == 404

        code, took, shown = interrupt(process)
        assert code == 0
        assert took < 5
        assert "Traceback" not in shown
        assert shown.count("indexing 7") == 1


def test_fastapi_finishes_what_runs_at_ctrl_c() -> None:
    """Ctrl-C in the middle of a job: it finishes within the drain time, what waits is let go, exit code 0."""
    with served("examples.fastapi_app:app") as (process, client):
        client.post("/reports/2027-01", params={"seconds": 1})
        client.put("/documents/7", params={"text": "never indexed"})
        while "report 2027-01 begins" not in output(process).readline():
            pass
        code, took, shown = interrupt(process)
        assert code == 0
        assert took < 2 + 3  # drain_timeout, and room for a busy machine
        assert "report 2027-01 is ready" in shown
        assert "indexing 7" not in shown
        assert "Traceback" not in shown


def test_fastapi_does_not_wait_for_ever_at_ctrl_c() -> None:
    """A thread that outlasts the drain time does not keep the process."""
    with served("examples.fastapi_app:app") as (process, client):
        client.post("/reports/2027-01", params={"seconds": 60})
        while "report 2027-01 begins" not in output(process).readline():
            pass
        code, took, shown = interrupt(process)
        assert code == 0
        assert 1.5 < took < 2 + 5 + 8  # drain_timeout, the grace of a cancelled run, and room
        assert "is ready" not in shown
        assert "Traceback" not in shown
