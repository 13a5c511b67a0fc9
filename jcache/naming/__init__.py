"""Which remote object a path means, who asks for it, and the name that its journal has."""

from jcache.naming.identity import Identifier, Identity, Unidentifiable, identify

__all__ = ["Identifier", "Identity", "Unidentifiable", "identify"]
