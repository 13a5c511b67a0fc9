"""Numbers as people read them."""

from __future__ import annotations


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
