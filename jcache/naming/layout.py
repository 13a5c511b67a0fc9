"""Where a journal lies below the cache directory: path components that a file system takes and a person can read.

A name keeps its looks (`Run2012B_DoubleMuParked.root` stays that) except for what a file system, a terminal or JCache
itself would take for something else; that is escaped with `%`, and so is `%`, so no two names become one:

    %           the empty component, as between the slashes of `a//b`
    %2E...      a leading dot: `.`, `..`, and what JCache keeps for itself (`.reports`)
    %40...      a leading `@`, which begins the name of a segment
    %0A %7F     control characters
    %FF         a byte that is not UTF-8 (a surrogate escape in the name)
    %u202E      any other character that does not print (%u{E0001} where four digits do not do)
    %7E<hex>    a `~` where the name ends like a suffix of ours
    name~<hex>  a name with a hash: cut because it was long, or one of several objects that share this path
    %~          the directory of objects whose path would be too long
    %=          what the origin said of the names in a directory; in the flat layout, in all of them

Names that differ only in case, or in their Unicode normalisation, are left as they are. Where a file system takes them
for one, two journals share a directory, and each ignores the other's segments, since a segment carries its identity.
"""

import hashlib
import re
from collections.abc import Sequence

TAG_NAME = "CACHEDIR.TAG"
"""What marks the root of a cache directory, to whoever makes backups."""

COMPONENT_BYTES = 200
"""Longest component; file systems stop at 255, some of which encrypt names and stop sooner."""

PATH_BYTES = 900
"""Longest path below the root, which itself has to fit below PATH_MAX (1024 on macOS)."""

LONG = b"%~"
"""The directory of objects whose paths would be too long, below that of the first two names."""

ANSWERS = b"%="
"""The directory of what was said of the names in the remote directory above it."""

SUFFIX_DIGITS = 16
WHOLE_DIGITS = 32
RESERVED = frozenset({b"cachedir.tag", b"jcache.toml"})
"""Files in the root of a cache directory, in lower case, which no tree may collide with."""

_PLAIN = re.compile(r"[0-9A-Za-z_+=,:-][0-9A-Za-z_+=,:.-]*")
_LIKE_A_SUFFIX = re.compile(rb"~(?=(?:[0-9a-f]{16}|[0-9a-f]{32})\Z)")
_SUFFIXES = re.compile(rb"(?:~[0-9a-f]{16}){1,2}")
_HASHED = re.compile(r"(?:~[0-9a-f]{16}|[~/][0-9a-f]{32})\Z")
_CUT_ESCAPE = re.compile(rb"%(?:[0-9A-F]?|u[0-9A-F]{0,3}|u\{[0-9A-F]*)\Z")


