"""`jcache replay` and `jcache warm`: what was recorded, sent again."""

import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from fnmatch import fnmatchcase
from pathlib import Path

import click

from jcache.cli.catalogue import usable
from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import DirectoryType, directory_option, map_option, pairs_of, paths
from jcache.cli.progress import progress
from jcache.cli.recorded import recorded
from jcache.cli.run import run_job
from jcache.profile.reader import Profile, ProfileError
from jcache.report.faces.compare import Difference
from jcache.report.faces.units import human, visible
from jcache.settings.config import Config, ConfigError, parse_size
from jcache_plugins.replay.interrupts import interrupted_once

__all__ = ["replay", "warm"]

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")


@click.command("replay")
@click.argument("run", default="last", metavar="[RUN]", shell_complete=paths("file"))
@directory_option
@map_option
@click.option("--speed", default="recorded", show_default=True, metavar="recorded|max|N", help="N times as fast.")
@click.option(
    "--cache",
    type=DirectoryType(),
    shell_complete=paths("dir"),
    help="The cache directory that the requests go through, instead of JCACHE_DIR.",
)
@click.option("--no-cache", is_flag=True, help="Ask the origin for everything, and keep nothing.")
@click.option("--workers", type=click.IntRange(1), metavar="N", help="Not as many at a time as recorded, but N.")
@click.option("--compare", is_flag=True, help="Put the replay beside the recording.")
@_json_option
def replay(
    *,
    run: str,
    directory: Path | None,
    maps: tuple[str, ...],
    speed: str,
    cache: Path | None,
    no_cache: bool,
    workers: int | None,
    compare: bool,
    as_json: bool,
) -> None:
    """Make the requests of a recorded run again, as many at a time as it did, and report as any job does.

    So one measures a storage system, a wire or a cache with what users do. RUN is as in 'jcache profile'; --dir is
    where it was recorded.

    \b
    Examples:
      jcache replay --no-cache --map root://eos.example//=https://xcache.example/
      jcache replay ttbar --cache empty-cache --speed max --compare

    \b
    Exit codes:
      0  done
      1  done, but some requests failed, or a profile is damaged; or it ended before its time
      2  a path, name or value is wrong, or there is no profile
    """
    rate = _speed(speed)
    pairs = pairs_of(maps)
    if cache is not None and no_cache:
        raise WrongInputError("give --cache DIR or --no-cache, not both")
    errors: list[ProfileError] = []
    found = _recorded(run, directory, errors)
    environ = {name: value for name, value in os.environ.items() if name != "JCACHE_PROFILE"}
    if cache is not None:
        environ["JCACHE_DIR"] = str(cache)
    with tempfile.TemporaryDirectory(prefix="jcache-replay-") as work:
        if no_cache:
            environ |= {"JCACHE_DIR": os.path.join(work, "cache"), "JCACHE_BYPASS": "1"}
        elif not environ.get("JCACHE_DIR"):
            raise WrongInputError("through which cache? Give --cache DIR or --no-cache, or set JCACHE_DIR")
        else:
            _must_be_usable(environ)
        if compare:
            environ["JCACHE_PROFILE"] = os.path.join(work, "profile")
            os.mkdir(environ["JCACHE_PROFILE"])
        if as_json:
            environ["JCACHE_SUMMARY"] = "0"
        environ.setdefault("JCACHE_APPNAME", "replay")
        spec, result = os.path.join(work, "spec"), os.path.join(work, "result")
        what = {
            "paths": [one.path for one in found.recordings],
            "start_time": found.start_time,
            "maps": pairs,
            "speed": rate,
            "workers": workers,
            "plain": no_cache,
        }
        Path(spec).write_text(json.dumps(what), encoding="utf-8")
        code = run_job([sys.executable, "-m", "jcache_plugins.replay", spec, result], environ)
        if code == 128 + signal.SIGINT:
            raise CommandError("stopped")
        if not os.path.exists(result):
            raise CommandError(f"the replay ended before its time, with exit code {code}")
        played = json.loads(Path(result).read_text(encoding="utf-8"))
        lines = _differences(found, environ["JCACHE_PROFILE"]) if compare else []
    if as_json:
        told = [asdict(line) | {"change": line.change, "ratio": line.ratio} for line in lines]
        click.echo(json.dumps(played | {"differences": told} if compare else played))
    else:
        _tell(played, lines)
    sys.exit(1 if played["failed"] or errors else 0)


