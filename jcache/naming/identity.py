"""Which remote object a path means: one canonical key for all spellings, without a secret in it.

Two different objects never have the same key: where a canonical form could merge two, the spelling is kept instead,
which costs at worst a second journal. One object has one key whoever asks. Who that is, is noted beside it, in memory
only: validation belongs to it, and where the origin gives each another file, so does the journal (see `Cache.stored`).
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from jcache.naming import credentials, layout
from jcache.naming.address import split_scheme
from jcache.naming.asking import UNSTABLE, fingerprint, who_asks
from jcache.naming.protocols import Address, Unidentifiable, locate

__all__ = [
    "Identifier",
    "Identity",
    "Unidentifiable",
    "address_of",
    "identify",
    "is_answers",
    "is_below",
    "is_owned",
    "names_of",
    "upwards",
]

IgnoredQuery = Callable[[tuple[str, ...]], frozenset[str]]
"""Tells, given the addresses of an object, which parameters of its query decide nothing."""

SameFile = Callable[[tuple[str, ...]], str | None]
"""Tells, given the addresses of an object, the one by which it is known at all endpoints that have it."""

_HASH_DIGITS = 32
_NESTING = 8
# What a file system is a view of. Its identity would have to contain another one's.
_TARGETS = frozenset({"fo", "fs", "filesystem", "target_protocol", "target_options", "remote_protocol", "connector"})
_DEFAULTS = ("s3.amazonaws.com", "storage.googleapis.com", "huggingface.co")
_STORES = frozenset({"s3", "gs", "abfs", "hf", "oss"})
# No escape begins with a backslash and one of these.
_VARIANT, _OWNER = "\\~", "\\^"
_MARK_DIGITS = 8
# What the key of a path ends in that is no path at all, at a server whose paths need not begin at the root.
_RELATIVE = "/\\2F"
# What no hash begins with.
_ANSWERS = "listings"
# How many directories keep what their objects' identities have in common.
_DIRECTORIES = 1024


@dataclass(frozen=True, slots=True)
class Identity:
    """One remote object, free of secrets."""

    key: str
    """Canonical: equal for equal objects, different for different ones. A journal stores it and compares it."""

    url: str
    """For people. Two objects may look alike here."""

    parts: tuple[bytes, ...]
    """Components of the journal's directory below the cache's root, each legal on any POSIX file system."""

    below: tuple[bytes, ...] = ()
    """Components of the directory in which objects below this one's path have theirs; empty in the flat layout."""

    asker: str = field(default="", compare=False)
    """Fingerprint of who asks, in memory only; empty for nobody in particular."""

    owner: str = field(default="", compare=False)
    """Fingerprint of that part of it that decides which object this is, in memory only; mostly empty."""

    query: str = field(default="", compare=False)
    """The URL's query, where it alone tells this object from others of its path; it may contain secrets."""

    @property
    def address(self) -> str:
        """The URL without a mark of what else tells objects of one path apart."""
        return self.url[: -_MARK_DIGITS - 2] if _VARIANT in self.key else self.url

    def of(self, owner: str) -> "Identity":
        """Return the identity under which an object is stored that is one asker's own.

        Args:
            owner: The keyed hash of who asks; it is written to disk.
        """
        parts = (*self.parts[:-1], layout.own(self.parts[-1], owner))
        return replace(self, key=f"{self.key}{_OWNER}{owner}", parts=parts, owner="")

    def answers(self, *, above: bool = False) -> "Identity | None":
        """Return the identity under which is kept what the origin said of the names in this directory.

        Args:
            above: Take the directory in which this object is, rather than this object.

        Returns:
            The identity; None where it has no place.
        """
        plain, _, variant = self.key.partition(_OWNER)[0].partition(_VARIANT)
        key, address, below = plain.rstrip("/"), self.address.rstrip("/"), self.below
        if below and below[-1] == layout.component("") and plain.endswith("/"):
            below = below[:-1]  # it is named with a slash behind it
        if above:
            if key.count("/") <= 1 or key.endswith(_RELATIVE):
                return None  # it is a root
            key, address, below = key.rpartition("/")[0], address.rpartition("/")[0].rstrip("/"), below[:-1]
        parts = layout.answers(below, key, variant)
        if parts is None:
            return None
        key = f"{key}{_VARIANT}{_ANSWERS}{variant}"
        return replace(self, key=key, url=f"{address} ~{_ANSWERS}", parts=parts, below=())


