"""What file system instances keep of listings: what one of them writes, the others do not see, nor always it itself.

fsspec has an instance for each set of options, and each keeps what it has listed for ever; some classes also what they
change themselves. What is out of date so stays where it is, as without JCache. Recorded, it would be served to
everybody as if the origin had just said it.
"""

import contextlib
import weakref
from collections.abc import Iterable, MutableMapping
from typing import Any, NamedTuple

from jcache_plugins.fsspec.access import behind

__all__ = ["doubt", "is_doubtful", "note"]


class Known(NamedTuple):
    """An instance that has answered questions about names, and its listings that are out of date, by name."""

    instance: "weakref.ref[Any]"
    doubtful: dict[str, Any]


# By address: those that are made alike are equal.
_known: dict[int, Known] = {}


def note(fs: Any) -> None:
    """Take note of an instance that answers questions about names."""
    fs = behind(fs)[0]
    key = id(fs)
    if key not in _known:
        _known[key] = Known(weakref.ref(fs, lambda _: _known.pop(key, None)), {})


def doubt(paths: Iterable[str], *, of: Any = None) -> None:
    """Take note that paths were changed, by whichever client: what instances keep of them is out of date.

    Args:
        paths: As file systems take them.
        of: The one instance that is out of date; all by default.

    Of which class they are does not matter: several may read from one place. What they keep of another place by the
    same name is then not recorded until they list it anew.
    """
    paths, of = list(paths), None if of is None else behind(of)[0]
    for known in list(_known.values()):
        other = known.instance()
        if of is not None and other is not of:
            continue
        kept = getattr(other, "dircache", None)
        if other is None or not isinstance(kept, MutableMapping) or not (names := list(kept)):
            continue
        for path in paths:
            with contextlib.suppress(ValueError):  # no path of this class
                stripped = other._strip_protocol(path)  # noqa: SLF001 - fsspec's own name of it
                known.doubtful.update({name: kept.get(name) for name in names if concerns(name, stripped)})


def is_doubtful(fs: Any, path: str) -> bool:
    """Whether an answer about a path may be out of one of those listings."""
    fs = behind(fs)[0]
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
