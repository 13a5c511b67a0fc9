"""`jcache clean`: make room in a cache, by hand."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from jcache.cache.booking import booked
from jcache.cache.eviction import Cleaned, Cleaner, Wish
from jcache.cache.keeper import LOW_SHARE
from jcache.cache.meter import MeteredStorage
from jcache.cache.pins import Pins
from jcache.cli.catalogue import existing_cache, prepared
from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import directory_argument, directory_option, one_directory
from jcache.report.faces.units import human, number_of, parse_age, visible
from jcache.report.retention import clean_reports
from jcache.settings.config import Config, parse_size

if TYPE_CHECKING:
    from pathlib import Path

_WAIT_S = 30.0


@click.command()
@directory_argument
@directory_option
@click.option("--to", "to", metavar="SIZE", help="Remove what is least worth keeping until SIZE is left, say 100GB.")
@click.option("--older-than", metavar="AGE", help="Remove what was not used for AGE, such as 90m, 12h, 30d or 2w.")
@click.option("--url", "pattern", metavar="GLOB", help="Only remote files whose address matches; * is any text.")
@click.option("--all", "everything", is_flag=True, help="Remove everything that is not pinned.")
@click.option("--reports", metavar="AGE", help="Remove JSON reports older than AGE.")
@click.option("--dry-run", is_flag=True, help="Only tell what would go.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def clean(
    ctx: click.Context,
    *,
    place: str | None,
    directory: Path | None,
    to: str | None,
    older_than: str | None,
    pattern: str | None,
    reports: str | None,
    everything: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Remove journals from a cache: the least recently used, the old, those of some files, or all.

    DIR is the cache directory; by default the one of JCACHE_DIR. Without an option it is brought down to 90 % of
    JCACHE_SIZE, which jobs do by themselves when it is reached. Options can be combined: --older-than 30d --url
    'root://eos*' removes what meets both.

    Least worth keeping is what was not used for longest; what was read again goes behind what was read once.

    Jobs may go on meanwhile: they keep what they have open, and fetch the rest again. What a living process is writing
    stays, so does what is pinned (see `jcache pin`), and what JCache did not make. What is of no use (superseded
    versions, segments that killed processes left) goes first.

    \b
    Exit codes:
      0  done
      1  something could not be removed, or SIZE could not be reached
      2  DIR or a value is wrong
    """
    wish_bytes, age_s, reports_s = _size(to), _age(older_than), _age(reports)
    root, config = existing_cache(one_directory(place, directory), remedy="name one, or set JCACHE_DIR")
    chosen = everything or bool({to, older_than, pattern} - {None})
    if everything and (to or older_than or pattern):
        raise WrongInputError("--all is everything: give it alone, or without it --to, --older-than or --url")
    document: dict[str, object] = {"directory": root, "dry_run": dry_run}
    failed: list[str] = []
    if reports is not None:
        cleaned = clean_reports(config.report_directory or "", older_than_s=reports_s or 0.0, dry_run=dry_run)
        failed += [f"{path}: {why}" for path, why in cleaned.failed]
        document["reports"] = {"removed": len(cleaned.removed), "freed_bytes": cleaned.removed_bytes}
        if not as_json:
            verb = "would be removed" if dry_run else "removed"
            click.echo(f"{number_of(len(cleaned.removed), 'report')} ({_human(cleaned.removed_bytes)}) {verb}")
    if chosen or reports is None:
        if not chosen:
            if config.size is None:
                raise WrongInputError(
                    "what is to go? JCACHE_SIZE is not set, so give --to SIZE, --older-than AGE, --url GLOB or --all"
                )
            wish_bytes = int(LOW_SHARE * config.size)
            if not as_json:
                goes = "would go" if dry_run else "goes"
                click.echo(f"JCACHE_SIZE is {_human(config.size)}: what is above {_human(wish_bytes)} of it {goes}")
        wish = Wish(
            to_bytes=wish_bytes,
            unused_since_s=None if age_s is None else time.time() - age_s,
            pattern=None if pattern is None else Pins([pattern]),
        )
        done = _clean(root, config, wish, dry_run=dry_run)
        failed += done.failed
        if wish.to_bytes is not None and done.left_bytes > wish.to_bytes:
            failed.append(f"{_human(done.left_bytes)} are left: {done.pinned} pinned, {done.live} being written")
        if as_json:
            document.update(asdict(done), failed=failed)
        else:
            _print(done, dry_run=dry_run)
    if as_json:
        click.echo(json.dumps(document, indent=1))
    for what in failed:
        click.echo(f"jcache: {visible(what)}", err=True)
    ctx.exit(1 if failed else 0)


def _clean(root: str, config: Config, wish: Wish, *, dry_run: bool) -> Cleaned:
    cache, storage = prepared(root, config), MeteredStorage(root)
    with booked(cache, storage) as tell:
        cleaner = Cleaner(
            storage,
            root,
            dir_mode=cache.dir_mode,
            file_mode=cache.file_mode,
            dry_run=dry_run,
            keep_names=True,
            freed=tell,
        )
        try:
            done = cleaner.run(wish, measure=True, timeout_s=_WAIT_S)
        except OSError as error:
            raise CommandError(f"{root} cannot be cleaned: {error.strerror or error}") from None
    if done is None:
        raise CommandError(f"another process is cleaning {root}; try again when it is done")
    return done


def _print(done: Cleaned, *, dry_run: bool) -> None:
    lines = []
    for removed in done.removed:
        what = "" if removed.why == "journal" else f"  ({removed.why})"
        lines.append(f"{removed.freed_bytes:>15}  {visible(removed.name)}{what}")
    verb = "would be removed" if dry_run else "removed"
    left = f"{_human(done.left_bytes)} {'would be' if dry_run else 'are'} left"
    kept = f"; {done.pinned} pinned, {done.live} being written stay" if done.pinned or done.live else ""
    lines.append(f"{_human(done.freed_bytes)} {verb}, {number_of(done.journals, 'journal')} whole; {left}{kept}")
    click.echo("\n".join(lines))


def _human(nbytes: int) -> str:
    return " ".join(human(nbytes))


def _size(text: str | None) -> int | None:
    if text is None:
        return None
    if text.strip() == "0":
        return 0
    try:
        return parse_size(text)
    except (ValueError, OverflowError):
        raise WrongInputError(f"--to {text!r} is no size: give a number and a unit, such as 500GB or 1.5TiB") from None


def _age(text: str | None) -> float | None:
    if text is None:
        return None
    try:
        return parse_age(text)
    except ValueError as error:
        raise WrongInputError(str(error)) from None
