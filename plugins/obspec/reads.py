"""What obstore's reading functions do when they are hooked: `maker(original, asynchronous original) -> replacement`.

What only obstore can tell, it tells: a call that is not understood, a read that fails, and a range in which the object
has no byte are the original's, whatever it returns or raises.
"""

import asyncio
import contextlib
import functools
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import obstore

from jcache.errors import OfflineMissError
from jcache.session import current
from jcache.vectors import Vector
from jcache_plugins.obspec.access import Object, find, find_soon, is_here, known, run_here, shortened
from jcache_plugins.obspec.calls import Asked, Spec, of_get, of_head, of_range, of_ranges, understood
from jcache_plugins.obspec.results import meta_of
from jcache_plugins.obspec.sources import NotOursError, beyond, is_answer, result_here, result_of, row_of
from jcache_plugins.origins.base import in_thread, reaching, within_origin

__all__ = ["READS", "offline_refusal"]

Function = Callable[..., Any]
Maker = Callable[[Function, Function], tuple[Function, Function]]
Work = Callable[[Object, Asked], Coroutine[Any, Any, Any]]


# -- ranges ------------------------------------------------------------------------------------------------------


async def rows_of(found: Object, asked: Asked) -> list[bytes]:
    """Return the bytes of ranges.

    Raises:
        NotOursError: Obstore is to be asked.
        Exception: Whatever the application is to meet.
    """
    try:
        rows = await found.access(coalesce=asked.coalesce).read(asked.spans, vector=asked.is_vector)
    except Exception as error:
        if is_answer(error):
            raise
        raise NotOursError from error
    out = list(map(row_of, rows))
    if not all(out):
        raise beyond(found)
    return out


def rows_here(found: Object, asked: Asked) -> list[bytes]:
    """Do as `rows_of` does, in synchronous code."""
    rows = None
    with contextlib.suppress(Exception):  # whatever it is, the bytes are not here
        rows = found.access().try_read(asked.spans, vector=asked.is_vector, whole=True)
    return rows if rows is not None else run_here(rows_of(found, asked))


def one(rows: Sequence[bytes]) -> obstore.Bytes:
    """Return the one row as obstore has it."""
    return obstore.Bytes(rows[0])


def every(rows: Sequence[bytes]) -> list[obstore.Bytes]:
    """Return rows as obstore has them."""
    return list(map(obstore.Bytes, rows))


# -- head --------------------------------------------------------------------------------------------------------


async def meta_now(found: Object, originals: tuple[Function, Function]) -> dict[str, Any]:
    """Return what is said of an object: what is remembered, where that is enough, or what obstore says now."""
    ask = found.question("head")
    if ask is not None and ask.trusts:
        access = found.access()
        try:
            stored = await access.stored()
        except Exception:  # noqa: BLE001 - nor is it known where its session has just ended
            stored = None
        if stored is not None:
            return meta_of(found.path, stored)
        value = await ask.known_soon()
        if isinstance(value, dict):
            return value
        if ask.is_offline:
            return meta_of(found.path, await access.stat())  # or whatever says why not
    try:
        with reaching():
            if is_here():  # the caller is synchronous
                meta: dict[str, Any] = await in_thread(functools.partial(originals[0], found.store, found.path))
            else:
                meta = await originals[1](found.store, found.path)
    except Exception as error:
        if ask is not None:
            ask.note_error(shortened(error))
        raise
    if ask is not None:
        ask.note(dict(meta))
    return meta


# -- hooks -------------------------------------------------------------------------------------------------------


def measured(asked: Asked | None, data: Any, seconds: float) -> Any:
    """Count bytes that obstore read itself, past the cache, and why."""
    session = current()
    if session is None or asked is None or within_origin():
        return data
    found = known(asked.store, asked.path)
    if found is None or (found.terms is not None and found.terms.exclude):
        return data
    if isinstance(data, list):
        sizes = [len(row) for row in data]
    elif asked.spans:
        sizes = [len(data)]
    else:
        start, stop = data.range
        sizes = [stop - start]
    total, url = sum(sizes), found.identity.url
    spans = asked.spans or [data.range]
    is_profiled = session.counters.profile is not None
    delivered = Vector.of((start, start + size) for (start, _), size in zip(spans, sizes, strict=False))
    vector = delivered if is_profiled else None
    if asked.is_vector:
        session.counters.readv(len(sizes), total, 0, 0, total, url=url, seconds=seconds, asked=vector)
    else:
        session.counters.read(total, 0, 0, total, url=url, seconds=seconds, asked=vector)
    session.counters.origin(requests=1, nbytes=total)
    if total and session.bypassed is None:
        session.counters.uncached("only obstore itself could answer, or the cache directory cannot be used", total)
    return data


