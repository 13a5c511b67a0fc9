"""What a doctor says: checks with their findings, and a verdict."""

from __future__ import annotations

import enum
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["Check", "Diagnosis", "Level", "Verdict"]


class Level(enum.Enum):
    """What a finding means for the use of the directory."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing; nothing is lost."""
    LIMIT = "limit"
    """Every byte is right, but something works less well than it could."""
    BAD = "bad"
    """Of no use as a cache."""


class Verdict(enum.Enum):
    """The sum of all findings."""

    FIT = "fit"
    LIMITS = "fit with limits"
    UNFIT = "not fit"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was tried."""

    name: str
    level: Level
    finding: str
    advice: str = ""
    """What to do about it; what to mount instead."""

    def to_json(self) -> dict[str, str]:
        """Return the check for `from_json`."""
        return {**asdict(self), "level": self.level.value}

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Check:
        """Rebuild a check.

        Raises:
            ValueError, KeyError: These are no fields of a check.
        """
        return cls(str(fields["name"]), Level(fields["level"]), str(fields["finding"]), str(fields.get("advice", "")))


@dataclass(slots=True)
class Diagnosis:
    """All that was found out about one directory."""

    directory: str
    host: str
    checks: list[Check] = field(default_factory=list)

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        levels = {check.level for check in self.checks}
        if Level.BAD in levels:
            return Verdict.UNFIT
        return Verdict.LIMITS if Level.LIMIT in levels else Verdict.FIT

    @property
    def summary(self) -> str:
        """The verdict in one line, with the findings that led to it."""
        decisive = {Verdict.UNFIT: Level.BAD, Verdict.LIMITS: Level.LIMIT}.get(self.verdict)
        names = [check.name for check in self.checks if check.level is decisive]
        return f"{self.directory} is {self.verdict.value}" + (f": {', '.join(names)}" if names else "")

    def to_json(self) -> dict[str, Any]:
        """Return everything, as JSON has it."""
        return {
            "directory": self.directory,
            "host": self.host,
            "verdict": self.verdict.value,
            "fit": self.verdict is not Verdict.UNFIT,
            "summary": self.summary,
            "checks": [check.to_json() for check in self.checks],
        }
