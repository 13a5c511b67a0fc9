"""A command line as it may be stored and shown: without the secrets that people put into one."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from jcache.naming.credentials import is_secret, names

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MAX_LENGTH = 4096
"""Characters kept: a shell expands `*.root` into megabytes that nobody reads."""

# Lengths of names are bounded, or a long word would cost its length squared.
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20}://)[^/\s'\"]*@")
_QUERY = re.compile(r"(?P<url>[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s'\"?#]*)[?#][^\s'\"]*")
_USER = re.compile(r"(?<![\w:/.@-])(?P<user>[\w.+-]{1,64}:)[^\s'\"@/]{1,256}@(?=[\w\[])")
_BEARER = re.compile(r"\b(?P<name>bearer\s+)[^\s'\"]+", re.IGNORECASE)
# `name=value`, `name: value`, `'name': 'value'`, `options["name"] = "value"`; `'"'"'` is a shell's quote within quotes.
_NAMED = re.compile(
    r"(?<!\w)(?P<name>[A-Za-z_][\w.-]{0,200}+)(?:'\"'\"'|['\"])?\]?\s{0,3}(?P<sign>==?|=>|:(?!//))\s{0,3}"
)
_QUOTED = re.compile(r"(?P<quote>'\"'\"').*?(?P=quote)|'[^']*'?|\"[^\"]*\"?")
_WORD, _REST = re.compile(r"[^\s'\"]*"), re.compile(r"[^'\"\n]*")
# Words of a command that is one string, and the white space between them.
_TOKENS = re.compile(r"(?:'[^']*'|\"[^\"]*\"|[^\s'\"]|['\"])+|\s+")
# Of parameters that are signatures, or stand for who asks, here and there, and of values that may be.
_ODD_NAMES = names(
    """
    key apikey pw pwd pass code session sid ticket rlkey hash md5 sha1 sha256 hmac st s t e sig sign exp expires u usr
    user username login nonce state otp pin private share access
    """
)
_ODD_VALUE = re.compile(r"^eyJ|[^/]:[^/]|@|(?=[A-Za-z]*\d)(?=\d*[A-Za-z])[A-Za-z\d]{16}|[A-Za-z\d+/]{24}")
_SCHEMES = frozenset({"bearer", "basic", "digest", "negotiate", "token"})
_USERS = frozenset({"-u", "-U", "--user", "--proxy-user"})
# It needs no quotes, unlike the stars that it becomes.
_MASK = "_%%_"


def redact(command: str | Sequence[str]) -> str:
    """Return a command line as one string with its secrets cut.

    Cut are user names, passwords, queries and fragments of URLs, and the values of options, variables, headers and
    entries whose name is a secret's (see `jcache.naming.credentials`). A secret under no such name cannot be told from
    other words and stays. What is longer than `MAX_LENGTH` is cut.
    """
    if isinstance(command, str):
        text = "".join(_masked(_TOKENS.findall(command[: 2 * MAX_LENGTH])))
    else:
        text = shlex.join(_masked(word[: 2 * MAX_LENGTH] for word in command[:MAX_LENGTH]))
    text = text.replace(_MASK, "***")
    return text if len(text) <= MAX_LENGTH else text[: MAX_LENGTH - 4] + " ..."


def is_open(query: str) -> bool:
    """Whether nothing in the query of a URL may be a secret: what looks odd is taken for one."""
    from urllib.parse import unquote_plus

    words = unquote_plus(query).replace("&", " ").split()
    named = [unquote_plus(item.partition("=")[0]) for item in query.split("&")]
    values = [unquote_plus(item.partition("=")[2]) for item in query.split("&")]
    return (
        not any(is_secret(name) or name.lower() in _ODD_NAMES for name in named)
        and not any(map(_ODD_VALUE.search, values))
        and redact(words) == shlex.join(words)
    )


def _masked(words: Iterable[str]) -> list[str]:
    """Return words without what is secret in them, or named by the word before."""
    shown: list[str] = []
    before = ""
    for word in words:
        if word.isspace():
            shown.append(word)
            continue
        bare = word.strip("'\"")
        if _names_the_next(before) and not bare.startswith("-"):
            shown.append(_MASK)
            # `Authorization: Bearer abc`, unquoted.
            before = before if bare.lower() in _SCHEMES else ""
            continue
        if before in _USERS and ":" in bare:
            shown.append(f"{bare.partition(':')[0]}:{_MASK}")
        else:
            # URLs first, since a query's characters would have its word quoted.
            shown.append(_mask_values(_cut_urls(word)))
        before = bare
    return shown


def _names_the_next(word: str) -> bool:
    """Whether a word is an option or a header without its value, which is a secret: then the next word is it."""
    # `make_tokens.py data/` names no secret: only options take a value behind a space.
    name = word.rstrip(":=") if word.endswith((":", "=")) else word if word.startswith("-") else ""
    name = name.lstrip("-")
    return bool(name) and not {"=", ":", "/"} & set(name) and is_secret(name)


def _cut_urls(text: str) -> str:
    text = _QUERY.sub(r"\g<url>", _CREDENTIALS.sub(r"\g<scheme>", text))
    return _BEARER.sub(rf"\g<name>{_MASK}", _USER.sub(rf"\g<user>{_MASK}@", text))


def _mask_values(word: str) -> str:
    pieces: list[str] = []
    at = 0
    for match in _NAMED.finditer(word):
        name = match["name"]
        # `-HX-Auth-Token: value`: an option of one letter takes its value without a blank.
        glued = name[1:] if word.startswith("-" + name) else ""
        if match.start() < at or match.end() == len(word) or not (is_secret(name) or is_secret(glued)):
            continue
        start = match.end()
        quoted = _QUOTED.match(word, start)
        if quoted is not None:
            quote = quoted["quote"] or word[start]
            stop, mask = quoted.end(), f"{quote}{_MASK}{quote}"
        else:
            is_whole = match["sign"] == ":" or not word[: match.start()].strip("-'\"")
            stop, mask = (_REST if is_whole else _WORD).match(word, start).end(), _MASK  # type: ignore[union-attr]  # matches anything
        pieces += [word[at:start], mask]
        at = stop
    return "".join([*pieces, word[at:]])
