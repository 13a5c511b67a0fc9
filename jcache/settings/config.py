"""What a user can set, in the environment or in a TOML file, as one frozen value."""

import _thread
import errno
import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from jcache.settings.rules import Rule, parse_rule
from jcache.settings.several import directories, files
from jcache.settings.values import basepath as _basepath
from jcache.settings.values import boolean as _boolean
from jcache.settings.values import count as _count
from jcache.settings.values import level as _level
from jcache.settings.values import name as _name
from jcache.settings.values import names as _names
from jcache.settings.values import number as _number
from jcache.settings.values import parse_memory, parse_size, sizes
from jcache.settings.values import patterns as _patterns
from jcache.settings.values import profile as _profile
from jcache.settings.values import protocols as _protocols
from jcache.settings.values import push as _push
from jcache.settings.values import seconds as _seconds
from jcache.settings.values import text as _text
from jcache.settings.values import validate as _validate
from jcache.system.allocator import KEEP_BYTES
from jcache.system.stopwatch import acquire

__all__ = ["SETTINGS", "Config", "ConfigError", "Setting", "absolute", "gather", "parse_size", "without_user"]

FILE_NAME = "jcache.toml"
"""The file in a cache directory that sets what the environment does not."""

REPORTS_NAME = ".reports"
"""Where JSON reports go, below the cache directory, if nothing else is set."""

WHOLE_BYTES = 16 << 20
"""How large a file may be that is fetched whole, if nothing else is set."""

_SHOWN_CHARACTERS = 80
_MOST_BYTES = 1 << 20
_MOST_STRANGE_BYTES = 4096
"""Of somebody else's settings no more is parsed: for a key of n parts the parser takes memory in proportion to n^2."""
_HARMLESS = frozenset({"size", "flat"})
"""Settings that touch nothing but the cache, in which whoever may write can do worse."""


