"""A command line as it may be stored and shown: without the secrets that people put into one."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

# Lengths of names are bounded, or a long word would cost its length squared.
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,20}://)[^/\s'\"]*@")
_QUERY = re.compile(r"(?P<url>[A-Za-z][A-Za-z0-9+.-]{0,20}://[^\s'\"?#]*)[?#][^\s'\"]*")
_HEADER = re.compile(r"(?P<name>authorization\s*[:=]\s*|bearer\s+)[^'\"]+", re.IGNORECASE)
MAX_LENGTH = 4096
"""Characters kept: a shell expands `*.root` into megabytes that nobody reads."""

_OPTION = re.compile(
    r"(?P<name>[\w.-]{0,40}(?:token|passw|secret|credential|signature|api[_-]?key|access[_-]?key)[\w.-]{0,40})"
    r"(?P<sign>=|(?<=[\w-])\s+(?!-))(?P<value>'[^']*'|\"[^\"]*\"|\S+)",
    re.IGNORECASE,
)


def redact(command: str | Sequence[str]) -> str:
    """Return a command line as one string with its secrets cut.

    Cut are user names, passwords, queries and fragments of URLs, and the values of options and variables that call
    themselves token, password, secret, credential, signature or key. A secret under no such name cannot be told from
    other words and stays. What is longer than `MAX_LENGTH` is cut.
    """
    words = [command] if isinstance(command, str) else command
    # URLs first, since a query's characters would have its word quoted.
    shown = [_cut_urls(word[: 2 * MAX_LENGTH]) for word in words[:MAX_LENGTH]]
    text = shown[0] if isinstance(command, str) else shlex.join(shown)
    if len(text) > MAX_LENGTH:
        text = text[: MAX_LENGTH - 4] + " ..."
    return _HEADER.sub(r"\g<name>***", _OPTION.sub(_mask, text))


def _cut_urls(text: str) -> str:
    return _QUERY.sub(r"\g<url>", _CREDENTIALS.sub(r"\g<scheme>", text))


def _mask(match: re.Match[str]) -> str:
    name, sign = match["name"], match["sign"]
    # `make_tokens.py data/` names no secret: only options take a value behind a space.
    if sign != "=" and not name.startswith("-"):
        return match[0]
    return f"{name}{sign}***"
