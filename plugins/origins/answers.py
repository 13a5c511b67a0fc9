"""What the answer to an HTTP request says: which bytes of the file it holds, and of which version they are."""

import re
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jcache.errors import ShortReadError
from jcache.journal import Version
from jcache_plugins.origins.base import is_past, nanoseconds, strong

__all__ = [
    "Answer",
    "Encoded",
    "Validators",
    "content_range",
    "cut",
    "details_of",
    "is_short",
    "length_of",
    "size_beyond",
    "took_long",
]

PLAIN = frozenset({"", "identity"})
CONTENT_RANGE = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)")
# What an `info` says of a file besides its size and type.
TOLD = ("ETag", "Content-MD5", "Digest", "Last-Modified")
# What a server is taken to read from its disk in one go.
AT_ONCE_BYTES = 256 << 10


def content_range(headers: Mapping[str, str]) -> tuple[int, int, int | None] | None:
    """Return where the body begins and ends in the file, and the file's size if that is told; None where it is not."""
    match = CONTENT_RANGE.match(headers.get("Content-Range", ""))
    if match is None or match[1] is None:
        return None
    return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])


def is_short(part: tuple[int, int | None], found: tuple[int, int, int | None]) -> bool:
    """Whether what was found, as `content_range` returns it, begins with what was asked for and ends before it does."""
    first, last, size = found
    return size is not None and first <= part[0] < last < (size if part[1] is None else min(part[1], size))


def size_beyond(headers: Mapping[str, str]) -> int | None:
    """Return how long the file is by an answer to a range behind its end."""
    match = CONTENT_RANGE.match(headers.get("Content-Range", ""))
    return None if match is None or match[1] is not None or match[3] == "*" else int(match[3])


def length_of(headers: Mapping[str, str]) -> int | None:
    """Return how many bytes of the file the body has, None where the header does not say that."""
    length = headers.get("Content-Length", "")
    return int(length) if length.isdecimal() and is_plain(headers) else None


def is_plain(headers: Mapping[str, str]) -> bool:
    """Whether the body is the file's bytes as they are, and not compressed."""
    return headers.get("Content-Encoding", "") in PLAIN


class Encoded(set[str]):
    """Which files of one file system were sent compressed, and unpacked by its client."""

    def __init__(self, fs: Any) -> None:  # noqa: ARG002 - as `beside` makes what it keeps
        super().__init__()

    def note(self, path: str, headers: Mapping[str, str]) -> None:
        """Note how a file was sent, by the headers."""
        if is_plain(headers):
            self.discard(path)
        else:
            self.add(path)


def is_settled_since(asked_s: float, headers: Mapping[str, str]) -> bool:
    """Whether a change after an answer was made would show in its time of modification, if it has one.

    Args:
        asked_s: Unix time at which it was asked for, in seconds.
        headers: The answer's.
    """
    date_ns, age = nanoseconds(headers.get("Date", "")), headers.get("Age", "")
    # By the server's own clock where it tells the time; caches in between may have one of their own.
    made_s = asked_s if date_ns is None else date_ns / 1e9
    if age.isdecimal():
        made_s = min(made_s, asked_s - int(age))
    return is_past(nanoseconds(headers.get("Last-Modified")), made_s)


def details_of(path: str, size: int | None, headers: Mapping[str, str], **more: Any) -> dict[str, Any]:
    """Return what `info` would have said, in its order, without asking; `more` is what headers do not tell."""
    details: dict[str, Any] = {"name": path, "size": size}
    if "Content-Type" in headers:
        details["mimetype"] = headers["Content-Type"].partition(";")[0]
    details |= more
    for name in TOLD:
        value = headers.get(name)
        if value is not None:
            details[name] = value
    return {**details, "type": "file"}