class ConfigError(ValueError):
    """A setting is wrong; the message is one line that names it, its value and what is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """All settings; see `SETTINGS` for what each means. Paths are absolute.

    `Config()` is what an empty environment sets.
    """

    dir: str | None = None
    tiers: tuple[str, ...] = ()
    """Further cache directories, which are read only, for what `dir` lacks; in the order in which they are asked."""
    bundles: tuple[str, ...] = ()
    """Files that `jcache bundle` has made, the last tiers."""
    prefetch: str = "off"
    """`off`, `profile`, `columns`, or a recorded run."""
    copy: int = 2
    """How often what lies in a tier is read before it is copied into `dir`; 0 for never."""
    validate: str | float = "open"
    """`open`, `never`, or seconds."""
    offline: bool = False
    bypass: bool = False
    summary: bool = True
    json: str | None = None
    stats: float | None = None
    """Seconds; 0 for no interim reports, None for some at growing intervals."""
    metrics: str | None = None
    metrics_push: str | None = None
    """A URL, or `otlp`."""
    profile: bool | str = False
    """Whether to record access profiles, or the directory for them."""
    appname: str | None = None
    noapp: tuple[str, ...] = ()
    protocols: tuple[str, ...] = ()
    """In lower case; empty for all that are remote."""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    """Patterns of hosts and addresses."""
    basepath: str | None = None
    flat: bool = False
    size: int | None = None
    """Bytes; None for no limit."""
    timeout: float = 10.0
    """Seconds."""
    connections: int = 4
    retries: int = 10
    retry_for: float = 60.0
    """Seconds."""
    whole: int = WHOLE_BYTES
    """Bytes; 0 for no file."""
    malloc: int = KEEP_BYTES
    """Bytes; 0 leaves the C library's allocator as it is."""
    log: str = "warning"
    rules: tuple[Rule, ...] = ()
    """For some remote files only; the first that matches decides. In the file only."""
    ignored: str = ""
    """What of the cache directory's file does not count, and why, in one line; empty where all does."""
    file: str | None = field(default=None, compare=False)
    """The file of settings, there or not; None where there is no cache either."""
    stated: frozenset[str] = field(default=frozenset(), compare=False)
    """Fields that the environment sets, and so no file; `config` where it names the file."""

    @property
    def report_directory(self) -> str | None:
        """Where JSON reports are written; None where there is neither a directory for them nor a cache."""
        if self.json is not None:
            return self.json
        return None if self.dir is None else os.path.join(self.dir, REPORTS_NAME)

    @property
    def tells_metrics(self) -> bool:
        """Whether metrics are written to a file, or sent."""
        return self.metrics is not None or self.metrics_push is not None

    @property
    def profile_directory(self) -> str | None:
        """Where access profiles are written; None where none are recorded."""
        if isinstance(self.profile, str):
            return self.profile
        return self.report_directory if self.profile else None

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> "Config":
        """Return the settings of an environment and of the file that it names, or that the cache directory holds.

        Args:
            environ: Environment variables. One that is empty is not set; names that mean nothing here are ignored.

        Returns:
            The settings; the environment's before the file's.

        Raises:
            ConfigError: A value is wrong, or a file cannot be read or sets something unknown.
        """
        found = gather(environ)
        named = environ.get(CONFIG_VARIABLE, "").strip()
        file = _path(named) if named else os.path.join(found["dir"][0], FILE_NAME) if "dir" in found else None
        stated = {field for field, (_, source) in found.items() if source != file} | ({"config"} if named else set())
        settings = {field: value for field, (value, _) in found.items()}
        return cls(**settings, file=file, stated=frozenset(stated))

    def with_file(self, file: "File") -> "Config":
        """Return these settings with what their file, as it is by now, sets of `AT_RUN_TIME`.

        Raises:
            ConfigError: The file is wrong.
        """
        assert self.file is not None
        stored = (_named if "config" in self.stated else _of_cache)(self.file, file)
        fresh = {field: stored.get(field, getattr(_DEFAULTS, field)) for field in AT_RUN_TIME - self.stated}
        return replace(self, **fresh, ignored=stored.get("ignored", ""))

    def read_file(self) -> "File":
        """Return the file of settings as it is; it may hang as its mount does."""
        assert self.file is not None
        try:
            return _plain(self.file) if "config" in self.stated else _judged(self.file)
        except OSError as error:
            return File(error)


AT_RUN_TIME = frozenset({"validate", "rules", "allow", "deny"})
"""Fields that a process takes from its file of settings while it runs, for what it opens from then on."""


