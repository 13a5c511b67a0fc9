"""What a program says of single files: `fsspec.open(url, jcache={...})`, or in the fragment, `#jcache.refresh`."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from jcache.settings.policy import Directives

__all__ = ["MARK", "bare", "directed", "directives_of", "split", "undirected"]

MARK = "#jcache."
_NOTHING = Directives()
_FSSPEC = frozenset({"fsspec.asyn", "fsspec.spec"})
_HANDED_ON = frozenset({"cat", "cat_file", "cat_ranges", "exists", "isdir", "isfile"})


def split(path: str) -> tuple[str, Directives, str]:
    """Return a path without directives, these, and what is wrong with them, in one line.

    They are the whole of the last fragment, joined by `&`: `#jcache.validate=never&jcache.refresh`.
    """
    head, mark, fragment = path.rpartition(MARK)
    if not mark:
        return path, _NOTHING, ""
    items = [item.partition("=") for item in fragment.split("&jcache.")]
    try:
        return head, Directives.of({name: value if equals else True for name, equals, value in items}), ""
    except (TypeError, ValueError) as error:
        return head, _NOTHING, f"{MARK}{fragment}: {str(error).removeprefix('jcache= ')}"


def undirected(path: Any) -> Any:
    """Return a path without directives, or paths in a list; anything else as it is."""
    if isinstance(path, str):
        return split(path)[0] if MARK in path else path
    if isinstance(path, list) and any(isinstance(one, str) and MARK in one for one in path):
        return [undirected(one) for one in path]
    return path


def directives_of(fs: Any) -> Directives | None:
    """Return what was said as a file system was made: of all its files."""
    said = fs.said if getattr(fs, "reads_for_another", False) is True else (fs.storage_options or {}).get("jcache")
    return said if said is None or isinstance(said, Directives) else Directives.of(said)


def directed(instantiate: Callable[..., Any], cls: Any, *args: Any, said: Any, **kwargs: Any) -> Any:
    """Make a file system of which something is said; its class is not told.

    It is an instance of its own: with its own connections and its own token, equal to those of which the same is said.
    """
    Directives.of(said)
    token = f"{instantiate(cls, *args, **kwargs)._fs_token}-{sorted(said.items())!r}"  # noqa: SLF001 - fsspec's own name
    skips = kwargs.pop("skip_instance_cache", False)
    found = None if skips else cls._cache.get(token)
    if found is None:
        found = instantiate(cls, *args, **kwargs, skip_instance_cache=True)
        found._fs_token_ = token
        found.storage_options = {**found.storage_options, "jcache": said}
        if cls.cachable and not skips:
            cls._cache[token] = found
    return found


def cut(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Return a call's arguments without directives."""
    return [undirected(one) for one in args], {name: undirected(one) for name, one in kwargs.items()}


def bare(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that is given paths without directives, unless it hands them on to others that are hooked."""
    if getattr(original, "__module__", None) in _FSSPEC and original.__name__.lstrip("_") in _HANDED_ON:
        return original
    if inspect.isasyncgenfunction(original):

        @functools.wraps(original)
        async def generate(self: Any, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = cut(args, kwargs)
            async for one in original(self, *args, **kwargs):
                yield one

        return generate

    if inspect.iscoroutinefunction(original):

        @functools.wraps(original)
        async def ask(self: Any, *args: Any, **kwargs: Any) -> Any:
            args, kwargs = cut(args, kwargs)
            return await original(self, *args, **kwargs)

        return ask

    @functools.wraps(original)
    def call(self: Any, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = cut(args, kwargs)
        return original(self, *args, **kwargs)

    return call
