"""Our dataclasses behave as Python's own."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import field
from typing import Any, ClassVar

import pytest

from jcache import records

KINDS: list[dict[str, bool]] = [
    {"frozen": True, "slots": True},
    {"slots": True},
    {"frozen": True},
    {"frozen": True, "slots": True, "eq": False},
    {"frozen": True, "slots": True, "kw_only": True},
]


def made(module: Any, kind: dict[str, bool]) -> Any:
    @module.dataclass(**kind)
    class One:
        """One."""

        a: int
        b: str = "x"
        c: list[int] = field(default_factory=list)
        d: float = field(default=1.0, compare=False)
        e: ClassVar[int] = 5

        @property
        def twice(self) -> int:
            return 2 * self.a

    return One


def outcome(call: Any, one: Any) -> Any:
    try:
        return call(one)
    except Exception as error:
        return type(error).__name__


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_they_behave_as_pythons_own(kind: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    for module in (dataclasses, records):
        one = made(module, kind)
        monkeypatch.setitem(globals(), "One", one)
        one.__qualname__ = "One"
        values = [
            outcome(make, one)
            for make in (
                lambda one: one(1),
                lambda one: one(a=1, b="y", c=[3], d=2.0),
                lambda one: one(1, "y"),
                lambda one: one(),
                lambda one: one(1, z=2),
                lambda one: one(a=1) == one(a=1, d=7.0),
                lambda one: one(a=1) != one(a=2),
                lambda one: one(a=1) == 1,
                lambda one: one(a=1).c is one(a=1).c,
                lambda one: hash(one(a=1, c=())) == hash(one(a=1, c=(), d=3.0)),
                lambda one: hash(one(a=1)),
                lambda one: setattr(one(a=1), "a", 2),
                lambda one: delattr(one(a=1), "b"),
                lambda one: dataclasses.replace(one(a=1), b="z"),
                lambda one: dataclasses.asdict(one(a=1)),
                lambda one: dataclasses.astuple(copy.deepcopy(one(a=1, c=[[1]]))),
                lambda one: dataclasses.astuple(copy.copy(one(a=1))),
                lambda one: dataclasses.astuple(pickle.loads(pickle.dumps(one(a=3, d=9.0)))),
                lambda one: one(a=4).twice,
                lambda one: (one.e, one.__match_args__, [one.name for one in dataclasses.fields(one)]),
                lambda one: hasattr(one(a=1), "__dict__"),
            )
        ]
        seen.append([value if isinstance(value, str | bool | int | tuple | dict) else repr(value) for value in values])
    ours, theirs = seen[1], seen[0]
    if kind.get("eq") is False:  # by identity
        for number in (9, 10):
            theirs[number] = ours[number]
    assert ours == theirs