def identify(
    protocol: str | tuple[str, ...] | list[str],
    path: str,
    options: Mapping[str, object],
    *,
    basepath: str | None = None,
    flat: bool = False,
    environ: Mapping[str, str] | None = None,
    ignored: IgnoredQuery | None = None,
    same: SameFile | None = None,
    asker: str | None = None,
) -> Identity:
    """Return the identity of the object that a file system's path means.

    Args:
        protocol: The file system's protocol, or all its names.
        path: What the file system's methods receive, or a full URL.
        options: The file system's options by name, positional ones as well.
        basepath: Where the path contains these directories, scheme, host and all before them are cut: for federations,
            in which many hosts serve one tree under different prefixes.
        flat: One directory for each object instead of a tree.
        environ: Environment variables, some of which name endpoints; `os.environ` by default.
        ignored: What the user's rules say of parameters.
        same: What they say of endpoints.
        asker: What `who_asks` says of the options, where that is known already.

    Returns:
        The identity.

    Raises:
        Unidentifiable: It cannot be told safely which object this is, so it must not be cached.
    """
    names = (protocol,) if isinstance(protocol, str) else tuple(protocol)
    environ = os.environ if environ is None else environ
    address = locate(names, path, options, environ)
    if ignored is not None and address.extra and "?" in path and (ignore := ignored(_names(address))):
        address = locate(names, path, options, environ, ignore=ignore)
    if same is not None and (url := same(_names(address))):
        there = locate((split_scheme(url)[0],), url, {}, {})
        address = address._replace(scheme=there.scheme, authority=there.authority, path=there.path, owning=())
    deciding = (*address.extra, *_deciding(options, address.used, ()))
    variant = layout.digest(repr(deciding), _HASH_DIGITS) if deciding else ""
    if basepath and (rest := _below(basepath, address.path)) is not None:
        directories, name, mark = rest[:-1], rest[-1], "base"
        url = "/" + "/".join(rest)
    else:
        directories, name, mark = [address.scheme, *address.authority, *_directories(address)], _name(address), "url"
        url = _display(address)
    key = _key(mark, [*directories, name], variant)
    parts = layout.flat(name, key) if flat else layout.tree(directories, name, variant=variant)
    below = () if flat else parts
    if variant and not flat:
        is_long = layout.LONG in parts
        below = layout.tree(directories, name) if is_long else (*parts[:-1], layout.component(name))
    if variant:
        url += f" ~{variant[:_MARK_DIGITS]}"
    if asker is None:
        asker = who_asks(options, environ)
    if address.asking or address.owning:
        asker = asker[: len(UNSTABLE) if asker.startswith(UNSTABLE) else 0] + fingerprint(
            (asker, address.asking, address.owning)
        ).lstrip(UNSTABLE)
    is_query = len(deciding) == 1 and deciding == address.extra and f"?{address.extra[0]}" in path
    query = address.extra[0] if is_query else ""
    return Identity(key, _escape(url), parts, below, asker, fingerprint(address.owning), query)


class Identifier:
    """Identifies paths of one file system as `identify` does; objects of one directory share most of the work.

    What a rule makes of a path hangs on its directory alone where the object's name is a plain one: letters, digits and
    a few marks that mean nothing in any URL. So the identity of one object of a directory, called `x`, is that of any
    other with another name in that place. Threads may use one instance; at worst one does what another did.
    """

    __slots__ = (
        "_asker",
        "_basepath",
        "_directories",
        "_environ",
        "_flat",
        "_ignored",
        "_options",
        "_protocol",
        "_same",
    )

    def __init__(
        self,
        protocol: str | tuple[str, ...] | list[str],
        options: Mapping[str, object],
        *,
        basepath: str | None = None,
        flat: bool = False,
        environ: Mapping[str, str] | None = None,
        ignored: IgnoredQuery | None = None,
        same: SameFile | None = None,
    ) -> None:
        """Take note of a file system; see `identify`."""
        self._environ = os.environ if environ is None else environ
        self._asker = who_asks(options, self._environ)
        self._ignored = ignored
        self._same = same
        self._protocol = protocol
        self._options = options
        self._basepath = basepath
        self._flat = flat
        self._directories: dict[str, _Siblings | None] = {}

    def identify(self, path: str) -> Identity:
        """Return the identity of the object that a path means.

        Raises:
            Unidentifiable: It cannot be told safely which object this is, so it must not be cached.
        """
        directory, slash, name = path.rpartition("/")
        if slash and layout.is_plain(name):
            try:
                siblings = self._directories[directory]
            except KeyError:
                siblings = self._look_at(directory)
            if siblings is not None and len(name) <= siblings.longest:
                parts = (*siblings.parts, name.encode())
                below = parts if siblings.is_tree else ()
                return Identity(siblings.key + name, siblings.url + name, parts, below, siblings.asker, siblings.owner)
        return self._identify(path)

    def _identify(self, path: str) -> Identity:
        return identify(
            self._protocol,
            path,
            self._options,
            basepath=self._basepath,
            flat=self._flat,
            environ=self._environ,
            ignored=self._ignored,
            same=self._same,
            asker=self._asker,
        )

    def _look_at(self, directory: str) -> "_Siblings | None":
        siblings = None
        # What follows `://` is not a name but an authority, with a spelling of its own; and behind a question mark or a
        # hash nothing is a name.
        if not directory.endswith(":/") and "?" not in directory and "#" not in directory:
            # Two, to see that the name is where it seems to be.
            siblings, other = (_siblings_of(self._identify(f"{directory}/{name}"), name) for name in ("x", "Y0"))
            if siblings != other:
                siblings = None
        if len(self._directories) >= _DIRECTORIES:
            self._directories.clear()
        self._directories[directory] = siblings
        return siblings


