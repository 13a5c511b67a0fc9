"""Numbers as people read them."""

from __future__ import annotations

import datetime as dt
import re

_AGE_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def percent(part: float, whole: float) -> str:
    """Return 100 * part / whole with two decimals, 100.00 only for all, 0.00 only for nothing; `-` for no whole."""
    if whole <= 0:
        return "-"
    value = 100 * part / whole
    if 0 < part < whole:
        value = min(max(value, 0.01), 99.99)
    return f"{value:.2f}"


def human(value: float) -> tuple[str, str]:
    """Return a number of bytes as a number below 1000 with two decimals and a decimal unit (kB, MB, ...)."""
    for unit in ("B", "kB", "MB", "GB", "TB", "PB"):
        if value < 999.995:
            return (f"{value:.0f}" if unit == "B" and value == int(value) else f"{value:.2f}"), unit
        value /= 1000
    return f"{value:.2f}", "EB"


def span(seconds: float | None) -> tuple[str, str]:
    """Return a time as a number and its unit, seconds up to ten minutes, days at most; `-` for `None`."""
    if seconds is None:
        return "-", ""
    for limit, divisor, unit in ((600, 1, "s"), (4 * 3600, 60, "min"), (4 * 86400, 3600, "h")):
        if seconds < limit:
            value = seconds / divisor
            return f"{value:.{2 if value < 100 else 1}f}", unit
    return f"{seconds / 86400:.1f}", "d"


def number_of(count: int, what: str) -> str:
    """Return a count with its noun, in the plural but for one."""
    return f"{count} {what}" if count == 1 else f"{count} {what}{'es' if what.endswith('s') else 's'}"


def duration(seconds: float | None) -> str:
    """Return a time with its unit; `-` for `None`."""
    return " ".join(span(seconds)).strip()


def parse_age(text: str) -> float:
    """Return the seconds that `90s`, `15m`, `12h`, `30d` or `2w` mean.

    Raises:
        ValueError: It is no such age.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    if found is None or found[2] not in _AGE_S:
        raise ValueError(f"{text!r} is no age: give a number with s, m, h, d or w, such as 12h")
    return float(found[1]) * _AGE_S[found[2]]


def parse_moment(text: str, now: float) -> float:
    """Return the Unix time that an age before `now`, or a date with or without a time, means.

    Args:
        text: As `parse_age` takes it, or in ISO 8601, in local time where it names no zone.
        now: Unix time in seconds.

    Raises:
        ValueError: It is neither.
    """
    try:
        return now - parse_age(text)
    except ValueError:
        pass
    try:
        return dt.datetime.fromisoformat(text.strip()).timestamp()
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time: give an age such as 12h or 7d, or a date such as 2026-11-20") from None


def visible(text: str) -> str:
    """Return a text in one line: control characters, lone surrogates and the like as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
