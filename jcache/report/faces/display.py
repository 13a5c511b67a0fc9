"""A report as notebooks and Python's prompt show it."""

from __future__ import annotations

import io
from dataclasses import fields
from typing import TYPE_CHECKING

from jcache.report.model import Report

if TYPE_CHECKING:
    from collections.abc import Sequence


class ShownReport(Report):
    """A report whose `str` is the text report and that a notebook shows as HTML; otherwise what `Report` is.

    Attributes:
        members: The reports that it was merged of; empty where it is one process's.
    """

    __slots__ = ("members",)

    members: tuple[Report, ...]

    def __str__(self) -> str:
        from jcache.report.faces.text import render

        text = io.StringIO()
        render(self, text, color=False)
        return text.getvalue().rstrip("\n")

    __repr__ = __str__

    def _repr_html_(self) -> str:
        from jcache.report.faces.html import fragment

        return fragment(self, self.members)


def shown(report: Report, members: Sequence[Report] = ()) -> ShownReport:
    """Return a report as one that shows itself, with tables of its members in HTML."""
    made = ShownReport(**{member.name: getattr(report, member.name) for member in fields(report)})
    object.__setattr__(made, "members", tuple(members))  # no field: fields are the JSON report's
    return made
