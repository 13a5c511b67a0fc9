"""Which version of a file a request is answered with, and whether its origin was asked for that."""

from collections.abc import Callable
from dataclasses import dataclass

from jcache.errors import OfflineMissError
from jcache.origin import Info
from jcache.ranges import Range
from jcache.segment.proof import clock_s
from jcache.session import Session
from jcache_plugins.fsspec.access import Access
from jcache_plugins.gateway.bodies import NotCachedError, held
from jcache_plugins.gateway.conditions import TRUST_S, CacheControl
from jcache_plugins.gateway.places import Place

__all__ = ["Settled", "settle"]


@dataclass(frozen=True, slots=True)
class Settled:
    """The version that a request is answered with.

    Attributes:
        info: The version.
        forwarded: Why the origin was asked (RFC 9211, 2.2): `uri-miss`, `stale` or `request`; empty where it was not.
        age_s: How long ago it was known to be the origin's.
        left_s: How long it is trusted yet; None where that has no end.
        first: The first bytes of the answer, where the version came with them.
    """

    info: Info
    forwarded: str
    age_s: float
    left_s: float | None
    first: bytes = b""


async def settle(
    session: Session,
    place: Place,
    found: Access,
    asked: CacheControl,
    begin: Callable[[], Range | None] = lambda: None,
) -> Settled:
    """Find out the version of a file, as fresh as the settings and the client want it.

    Args:
        session: Whose journals are read.
        place: Where the file is.
        found: The file.
        asked: How fresh the client wants it.
        begin: Returns with which bytes the answer will begin, where that is known before the file's size is: of a file
            of which nothing is known they are asked for, and the origin names the version with them.

    Raises:
        NotCachedError: The client wants the origin not to be asked, and it would have to be.
        Exception: Whatever the origin raises.
    """
    started_s = clock_s()
    forwarded, first = "", b""
    validate = session.validate if found.terms is None or found.terms.validate is None else found.terms.validate
    trusted_s = TRUST_S if validate == "open" else validate if isinstance(validate, float) else None
    with held(session, found) as remote:
        validation = remote.validation
        age_s, known = validation.age_s, remote.known()
        if known is not None and asked.is_too_old(age_s, trusted_s):
            if asked.only_if_cached:
                raise NotCachedError
            remote.doubt()
            known, forwarded = remote.known(), "request"
        elif known is not None and age_s is not None and trusted_s is not None and age_s >= trusted_s:
            if asked.only_if_cached:
                raise NotCachedError
            remote.doubt()  # of a rule that says `open`
            known, forwarded = remote.known(), "stale"
        if known is None and asked.only_if_cached:
            if age_s is not None or validate == "open":
                raise NotCachedError
            try:
                known = await found.stored()
            except OfflineMissError:
                raise NotCachedError from None
            if known is None or asked.is_too_old(validation.age_s, trusted_s):
                raise NotCachedError
        if known is None:
            was_known = await found.is_known()
            async with place.limit(found.origin.path):
                start = None if was_known or session.offline else begin()
                if start is not None:
                    first = await begun(found, start)
                snapshot = validation.snapshot
                info = await found.open()
                if snapshot is None or validation.snapshot is not snapshot:
                    first = b""  # of another version, perhaps
            age_s = validation.age_s or 0.0
            trusts = was_known and (validate == "never" or session.offline)
            if trusts or clock_s() - age_s < started_s:
                forwarded = ""  # another process of this machine has asked
                if asked.is_too_old(age_s, trusted_s) and not trusts:
                    return await settle(session, place, found, asked)
            else:
                forwarded = forwarded or ("stale" if was_known else "uri-miss")
        else:
            info = known
            remote.opened(0.0)
        left_s = None if trusted_s is None else max(trusted_s - (validation.age_s or 0.0), 0.0)
    return Settled(info, forwarded, age_s or 0.0, left_s, first)


async def begun(found: Access, begin: Range) -> bytes:
    """Return the first bytes of an answer; none where that fails, which asking for the version then says better."""
    try:
        row = (await found.read([begin], vector=False))[0]
    except Exception:  # noqa: BLE001 - see above
        return b""
    return row if isinstance(row, bytes) else b""
