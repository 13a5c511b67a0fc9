"""What a request asks of a file: under which condition, and how fresh (RFC 9110, 13; RFC 9111, 5.2.1)."""

import functools
import hashlib
import re
import time
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from typing import Any

from jcache.journal import Version

__all__ = ["TRUST_S", "CacheControl", "Fields", "entity_tag", "http_date", "is_range_wanted", "verdict"]

TRUST_S = 10.0
"""How long an answer of an origin is trusted where the settings, or a rule, say `open`: a gateway outlives the jobs of
its clients."""

NOT_MODIFIED, PRECONDITION_FAILED = 304, 412
_TAGS = re.compile(r'\s*(?:,\s*)*((?:W/)?"[!#-~\x80-\xff]*")\s*(?=,|$)')
_DIRECTIVE = re.compile(r'([!#$%&\'*+.^_`|~0-9A-Za-z-]+)(?:\s*=\s*("(?:[^"\\]|\\.)*"|[^\s,"]*))?')
# So long may anything be old.
_FOREVER_S = 1 << 31


@dataclass(frozen=True, slots=True)
class CacheControl:
    """The directives of a request's `Cache-Control` that mean something here."""

    no_cache: bool = False
    no_store: bool = False
    only_if_cached: bool = False
    max_age_s: int | None = None
    min_fresh_s: int = 0

    @classmethod
    def of(cls, headers: "Fields") -> "CacheControl":
        """Return what header fields say; what cannot be understood says nothing, an age that is none says 0."""
        said = headers.get("Cache-Control")
        if said is None:
            # RFC 9111, 5.4: for clients of HTTP/1.0.
            return cls(no_cache=True) if (headers.get("Pragma") or "").strip().lower() == "no-cache" else _NOTHING
        found = {name.lower(): value.strip('"') for name, value in _DIRECTIVE.findall(said)}
        max_age_s = seconds_said(found["max-age"]) if "max-age" in found else None
        return cls(
            "no-cache" in found,
            "no-store" in found,
            "only-if-cached" in found,
            max_age_s,
            seconds_said(found.get("min-fresh", "")),
        )

    def is_too_old(self, age_s: float | None, trusted_s: float | None) -> bool:
        """Whether the client wants the origin to be asked.

        Args:
            age_s: How long ago it was asked; None where it was not.
            trusted_s: How long what it said is trusted; None where that has no end.
        """
        if self.no_cache or age_s is None:
            return self.no_cache
        is_older = self.max_age_s is not None and age_s > self.max_age_s
        return is_older or (self.min_fresh_s > 0 and trusted_s is not None and age_s + self.min_fresh_s > trusted_s)


_NOTHING = CacheControl()


class Fields:
    """A request's header fields; those of one name are one list (RFC 9110, 5.3)."""

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def get(self, name: str) -> str | None:
        """Return a field's value; None where there is none."""
        said = self._headers.getall(name, ())
        return ", ".join(said) if said else None


@functools.lru_cache(4096)
def entity_tag(version: Version) -> str:
    """Return the strong entity tag of a version: of the strongest that tells it from others, and of nothing else.

    What an origin says besides that may differ from answer to answer: a time in its own second is left out, say.
    """
    strongest = next((one for one in (version.checksum, version.etag, version.mtime_ns) if one is not None), None)
    text = f"{version.size_bytes} {strongest!r}"
    return f'"{hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=12).hexdigest()}"'


@functools.lru_cache(4096)
def http_date(mtime_ns: int | None) -> str | None:
    """Return a time of modification as HTTP spells it; None where there is none, or none that has a spelling."""
    if mtime_ns is None or not 0 <= mtime_ns < 253402300800 * 10**9:
        return None
    return formatdate(mtime_ns // 10**9, usegmt=True)


def seconds_of(date: str | None) -> int | None:
    """Return a date of HTTP's in seconds since the epoch; None where it is none."""
    try:
        said = None if date is None else parsedate_to_datetime(date)
        # C's asctime names no zone: it is UTC's (RFC 9110, 5.6.7), whichever this machine has.
        return None if said is None else int((said if said.tzinfo else said.replace(tzinfo=UTC)).timestamp())
    except (ValueError, TypeError, OverflowError):
        return None


def seconds_said(text: str) -> int:
    """Return a directive's number of seconds; 0 where it is none."""
    return min(int(text), _FOREVER_S) if re.fullmatch("[0-9]{1,18}", text) else 0


def matches(said: str, tag: str, *, strongly: bool) -> bool:
    """Whether a list of entity tags, or a star, names one; a list that is none names nothing."""
    if said.strip() == "*":
        return True
    tags, at = [], 0
    while match := _TAGS.match(said, at):
        tags.append(match[1])
        at = match.end()
    if said[at:].strip(" \t,"):
        return False
    return tag in (tags if strongly else [one.removeprefix("W/") for one in tags])


def verdict(headers: Fields, tag: str, mtime_ns: int | None) -> int | None:
    """Return with which status a GET or HEAD of a file ends by its conditions, in the order of RFC 9110, 13.2.2.

    Args:
        headers: The request's.
        tag: The file's entity tag, a strong one.
        mtime_ns: Its time of modification.

    Returns:
        412, 304, or None where it is to be answered as if there were none.
    """
    modified_s = None if mtime_ns is None else mtime_ns // 10**9
    if (wanted := headers.get("If-Match")) is not None:
        if not matches(wanted, tag, strongly=True):
            return PRECONDITION_FAILED
    elif modified_s is not None:
        since_s = seconds_of(headers.get("If-Unmodified-Since"))
        if since_s is not None and modified_s > since_s:
            return PRECONDITION_FAILED
    if (known := headers.get("If-None-Match")) is not None:
        return NOT_MODIFIED if matches(known, tag, strongly=False) else None
    if modified_s is not None and (since_s := seconds_of(headers.get("If-Modified-Since"))) is not None:
        return NOT_MODIFIED if modified_s <= since_s else None
    return None


def is_range_wanted(headers: Fields, tag: str, mtime_ns: int | None) -> bool:
    """Whether `If-Range` (RFC 9110, 13.1.5) lets a range be answered with that range, and not with the file.

    A date is no strong validator here: within its second the file may have had two versions.
    """
    said = headers.get("If-Range")
    if said is None:
        return True
    if said.lstrip().startswith(('"', "W/")):
        return said.strip() == tag
    # Exactly the date that was sent, and long enough ago, as 8.8.2.2 has it: a minute before now is beyond doubt.
    return mtime_ns is not None and said.strip() == http_date(mtime_ns) and is_long_ago(mtime_ns)


def is_long_ago(mtime_ns: int) -> bool:
    """Whether a time of modification is a strong validator by now (RFC 9110, 8.8.2.2)."""
    return time.time_ns() - mtime_ns >= 60 * 10**9