def gather(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    """Return what is set, by the fields of `Config`: value, and the variable or file that sets it.

    Args:
        environ: As for `Config.from_environ`.

    Raises:
        ConfigError: As there.
    """
    found: dict[str, tuple[Any, str]] = {}
    for setting in SETTINGS:
        text = environ.get(setting.variable, "").strip()
        if text and setting.field is not None:
            value = setting.parse(text, f"{setting.variable}={_shown(text)}", os.curdir)
            found[setting.field] = value, setting.variable
    _part(found)
    limit_s = found["timeout"][0] if "timeout" in found else Config().timeout
    named = environ.get(CONFIG_VARIABLE, "").strip()
    if named:
        path = _path(named)
        stored = _named(path, _content(path, limit_s, read=_plain))
    elif "dir" in found:
        directory = found["dir"][0]
        path = os.path.join(directory, FILE_NAME)
        stored = _of_cache(path, _content(path, limit_s, read=_judged))
        if "dir" in stored:
            raise ConfigError(f"{FILE_NAME} in {_shown(directory)} must not set 'dir', by which it was found")
    else:
        return _of_first(found)
    return _of_first(_part({**{field: (value, path) for field, value in stored.items()}, **found}))


def _part(found: dict[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    """Tell the first of several cache directories from the others."""
    if "dir" in found:
        value, source = found["dir"]
        first, *others = directories(value)
        found["dir"] = first, source
        if others:
            found["tiers"] = tuple(others), source
    return found


def _of_first(found: dict[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    """Keep, of sizes for directories by their names, that of the directory which is written."""
    size, source = found.get("size", (None, ""))
    if isinstance(size, dict):
        del found["size"]
        named = {_path(directory): limit_bytes for directory, limit_bytes in size.items()}
        if "dir" in found and found["dir"][0] in named:
            found["size"] = named[found["dir"][0]], source
    return found


def _bundles(value: object) -> tuple[str, ...]:
    return tuple(map(_path, files(_text(value))))


def absolute(text: str) -> str:
    """Return a value of JCACHE_DIR with absolute paths."""
    return os.pathsep.join(map(_path, directories(text)))


class Setting(NamedTuple):
    """One setting, as the documentation has it and as it is read."""

    variable: str
    """In the environment."""

    type: str
    """What is allowed, for people."""

    default: str
    help: str
    """One line."""

    read: Callable[[Any], Any]
    """Makes the field's value of a text, or of a TOML value; raises ValueError where it is wrong."""

    is_path: bool = False
    """Whether a relative value is relative to the working directory, or to the directory of the file that sets it."""

    @property
    def key(self) -> str:
        """Its name in a TOML file."""
        return self.variable.removeprefix("JCACHE_").lower()

    @property
    def field(self) -> str | None:
        """Its name in `Config`, None for the one that names the file."""
        return self.key if self.variable != CONFIG_VARIABLE else None

    def names_path(self, text: str) -> bool:
        """Whether a value, which is allowed, is a path."""
        return self.is_path and isinstance(self.read(text), str)

    def parse(self, value: object, where: str, base: str) -> Any:
        """Return the field's value.

        Args:
            value: As it was given.
            where: What the user wrote, for the message.
            base: The directory that a relative path starts from.

        Raises:
            ConfigError: The value is wrong.
        """
        try:
            read = self.read(value)
        except (ValueError, TypeError, OverflowError):
            raise ConfigError(f"{where} is wrong: give {self.type}") from None
        if self.is_path and isinstance(read, str):
            several = directories(read) if self.key == "dir" else [read]
            return os.pathsep.join(_path(one, base) for one in several)
        return read


class File(NamedTuple):
    """A file of settings as it was read."""

    content: bytes | OSError
    distrust: str = ""
    """Why those who share its directory need not mean what it says; empty where they do."""


def _content(path: str, limit_s: float, *, read: Callable[[str], File]) -> File:
    """Return what a file has, read by a thread that may hang in a mount that does not answer."""
    done = _thread.allocate_lock()
    done.acquire()
    outcome: list[File] = []

    def work() -> None:
        try:
            outcome.append(read(path))
        except OSError as error:
            outcome.append(File(error))
        finally:
            done.release()

    try:
        _thread.start_new_thread(work, ())
    except RuntimeError:
        work()  # none to be had, at the interpreter's end or at a limit
    if not acquire(done, limit_s):
        return File(TimeoutError(errno.ETIMEDOUT, f"no answer within {limit_s:g} s"))
    return outcome[0]


def _plain(path: str) -> File:
    with open(path, "rb") as file:
        return File(file.read())


def _judged(path: str) -> File:
    """Read the file in a cache directory, into which somebody else than its owner may have put it."""
    place, found = os.stat(os.path.dirname(path)), os.lstat(path)
    trusted = {0, os.geteuid(), place.st_uid}
    stranger = "it belongs neither to you nor to root nor to the owner of the directory"
    if found.st_uid not in trusted:
        stranger = f"{stranger}, but to user {found.st_uid}"
        if not stat.S_ISREG(found.st_mode):
            return File(b"", stranger)
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if found.st_uid in trusted:
            raise
        return File(error, stranger)
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _MOST_BYTES:
            return File(b"", "it is no file of settings")
        distrust = ""
        # A user's own group (of the same number) has no other member; who may not enter cannot write either.
        by_group = status.st_mode & 0o020 and status.st_gid != status.st_uid
        if not {found.st_uid, status.st_uid} <= trusted:
            distrust = stranger
        elif place.st_mode & 0o077 and (by_group or status.st_mode & 0o002):
            distrust = "others than its owner may write to it: chmod go-w"
        content = file.read(_MOST_BYTES)
        return File(b"" if distrust and len(content) > _MOST_STRANGE_BYTES else content, distrust)


def _named(path: str, file: File) -> dict[str, Any]:
    """Return what the file sets that the environment names."""
    return _read(path, file, required=True)


def _of_cache(path: str, file: File) -> dict[str, Any]:
    """Return what the file in a cache directory sets, for who uses the directory as for who wrote the file."""
    if not file.distrust:
        return _read(path, file, required=False)
    try:
        stored = _read(path, file, required=False)
    except ConfigError:
        stored = {}  # whoever shares the directory could else keep all others from caching
    kept = {key: value for key, value in stored.items() if key in _HARMLESS}
    dropped = ", ".join(sorted(stored.keys() - kept)) or ("all" if not kept else "")
    if dropped:
        kept["ignored"] = f"{dropped} in {_shown(path)} ignored: {file.distrust}"
    return kept


def _read(path: str, file: File, *, required: bool) -> dict[str, Any]:
    """Return what a TOML file sets, nothing where there is no file and none is required."""
    content = file.content
    if isinstance(content, FileNotFoundError | NotADirectoryError):
        if required:
            raise ConfigError(f"{CONFIG_VARIABLE}={_shown(path)} cannot be read: {content.strerror}")
        return {}
    if isinstance(content, OSError):
        raise ConfigError(f"the settings in {_shown(path)} cannot be read: {content.strerror}")
    import tomllib

    try:
        table = tomllib.loads(content.decode())
    except (ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ConfigError(f"the settings in {_shown(path)} are not valid TOML: {reason}") from None
    known = {setting.key: setting for setting in SETTINGS if setting.field is not None}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key == RULES_KEY:
            found[key] = _rules(value, path)
        elif key in known:
            found[key] = known[key].parse(value, f"{key} = {_shown(value)} in {_shown(path)}", os.path.dirname(path))
        else:
            allowed = ", ".join(sorted([*known, RULES_KEY]))
            raise ConfigError(f"{_shown(path)} sets {_shown(key)}, which is no setting: give {allowed}")
    return found


def _rules(value: object, path: str) -> tuple[Rule, ...]:
    tables = value if isinstance(value, list) else [value]
    rules = []
    for number, table in enumerate(tables, 1):
        try:
            rules.append(parse_rule(table))
        except ValueError as error:
            raise ConfigError(f"rule {number} in {_shown(path)} {error}") from None
    return tuple(rules)


def without_user(text: str) -> str:
    """Return a text without user and password of URLs in it."""
    return re.sub(r"://[^/@\s]*@", "://***@", text)


def _shown(value: object) -> str:
    text = without_user(repr(value))
    return text if len(text) <= _SHOWN_CHARACTERS else text[: _SHOWN_CHARACTERS - 3] + "..."


def _path(text: str, base: str = os.curdir) -> str:
    return os.path.abspath(os.path.join(base, os.path.expanduser(text)))


CONFIG_VARIABLE = "JCACHE_CONFIG"
RULES_KEY = "rules"
_ON = "1 or 0"
_LEVELS = "debug, info, warning, error or critical"

SETTINGS: tuple[Setting, ...] = (
    Setting("JCACHE_DIR", "a directory, or several with colons between them", "-",
            "The cache, made where it is missing. Setting it turns JCache on. Others are read, for what it lacks.",
            _text, is_path=True),
    Setting("JCACHE_BUNDLES", "files, with colons between them", "-",
            "Bundles that are read for what the cache lacks; where an origin cannot be reached, they are believed.",
            _bundles),
    Setting("JCACHE_PREFETCH", "off, profile, columns, or a profile", "off",
            "Fetch ahead what the job's last run with a profile read next, or the columns read so far.", _text),
    Setting("JCACHE_COPY", "a number, 0 for never", "2",
            "How often what a further directory has is read before it is copied into the first.", _count),
    Setting("JCACHE_VALIDATE", "open, never or a number of seconds", "open",
            "When to ask whether a file has changed: once a process, never, or if the answer is that old.", _validate),
    Setting("JCACHE_OFFLINE", _ON, "0", "Never contact an origin; what is not in the cache raises an error.", _boolean),
    Setting("JCACHE_BYPASS", _ON, "0", "Only measure: write nothing to the cache and serve nothing from it.", _boolean),
    Setting("JCACHE_SUMMARY", _ON, "1", "Print the report at the end of the job.", _boolean),
    Setting("JCACHE_JSON", "a directory", "$JCACHE_DIR/.reports", "Where the JSON reports go.", _text, is_path=True),
    Setting("JCACHE_STATS", "a number of seconds, 0 for never", "1, 2, 4, ... 30",
            "Write an interim report this often, for `jcache top`, and for what is left of a process that is killed.",
            _seconds),
    Setting("JCACHE_METRICS", "a file", "-",
            "Write what the reports count there as metrics (OpenMetrics), with each interim report and at the end.",
            _text, is_path=True),
    Setting("JCACHE_METRICS_PUSH", "a URL, or otlp", "-",
            "Send these metrics: to a push gateway of Prometheus, or by OTLP, whose own variables say where.", _push),
    Setting("JCACHE_PROFILE", "1, 0 or a directory", "0",
            "Record every request, for `jcache profile`: beside the JSON reports, or in the directory.", _profile,
            is_path=True),
    Setting("JCACHE_APPNAME", "a name without slashes", "the program's", "What the reports call the job.", _name),
    Setting("JCACHE_NOAPP", "program names, separated by commas", "-", "Programs that are to run uncached.", _names),
    Setting("JCACHE_PROTOCOLS", "protocols, separated by commas", "all", "Cache these protocols only.", _protocols),
    Setting("JCACHE_ALLOW", "hosts or addresses, separated by commas", "all",
            "Cache these origins only; `*` stands for any text.", _patterns),
    Setting("JCACHE_DENY", "hosts or addresses, separated by commas", "-",
            "Never cache these origins: they are read past the cache.", _patterns),
    Setting("JCACHE_BASEPATH", "a path such as /store", "-",
            "Ignore the host, and the path before this: for federations, where many hosts serve one tree.", _basepath),
    Setting("JCACHE_FLAT", _ON, "0", "One directory for each file instead of a tree like the remote one.", _boolean),
    Setting("JCACHE_SIZE", "a size such as 500GB, or one by directory, /nvme=20GB,/shared=1TB", "no limit",
            "How much the cache may hold: what was not used for longest is removed.", sizes),
    Setting("JCACHE_TIMEOUT", "a number of seconds", "10",
            "How long a call on the cache directory may take before it counts as hung and is used no more.", _seconds),
    Setting("JCACHE_CONNECTIONS", "a number from 1 on", "4",
            "How many connections to one XRootD server files take that are read at the same time.", _number),
    Setting("JCACHE_RETRIES", "a number, 0 for none", "10",
            "How often a request is sent again after a failure that may pass: a lost connection, a busy server.",
            _count),
    Setting("JCACHE_RETRY_FOR", "a number of seconds", "60",
            "How long after its first failure a request may be sent again.", _seconds),
    Setting("JCACHE_WHOLE", "a size such as 64MB, or 0", "16MiB",
            "A file object whose reads miss here and there has a file of at most this size fetched whole.",
            parse_memory),
    Setting("JCACHE_MALLOC", "a size such as 64MB, or 0", "64MiB",
            "How much freed memory the C library keeps for the next results (glibc); 0 leaves it as it is.",
            parse_memory),
    Setting("JCACHE_LOG", _LEVELS, "warning", "What is worth a line on stderr.", _level),
    Setting(CONFIG_VARIABLE, "a TOML file", "jcache.toml in the cache directory",
            "A file that sets what the environment does not: `validate = 300`.", _text, is_path=True),
)  # fmt: skip

_DEFAULTS = Config()
