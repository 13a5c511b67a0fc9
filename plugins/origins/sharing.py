"""For whom an HTTP server's answer is (RFC 9110, 12.5.5; RFC 9111, 5.2.2): all, who asked, or nobody to keep."""

from collections.abc import Iterable, Mapping
from typing import Any

from multidict import CIMultiDict

from jcache.naming.credentials import ASKING_HEADERS, IDLE_HEADERS
from jcache.origin import Sharing

__all__ = ["headers_of", "sharing_of", "strictest"]

_STRICT: tuple[Sharing, ...] = ("all", "asker", "nobody")


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
    # What is given to somebody who does not say who asks is not for those who do.
    own = "private" in directives or "*" in varied or not varied.isdisjoint(ASKING_HEADERS)
    return "asker" if own or (varied and not varied.isdisjoint(_asking_headers(fs))) else "all"


def headers_of(response: Any, fs: Any) -> Mapping[str, str]:
    """Return an answer's headers, which say that it is the asker's own where a redirect to it was."""
    if all(sharing_of(hop.headers, fs) == "all" for hop in response.history):
        return response.headers  # type: ignore[no-any-return]  # as the client has them
    headers = CIMultiDict(response.headers)
    headers.add("Cache-Control", "private")
    return headers


def strictest(sharings: Iterable[Sharing]) -> Sharing:
    """Return for whom it is what is made of several answers."""
    return max(sharings, key=_STRICT.index)


def _items(headers: Any, name: str) -> set[str]:
    """Return the items of a header that is a list, however many lines it has, in lower case."""
    values = headers.getall(name, ()) if hasattr(headers, "getall") else [headers.get(name, "")]
    return {item.strip().lower() for value in values for item in value.split(",")}


def _asking_headers(fs: Any) -> frozenset[str]:
    """Return, in lower case, the names of the headers that a file system sends and an identity leaves out."""
    sent = {str(name).lower() for options in (fs.kwargs, fs.client_kwargs) for name in options.get("headers") or ()}
    return (ASKING_HEADERS | IDLE_HEADERS) & sent - {"accept-encoding"}