class _Siblings(NamedTuple):
    """What the identities of a directory's objects begin with, and how long a name may be for that to hold."""

    key: str
    url: str
    parts: tuple[bytes, ...]
    longest: int
    is_tree: bool
    asker: str
    owner: str


def _siblings_of(one: Identity, name: str) -> _Siblings | None:
    """Return what is left of an identity without its name; None where the name is not the end of all of it."""
    parts = one.parts[:-1]
    end = "/" + name
    if not (one.key.endswith(end) and one.url.endswith(end) and parts and one.parts[-1] == name.encode()):
        return None
    longest = min(layout.COMPONENT_BYTES, layout.PATH_BYTES - sum(map(len, parts)) - len(one.parts))
    head = one.key.removesuffix(name), one.url.removesuffix(name)
    return _Siblings(*head, parts, longest, bool(one.below), one.asker, one.owner)


def address_of(key: str) -> str:
    """Return what a person would call the object of a key: its address, as `Identity.url` has it or nearly so.

    Args:
        key: Of an `Identity`.
    """
    mark, _, rest = key.partition(_OWNER)[0].partition(":")
    rest, _, variant = rest.partition(_VARIANT)
    if variant.startswith(_ANSWERS):
        rest, variant, listing = rest + "/", variant.removeprefix(_ANSWERS), " (listing)"
    else:
        listing = ""
    suffix = (f" ~{variant[:_MARK_DIGITS]}" if variant else "") + listing
    if mark == "base":
        return f"/{rest}{suffix}"
    scheme, slash, tail = rest.partition("/")
    if mark != "url" or not slash:
        return key
    authority, _, path = tail.partition("/")
    if scheme in _STORES and authority in _DEFAULTS:
        return f"{scheme}://{path}{suffix}"
    return f"{scheme}://{authority}/{'/' if scheme == 'root' else ''}{path}{suffix}"


def names_of(key: str) -> tuple[str, ...]:
    """Return all addresses by which a person may call the object of a key, the one that `jcache ls` shows first.

    Of an object in a store with an endpoint of its own: with the endpoint, as a program has it, which names bucket and
    path only, and as the endpoint's own URL. Of one that something else than its path tells from others: without that.
    Of what was said of a directory's names: the directory's, with and without a slash at its end.

    Args:
        key: Of an `Identity`.
    """
    first = address_of(key)
    plain = key.partition(_OWNER)[0].partition(_VARIANT)[0]
    found = [first, address_of(plain)]
    scheme, _, rest = plain.removeprefix("url:").partition("/")
    if plain.startswith("url:") and scheme in _STORES:
        where, _, path = rest.partition("/")
        found += [f"{scheme}://{path}", *(f"{web}://{where}/{path}" for web in ("https", "http"))]
    if is_answers(key):
        found += [name + "/" for name in found[1:] if not name.endswith("/")]
    return tuple(dict.fromkeys(found))


def _names(address: Address) -> tuple[str, ...]:
    """Return all addresses by which a person may call the object at an address."""
    return names_of(_key("url", [address.scheme, *address.authority, *_directories(address), _name(address)], ""))


