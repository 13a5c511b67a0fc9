"""Values that file systems return, as JSON and exactly back: what would come back as anything else is refused."""

import base64
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

__all__ = ["InexactError", "decode", "encode"]

_PLAIN = frozenset({str, int, bool, type(None)})
_MARK = "$"
_DEPTH = 16
# Time zones of dateutil, which botocore uses: the second is that of the machine, wherever that is.
_UTC, _LOCAL = "tzutc", "tzlocal"
# An address may have a password or a signature in it; a path, the parameters behind it (XRootD's `authz=`).
_ADDRESS = re.compile(r"\w://[^/]*@|\w://.*\?|\?.*=", re.DOTALL)


class InexactError(ValueError):
    """A value that JSON does not give back as it was, or that may hold a secret."""


def encode(value: Any, *, depth: int = 0) -> Any:
    """Return what `json.dumps` takes and `decode` turns into an equal value of the same types.

    Raises:
        InexactError: There is none.
    """
    kind = type(value)
    if kind is str and _ADDRESS.search(value):
        msg = "an address that may hold a secret"
        raise InexactError(msg)
    if kind in _PLAIN or (kind is float and math.isfinite(value)):
        return value
    if depth < _DEPTH:
        if kind is list:
            return [encode(item, depth=depth + 1) for item in value]
        if kind is tuple:
            return {_MARK: "tuple", "of": [encode(item, depth=depth + 1) for item in value]}
        if kind is dict and _MARK not in value and all(type(name) is str for name in value):
            return {encode(name): encode(item, depth=depth + 1) for name, item in value.items()}
    if kind is bytes:
        return {_MARK: "bytes", "of": base64.b64encode(value).decode()}
    if kind is datetime and (not value.fold or type(value.tzinfo).__qualname__ == _LOCAL):
        zone = _zone(value.tzinfo)
        plain = value.astimezone(UTC) if zone == _LOCAL else value
        return {_MARK: "datetime", "of": plain.replace(tzinfo=None, fold=0).isoformat(), "zone": zone}
    msg = f"a value of type {kind.__name__}"
    raise InexactError(msg)


def decode(value: Any) -> Any:
    """Return the value that was encoded.

    Raises:
        ValueError: Nothing was: this comes from somewhere else.
    """
    if type(value) is list:
        return [decode(item) for item in value]
    if type(value) is not dict:
        return value
    if _MARK not in value:
        return {name: decode(item) for name, item in value.items()}
    return _marked(value)


def _marked(value: Mapping[str, Any]) -> Any:
    kind, of = value[_MARK], value.get("of")
    if kind == "tuple" and type(of) is list:
        return tuple(decode(item) for item in of)
    if kind == "bytes" and type(of) is str:
        return base64.b64decode(of, validate=True)
    if kind == "datetime" and type(of) is str:
        moment, zone = datetime.fromisoformat(of), value.get("zone")
        if zone == _LOCAL:
            return moment.replace(tzinfo=UTC).astimezone(_zone_of(zone))
        return moment.replace(tzinfo=_zone_of(zone))
    msg = f"{kind!r} is not what was encoded"
    raise ValueError(msg)


def _zone(zone: Any) -> Any:
    if zone is None:
        return None
    if type(zone) is timezone and zone.tzname(None)[:3] == "UTC":
        return zone.utcoffset(None).total_seconds()
    if type(zone).__module__ == "dateutil.tz.tz" and type(zone).__qualname__ in (_UTC, _LOCAL):
        return type(zone).__qualname__
    msg = f"a time zone of type {type(zone).__name__}"
    raise InexactError(msg)


def _zone_of(zone: Any) -> Any:
    if zone is None:
        return None
    if zone in (_UTC, _LOCAL):
        from dateutil import tz  # type: ignore[import-untyped]  # comes with botocore

        return getattr(tz, zone)()
    if type(zone) is float:
        return timezone(timedelta(seconds=zone)) if zone else UTC
    msg = f"{zone!r} is no time zone"
    raise ValueError(msg)
