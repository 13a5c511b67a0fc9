"""A command line as it may be stored and shown: without the secrets that people put into one."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*://)[^/\s'\"]*@")
_QUERY = re.compile(r"(?P<url>[A-Za-z][A-Za-z0-9+.-]*://[^\s'\"?#]*)[?#][^\s'\"]*")
MAX_LENGTH = 4096
"""Characters kept: a shell expands `*.root` into megabytes that nobody reads."""

# The names' lengths are bounded, or a long word would cost its length squared.
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
    text = command if isinstance(command, str) else shlex.join(command)
    if len(text) > MAX_LENGTH:
        text = text[: MAX_LENGTH - 4] + " ..."
    text = _QUERY.sub(r"\g<url>", _CREDENTIALS.sub(r"\g<scheme>", text))
    return _OPTION.sub(_mask, text)


def _mask(match: re.Match[str]) -> str:
    name, sign = match["name"], match["sign"]
    # `make_tokens.py data/` names no secret: only options take a value behind a space.
    if sign != "=" and not name.startswith("-"):
        return match[0]
    return f"{name}{sign}***"
