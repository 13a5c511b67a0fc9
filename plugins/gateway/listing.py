"""What is in a directory of the mounted origin: a page for people and for programs that look for links, or JSON."""

import html
import json
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from jcache_plugins.gateway.conditions import http_date
from jcache_plugins.origins.base import version_of

__all__ = ["listed", "wants_json"]

_PAGE = """<!DOCTYPE html>
<html><head><meta charset="utf-8"><title>{title}</title></head><body><h1>{title}</h1><table>
<tr><th>name</th><th>size</th><th>modified</th></tr>
{rows}
</table></body></html>
"""


def wants_json(accept: str) -> bool:
    """Whether an `Accept` field names JSON, and HTML not before it."""
    quality: dict[str, float] = {}
    for item in accept.split(","):
        kind, *parameters = (text.strip() for text in item.split(";"))
        quality[kind.lower()] = min((weight_of(one) for one in parameters), default=1.0)
    return quality.get("application/json", 0.0) > quality.get("text/html", 0.0)


def weight_of(parameter: str) -> float:
    """Return how much a client wants what a parameter stands behind (RFC 9110, 12.4.2); 1 where it says no weight."""
    name, _, said = parameter.partition("=")
    try:
        weight = float(said) if name.strip().lower() == "q" else 1.0
    except ValueError:
        return 0.0
    return weight if 0.0 <= weight <= 1.0 else 0.0


def listed(path: str, found: Iterable[Mapping[str, Any]], *, as_json: bool, urls: bool) -> tuple[str, str]:
    """Return content type and text of a directory's listing.

    Args:
        path: The directory's, as the client asked for it, decoded, with a slash at either end.
        found: What the file system listed.
        as_json: For programs: a list of objects with name, type, and size in bytes and modified where that is known.
        urls: Whether the file system's names are URLs.
    """
    rows = sorted((entry for one in found if (entry := entry_of(one, urls=urls))), key=lambda entry: entry["name"])
    if as_json:
        return "application/json", json.dumps(rows, ensure_ascii=True) + "\n"
    title = html.escape(path)
    lines = [] if path == "/" else ['<tr><td><a href="../">../</a></td><td></td><td></td></tr>']
    for entry in rows:
        name = entry["name"] + ("/" if entry["type"] == "directory" else "")
        size, modified = entry.get("size", ""), entry.get("modified", "")
        href = html.escape(quote(name))  # a colon, too: what begins as a scheme does is no relative address
        lines.append(f'<tr><td><a href="{href}">{html.escape(name)}</a></td><td>{size}</td><td>{modified}</td></tr>')
    return "text/html", _PAGE.format(title=title, rows="\n".join(lines))


def entry_of(said: Mapping[str, Any], *, urls: bool) -> dict[str, Any] | None:
    """Return what is told of a name in a directory; None where it is none."""
    name = str(said.get("name", ""))
    name = unquote(urlsplit(name).path) if urls else name
    name = name.rstrip("/").rpartition("/")[2]
    if not name or name in {".", ".."}:
        return None
    out: dict[str, Any] = {"name": name, "type": "directory" if said.get("type") == "directory" else "file"}
    if out["type"] == "file":
        try:
            version = version_of(said)
        except OSError:
            return out
        out["size"] = version.size_bytes
        modified = http_date(version.mtime_ns)
        if modified is not None:
            out["modified"] = modified
    return out
