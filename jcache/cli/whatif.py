"""`jcache whatif`: what recorded runs would have read from other caches."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import directory_option, paths
from jcache.cli.progress import reading
from jcache.cli.recorded import recorded
from jcache.profile.curves import curves
from jcache.profile.faces import name_of
from jcache.profile.reader import ProfileError
from jcache.profile.whatif import EXACT, WHOLE, Kind, what_if
from jcache.report.faces import columns
from jcache.report.faces.units import human, percent, visible
from jcache.settings.config import parse_size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcache.profile.whatif import Policy, WhatIf

_BAR = 30
_UNITS = {"exact": EXACT, "whole": WHOLE}
_LEAST_BLOCK = 512  # no disk has smaller ones, and each of them takes time


@click.command("whatif")
@click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=paths("file"))
@directory_option
@click.option(
    "--size",
    "sizes",
    metavar="SIZE[,SIZE]...",
    help="What the cache may hold: 10GB,100GB,1TB; else also without limit.",
)
@click.option(
    "--policy",
    "policies",
    type=click.Choice(["jcache", "lru"]),
    multiple=True,
    default=["jcache"],
    show_default=True,
    help="Which files go first: as JCache chooses, or what was not used for longest. Repeatable.",
)
@click.option(
    "--block",
    "blocks",
    default="exact",
    show_default=True,
    metavar="SIZE|whole|exact[,...]",
    help="What the cache keeps: ranges, blocks of a size (512 bytes at least), or whole files.",
)
@click.option("--svg", type=click.Path(path_type=Path, dir_okay=False), help="Draw hit rates against sizes.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
def whatif(
    *,
    runs: tuple[str, ...],
    directory: Path | None,
    sizes: str | None,
    policies: tuple[Policy, ...],
    blocks: str,
    svg: Path | None,
    as_json: bool,
) -> None:
    """Tell what runs that were recorded would have read from caches of other sizes and kinds.

    RUN is as in 'jcache profile', 'last' where none is given; of several, each finds what those before it left. The
    first one finds the cache empty.

    \b
    Examples:
      jcache whatif ttbar --size 10GB,100GB,1TB
      jcache whatif ttbar~1 ttbar --block exact,128KiB,1MiB,whole --size 100GB
      jcache whatif ttbar --size 10GB,100GB,1TB --svg hit-rates.svg

    \b
    Exit codes:
      0  done
      1  some profiles are damaged or cannot be read; stderr names them, and the rest was used
      2  a path, name or value is wrong, or there is no profile
    """
    kinds = [Kind(size, unit, policy) for unit in _units(blocks) for policy in policies for size in _sizes(sizes)]
    errors: list[ProfileError] = []
    found = [recorded(word, directory, errors) for word in runs or ("last",)]
    try:
        with reading("reading", [one for profile in found for one in profile.recordings]):
            told = what_if(found, kinds)
    except ProfileError as error:
        raise CommandError(str(error)) from None
    if svg is not None:
        _draw(svg, told, " and ".join(map(name_of, found)))
    if as_json:
        click.echo(json.dumps([_document(one) for one in told], indent=1))
    else:
        for line in _table(told):
            click.echo(line)
    for unread in errors:
        click.echo(f"jcache: {visible(str(unread))}", err=True)
    sys.exit(1 if errors else 0)


def _draw(path: Path, told: Sequence[WhatIf], names: str) -> None:
    lines: dict[str, list[tuple[int | None, float]]] = {}
    for one in told:
        lines.setdefault(f"{_name(one.kind.unit)}, {one.kind.policy}", []).append((one.kind.size_bytes, one.hit_rate))
    try:
        path.write_text(curves(lines, f"{names}: hit rate by size of the cache"), encoding="utf-8")
    except OSError as error:
        raise WrongInputError(f"cannot write {path}: {error.strerror}") from None


def _sizes(text: str | None) -> list[int | None]:
    if text is None:
        return [None]
    try:
        return [parse_size(word) for word in text.split(",")]
    except (ValueError, OverflowError):
        raise WrongInputError(f"--size: {text} is no list of sizes such as 10GB,100GB") from None


def _units(text: str) -> list[int]:
    try:
        units = [_UNITS[word] if word in _UNITS else parse_size(word) for word in text.split(",")]
    except (ValueError, OverflowError):
        raise WrongInputError(f"--block: {text} is no list of 'exact', 'whole', and sizes such as 128k") from None
    if any(0 < unit < _LEAST_BLOCK for unit in units):
        raise WrongInputError(f"--block: blocks of less than {_LEAST_BLOCK} bytes are none that a cache keeps")
    return units


def _name(unit: int) -> str:
    return next((word for word, number in _UNITS.items() if number == unit), " ".join(human(unit)))


def _document(one: WhatIf) -> dict[str, object]:
    return {
        "size": one.kind.size_bytes,
        "block": next((word for word, number in _UNITS.items() if number == one.kind.unit), one.kind.unit),
        "policy": one.kind.policy,
        "read_bytes": one.read_bytes,
        "hit_bytes": one.hit_bytes,
        "hit_rate": one.hit_rate,
        "origin_bytes": one.origin_bytes,
        "held_bytes": one.held_bytes,
        "evicted": one.evicted,
    }


def _table(told: Sequence[WhatIf]) -> list[str]:
    rows = []
    for one in told:
        size = "no limit" if one.kind.size_bytes is None else " ".join(human(one.kind.size_bytes))
        bar = f"{'█' * round(one.hit_rate * _BAR):{_BAR}}"
        rate = f"{percent(one.hit_bytes, one.read_bytes)} %"
        sizes = [" ".join(human(number)) for number in (one.origin_bytes, one.held_bytes)]
        rows.append([_name(one.kind.unit), one.kind.policy, size, rate, *sizes, str(one.evicted), bar])
    heads = ["keeps", "policy", "size", "hit rate", "origin", "held", "evicted", ""]
    return columns.layout(heads, rows, 120)
