"""Settings given by keyword, in a notebook or for the workers of a cluster, instead of in the environment."""

import os
from collections.abc import Callable, Iterable, Mapping

from jcache.activate.job import program_name
from jcache.settings.config import SETTINGS, Config, ConfigError, Setting

__all__ = ["checked", "config_of", "export", "program"]

_BY_KEY: dict[str, Setting] = {setting.key: setting for setting in SETTINGS}
_KERNEL = "ipykernel_launcher"


def checked(settings: Mapping[str, object]) -> dict[str, str]:
    """Return settings as the variables that mean the same, checked as far as this process can.

    Args:
        settings: Values by the names that `jcache.toml` has for them, `dir` and `config` too; None is not set. Paths
            are relative to the working directory, unless they begin with `~` or `$NAME`: what these stand for is found
            where they are used.

    Raises:
        TypeError: There is no such setting.
        ConfigError: A value is wrong.
    """
    variables: dict[str, str] = {}
    for key, value in settings.items():
        setting = _BY_KEY.get(key)
        if setting is None:
            raise TypeError(f"there is no setting {key!r}; there are {', '.join(sorted(_BY_KEY))}")
        if value is None:
            continue
        text = _text(value)
        setting.parse(text, f"{key}={text!r}", os.curdir)
        if setting.names_path(text) and text[0] not in "~$":
            text = os.path.abspath(text)
        variables[setting.variable] = text
    return variables


def config_of(variables: Mapping[str, str], environ: Mapping[str, str]) -> Config:
    """Return the configuration that an environment gives with `variables` before it, for this process.

    Args:
        variables: Of `checked`, here or in another process.
        environ: The environment.

    Raises:
        ConfigError: A value is wrong, there is no cache directory, or a path begins with a variable that is not set.
    """
    found = dict(environ)
    for variable, text in variables.items():
        found[variable] = _expanded(variable, text) if _BY_VARIABLE[variable].names_path(text) else text
    config = Config.from_environ(found)
    if config.dir is None:
        raise ConfigError("there is no cache directory: give one, or set JCACHE_DIR")
    return config


def export(variables: Mapping[str, str]) -> Callable[[], None]:
    """Put settings into this process's environment, for the processes that it starts.

    Args:
        variables: Of `checked`, here or in another process.

    Returns:
        What puts back what was there before.

    Raises:
        ConfigError: A path begins with a variable that is not set.
    """
    found = {
        name: os.path.abspath(os.path.expanduser(_expanded(name, text)))
        if _BY_VARIABLE[name].names_path(text)
        else text
        for name, text in variables.items()
    }
    before = {name: os.environ.get(name) for name in found}
    os.environ.update(found)

    def restore() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    return restore


def program() -> str:
    """Return what to call the program of this process in reports."""
    name = program_name()
    return "notebook" if name == _KERNEL else name


_BY_VARIABLE = {setting.variable: setting for setting in SETTINGS}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    if isinstance(value, Iterable) and not isinstance(value, str):
        return ",".join(map(str, value))
    return str(value)


def _expanded(variable: str, text: str) -> str:
    path = os.path.expandvars(text) if text.startswith("$") else text
    if path.startswith("$"):
        raise ConfigError(f"{variable}={text!r}: there is no such environment variable on {os.uname().nodename}")
    return path