def is_answers(key: str) -> bool:
    """Whether a key is that of what an origin said of the names in a directory, and not of a file.

    Args:
        key: Of an `Identity`.
    """
    return key.partition(_VARIANT)[2].startswith(_ANSWERS)


def is_owned(key: str) -> bool:
    """Whether a key is that of an object that is one asker's own."""
    return _OWNER in key


def is_below(url: str, address: str) -> bool:
    """Whether an object has an address, or lies below it, whatever else tells it from others of its path.

    Args:
        url: As `Identity.url` has it.
        address: As `Identity.address` has it, without a slash at its end; all lie below an empty one.
    """
    if not address:
        return True
    rest = url[len(address) :] if url.startswith(address) else "?"
    return not rest or rest.startswith(("/", " ~"))


def upwards(address: str) -> list[str]:
    """Return an address and those of all directories above it; the last one is empty.

    Above a bucket at a default endpoint, whose host is left out, there is only the scheme.
    """
    found, scheme = [address], address.partition("//")[0]
    while "/" in (address.partition("://")[2] or address).rstrip(":/"):
        address = address.rpartition("/")[0].rstrip("/")
        found.append(address)
    return [*found, scheme, ""]


def _below(basepath: str, path: str) -> list[str] | None:
    """Return the names from the base path on, None where the path does not lead through it."""
    base = [name for name in basepath.split("/") if name]
    names = path.removeprefix("/").split("/")
    for first in range(len(names) - len(base)):
        if base and names[first : first + len(base)] == base:
            return names[first:]
    return None


def _directories(address: Address) -> list[str]:
    if address.path.startswith("/"):
        return address.path[1:].split("/")[:-1]
    # No name contains a slash, so this one says that the path does not begin at the root.
    return ["/", *address.path.split("/")[:-1]]


def _name(address: Address) -> str:
    return address.path.rpartition("/")[2]


def _key(mark: str, names: list[str], variant: str) -> str:
    key = f"{mark}:" + "/".join(_escape(name, "\\/") for name in names)
    return f"{key}{_VARIANT}{variant}" if variant else key


def _display(address: Address) -> str:
    if address.scheme in _STORES and address.authority[0] in _DEFAULTS:
        return f"{address.scheme}:/{address.path}"
    slash = "/" if address.scheme == "root" or not address.path.startswith("/") else ""
    return f"{address.scheme}://{'/'.join(address.authority)}{slash}{address.path}"


def _escape(text: str, also: str = "") -> str:
    """Return a text that any terminal and any encoder takes."""
    if text.isprintable() and not any(character in text for character in also):
        return text
    return "".join(c if c.isprintable() and c not in also else layout.escape(c, "\\") for c in text)


def _deciding(
    options: Mapping[str, object], used: frozenset[str], outer: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield the options that may decide which bytes are meant, by the names that lead to them, in a fixed order."""
    for name, value in sorted(options.items(), key=lambda item: str(item[0])):
        where = (*outer, name)
        if not isinstance(name, str):
            raise Unidentifiable(f"option {where!r} has a name that is no text")
        if value is None or name in used or name in credentials.TUNING or credentials.is_secret(name):
            continue
        if name in _TARGETS or len(outer) > _NESTING:
            raise Unidentifiable(f"option {'.'.join(where)!r} names another source of bytes")
        if isinstance(value, Mapping):
            inner = _deciding_headers(value) if name == "headers" else value
            # These go where the options themselves go; any other mapping has names of its own.
            yield from _deciding(inner, used if name == "client_kwargs" else frozenset(), where)
        else:
            yield where, _plain(".".join(where), value, len(outer))


def _deciding_headers(headers: Mapping[object, object]) -> dict[str, object]:
    idle = credentials.IDLE_HEADERS | credentials.ASKING_HEADERS
    return {lower: value for name, value in headers.items() if (lower := str(name).lower()) not in idle}


def _plain(name: str, value: object, depth: int) -> object:
    """Return the value of an option in a form whose `repr` is the same in every process.

    Raises:
        Unidentifiable: The value is an object of which it is not known what it does.
    """
    if type(value) in {str, bytes, bool, int, float}:
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, (list, tuple)) and depth <= _NESTING:
        return tuple(_plain(name, item, depth + 1) for item in value)
    where, what = getattr(value, "__module__", None), getattr(value, "__qualname__", "<unnamed>")
    if callable(value) and where not in {None, "__main__"} and "<" not in what:
        return f"{where}.{what}"
    raise Unidentifiable(f"option {name!r} is an object ({type(value).__name__}), and may decide which bytes are meant")
