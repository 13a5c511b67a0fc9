"""What a call of obstore's asks for; a call that is not understood is obstore's own."""

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

__all__ = ["Asked", "of_get", "of_head", "of_range", "of_ranges", "understood"]

Span = tuple[int, int]
Spec = Callable[..., "Asked | None"]

# As obstore's, between ranges that it asks for in one request.
COALESCE_BYTES = 1 << 20
# Of one range, what is recorded already and takes no longer than a request, if it lies between gaps.
SPARE_BYTES = 64 << 10


class Asked(NamedTuple):
    """What a call asks for.

    Attributes:
        store: Of the store.
        path: The object.
        spans: These ranges, none of which is empty; of `get` none.
        coalesce: How many bytes that are not needed may lie between ranges of one request.
        options: The options of `get`.
        is_vector: Whether they are asked for in one vector.
    """

    store: Any
    path: Any
    spans: Sequence[Span] = ()
    coalesce: int = SPARE_BYTES
    options: Mapping[str, Any] = {}
    is_vector: bool = False

    def span(self, size_bytes: int) -> Span | None:
        """Return which bytes of an object of that size `get` means; None where only obstore can tell."""
        match self.options.get("range"):
            case None:
                return 0, size_bytes
            case {"offset": int(start)}:
                span = start, size_bytes
            case {"suffix": int(length)}:
                span = max(size_bytes - length, 0), size_bytes
            case int(start), int(stop):
                span = start, min(stop, size_bytes)
            case _:
                return None
        return span if 0 <= span[0] < span[1] else None


def understood(spec: Spec, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Asked | None:
    """Return what a call asks for; None where it is not understood.

    Args:
        spec: Of its function.
        args: By position.
        kwargs: By name.
    """
    try:
        return spec(*args, **kwargs)
    except (AttributeError, TypeError, ValueError):
        return None


def _span(start: Any, stop: Any) -> Span:
    start, stop = operator.index(start), operator.index(stop)
    if not 0 <= start < stop:
        msg = "obstore says what is wrong with it"
        raise ValueError(msg)
    return start, stop


def of_range(store: Any, path: Any, *, start: int, end: int | None = None, length: int | None = None) -> Asked | None:
    """Of `get_range`."""
    if (end is None) == (length is None):
        return None
    return Asked(store, path, [_span(start, start + length if end is None else end)])  # type: ignore[operator]  # one of them is there


def of_ranges(
    store: Any,
    path: Any,
    *,
    starts: Sequence[int],
    ends: Sequence[int] | None = None,
    lengths: Sequence[int] | None = None,
    coalesce: int = COALESCE_BYTES,
) -> Asked | None:
    """Of `get_ranges`."""
    if (ends is None) == (lengths is None):
        return None
    if ends is None:
        ends = list(map(operator.add, starts, lengths or ()))
    spans = list(map(_span, starts, ends))
    return Asked(store, path, spans, operator.index(coalesce), is_vector=True) if spans and coalesce >= 0 else None


def of_get(store: Any, path: Any, *, options: Mapping[str, Any] | None = None) -> Asked | None:
    """Of `get`."""
    said = {name: value for name, value in (options or {}).items() if value is not None and value is not False}
    if said.keys() - {"range"} or (options and "range" in options and not said):
        return None
    match said.get("range"):
        case None:
            pass
        case {"offset": int(number)} | {"suffix": int(number)} if len(said["range"]) == 1 and number >= 0:
            pass
        case tuple() | list() as bounds if len(bounds) == 2:
            said["range"] = _span(*bounds)
        case _:
            return None
    return Asked(store, path, options=said)


def of_head(store: Any, path: Any) -> Asked | None:
    """Of `head`."""
    return Asked(store, path)
