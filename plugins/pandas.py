"""pandas over HTTP: it opens `http://` and `https://` with urllib, unlike all other URLs, which it leaves to fsspec."""

import functools
import importlib
import io
from typing import Any

import fsspec

from jcache.errors import OfflineMissError
from jcache.session import current
from jcache_plugins.origins.answers import Encoded
from jcache_plugins.origins.base import beside

__all__ = ["install", "uninstall"]

_original: Any = None


def install() -> None:
    """Have pandas fetch what it would fetch with urllib through fsspec, whose file systems are hooked."""
    global _original  # noqa: PLW0603 - one per process, as the module that is hooked
    common: Any = importlib.import_module("pandas.io.common")
    if _original is not None or not hasattr(common, "urlopen"):
        return
    original = _original = common.urlopen

    @functools.wraps(original)
    def urlopen(request: Any, *args: Any, **kwargs: Any) -> Any:
        data = None if args or kwargs else fetched(request)
        return original(request, *args, **kwargs) if data is None else Response(data)

    common.urlopen = urlopen


def uninstall() -> None:
    """Give pandas its own way back."""
    global _original
    if _original is not None:
        common: Any = importlib.import_module("pandas.io.common")
        common.urlopen, _original = _original, None


class Response(io.BytesIO):
    """As much of an HTTP response as pandas looks at."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.headers: dict[str, str] = {}


def fetched(request: Any) -> bytes | None:
    """Return the body that a plain GET request would bring; None where urllib has to make it, or to fail with it."""
    url = getattr(request, "full_url", request)
    if current() is None or not isinstance(url, str) or not url.startswith(("http://", "https://")):
        return None
    if getattr(request, "data", None) is not None or getattr(request, "get_method", lambda: "GET")() != "GET":
        return None
    # urllib heeds the proxies that the environment names; aiohttp does if it is told to.
    options: dict[str, Any] = {"client_kwargs": {"trust_env": True}}
    headers = dict(getattr(request, "headers", None) or {})
    if headers:
        options["headers"] = headers
    try:
        fs = fsspec.filesystem(url.partition(":")[0], **options)
        encoded = beside(fs, Encoded)
        data = None if url in encoded else fs.cat_file(url)
        # Else it is as the client unpacked it: pandas takes what is packed, and the header that says so.
        return None if url in encoded else data
    except OfflineMissError:
        raise
    except Exception:  # noqa: BLE001 - whatever it is, urllib says it as pandas' users know it
        return None