def _tell(played: dict[str, object], lines: list[Difference]) -> None:
    size = " ".join(human(int(str(played["read_bytes"]))))
    click.echo(
        f"{played['requests']} requests, {played['ranges']} ranges, {size} in {float(str(played['wall_s'])):.2f} s; "
        f"at most {float(str(played['late_s'])):.2f} s late"
    )
    failed = played["failed"]
    assert isinstance(failed, dict)
    for text, count in sorted(failed.items(), key=lambda one: -one[1]):
        click.echo(f"jcache: {count} failed: {visible(text)}", err=True)
    if played["skipped"]:
        click.echo(f"jcache: {played['skipped']} were left out: it is not recorded where they were", err=True)
    if lines:
        from jcache.report.faces import columns

        click.echo()
        for line in columns.differences(lines, ("recorded", "replayed"), 120):
            click.echo(line)


def _differences(found: Profile, directory: str) -> list[Difference]:
    from jcache.profile.faces import differences
    from jcache.profile.select import in_directory, runs
    from jcache.profile.statistics import look_at

    (replayed,) = runs(in_directory(directory), [])
    return differences(look_at(found), look_at(replayed.profile))


@click.command("warm")
@click.argument("what", nargs=-1, metavar="[RUN|URL]...", shell_complete=paths("file"))
@directory_option
@click.option("--from-run", "run", metavar="RUN", help="A run, also if its name looks like an address.")
@click.option("--file", "pattern", metavar="GLOB", help="Only files whose address this matches.")
@click.option("--columns", metavar="NAME[,NAME]...", help="These columns of the files only; globs such as Jet_*.")
@click.option("--whole", is_flag=True, help="All of each file that a run read, not only what it read.")
@map_option
@click.option("--parallel", default=8, show_default=True, type=click.IntRange(1, 256), help="So many requests at once.")
@click.option("--rate", metavar="SIZE", help="At most so many bytes a second.")
@_json_option
def warm(
    *,
    what: tuple[str, ...],
    directory: Path | None,
    run: str | None,
    pattern: str | None,
    columns: str | None,
    whole: bool,
    maps: tuple[str, ...],
    parallel: int,
    rate: str | None,
    as_json: bool,
) -> None:
    """Fill the cache before a job runs: with what a recorded run read, or with whole files.

    What is there is not fetched again, so it may be stopped at any time and begun anew. RUN is as in 'jcache profile'
    ('last' where nothing is named); of a URL, which may be a glob, all is fetched.

    \b
    Examples:
      jcache warm ttbar                      what the newest run of ttbar read
      jcache warm --map https://a/=root://b// ttbar
      jcache warm 'https://data.example/run3/*.root' --rate 100MB
      jcache warm 'https://data.example/run3/*.root' --columns 'Jet_*,Muon_pt'

    \b
    Exit codes:
      0  all is there
      1  some of it is not; stderr says what
      2  a path, name or value is wrong, nothing is selected, or there is no profile
    """
    pairs = pairs_of(maps)
    try:
        bytes_a_second = None if rate is None else float(parse_size(rate))
    except (ValueError, OverflowError):
        raise WrongInputError(f"--rate: {rate} is no size: give one such as 100MB") from None
    names = [word for word in what if "://" not in word] + ([run] if run is not None else [])
    urls = [word for word in what if "://" in word]
    if not (names or urls):
        names = ["last"]
    errors: list[ProfileError] = []
    profiles = [_recorded(name, directory, errors) for name in names]
    if directory is not None:
        os.environ["JCACHE_DIR"] = os.path.abspath(directory)
    if not os.environ.get("JCACHE_DIR"):
        raise WrongInputError("there is no cache directory: give --dir DIR, or set JCACHE_DIR")
    _must_be_usable(os.environ)
    os.environ["JCACHE_SUMMARY"] = "0"
    os.environ.pop("JCACHE_PROFILE", None)

    from jcache_plugins.places import PlaceError
    from jcache_plugins.replay.warming import needs_of
    from jcache_plugins.replay.warming import warm as fill

    try:
        needs = [need for one in profiles for need in needs_of(one)]
        needs = [replace(need, ranges=None) for need in needs] if whole else needs
        needs = [need for need in needs if pattern is None or fnmatchcase(need.url, pattern)]
        if not needs and (pattern is not None or not urls):
            why = "nothing was read" if pattern is None else f"no file matches {pattern}; * stands for any text"
            raise WrongInputError(f"there is nothing to fetch: {why}")
        with _interrupted(), progress("warming") as tell:
            wanted = None if columns is None else columns.split(",")
            done = fill(
                [*needs, *urls], columns=wanted, maps=pairs, parallel=parallel, rate=bytes_a_second, progress=tell
            )
    except ProfileError as error:
        raise CommandError(str(error)) from None
    except PlaceError as error:
        raise WrongInputError(str(error)) from None
    except RuntimeError as error:
        raise WrongInputError(str(error)) from None
    lacking = [name for name, files in done.columns.items() if not files]
    if lacking and not (done.wanted_bytes or done.failed):
        raise WrongInputError(f"there is nothing to fetch: no column matches {', '.join(lacking)}")
    if as_json:
        click.echo(json.dumps(asdict(done)))
    else:
        sizes = [" ".join(human(size)) for size in (done.wanted_bytes, done.held_bytes, done.fetched_bytes)]
        click.echo(f"{done.files} files, {sizes[0]}: {sizes[1]} were there, {sizes[2]} were fetched")
    for url, why in done.failed.items():
        click.echo(f"jcache: {visible(url)}: {visible(why)}", err=True)
    for url in done.replaced:
        click.echo(f"jcache: {visible(url)}: it is not of the version that the run has read any more", err=True)
    if done.missing_bytes:
        click.echo(f"jcache: the cache did not take {' '.join(human(done.missing_bytes))}: is it full?", err=True)
    if lacking:
        click.echo(f"jcache: no column matches {visible(', '.join(lacking))}", err=True)
    sys.exit(0 if done.is_complete and not errors else 1)


def _must_be_usable(environ: Mapping[str, str]) -> None:
    try:
        config = Config.from_environ(environ)
    except ConfigError as error:
        raise WrongInputError(str(error)) from None
    usable(config.dir or "", config)


@contextlib.contextmanager
def _interrupted() -> Iterator[None]:
    with interrupted_once():
        try:
            yield
        except KeyboardInterrupt:
            CommandError("stopped; what was fetched is there, and the same command goes on from here").show()
            # Not sys.exit: that waits for threads that wait for an origin.
            os._exit(CommandError.exit_code)


def _recorded(word: str, directory: Path | None, errors: list[ProfileError]) -> Profile:
    before = len(errors)
    found = recorded(word, directory, errors)
    for error in errors[before:]:
        click.echo(f"jcache: {visible(str(error))}", err=True)
    return found


def _speed(word: str) -> float | None:
    if word in ("recorded", "max"):
        return 1.0 if word == "recorded" else None
    try:
        speed = float(word)
    except ValueError:
        speed = 0.0
    if not 0 < speed < 1e6:
        raise WrongInputError(f"--speed: {word} is neither 'recorded' nor 'max' nor a number above 0")
    return speed
