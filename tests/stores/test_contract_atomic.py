"""All changes of a write happen, in their order, or none; and every error is a `JournalError`."""

from collections.abc import Callable
from typing import Any

import pytest
from msgspec import structs

from asyncdefer.errors import JournalError
from asyncdefer.stores._base import Add, Change, Command, Drop, Note, Set, Store, Written
from tests.stores.desk import Desk, opened_desk, row

ALONE = row(9, "nine")
BAD: dict[str, Any] = {
    "id too great": Add(structs.replace(ALONE, id=2**63)),
    "id too small": Add(structs.replace(ALONE, id=-(2**63) - 1)),
    "id is a text": Add(structs.replace(ALONE, id="nine")),
    "at too late": Add(structs.replace(ALONE, at=2**63)),
    "at is a fraction": Add(structs.replace(ALONE, at=0.5)),
    "until too late": Add(structs.replace(ALONE, until=1 << 80)),
    "key is half a character": Add(structs.replace(ALONE, key="\ud83d")),
    "task is half a character": Add(structs.replace(ALONE, task="\udc80")),
    "arguments are half a character": Add(structs.replace(ALONE, arguments="\udc80")),
    "body is half a character": Set(structs.replace(row(1), body="\udc80"), "scheduled"),
    "set too late": Set(structs.replace(row(1), at=2**63), "scheduled"),
    "note is half a character": Note("n", "\udc80"),
    "name is half a character": Note("\udc80", "n"),
    "no change": "add",
    "nothing": None,
}


@pytest.fixture(params=BAD.values(), ids=[name.replace(" ", "-") for name in BAD])
def bad(request: pytest.FixtureRequest) -> Change:
    """What no store can keep."""
    return request.param


def writes(bad: Change) -> list[list[Command]]:
    """A bad change before, between and after good ones, in their command and in one of its own."""
    good: list[Change] = [
        Add(row(4, "four")),
        Set(row(1, "one", "running"), "scheduled"),
        Drop(2, "scheduled"),
        Add(row(5, "three")),
        Note("n", "new"),
        Note("o", None),
    ]
    commands: list[list[Command]] = []
    for at in (0, 3, 6):
        changes = [*good[:at], bad, *good[at:]]
        commands += [[tuple(changes)], [(change,) for change in changes]]
    return commands


async def test_all_or_nothing(desk: Desk, bad: Change) -> None:
    """A change that cannot be kept takes the whole write with it, and nothing else."""
    before = [row(1, "one"), row(2, "two"), row(3, "three")]
    await desk.write(*map(Add, before), Note("n", "old"), Note("o", "old"))
    for commands in writes(bad):
        with pytest.raises(JournalError):
            await desk.store.write(desk.owner, commands)
        assert await desk.rows() == before
    assert await desk.write(Add(row(4, "three"))) == Written((), (3,))


async def test_the_next_owner_finds_nothing_of_it(
    store: Store, again: Callable[[], Store], bad: Change
) -> None:
    """Neither ids, nor counts, nor notes."""
    async with opened_desk(store) as desk:
        await desk.write(Add(row(1, "one")), Note("n", "old"), Note("o", "old"))
        for commands in writes(bad):
            with pytest.raises(JournalError):
                await store.write(desk.owner, commands)
    async with opened_desk(again()) as desk:
        assert (desk.opened.last_id, desk.opened.clean) == (1, True)
        assert desk.opened.counts.get("scheduled") == 1
        assert desk.opened.notes == {"n": "old", "o": "old"}
        assert await desk.rows() == [row(1, "one")]


@pytest.mark.parametrize("name", ["at too late", "until too late", "body is half a character"])
async def test_a_bad_add_that_is_changed_at_once(desk: Desk, name: str) -> None:
    """What the change covers is looked at all the same, and nothing is written."""
    wrong = {"at too late": {"at": 2**63}, "until too late": {"until": 1 << 80}}
    bad = structs.replace(row(1), **wrong.get(name, {"body": "\udc80"}))
    with pytest.raises(JournalError):
        await desk.write(Add(row(2)), Add(bad), Set(row(1, state="running"), "scheduled"))
    assert await desk.ids() == []


async def test_an_id_that_comes_twice_in_a_write(desk: Desk) -> None:
    """The second add of an id is lost, and the first stays."""
    written = await desk.write(Add(row(1, arguments="[1]")), Add(row(1, arguments="[2]")))
    assert (written.lost, written.replaced) == ((1,), ())
    assert [found.arguments for found in await desk.rows()] == ["[1]"]


async def test_an_add_whose_change_names_another_task(desk: Desk) -> None:
    """A change says all of a row but its arguments."""
    await desk.write(
        Add(row(1, arguments="[1]")), Set(row(1, task="other", state="running"), "scheduled")
    )
    [found] = await desk.rows()
    assert (found.task, found.state, found.arguments) == ("other", "running", "[1]")
