"""What the tests of the core share: calls of a task that is nothing but its declaration."""

from collections.abc import Callable, Hashable
from contextvars import Context
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest

from asyncdefer._core.job import NO_KWARGS, Call, Key
from asyncdefer._core.options import Options

MakeCall = Callable[..., Call]


@dataclass(frozen=True)
class Declared:
    name: str = "task"
    declared: Options = field(default_factory=Options)

    @property
    def identity(self) -> Hashable:
        return self.name


@pytest.fixture
def make_call() -> MakeCall:
    """`make_call(eta, key=None, task="task", expires=…, …)`; ids grow from 1."""
    ids = count(1)
    context = Context()

    def make(
        eta: int = 0,
        key: str | None = None,
        *,
        id: int | None = None,
        task: str = "task",
        expires: int | None = None,
        steady: bool = True,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        **values: Any,
    ) -> Call:
        number = next(ids) if id is None else id
        full: Key = number if key is None else (task, key)
        declared = Declared(task, Options() if expires is None else Options(expires=expires))
        given = kwargs or NO_KWARGS
        return Call(number, declared, full, eta, steady, args, given, context, **values)

    return make
