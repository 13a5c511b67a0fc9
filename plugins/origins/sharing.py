"""For whom an HTTP server's answer is (RFC 9110, 12.5.5; RFC 9111, 5.2.2): all, who asked, or nobody to keep."""

from collections.abc import Mapping
from typing import Any

from jcache.naming.credentials import ASKING_HEADERS, IDLE_HEADERS
from jcache.origin import Sharing

__all__ = ["sharing_of"]

# These two say who asks, so what is given to somebody without them is not for those who have them.
_ALWAYS = frozenset({"authorization", "cookie"})


def sharing_of(headers: Mapping[str, str], fs: Any) -> Sharing:
    """Return for whom an answer is.

    Args:
        headers: The answer's.
        fs: The file system that asked.
    """
    if "Cache-Control" not in headers and "Vary" not in headers:
        return "all"
    directives = {item.partition("=")[0] for item in _items(headers, "Cache-Control")}
    if "no-store" in directives:
        return "nobody"
    varied = _items(headers, "Vary")
    own = "private" in directives or "*" in varied or not varied.isdisjoint(_ALWAYS)
    return "asker" if own or (varied and not varied.isdisjoint(_asking_headers(fs))) else "all"


def _items(headers: Any, name: str) -> set[str]:
    """Return the items of a header that is a list, however many lines it has, in lower case."""
    values = headers.getall(name, ()) if hasattr(headers, "getall") else [headers.get(name, "")]
    return {item.strip().lower() for value in values for item in value.split(",")}


def _asking_headers(fs: Any) -> frozenset[str]:
    """Return, in lower case, the names of the headers that a file system sends and an identity leaves out."""
    sent = {str(name).lower() for options in (fs.kwargs, fs.client_kwargs) for name in options.get("headers") or ()}
    return (ASKING_HEADERS | IDLE_HEADERS) & sent - {"accept-encoding"}
