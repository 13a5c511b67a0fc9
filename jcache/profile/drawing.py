"""The picture of a profile as SVG: a file of its own, or a part of a report's page."""

from __future__ import annotations

import hashlib
import itertools
from html import escape
from typing import TYPE_CHECKING

from jcache.profile.picture import HIT, MISS, Picture, draw
from jcache.report.faces.svg import NARROW_WIDTH, STYLE, WIDTH
from jcache.report.faces.units import duration, human, number_of, percent, visible

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jcache.profile.reader import Profile
    from jcache.profile.statistics import FileUse, Look

__all__ = ["document", "picture_of", "section"]

COLUMNS, ROWS = 240, 120
"""Cells of a drawing."""

_HEIGHT, _LEFT, _RIGHT, _TOP, _FOOT = 420, 84, 16, 40, 40
_KINDS = (("jc-c", HIT), ("jc-o", MISS))


def picture_of(profile: Profile, look: Look, files: Sequence[FileUse]) -> Picture:
    """Return the picture that drawings are made of.

    Raises:
        ProfileError: The profile cannot be read.
    """
    return draw(profile, files, real_s=look.real_s, columns=COLUMNS, rows=ROWS)


def document(picture: Picture, title: str) -> str:
    """Return a picture as an SVG file."""
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{_svg(picture, title, alone=True)}\n'


def section(profile: Profile, look: Look) -> str:
    """Return what a report's page has of its run's profile: the picture, and what it says in a line.

    Raises:
        ProfileError: The profile cannot be read.
    """
    picture, total = picture_of(profile, look, look.files), look.total()
    title = "Offset over time"
    words = (
        f"{number_of(total.reads, 'read')} of {number_of(total.ranges, 'range')} in "
        f"{number_of(len(look.files), 'file')}, laid end to end in the order of their first requests. "
        f"{percent(total.distinct_bytes, total.size or 0)} % of the files were read; "
        f"{percent(max(total.bytes - total.distinct_bytes, 0), total.bytes)} % of what was read had been read before."
    )
    drawings = "".join(_svg(picture, title, width=width) for width in (WIDTH, NARROW_WIDTH))
    return f'<section><h2>Access profile</h2><p class="jc-soft">{words}</p><figure>{drawings}</figure></section>'


def _svg(picture: Picture, title: str, *, width: int = WIDTH, alone: bool = False) -> str:
    mark = hashlib.sha256(f"{title} {width} {picture.extent} {picture.files}".encode(errors="replace")).hexdigest()[:8]
    size = f'width="{width}" height="{_HEIGHT}"' if alone else 'width="100%"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} viewBox="0 0 {width} {_HEIGHT}" role="img" ',
        f'aria-labelledby="p{mark}" class="jc jc-svg"><title id="p{mark}">{escape(visible(title))}</title>',
    ]
    if alone:
        parts.append(f'<style>{STYLE}</style><rect class="jc-paper" width="100%" height="100%"/>')
    return "".join([*parts, *_axes(picture, width), *_cells(picture, width), "</svg>"])


def _axes(picture: Picture, width: int) -> Iterator[str]:
    bottom = _HEIGHT - _FOOT
    yield f'<text class="jc-title" x="{_LEFT}" y="20">Offset over time</text>'
    for x, name, words in ((width - 212, "jc-c", "from cache"), (width - 108, "jc-o", "from origin")):
        yield f'<rect class="{name}" x="{x}" y="10" width="11" height="11" rx="2"/>'
        yield f'<text class="jc-name" x="{x + 17}" y="20">{words}</text>'
    for quarter in range(5):
        y = bottom - (bottom - _TOP) * quarter / 4
        yield f'<path class="{"jc-grid" if quarter else "jc-axis"}" d="M{_LEFT} {y:.1f}H{width - _RIGHT}"/>'
        label = " ".join(human(picture.extent * quarter / 4))
        yield f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        if quarter % (1 if width == WIDTH else 2) == 0:
            x_of = _LEFT + (width - _RIGHT - _LEFT) * quarter / 4
            anchor = "middle" if 0 < quarter < 4 else "end" if quarter else "start"
            label = duration(picture.real_s * quarter / 4)
            yield f'<text x="{x_of:.1f}" y="{bottom + 19}" text-anchor="{anchor}">{label}</text>'


def _cells(picture: Picture, width: int) -> Iterator[str]:
    """Yield the cells, neighbours in a row as one; where both served there are two halves."""
    across = (width - _LEFT - _RIGHT) / max(len(picture.cells[0]), 1)
    up = (_HEIGHT - _TOP - _FOOT) / len(picture.cells)
    paths: dict[str, list[str]] = {name: [] for name, _ in _KINDS}
    for number, row in enumerate(picture.cells):
        column = 0
        for cell, group in itertools.groupby(row):
            count = len(list(group))
            names = [name for name, bit in _KINDS if cell & bit]
            for half, name in enumerate(names):
                high = up / len(names)
                x, y = _LEFT + column * across, _TOP + number * up + half * high
                paths[name].append(f"M{x:.1f} {y:.1f}h{count * across:.1f}v{high:.1f}h-{count * across:.1f}z")
            column += count
    yield from (f'<path class="{name}" d="{"".join(path)}"/>' for name, path in paths.items() if path)
