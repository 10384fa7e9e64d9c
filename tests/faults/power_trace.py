"""A recording of a program's system calls, as the events on the files of one folder.

The program runs under strace, which writes down every call that changes a file, with all its
data. An event stands where its call began; a sync counts from where it ended. The `-shm` file is
left out: it is memory, and made anew from the -wal. So are the reserve and the probe: they hold
nothing.
"""

import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple

CALLS: Final = (
    "openat,open,creat,pwrite64,pwritev,pwritev2,write,writev,ftruncate,truncate,fallocate,"
    "fdatasync,fsync,sync_file_range,unlink,unlinkat,rename,renameat,renameat2,link,linkat"
)
_IGNORED: Final = ("-shm", "-reserve", "-probe")
_LINE: Final = re.compile(rb"(\d+) +(?:<\.\.\. (\w+) resumed>|(\w+)\()(.*)")
_RESULT: Final = re.compile(rb"\) += (-?\d+)[^=]*$")
_HEX: Final = re.compile(rb"((?:\\x[0-9a-f]{2})+)")
_AT_ONCE: Final = (b"pwrite64", b"write", b"ftruncate")  # the others when they have ended
_QUOTED: Final = re.compile(rb'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_FILE: Final = re.compile(rb"^(\d+)<((?:\\x[0-9a-f]{2})+)>(\(deleted\))?")


class Event(NamedTuple):
    """What was done to a file, by its name in the folder.

    `kind`: `create`, `write`, `truncate`, `extend`, `sync` (of a file), `names` (a sync of the
    folder), `failed` (any sync), `unlink`, or `ack` (a line that the program has written).
    `began`: of a sync, the place of the event before which everything was there already.
    """

    kind: str
    name: str = ""
    data: bytes = b""
    at: int = 0
    began: int = 0


@cache
def can_record() -> str | None:
    """Why it cannot be done here; None if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    tried = subprocess.run(["strace", "-f", "-qq", "true"], capture_output=True, check=False)
    return None if tried.returncode == 0 else "strace may not trace here"


def record(
    command: Sequence[str], trace: Path, *, cwd: Path, fault: str = "", timeout: float = 120
) -> int:
    """Run a command to its end and write down what it does; its exit code.

    `fault`: calls that are made to fail meanwhile, in the words of strace.
    """
    strace = ["strace", "-f", "-qq", "-y", "-xx", "-s", "10000000", "-e", f"trace={CALLS}"]
    if fault:
        strace += ["-e", f"inject={fault}"]
    done = subprocess.run(
        [*strace, "--seccomp-bpf", "-e", "signal=none", "-o", str(trace), *command],
        cwd=cwd,
        timeout=timeout,
        check=False,
    )
    return done.returncode


class _Reader:
    def __init__(self, folder: bytes, acks: str) -> None:
        self.folder = folder
        self.prefix = folder + b"/"
        self.acks = acks
        self.events: list[Event] = []
        self.doubtful: list[int] = []
        self.under_way: dict[bytes, tuple[bytes, bytes, int]] = {}
        self.there: set[str] = set()

    def line(self, line: bytes) -> None:
        matched = _LINE.match(line)
        if matched is None:  # an exit or a signal
            return
        thread, resumed, name, rest = matched.groups()
        if resumed is not None:
            name, text, began = self.under_way.pop(thread)
            if name not in _AT_ONCE:
                self._ended(name, text, began, _result(rest))
            elif _result(rest) < 0:
                self._doubt(began)
        elif rest.rstrip().endswith(b"<unfinished ...>"):
            self.under_way[thread] = name, rest, len(self.events)
            if name in _AT_ONCE:
                self._told(name, rest, len(self.events))
        else:
            self._ended(name, rest, len(self.events), _result(rest))

    def _ended(self, name: bytes, text: bytes, began: int, result: int) -> None:
        if result >= 0:
            self._told(name, text, began)
        elif name in (b"fdatasync", b"fsync"):
            self.events.append(Event("failed", began=began))

    def died(self) -> None:
        """The process is gone, maybe in the middle of a call."""
        for name, _, began in self.under_way.values():
            if name in _AT_ONCE:
                self._doubt(began)
        self.under_way.clear()

    def _doubt(self, place: int) -> None:
        if place < len(self.events) and self.events[place].kind in ("write", "truncate"):
            self.doubtful.append(place)

    def _told(self, name: bytes, text: bytes, began: int) -> None:
        event = self._event(name, text, began)
        if event is not None:
            self.events.append(event)

    def _event(self, call: bytes, text: bytes, began: int) -> Event | None:
        if call in (b"openat", b"unlink"):
            return self._named(call, text)
        matched = _FILE.match(text)
        if matched is None:
            return self._strange(call, text)
        path = _plain(matched[2])
        if path == self.folder and call in (b"fsync", b"fdatasync"):
            return Event("names", began=began)
        name = self._name(path)
        if name is None:
            return None
        if matched[3]:
            return None  # it has no name any more, and nobody will find it
        match call:
            case b"pwrite64" | b"write":
                quoted = _QUOTED.search(text, matched.end())
                assert quoted is not None, text[:200]
                assert not quoted[2], "the data of a write is cut off"
                data = bytes.fromhex(quoted[1].replace(b"\\x", b"").decode())
                if name == self.acks:
                    return Event("ack", data=data)
                assert call == b"pwrite64", f"a write without a place: {text[:80]!r}"
                numbers = re.findall(rb"\d+", text[quoted.end() :])
                return Event("write", name, data, int(numbers[1]))
            case b"ftruncate":
                length = re.search(rb"\d+", text[matched.end() :])
                assert length is not None, text[:200]
                return Event("truncate", name, at=int(length[0]))
            case b"fdatasync" | b"fsync":
                return Event("sync", name, began=began)
            case _:
                return self._strange(call, text)

    def _named(self, call: bytes, text: bytes) -> Event | None:
        quoted = _QUOTED.search(text)
        name = None if quoted is None else self._name(_plain(quoted[1]))
        if name is None or name == self.acks:
            return None
        if call == b"unlink":
            self.there.discard(name)
            return Event("unlink", name)
        assert b"O_TRUNC" not in text, f"a file is cut when it is opened: {name}"
        if b"O_CREAT" in text and name not in self.there:
            self.there.add(name)
            return Event("create", name)
        return None

    def _name(self, path: bytes) -> str | None:
        """The name in the folder; None for what is elsewhere or not looked at."""
        if not path.startswith(self.prefix):
            return None
        name = path[len(self.prefix) :].decode()
        return None if name.endswith(_IGNORED) else name

    def _strange(self, call: bytes, text: bytes) -> Event | None:
        plain = _HEX.sub(lambda found: _plain(found[1]), text[:2000])
        ours = self.prefix in plain and not any(one.encode() in plain for one in _IGNORED)
        assert not ours, f"a call that the simulation does not know: {call!r} {plain[:200]!r}"
        return None


def _plain(text: bytes) -> bytes:
    return bytes.fromhex(text.replace(b"\\x", b"").decode())


def _result(rest: bytes) -> int:
    matched = _RESULT.search(rest)
    return -1 if matched is None else int(matched[1])


def read(traces: Sequence[Path], folder: Path, acks: str = "acks") -> tuple[list[Event], list[int]]:
    """The events of processes that ran one after another in a folder, in their order.

    And the places of those of which nobody knows whether they happened: the process was killed in
    the middle of them.
    """
    reader = _Reader(str(folder).encode(), acks)
    for trace in traces:
        with trace.open("rb") as lines:
            for line in lines:
                reader.line(line)
        reader.died()
    return reader.events, reader.doubtful
