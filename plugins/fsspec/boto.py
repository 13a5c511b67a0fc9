"""What is written to S3 past fsspec: clients of boto3 and aiobotocore drop what is cached of it, before and behind.

Readers go through s3fs, but many programs write with boto3. All operations of a client pass one method of its class.
"""

import contextlib
import functools
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jcache.naming import Identifier, Unidentifiable
from jcache.session import current
from jcache.settings.rules import naming
from jcache_plugins.fsspec import listing
from jcache_plugins.fsspec.writes import collecting, is_idle

__all__ = ["watch"]

CLIENTS = (("botocore.client", "BaseClient"), ("aiobotocore.client", "AioBaseClient"))
CALL = "_make_api_call"
# Operations that change what is read under a key, or under all keys of a bucket.
WRITES = re.compile(r"(Put|Copy|Delete|Restore|Rename)Object|DeleteObjects|DeleteBucket|CompleteMultipartUpload")
AMAZONS = re.compile(r"https?://([^/]*\.)?amazonaws\.com(\.cn)?/?")


def watch(replace: Callable[[Any, str, Any], None]) -> None:
    """Have the classes of clients that are loaded drop what they write.

    Args:
        replace: Puts a method into a class, to be put back later.
    """
    for module, name in CLIENTS:
        cls = getattr(sys.modules.get(module), name, None)
        original = vars(cls).get(CALL) if cls is not None else None
        if original is not None and not getattr(original, "_jcache", False):
            replace(cls, CALL, telling(original))


def telling(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make the method that all operations of a client pass."""
    if inspect.iscoroutinefunction(original):

        async def call_soon(self: Any, operation_name: str, api_params: Any) -> Any:
            if not is_write(self, operation_name):
                return await original(self, operation_name, api_params)
            session = current()
            if session is not None:
                await session.caches.prepare(None)
            with changing(self, api_params):
                return await original(self, operation_name, api_params)

        return call_soon

    def call(self: Any, operation_name: str, api_params: Any) -> Any:
        if not is_write(self, operation_name):
            return original(self, operation_name, api_params)
        with changing(self, api_params):
            return original(self, operation_name, api_params)

    return call


def is_write(client: Any, operation: str) -> bool:
    """Whether an operation of a client changes objects of S3."""
    return bool(WRITES.fullmatch(operation)) and client.meta.service_model.service_name == "s3" and not is_idle()


@contextlib.contextmanager
def changing(client: Any, params: Mapping[str, Any]) -> Iterator[None]:
    """Drop what is cached of the objects that an operation names, now and behind what is done here."""
    session = current()
    if session is not None and collecting.get():
        yield
        session.late.append(functools.partial(drop, client, params))
        return
    drop(client, params)
    try:
        yield
    finally:
        drop(client, params)


def drop(client: Any, params: Mapping[str, Any]) -> None:
    """Drop what is cached of the objects that an operation names."""
    session = current()
    names: list[str] = []
    with contextlib.suppress(AttributeError, KeyError, TypeError):  # the client says itself what is wrong with it
        names += named(params)
    if session is None or not names:
        return
    session.caches.get()
    listing.doubt(names)
    config = session.config
    how = naming(session.policy.rules, flat=config.flat, basepath=config.basepath)
    for options in places(client):
        identifier = Identifier("s3", options, **how)
        for name in names:
            with contextlib.suppress(Unidentifiable):
                identity = identifier.identify(name)
                for directory in session.caches.in_use():
                    session.files.invalidate(identity, directory=directory)


def named(params: Mapping[str, Any]) -> Iterator[str]:
    """Yield what an operation changes, as s3fs names it."""
    bucket, keys = params["Bucket"], [entry["Key"] for entry in params.get("Delete", {}).get("Objects", ())]
    keys += [params["Key"]] if "Key" in params else []
    yield from (f"{bucket}/{key}" for key in keys)
    if "RenameSource" in params:
        yield params["RenameSource"].lstrip("/")
    if not keys and "Delete" not in params:
        yield bucket


def places(client: Any) -> Iterator[dict[str, Any]]:
    """Yield the options of file systems that may read what a client writes: at its endpoint, or by default."""
    url = client.meta.endpoint_url
    yield {"endpoint_url": url}
    if AMAZONS.fullmatch(url):
        yield {"client_kwargs": {"region_name": client.meta.region_name}}
