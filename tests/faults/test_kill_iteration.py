"""kill -9 in the middle of an iteration: nothing that was recorded as done is repeated."""

import sys

import pytest

from tests.faults.kill_iteration import run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kill -9")


def test_twenty_kills() -> None:
    """Each shard goes on behind what was recorded, no item is missed, and finalize ends once."""
    killed, repeated, wrong = run(seed=1, kills=20, items=2_500)
    assert wrong == []
    assert killed >= 10
    assert repeated <= 8 * killed  # what ran during one commit, in each of four shards


@pytest.mark.parametrize("planted", ["forget", "skip"])
def test_a_cursor_that_lies_is_found(planted: str) -> None:
    """The harness can fail: where cursors are not written, or say too much, the ledger shows it."""
    *_, wrong = run(seed=2, kills=5, items=1_000, planted=planted)
    assert wrong
