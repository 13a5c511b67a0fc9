"""A JSON document as dataclasses: every field checked by its annotation, and what is wrong named."""

from __future__ import annotations

import functools
import sys
from dataclasses import MISSING, fields, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

_Part = TypeVar("_Part")

_MOST, _MOST_FLOAT = 2**62, 1e11
"""Beyond this nothing is a count of bytes, nor a time that a calendar knows."""

_WORDS: Mapping[str, str] = {
    "int": "whole number of 0 or more, or too large",
    "float": "number of 0 or more, or too large",
    "str": "text",
    "bool": "true or false",
}


class ReportError(Exception):
    """A report cannot be read.

    Attributes:
        source: The file, or what else the report came from.
        field: Dotted name of the field that is wrong; empty where it is the file as a whole.
    """

    def __init__(self, source: str, field: str, reason: str) -> None:
        super().__init__(": ".join(part for part in (source, field, reason) if part))
        self.source = source
        self.field = field
        self.reason = reason


def build(
    cls: type[_Part], document: object, *, optional: Mapping[str, frozenset[str]], source: str, field: str = ""
) -> _Part:
    """Fill a dataclass from a JSON object.

    Args:
        cls: The dataclass. Its fields are `int`, `float`, `str`, `bool`, `None` beside one of these, tuples of `int` or
            `str`, dataclasses of its module, and tuples of such.
        document: The parsed JSON; keys that the dataclass does not have are ignored.
        optional: By a dataclass's name, the fields that may be missing.
        source: Where the document came from, for messages.
        field: Where in the document this is, for messages.

    Raises:
        ReportError: A field is missing or has the wrong type.
    """
    if not isinstance(document, dict):
        raise ReportError(source, field, "not an object")
    values: dict[str, Any] = {}
    for name, kind, section in _plan(cls):  # type: ignore[arg-type]  # classes are hashable
        try:
            value = document[name]
        except KeyError:
            if name in optional.get(cls.__name__, ()):
                continue
            raise ReportError(source, f"{field}.{name}".lstrip("."), "missing") from None
        # 10,000 reports of 100 files come through here: the usual types are looked at first, and names made for
        # messages only.
        if kind == "int" and type(value) is int and 0 <= value <= _MOST:
            values[name] = value
        elif section is None:
            values[name] = _check(kind, value, source, f"{field}.{name}".lstrip("."))
        elif kind.startswith("tuple"):
            where = f"{field}.{name}".lstrip(".")
            if not isinstance(value, list):
                raise ReportError(source, where, f"{value!r:.40} is no list")
            values[name] = tuple(
                [
                    build(section, item, optional=optional, source=source, field=f"{where}[{number}]")
                    for number, item in enumerate(value)
                ]
            )
        elif value is None and kind.endswith(" | None"):
            values[name] = None
        else:
            where = f"{field}.{name}".lstrip(".")
            values[name] = build(section, value, optional=optional, source=source, field=where)
    return cls(**values)


@functools.cache
def _plan(cls: type[Any]) -> tuple[tuple[str, str, type[Any] | None], ...]:
    """Return name, annotation and, for dataclasses and tuples of them, the dataclass of each field."""
    module = vars(sys.modules[cls.__module__])
    plan = []
    for member in fields(cls):
        kind = str(member.type)
        inner = kind.removesuffix(" | None").removeprefix("tuple[").removesuffix(", ...]")
        section = module.get(inner, MISSING)
        plan.append((member.name, kind, section if is_dataclass(section) and isinstance(section, type) else None))
    return tuple(plan)


def _check(kind: str, value: Any, source: str, field: str) -> Any:
    """Return the value as its annotation says, or raise."""
    if kind == "str" and isinstance(value, str):
        return sys.intern(value)  # hosts and URLs, the same in thousands of reports
    if kind == "float" and type(value) in (int, float) and 0 <= value <= _MOST_FLOAT:
        return float(value)
    if kind == "bool" and isinstance(value, bool):
        return value
    if kind.startswith("tuple") and isinstance(value, list):
        item = int if "int" in kind else str
        if set(map(type, value)) <= {item} and (item is str or not value or 0 <= min(value) <= max(value) <= _MOST):
            return tuple(value)
        raise ReportError(source, field, f"not a list of {'whole numbers' if item is int else 'texts'}")
    if kind.endswith(" | None"):
        return None if value is None else _check(kind.removesuffix(" | None"), value, source, field)
    if kind == "int" and type(value) is int and 0 <= value <= _MOST:
        return value
    raise ReportError(source, field, f"{value!r:.40} is no {_WORDS.get(kind, 'list')}")