def is_idle() -> bool:
    """Whether a call is let through at once: JCache's own, or nothing is cached."""
    return current() is None or within_origin()


def synchronous(original: Function, spec: Spec, work: Callable[[Object, Asked], Any]) -> Function:
    """Make a synchronous function."""

    @functools.wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        if is_idle():
            return original(*args, **kwargs)
        asked = understood(spec, args, kwargs)
        found = None if asked is None or is_here() else find(asked.store, asked.path)
        if asked is not None and found is not None:
            try:
                return work(found, asked)
            except NotOursError:
                pass
        started_s = time.monotonic()
        data = original(*args, **kwargs)
        return data if spec is of_head else measured(asked, data, time.monotonic() - started_s)

    return hooked


def asynchronous(original: Function, spec: Spec, work: Work) -> Function:
    """Make an asynchronous function; as the original it begins at once, and returns what may be awaited again."""

    async def carry_out(asked: Asked, args: Any, kwargs: Any) -> Any:
        found = await find_soon(asked.store, asked.path)
        if found is not None:
            try:
                return await work(found, asked)
            except NotOursError:
                pass
        started_s = time.monotonic()
        data = await original(*args, **kwargs)
        return data if spec is of_head else measured(asked, data, time.monotonic() - started_s)

    @functools.wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        asked = None if is_idle() else understood(spec, args, kwargs)
        if asked is None or known(asked.store, asked.path) is None:
            return original(*args, **kwargs)
        return asyncio.get_running_loop().create_task(carry_out(asked, args, kwargs))

    return hooked


def ranges(
    spec: Spec, shaped: Callable[[list[bytes]], Any]
) -> Callable[[Function, Function], tuple[Function, Function]]:
    """Return what makes both forms of a function that returns ranges."""

    def make(original: Function, original_async: Function) -> tuple[Function, Function]:
        async def work(found: Object, asked: Asked) -> Any:
            return shaped(await rows_of(found, asked))

        return (
            synchronous(original, spec, lambda found, asked: shaped(rows_here(found, asked))),
            asynchronous(original_async, spec, work),
        )

    return make


def get(original: Function, original_async: Function) -> tuple[Function, Function]:
    """Make both forms of `get`."""
    originals = original, original_async

    async def work(found: Object, asked: Asked) -> Any:
        return await result_of(found, asked, originals)

    def work_here(found: Object, asked: Asked) -> Any:
        return result_here(found, asked, originals) or run_here(work(found, asked))

    return (
        synchronous(original, of_get, work_here),
        asynchronous(original_async, of_get, work),
    )


def head(original: Function, original_async: Function) -> tuple[Function, Function]:
    """Make both forms of `head`."""

    async def work(found: Object, asked: Asked) -> Any:  # noqa: ARG001 - as the others
        return await meta_now(found, (original, original_async))

    return (
        synchronous(original, of_head, lambda found, asked: run_here(work(found, asked))),
        asynchronous(original_async, of_head, work),
    )


def offline_refusal(original: Function) -> Function:
    """Make a function that lists: of a store that is cached nobody is asked offline."""

    @functools.wraps(original)
    def hooked(*args: Any, **kwargs: Any) -> Any:
        session = current()
        if session is not None and session.offline and session.bypassed is None and not within_origin():
            store = args[0] if args else kwargs.get("store")
            found = known(store, "listing")
            if found is not None and not (found.terms is not None and found.terms.exclude):
                msg = f"{original.__name__} of {store!r}: listings are not recorded, and JCACHE_OFFLINE is set"
                raise OfflineMissError(msg)
        return original(*args, **kwargs)

    return hooked


READS: dict[str, Maker] = {
    "get": get,
    "get_range": ranges(of_range, one),
    "get_ranges": ranges(of_ranges, every),
    "head": head,
}
"""By the name of a function of obstore what makes it and its asynchronous form."""
