"""When a version was last known to be the origin's: a time that only the machine that noted it can make anything of.

Clocks of machines differ, are set, and step; modification times survive a copy, or do not. So the time is counted from
when the machine was started, by a clock that nobody sets and that runs on while it sleeps, and is noted together with
which start that was, and in which file (its inode). On another machine, after a restart, and in a copy of the file it
says nothing: the origin is asked.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from jcache.system.processes import boot_id

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Moment", "clock_s", "latest"]

_MOST_S = 1e10
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def clock_s() -> float:
    """Return seconds by a clock that nobody sets, and that runs on while the machine sleeps where there is one.

    For how long ago an origin has answered: its files change meanwhile.
    """
    return time.clock_gettime(_CLOCK)


class Moment(NamedTuple):
    """A time on one machine, until it is started again."""

    boot: str
    """Which start of which machine."""
    since_boot_s: float
    inode: int = 0
    """Of the file that it is noted in."""

    @classmethod
    def now(cls) -> Moment | None:
        """Return the present; None where the system does not say which start this is."""
        boot = boot_id()
        return cls(boot, round(clock_s(), 3)) if boot else None

    @property
    def age_s(self) -> float | None:
        """How long ago it was; None where it was on another machine, before a restart, or is yet to come."""
        now = Moment.now()
        if now is None or now.boot != self.boot or self.since_boot_s > now.since_boot_s:
            return None
        return now.since_boot_s - self.since_boot_s

    def to_json(self) -> list[Any]:
        """Return it for `from_json`."""
        return [self.boot, self.since_boot_s, self.inode]

    @classmethod
    def from_json(cls, value: object) -> Moment | None:
        """Return what `to_json` was, None for anything else."""
        match value:
            case [str(boot), int() | float() as since_boot_s, int(inode)] if 0 <= since_boot_s < _MOST_S:
                return cls(boot, since_boot_s, inode)
        return None


def latest(moments: Iterable[Moment | None]) -> Moment | None:
    """Return the moment that was least long ago on this machine; another machine's, or none, where there is none."""
    known = [moment for moment in moments if moment is not None]
    return max(known, key=lambda moment: (moment.age_s is not None, moment.since_boot_s), default=None)
