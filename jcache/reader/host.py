"""What a remote file needs of the process that it lives in."""

from typing import Protocol

from jcache.counters import Counters
from jcache.planning.held import Room
from jcache.planning.waiting import Patience
from jcache.reader.retrying import Retries
from jcache.recording.recorder import Recorder
from jcache.recording.workers import Workers

__all__ = ["Host"]


class Host(Protocol):
    """The session, or a session under a rule."""

    counters: Counters
    recorder: Recorder
    workers: Workers
    patience: Patience
    ahead: Room
    retries: Retries
    validate: str | float
    offline: bool
    copy_up: int
    trusts_unreachable: bool

    def trouble(self, what: str) -> None:
        """Say once that the cache is in trouble, and count it."""
        ...
