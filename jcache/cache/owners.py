"""Who has objects of his own in a cache, and the name under which they are stored."""

import functools
import hashlib

from jcache.naming.identity import Identity

__all__ = ["keyed", "owner_of"]

_ROUNDS = 10_000


def owner_of(identity: Identity, *, asker: bool) -> str:
    """Return who decides which object is stored; empty where nobody does.

    Args:
        identity: The object.
        asker: Whether the origin has said that it gives each who asks another file.
    """
    return f"asker {identity.asker}" if asker else identity.owner


@functools.lru_cache(64)
def keyed(who: str, key: bytes) -> str:
    """Return the hash that is written to disk of who has an object of his own.

    Members of a group can read the key of what they share. It takes a while to try a credential against it.
    """
    return hashlib.pbkdf2_hmac("sha256", who.encode(), key, _ROUNDS, 16).hex()
