"""What holds for a remote file: of the settings, as they are when it is opened, and of what the program says."""

import functools
import os
import re
from dataclasses import dataclass
from fnmatch import translate

from jcache.settings import values
from jcache.settings.config import Config
from jcache.settings.rules import Rule, find_rule

__all__ = ["GATEWAY_VARIABLE", "Directives", "Policy", "Terms"]

GATEWAY_VARIABLE = "_JCACHE_GATEWAY"
"""`<host>:<port>` of the gateway that `jcache run` has started for the processes of a command, and nobody else."""

_DENIED, _NOT_ALLOWED = "JCACHE_DENY names its origin", "JCACHE_ALLOW does not name its origin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Directives:
    """What a program says of the files that it opens, before any rule."""

    bypass: bool = False
    """Measure, but record nothing and serve nothing."""
    validate: str | float | None = None
    refresh: bool = False
    """Drop what is recorded, and fetch it anew."""

    @classmethod
    def of(cls, said: object) -> "Directives":
        """Return what `jcache={...}` means.

        Raises:
            TypeError: There is no such directive.
            ValueError: A value is wrong; the message says what to give.
        """
        if not isinstance(said, dict):
            raise TypeError("jcache= takes a dictionary, such as {'validate': 'never'}")
        found: dict[str, bool | str | float] = {}
        for name, value in said.items():
            if name not in _DIRECTIVES:
                raise TypeError(f"jcache= has no {name!r}: give bypass, validate or refresh")
            read, allowed = _DIRECTIVES[name]
            try:
                found[name] = read(value)
            except (ValueError, TypeError, OverflowError):
                raise ValueError(f"jcache= has {name} = {value!r}: give {allowed}") from None
        return cls(**found)  # type: ignore[arg-type]  # each was read by its name

    def within(self, outer: "Directives | None") -> "Directives":
        """Return these directives of one file, beside those of its file system."""
        if outer is None:
            return self
        validate = outer.validate if self.validate is None else self.validate
        return Directives(bypass=self.bypass or outer.bypass, validate=validate, refresh=self.refresh or outer.refresh)


_DIRECTIVES = {
    "bypass": (values.boolean, "True or False"),
    "validate": (values.validate, "open, never or a number of seconds"),
    "refresh": (values.boolean, "True or False"),
}


@dataclass(frozen=True, slots=True, eq=False)
class Terms:
    """What holds for one remote file. Compared by identity: `Policy.terms` makes no two that are equal."""

    why_not: str
    """Why it goes past the cache; empty where it does not."""
    exclude: bool
    validate: str | float | None
    """None as the session has it."""
    record: bool
    shared: bool


_terms = functools.lru_cache(1024)(Terms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the settings say of remote files, for those that are opened while it holds."""

    validate: str | float | None = None
    """None as the session has had it from its beginning."""
    rules: tuple[Rule, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    @classmethod
    def of(cls, config: Config, *, validate: str | float | None = None) -> "Policy":
        """Return that of settings, in a session that began with this way of validating, by default theirs."""
        differs = validate is not None and config.validate != validate
        gateway = os.environ.get(GATEWAY_VARIABLE)
        # What is read through it is recorded there, and counted; its port is another one's the next time.
        own = (Rule(url=f"*://{gateway}/*", exclude=True),) if gateway else ()
        return cls(
            validate=config.validate if differs else None,
            rules=(*own, *config.rules),
            allow=config.allow,
            deny=config.deny,
        )

    @property
    def is_plain(self) -> bool:
        """Whether all files are alike."""
        return self == _PLAIN

    def terms(self, names: tuple[str, ...], said: Directives | None) -> Terms | None:
        """Return what holds for a remote file; None where nothing but the settings of its session does.

        Args:
            names: Its addresses, without secrets, the first being its own.
            said: What the program says of it.
        """
        rule, said = find_rule(self.rules, *names) or _NO_RULE, said or _NOTHING
        validate = next((one for one in (said.validate, rule.validate, self.validate) if one is not None), None)
        why_not = "a rule says so" if rule.bypass else "the program says so" if said.bypass else self._denied(names)
        if rule is _NO_RULE and not why_not and validate is None:
            return None
        return _terms(why_not, rule.exclude, validate, rule.record, rule.shared)

    def _denied(self, names: tuple[str, ...]) -> str:
        if any(_names(pattern, names) for pattern in self.deny):
            return _DENIED
        return _NOT_ALLOWED if self.allow and not any(_names(pattern, names) for pattern in self.allow) else ""


_PLAIN, _NOTHING, _NO_RULE = Policy(), Directives(), Rule()


@functools.lru_cache(1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(translate(pattern))


def _names(pattern: str, names: tuple[str, ...]) -> bool:
    """Whether a pattern names a file by one of its addresses, or where it has no slash, by the host in one of them."""
    match = _compiled(pattern).match
    if "/" in pattern:
        return any(map(match, names))
    hosts = [name.partition("://")[2].partition("/")[0] for name in names]
    return any(host and (match(host) or match(host.rpartition(":")[0])) for host in hosts)
