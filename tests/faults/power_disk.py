"""A disk whose power is cut: what may be on it, given what was written and what was synced.

What a sync that has ended covers is there. Of all else each sector may be as it was at any moment
since: a write is there, is not, or is torn; a file may have grown without its data, or not have
grown; a name may lack or be back as long as its folder was not synced. This is harsher than most
disks and file systems are.
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from tests.faults.power_trace import Event

SECTOR: Final = 512
PAGE: Final = 4096
State = dict[str, bytes]
"""The files of the folder that are there, by their names."""


@dataclass(slots=True)
class File:
    """What is on the disk for sure, and what was done since, with the place of each event."""

    safe: bytearray = field(default_factory=bytearray)
    since: list[tuple[int, Event]] = field(default_factory=list)

    def sync(self, began: int) -> None:
        left: list[tuple[int, Event]] = []
        for place, event in self.since:
            if place < began:
                apply(self.safe, event)
            else:
                left.append((place, event))
        self.since = left


def apply(content: bytearray, event: Event) -> None:
    """Do to a file what an event did."""
    if event.kind == "truncate":
        del content[event.at :]
        content.extend(bytes(event.at - len(content)))
        return
    end = event.at + len(event.data)
    if len(content) < event.at:
        content.extend(bytes(event.at - len(content)))
    content[event.at : end] = event.data


class Disk:
    """One folder, moved from event to event; `cut` says what may be there without its power."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.events = list(events)
        self.place = 0
        self.names: dict[str, File] = {}  # as the program sees them
        self.safe_names: dict[str, File] = {}
        self.renamed: dict[str, list[File | None]] = {}  # since the folder was synced

    def go(self, place: int) -> None:
        """On to where so many events have happened."""
        assert place >= self.place
        while self.place < place:
            self._happen(self.place, self.events[self.place])
            self.place += 1

    def _happen(self, place: int, event: Event) -> None:
        match event.kind:
            case "create":
                if event.name not in self.names:
                    self._name(event.name, File())
            case "unlink":
                self._name(event.name, None)
            case "sync":
                self.names[event.name].sync(event.began)
            case "names":
                self.safe_names = dict(self.names)
                self.renamed.clear()
            case "write" | "truncate":
                self.names[event.name].since.append((place, event))

    def _name(self, name: str, file: File | None) -> None:
        self.renamed.setdefault(name, []).append(file)
        if file is None:
            self.names.pop(name, None)
        else:
            self.names[name] = file

    def files(self, chance: random.Random) -> dict[str, File]:
        """One way in which the names may be on the disk."""
        found = dict(self.safe_names)
        for name, since in self.renamed.items():
            file = chance.choice([self.safe_names.get(name), *since])
            if file is None:
                found.pop(name, None)
            else:
                found[name] = file
        return found

    def cut(self, chance: random.Random) -> State:
        """One state in which a power cut may leave the disk now."""
        way = chance.choice(WAYS)
        return {name: way(file, chance) for name, file in self.files(chance).items()}

    def kept(self) -> State:
        """What is there if nothing is ever lost: a machine that only stops."""
        return {name: all_of_it(file) for name, file in self.names.items()}


# ---- what may be left of the writes since the last sync ----


def all_of_it(file: File, chance: random.Random | None = None) -> bytes:
    content = bytearray(file.safe)
    for _, event in file.since:
        apply(content, event)
    return bytes(content)


def none_of_it(file: File, chance: random.Random) -> bytes:
    return _grown(bytearray(file.safe), file, chance)


def the_first(file: File, chance: random.Random) -> bytes:
    """Written in order, and one torn in the middle."""
    content = bytearray(file.safe)
    upto = chance.randrange(len(file.since) + 1)
    for _, event in file.since[:upto]:
        apply(content, event)
    if upto < len(file.since):
        _tear(content, file.since[upto][1], chance)
    return _grown(content, file, chance)


def some_of_it(file: File, chance: random.Random) -> bytes:
    """Each write is there, is not, or is torn."""
    content = bytearray(file.safe)
    lost = chance.choice((0.1, 0.5, 0.9))
    for _, event in file.since:
        if chance.random() >= lost:
            apply(content, event)
        elif chance.random() < 0.3:
            _tear(content, event, chance)
    return _grown(content, file, chance)


def sector_by_sector(file: File, chance: random.Random) -> bytes:
    """Each sector, or page, is as it was at a moment of its own."""
    if not file.since:
        return bytes(file.safe)
    unit = chance.choice((SECTOR, PAGE))
    moments = sorted(chance.choices(range(len(file.since) + 1), k=3))
    images: list[bytes] = [bytes(file.safe)]
    content = bytearray(file.safe)
    done = 0
    for moment in [*moments, len(file.since)]:
        for _, event in file.since[done:moment]:
            apply(content, event)
        done = max(done, moment)
        images.append(bytes(content))
    longest = max(map(len, images))
    touched: set[int] = set()
    for _, event in file.since:
        end = max(event.at + len(event.data), longest if event.kind == "truncate" else 0)
        touched.update(range(event.at // unit, -(-end // unit)))
    left = bytearray(images[0].ljust(longest, b"\0"))
    for number in touched:
        part = slice(number * unit, min((number + 1) * unit, longest))
        left[part] = chance.choice(images)[part].ljust(part.stop - part.start, b"\0")
    return _grown(left, file, chance)


def _tear(content: bytearray, event: Event, chance: random.Random) -> None:
    """Some sectors of a write: the first, the last, or any."""
    if event.kind == "truncate":
        return
    unit = chance.choice((SECTOR, SECTOR, PAGE))
    end = event.at + len(event.data)
    edges = [event.at, *range((event.at // unit + 1) * unit, end, unit), end]
    parts = list(pairwise(edges))
    middle = chance.randrange(len(parts) + 1)
    some = chance.choice((parts[:middle], parts[middle:], chance.sample(parts, middle)))
    for begin, stop in some:
        data = event.data[begin - event.at : stop - event.at]
        apply(content, Event("write", event.name, data, begin))


def _grown(content: bytearray, file: File, chance: random.Random) -> bytes:
    """The file may have any length that it had since: what lies beyond is gone, and what was
    never written there is zeros, or whatever the disk had there.
    """
    length, lengths = len(file.safe), [len(file.safe)]
    for _, event in file.since:
        grown = max(length, event.at + len(event.data))
        length = event.at if event.kind == "truncate" else grown
        lengths.append(length)
    wanted = chance.choice((len(content), chance.choice(lengths)))
    before = len(content)
    del content[wanted:]
    if wanted > before:
        more = wanted - before
        content.extend(bytes(more) if chance.random() < 0.7 else chance.randbytes(more))
    return bytes(content)


WAYS: Final = (all_of_it, none_of_it, the_first, some_of_it, sector_by_sector, the_first)
