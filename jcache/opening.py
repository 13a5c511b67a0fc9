"""How a remote file is opened: where its bytes are kept, and what holds for it."""

import functools
from dataclasses import replace

from jcache.cache import Cache
from jcache.cache.keeper import Keeper
from jcache.counters import Counters
from jcache.naming import Identity
from jcache.naming.asking import UNSTABLE
from jcache.reader.host import Host
from jcache.reader.remote import RemoteFile
from jcache.reader.store import Home
from jcache.settings.policy import Terms

__all__ = ["open_file"]


def open_file(
    session: Host, identity: Identity, cache: Cache | None, keeper: Keeper | None, terms: Terms | None
) -> tuple[RemoteFile, str | float]:
    """Return a remote file, of which nothing is read yet, and how its version is validated."""
    host: Host = session
    writable = cache is not None and cache.writable
    why_not = ""
    if terms is not None:
        why_not = "" if cache is None else terms.why_not
        cache = None if terms.why_not or terms.exclude else cache
        writable = writable and terms.record
        host = session if terms.validate is None else Ruled(session, terms.validate)
    shared = terms is not None and terms.shared
    if shared:
        identity = replace(identity, owner="")

    def home(*, asker: bool) -> Home | None:
        if cache is None:
            return None
        journal, place = cache.journal(identity, asker=asker), cache.place(cache.stored(identity, asker=asker).parts)
        return Home(journal, place) if keeper is None else Home(journal, place, functools.partial(keeper.admit, place))

    def own(make: bool) -> Home | None:
        return home(asker=True) if cache is not None and (make or cache.is_owned(identity)) else None

    remote = RemoteFile(
        host,
        home(asker=False),
        url=identity.url,
        writable=writable,
        local=cache is not None and cache.is_local,
        own=None if identity.asker.startswith(UNSTABLE) else own,
        shared=shared,
        why_not=why_not,
    )
    return remote, host.validate


class Ruled:
    """A session as those remote files see it for which a rule has another way of validating."""

    def __init__(self, session: Host, validate: str | float) -> None:
        self._session = session
        self.validate = validate
        self.recorder, self.workers, self.patience = session.recorder, session.workers, session.patience
        self.ahead, self.retries = session.ahead, session.retries
        self.offline, self.trouble = session.offline, session.trouble

    @property
    def counters(self) -> Counters:
        """Those of the session just now: a notebook's cell puts its own in their place."""
        return self._session.counters

    @counters.setter
    def counters(self, counters: Counters) -> None:
        self._session.counters = counters
