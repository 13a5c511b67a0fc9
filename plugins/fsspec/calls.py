"""What a hooked method was called with: a hook takes what the original takes, by position and by name."""

import functools
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from fsspec.asyn import AsyncFileSystem
from fsspec.spec import AbstractFileSystem

__all__ = ["Parameters", "as_bound"]

_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_COLLECTING = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class Parameters:
    """The parameters of one method.

    Attributes:
        names: Those that can be given by position, without `self`.
        first: The first of them: a path, whatever its name is.
        defaults: What those that may be left out are then.
        required: Those that may not be left out, here and in fsspec's own method.
    """

    __slots__ = ("defaults", "first", "names", "required")

    def __init__(self, method: Callable[..., Any]) -> None:
        """Look at a function of a class.

        Raises:
            TypeError: It is not callable.
            ValueError: It has no signature.
        """
        parameters = list(inspect.signature(method).parameters.values())[1:]
        self.names = [one.name for one in parameters if one.kind in _BY_POSITION]
        self.required = _required(parameters) - _optional(getattr(method, "__name__", ""))
        if any(one.kind is inspect.Parameter.VAR_POSITIONAL for one in parameters):
            # It hands on what it does not look at, in the order of fsspec's own method.
            self.names += _names_of(method.__name__)[len(self.names) :]
        self.first = self.names[0] if self.names else ""
        self.defaults = {one.name: one.default for one in parameters if one.default is not one.empty}

    @classmethod
    @functools.lru_cache(2048)
    def of(cls, method: Callable[..., Any]) -> "Parameters":
        """Return the parameters of a function of a class."""
        return cls(method)

    def named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return a call's arguments by name; None where the original would not take them."""
        if len(args) > len(self.names):
            return None
        found = dict(zip(self.names, args, strict=False))
        if kwargs:
            if not found.keys().isdisjoint(kwargs):
                return None
            found.update(kwargs)
        return found if self.required <= found.keys() else None

    def said(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return what a call says beside the defaults, by name; None where the original would not take it."""
        found = self.named(args, kwargs)
        if found is None:
            return None
        defaults = self.defaults
        return {name: value for name, value in found.items() if not _is_default(value, defaults.get(name))}


def _is_default(value: Any, default: Any) -> bool:
    return value is default or (type(value) is type(default) and isinstance(value, int | str) and value == default)


def _required(parameters: Iterable[inspect.Parameter]) -> set[str]:
    return {one.name for one in parameters if one.kind not in _COLLECTING and one.default is inspect.Parameter.empty}


def _of_fsspec(name: str) -> list[inspect.Parameter]:
    """Return the parameters of fsspec's own method, without `self`."""
    method = getattr(AsyncFileSystem, name, None) or getattr(AbstractFileSystem, name, None)
    return [] if method is None else list(inspect.signature(method).parameters.values())[1:]


def _optional(name: str) -> set[str]:
    own = _of_fsspec(name)
    return {one.name for one in own} - _required(own)


def _names_of(name: str) -> list[str]:
    return [one.name for one in _of_fsspec(name)]


def as_bound(value: Any) -> int | None:
    """Return a bound of a byte range as Python's own integer: numpy's have limits, and cannot be written as JSON.

    Raises:
        TypeError: It is neither an integer nor None.
    """
    if isinstance(value, bool):
        msg = "what a file system makes of that is its own"
        raise TypeError(msg)
    return value if value is None or type(value) is int else operator.index(value)
