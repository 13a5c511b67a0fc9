"""`jcache config`: which settings hold, and where each comes from."""

from __future__ import annotations

import difflib
import json
import os
from typing import TYPE_CHECKING, Any

import click

from jcache.cli.errors import WrongInputError
from jcache.cli.options import directory_option
from jcache.report.faces.units import human, visible
from jcache.settings.config import RULES_KEY, SETTINGS, Config, ConfigError, gather, without_user

if TYPE_CHECKING:
    from pathlib import Path

_VARIABLES = [setting.variable for setting in SETTINGS]
_DEFAULTS = {setting.key: setting.default for setting in SETTINGS}
"""In words; for what is not set."""


@click.command()
@directory_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def config(directory: Path | None, *, as_json: bool) -> None:
    """Print the settings that a job would have if it were started here and now, and where each comes from.

    The environment goes before the file, which is the one that JCACHE_CONFIG names, or else jcache.toml in the cache
    directory. Of the rules, which only a file has, the first that matches a remote file decides. Variables that begin
    with JCACHE_ and mean nothing are named on stderr.

    \b
    Exit codes:
      0  all is well
      2  a setting is wrong: jobs run uncached; the message says which
    """
    environ = dict(os.environ)
    if directory is not None:
        environ["JCACHE_DIR"] = os.path.abspath(directory)
    try:
        found = gather(environ)
        values = Config.from_environ(environ)
    except ConfigError as error:
        raise WrongInputError(str(error)) from None
    if values.dir is not None and os.path.lexists(values.dir) and not os.path.isdir(values.dir):
        raise WrongInputError(f"not a directory: {values.dir}")
    for name in sorted(environ):
        if name.startswith("JCACHE_") and name not in _VARIABLES:
            near = difflib.get_close_matches(name, _VARIABLES, n=1)
            hint = f"; perhaps {near[0]}" if near else ""
            click.echo(f"jcache: {visible(name)} is no setting, and changes nothing{hint}", err=True)
    if values.ignored:
        click.echo(f"jcache: {visible(values.ignored)}", err=True)
    settings: dict[str, dict[str, Any]] = {}
    for setting in SETTINGS:
        if setting.field is None:
            continue
        default = values.report_directory if setting.field == "json" else getattr(values, setting.field)
        value, source = found.get(setting.field, (default, "default"))
        value = without_user(value) if isinstance(value, str) else value
        settings[setting.field] = {"value": value, "source": "--dir" if _is_given(setting.field, directory) else source}
    rules = [rule.describe() for rule in values.rules]
    if as_json:
        document = {"settings": settings, RULES_KEY: rules}
        if rules:
            document["rules_source"] = found[RULES_KEY][1]
        click.echo(json.dumps(document, indent=1))
        return
    for field, known in settings.items():
        shown = _shown(known["value"]) if known["value"] not in (None, ()) else _DEFAULTS[field]
        if field == "size" and known["value"] is not None:
            shown += f" ({' '.join(human(known['value']))})"
        click.echo(f"{field:<10} {shown:<28} {visible(known['source'])}")
    for number, rule in enumerate(rules, 1):
        if number == 1:
            click.echo(f"rules, in {visible(found[RULES_KEY][1])}:")
        click.echo(f"  {number}. " + ", ".join(f"{key} = {_shown(value)}" for key, value in rule.items()))
    if values.dir is None:
        click.echo("JCACHE_DIR is not set: nothing is cached")


def _is_given(field: str, directory: Path | None) -> bool:
    return field == "dir" and directory is not None


def _shown(value: object) -> str:
    """Return a value as a person reads it, without a user in a URL."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, float):
        return f"{value:g}"
    return without_user(visible(str(value)))