class Validators:
    """Which validators of one file's server stand for its bytes: all that there are, until one proves restless."""

    __slots__ = ("tags", "times")

    def __init__(self) -> None:
        self.tags = self.times = True

    @property
    def all(self) -> bool:
        """Whether none was dropped."""
        return self.tags and self.times

    def version(self, headers: Mapping[str, str], size: int) -> Version:
        """Return the version that an answer names."""
        return Version(
            size,
            mtime_ns=nanoseconds(headers.get("Last-Modified")) if self.times else None,
            etag=strong(headers.get("ETag")) if self.tags else None,
        )

    def doubt(self, behind: Sequence[Mapping[str, str]]) -> bool:
        """Drop what differs between answers with the same bytes, asked one behind the other; return whether any did."""
        found = False
        for name, header in (("tags", "ETag"), ("times", "Last-Modified")):
            if getattr(self, name) and len({headers.get(header) for headers in behind}) > 1:
                setattr(self, name, False)
                found = True
        return found


class Answer:
    """The bytes of one range and what the response said of them."""

    __slots__ = (
        "asked_s", "beyond", "body", "done_s", "headers", "part", "placed", "settled", "size_bytes",
        "told_s",
    )  # fmt: skip

    def __init__(
        self,
        part: tuple[int, int | None],
        body: bytes,
        headers: Mapping[str, str],
        *,
        size_bytes: int | None,
        placed: bool,
        beyond: bool = False,
    ) -> None:
        """Take note of an answer.

        Args:
            part: What was asked for.
            body: Its bytes.
            headers: Those of the response.
            size_bytes: The size of the file, if the response says it.
            placed: Whether the response shows that these are the bytes that were asked for.
            beyond: Whether the range lies behind the end of the file.
        """
        self.part = part
        self.body = body
        self.headers = headers
        self.size_bytes = size_bytes
        self.placed = placed and is_plain(headers)
        self.beyond = beyond
        # When the request was sent, its headers came, and its body was there.
        self.asked_s = self.told_s = self.done_s = 0.0
        self.settled = False

    def timed(self, asked_s: float, told_s: float) -> None:
        """Take note, now that the body is there, of when it was asked for and its headers came, by monotonic clock."""
        self.asked_s, self.told_s, self.done_s = asked_s, told_s, time.monotonic()
        # nginx, for one, makes the entity tag of the mtime in whole seconds and the size: it is no stronger than those.
        self.settled = is_settled_since(time.time() - (self.done_s - asked_s), self.headers)


def cut(path: str, part: tuple[int, int | None], body: bytes, headers: Mapping[str, str]) -> Answer:
    """Return what was asked for out of a body that is a part of the file.

    Raises:
        ShortReadError: It is another part, or not all of it.
    """
    start, stop = part
    found = content_range(headers)
    if found is None:
        # Delivered as the plain file system would, if it is not too long, and not as proved.
        if stop is not None and len(body) > stop - start:
            msg = f"{path}: partial response without a usable Content-Range"
            raise ShortReadError(msg)
        return Answer(part, body, headers, size_bytes=None, placed=False)
    first, last, size = found
    end = last if stop is None or (size is None and last < stop) else stop if size is None else min(stop, size)
    if size is not None and stop is None:
        end = size
    if first > start or last < end or len(body) != last - first:
        msg = f"{path}: asked for bytes {start}-{stop}, got {headers['Content-Range']} with {len(body)} bytes"
        raise ShortReadError(msg)
    placed = size is not None or stop is None or last >= stop
    return Answer(part, body[start - first : end - first], headers, size_bytes=size, placed=placed)


def took_long(answers: Sequence[Answer]) -> bool:
    """Whether the file may have been overwritten in place while the server sent these bodies.

    A server names the version when it begins to send; nginx then goes on with whatever the file holds. Only a question
    behind the bytes can tell. It is spared for what a server has read at once as it named the version: little, and
    delivered within a round trip.
    """
    answers = [answer for answer in answers if answer.body]
    if not answers:
        return False
    round_trip_s = min(answer.told_s - answer.asked_s for answer in answers)
    sending_s = max(answer.done_s for answer in answers) - min(answer.told_s for answer in answers)
    return sending_s > round_trip_s or sum(len(answer.body) for answer in answers) > AT_ONCE_BYTES
