"""What file system instances keep of listings: what one of them writes, the others do not see, nor always it itself.

fsspec has an instance for each set of options, and each keeps what it has listed for ever; some classes also what they
change themselves. What is out of date so stays where it is, as without JCache. Recorded, it would be served to
everybody as if the origin had just said it.
"""

import weakref
from collections.abc import Iterable, MutableMapping
from typing import Any, NamedTuple

__all__ = ["doubt", "is_doubtful", "note"]


class Known(NamedTuple):
    """An instance that has answered questions about names, and its listings that are out of date, by name."""

    instance: "weakref.ref[Any]"
    doubtful: dict[str, Any]


# By address: those that are made alike are equal.
_known: dict[int, Known] = {}


def note(fs: Any) -> None:
    """Take note of an instance that answers questions about names."""
    key = id(fs)
    if key not in _known:
        _known[key] = Known(weakref.ref(fs, lambda _: _known.pop(key, None)), {})


def doubt(writer: Any, paths: Iterable[str]) -> None:
    """Take note that an instance has changed paths: what it, and others of its class, keep of them is out of date."""
    paths = list(paths)
    for known in list(_known.values()):
        other = known.instance()
        kept = getattr(other, "dircache", None)
        if other is None or type(other) is not type(writer) or not isinstance(kept, MutableMapping):
            continue
        for path in map(other._strip_protocol, paths):  # noqa: SLF001 - fsspec's own name of it
            for name in list(kept):
                if concerns(name, path):
                    known.doubtful[name] = kept.get(name)


def is_doubtful(fs: Any, path: str) -> bool:
    """Whether an answer about a path may be out of one of those listings."""
    doubtful = _known[id(fs)].doubtful if id(fs) in _known else {}
    if not doubtful:
        return False
    for name, listing in list(doubtful.items()):
        if fs.dircache.get(name) is not listing:
            doubtful.pop(name, None)  # it was listed anew
    path = fs._strip_protocol(path)  # noqa: SLF001 - as above
    return any(concerns(name, path) for name in doubtful)


def concerns(name: str, path: str) -> bool:
    """Whether a directory's listing says something of a path, or of what is below it."""
    return f"{path}/".startswith(f"{name.rstrip('/')}/") or name.startswith(f"{path}/")
