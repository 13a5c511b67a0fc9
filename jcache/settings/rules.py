"""Rules for some remote files only: `[[rules]]` in the settings' file. The first one that matches a file decides."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from fnmatch import translate
from functools import cached_property
from typing import Any

from jcache.settings import values

__all__ = ["KEYS", "Rule", "find_rule", "naming", "parse_rule", "replicas_of"]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What holds for the remote files that it matches; what it does not set is as the settings have it.

    Not slotted, so that the compiled pattern can be kept.
    """

    url: str | None = None
    """Pattern for whole addresses."""
    protocol: str | None = None
    bypass: bool = False
    """Measure, but record nothing and serve nothing."""
    exclude: bool = False
    """Leave to the file system, and out of the report."""
    validate: str | float | None = None
    record: bool = True
    """Whether what is fetched is recorded; what is there already is served."""
    shared: bool = False
    """Whether one journal is for all who ask, whatever the origin says of that."""
    ignore_query: tuple[str, ...] = ()
    """Parameters of URLs' queries that decide nothing."""
    replicas: tuple[str, ...] = ()
    """Addresses of trees, as `same` has them, that have the same files; such a rule sets nothing else either."""
    same: tuple[str, ...] = ()
    """Addresses of one tree at several endpoints, without a slash at their ends; such a rule sets nothing else."""

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile("" if self.url is None else translate(self.url))

    def matches(self, *names: str) -> bool:
        """Whether it is about a remote file of one of these addresses (without secrets), the first being its own."""
        if self.same or self.replicas:
            return False
        if self.protocol is not None and names[0].partition("://")[0] != self.protocol:
            return False
        return any(self._pattern.match(name) for name in names)

    def describe(self) -> dict[str, object]:
        """Return what it sets, by key."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name)) != field.default}


def _protocol(value: object) -> str:
    (name,) = values.protocols(value)
    return name


def _parameters(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not value or not all(isinstance(name, str) and name for name in value):
        raise ValueError
    return tuple(value)


def _endpoints(value: object) -> tuple[str, ...]:
    found = tuple(name.rstrip("/") for name in _parameters(value))
    if len(set(found)) < 2 or not all(re.fullmatch(r"[a-z][a-z0-9+.-]*://[^?#@]+", name) for name in found):
        raise ValueError
    return found


KEYS: Mapping[str, tuple[Callable[[object], object], str, str]] = {
    "url": (values.text, "a pattern", "Which addresses it is about; `*` stands for any text, slashes too."),
    "protocol": (_protocol, "a protocol", "Which protocol it is about, such as `s3`."),
    "bypass": (values.boolean, "true or false", "Only measure: write nothing to the cache and serve nothing from it."),
    "exclude": (values.boolean, "true or false", "Leave these files to their file system, and out of the report."),
    "validate": (values.validate, "open, never or a number of seconds", "As `JCACHE_VALIDATE`, for these files."),
    "record": (values.boolean, "true or false", "`false`: serve what is in the cache, but add nothing to it."),
    "shared": (
        values.boolean,
        "true or false",
        "One copy for all who ask: `Vary`, `private`, `no-store` and the access keys of S3 services are set aside.",
    ),
    "ignore_query": (
        _parameters,
        "names of parameters",
        'Parameters of the query that do not decide which bytes are meant: `["access_token"]`, `["*"]` for all.',
    ),
    "replicas": (
        _endpoints,
        "two addresses or more",
        "Trees that have the same files: where a file cannot be read at one, it is read at another.",
    ),
    "same": (_endpoints, "two addresses or more", "Endpoints of one tree: a file is the same by whichever it comes."),
}
"""By key: what reads its value, what is allowed, and what it means."""


def parse_rule(table: object) -> Rule:
    """Return the rule that a table of a TOML file means.

    Raises:
        ValueError: It is none; the message says why, in words that follow the rule's place.
    """
    if not isinstance(table, dict):
        raise ValueError("is no table: write [[rules]] in a line of its own")
    found: dict[str, object] = {}
    for key, value in table.items():
        if key not in KEYS:
            raise ValueError(f"sets {key!r}, which no rule has: give {', '.join(KEYS)}")
        try:
            found[key] = KEYS[key][0](value)
        except (ValueError, TypeError, OverflowError):
            raise ValueError(f"has {key} = {value!r}: give {KEYS[key][1]}") from None
    alone = found.keys() & {"same", "replicas"}
    if alone and len(found) > 1:
        raise ValueError(f"sets more than {min(alone)}: give that a rule of its own")
    if not found.keys() & {"url", "protocol", "same", "replicas"}:
        raise ValueError("says nothing of which files it is about: give url or protocol")
    if found.keys() <= {"url", "protocol"}:
        raise ValueError("sets nothing: give bypass, exclude, validate, record, shared or ignore_query")
    return Rule(**found)  # type: ignore[arg-type]  # each was read by its key


def find_rule(rules: tuple[Rule, ...], *names: str) -> Rule | None:
    """Return the first rule that matches one of a remote file's addresses, None where none does."""
    return next((rule for rule in rules if rule.matches(*names)), None)


def _ignored_query(rules: tuple[Rule, ...]) -> Callable[[tuple[str, ...]], frozenset[str]] | None:
    """Return what tells, given a file's addresses, which parameters of its query decide nothing; None where all do."""
    if not any(rule.ignore_query for rule in rules):
        return None

    def find(names: tuple[str, ...]) -> frozenset[str]:
        rule = find_rule(rules, *names)
        return frozenset() if rule is None else frozenset(rule.ignore_query)

    return find


def _same_file(rules: tuple[Rule, ...]) -> Callable[[tuple[str, ...]], str | None] | None:
    """Return what tells, given a file's addresses, by which one it is known at all its endpoints; None for none."""
    trees = [(endpoint, rule.same[0]) for rule in rules for endpoint in rule.same]
    if not trees:
        return None

    def find(names: tuple[str, ...]) -> str | None:
        return next(
            (first + name[len(tree) :] for tree, first in trees for name in names if name.startswith(f"{tree}/")), None
        )

    return find


def replicas_of(rules: tuple[Rule, ...], *names: str) -> tuple[str, ...]:
    """Return at which addresses a file is, too, that is at the first of these that any rule is about."""
    for rule in rules:
        for tree in rule.replicas:
            for name in names:
                if name.startswith(f"{tree}/"):
                    return tuple(other + name[len(tree) :] for other in rule.replicas if other != tree)
    return ()


def naming(rules: tuple[Rule, ...], *, flat: bool, basepath: str | None) -> dict[str, Any]:
    """Return what the settings say of names, as `jcache.cache` takes it."""
    return {"flat": flat, "basepath": basepath, "ignored": _ignored_query(rules), "same": _same_file(rules)}