def digest(text: str, digits: int) -> str:
    """Return the first hexadecimal digits of a cryptographic hash of any text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=WHOLE_DIGITS // 2).hexdigest()[:digits]


def escape(character: str, mark: str) -> str:
    """Return the escape of one character that must not appear as itself.

    Args:
        character: One character.
        mark: What begins an escape; the caller escapes it as well.

    Returns:
        `mark` and two digits for ASCII and for a byte that was not UTF-8, `mark` and `u` and at least four for others.
    """
    code = ord(character)
    if code < 0x80:
        return f"{mark}{code:02X}"
    if 0xDC80 <= code <= 0xDCFF:
        return f"{mark}{code - 0xDC00:02X}"
    # A fixed width or braces keep digits that follow the escape from reading as a part of it.
    return f"{mark}u{code:04X}" if code <= 0xFFFF else f"{mark}u{{{code:X}}}"


def is_plain(name: str) -> bool:
    """Whether a name is its own path component, if it is not too long; no such name is empty."""
    return _PLAIN.fullmatch(name) is not None


def is_journal(path: str) -> bool:
    """Whether a path relative to a cache's root, of whatever origin, may be a journal's: it leads nowhere else."""
    return (
        len(path) <= PATH_BYTES and path.isprintable() and all(part and part[0] not in ".@" for part in path.split("/"))
    )


def component(name: str) -> bytes:
    """Return a name as one path component; different names give different components.

    Args:
        name: Any text, of any length, without `/`.

    Returns:
        At most `COMPONENT_BYTES` bytes of UTF-8.
    """
    return _fit(_spell(name), name, "")


def tree(directories: Sequence[str], name: str, *, variant: str = "") -> tuple[bytes, ...]:
    """Return the components of a journal's directory in a tree that mirrors where the object lies.

    Args:
        directories: Names above the last one: scheme, host, directories.
        name: The object's own name.
        variant: What else tells objects of the same path apart; empty for none. Only its hash is used.

    Returns:
        The components; together, with a slash each, at most `PATH_BYTES` bytes.
    """
    parts = (*map(component, directories), _fit(_spell(name), name, variant))
    if sum(map(len, parts)) + len(parts) > PATH_BYTES:
        whole = repr((*directories, name, variant))
        parts = (*parts[:2], LONG, _cut(_spell(name), whole, WHOLE_DIGITS))
    if parts[0].lower() in RESERVED:
        parts = (b"%%%02X" % parts[0][0] + parts[0][1:], *parts[1:])
    return parts


def flat(name: str, key: str) -> tuple[bytes, ...]:
    """Return the one component of a journal's directory in a layout without a tree.

    Args:
        name: The object's own name, for the person who looks.
        key: All that identifies the object.

    Returns:
        One component, `name~hash`.
    """
    return (_cut(_spell(name), key, WHOLE_DIGITS),)


def own(component: bytes, owner: str) -> bytes:
    """Return the last component of an object that is one asker's own.

    Args:
        component: The last one of the object that all share.
        owner: The keyed hash of who asks.
    """
    return _cut(component, f"{component!r}\0{owner}", SUFFIX_DIGITS)


def answers(directory: Sequence[bytes], key: str, variant: str) -> tuple[bytes, ...] | None:
    """Return the components of the journal of what was said of the names in a remote directory; None if it has none.

    Args:
        directory: Where the journals of its files are; empty in the flat layout.
        key: All that identifies it, but for the variant.
        variant: What else tells it from others of its path.
    """
    if LONG in directory or sum(map(len, directory)) + len(directory) > PATH_BYTES - 2 * COMPONENT_BYTES:
        return None
    above = (*directory, ANSWERS) if directory else (ANSWERS, digest(key, WHOLE_DIGITS).encode())
    return (*above, _cut(b"answers", variant, SUFFIX_DIGITS) if variant else b"answers")


def is_variant(component: bytes, of: bytes) -> bool:
    """Whether a component is that of an object which shares its path with the object of another component."""
    return component == of or (component.startswith(of + b"~") and _SUFFIXES.fullmatch(component, len(of)) is not None)


def is_hashed(path: str) -> bool:
    """Whether a journal's directory, or one of answers, is called by a hash of all that identifies it."""
    return _HASHED.search(path) is not None


def _spell(name: str) -> bytes:
    if _PLAIN.fullmatch(name):
        return name.encode()
    if not name:
        return b"%"
    spelt = "".join(c if c.isprintable() and c not in "%/" else escape(c, "%") for c in name)
    if spelt[0] in ".@":
        spelt = escape(spelt[0], "%") + spelt[1:]
    return _LIKE_A_SUFFIX.sub(b"%7E", spelt.encode())


def _fit(spelt: bytes, name: str, variant: str) -> bytes:
    if not variant and len(spelt) <= COMPONENT_BYTES:
        return spelt
    return _cut(spelt, f"{name}\0{variant}", SUFFIX_DIGITS)


def _cut(spelt: bytes, hashed: str, digits: int) -> bytes:
    head = spelt
    if len(head) + digits >= COMPONENT_BYTES:
        head = head[: COMPONENT_BYTES - digits - 1].decode(errors="ignore").encode()
        head = _CUT_ESCAPE.sub(b"", head)
    return head + b"~" + digest(hashed, digits).encode()
