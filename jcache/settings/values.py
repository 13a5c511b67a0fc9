"""What a user writes as the value of a setting, read; ValueError, TypeError or OverflowError where it is wrong."""

__all__ = [
    "basepath",
    "boolean",
    "count",
    "level",
    "name",
    "names",
    "number",
    "parse_memory",
    "parse_size",
    "patterns",
    "profile",
    "protocols",
    "push",
    "seconds",
    "sizes",
    "text",
    "validate",
]

_NEVER_S = 1e9


def text(value: object) -> str:
    """Return a text that is not empty, without blanks around it."""
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError
    return value.strip()


def boolean(value: object) -> bool:
    """Return what 1, 0, yes, no, on, off, true or false means."""
    if isinstance(value, bool):
        return value
    text = str(value).lower()
    if text in {"1", "true", "yes", "on"}:
        return True
    if text in {"0", "false", "no", "off"}:
        return False
    raise ValueError


def push(value: object) -> str:
    """Return where metrics are sent: `otlp`, or a URL of HTTP."""
    where = text(value)
    scheme, mark, rest = where.partition("://")
    if where != "otlp" and not (scheme in {"http", "https"} and mark and rest.strip("/")):
        raise ValueError
    return where


def seconds(value: object) -> float:
    """Return a number of seconds."""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError
    seconds = float(value)
    if not 0 <= seconds <= _NEVER_S:  # also refuses what is no number
        raise ValueError
    return seconds


def count(value: object) -> int:
    """Return a number of times."""
    number = seconds(value)
    if not number.is_integer():
        raise ValueError
    return int(number)


def number(value: object) -> int:
    """Return a number of things, at least one."""
    if not count(value):
        raise ValueError
    return count(value)


def validate(value: object) -> str | float:
    """Return `open`, `never` or a number of seconds."""
    if isinstance(value, str) and value.lower() in {"open", "never"}:
        return value.lower()
    return seconds(value)


_UNITS = {
    **{unit: 1000**power for power, unit in enumerate(("b", "kb", "mb", "gb", "tb", "pb"))},
    **{unit: 1000**power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))},
    **{unit: 1024**power for power, unit in enumerate(("", "kib", "mib", "gib", "tib", "pib"))},
}


def parse_size(value: object) -> int:
    """Return a number of bytes.

    Args:
        value: A number, or a text with a number and a unit, which is decimal (kB, MB, G, TB, ...) or binary (KiB, ...).

    Raises:
        ValueError: It is no size, or less than one byte.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError
    text = str(value).strip().replace(" ", "").lower()
    number = text.rstrip("bkmgtpi")
    size = int(float(number) * _UNITS.get(text[len(number) :], 0))
    if not 0 < size < 1 << 63:
        raise ValueError
    return size


def sizes(value: object) -> "int | dict[str, int]":
    """Return a number of bytes for whichever directory is written, or one for each by its name.

    Args:
        value: A size, or a text such as `/local/nvme=20GB, /shared/jcache=1TB`.
    """
    if not isinstance(value, str) or "=" not in value:
        return parse_size(value)
    found: dict[str, int] = {}
    for item in value.split(","):
        directory, _, size = item.rpartition("=")
        found[text(directory)] = parse_size(size)
    return found


def parse_memory(value: object) -> int:
    """Return a number of bytes as `parse_size` does, or 0."""
    return 0 if str(value).strip() == "0" else parse_size(value)


def names(value: object) -> tuple[str, ...]:
    """Return names out of a list, or of a text with commas."""
    items = value if isinstance(value, list) else str(value).split(",")
    return tuple(text(item) for item in items if not isinstance(item, str) or item.strip())


def patterns(value: object) -> tuple[str, ...]:
    """Return patterns of hosts, in lower case as hosts are spelt, or of whole addresses."""
    found = names(value)
    if any(" " in name for name in found):
        raise ValueError
    return tuple(name if "/" in name else name.lower() for name in found)


def profile(value: object) -> bool | str:
    """Return whether, or a text: where."""
    try:
        return boolean(value)
    except ValueError:
        return text(value)


def protocols(value: object) -> tuple[str, ...]:
    """Return names of protocols, in lower case."""
    found = tuple(name.lower() for name in names(value))
    if not all(name.replace("+", "").replace("-", "").replace(".", "").replace("_", "").isalnum() for name in found):
        raise ValueError
    return found


def name(value: object) -> str:
    """Return a name without slashes."""
    name = text(value)
    if "/" in name or not name.isprintable() or len(name) > 100:
        raise ValueError
    return name


def basepath(value: object) -> str:
    """Return a path without a host, from the root on."""
    names = [name for name in text(value).split("/") if name]
    if not names or "://" in text(value):
        raise ValueError
    return "/" + "/".join(names)


def level(value: object) -> str:
    """Return the name of a level of logging."""
    level = text(value).lower()
    if level not in {"debug", "info", "warning", "error", "critical"}:
        raise ValueError
    return level
