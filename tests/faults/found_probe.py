"""Found: a start raises `OSError` where the probe for room cannot be removed.

What asks whether there is room removes its file outside of what it catches; on a disk that fails,
the error of `os.unlink` comes out of `queue.start()` in place of a `JournalError` (J9).

    pytest tests/faults/found_probe.py
"""

import pytest

from tests.faults import power_trace
from tests.faults.power import workplace
from tests.faults.syscalls import trial


@pytest.mark.skipif(power_trace.can_record() is not None, reason="needs strace")
def test_a_disk_on_which_nothing_can_be_removed() -> None:
    """The program lives, or its start is a `JournalError`."""
    with workplace() as place:
        found = trial("unlink:EIO", 1, place / "f", ever_after=True)
    assert not found.wrongs, found.wrongs
