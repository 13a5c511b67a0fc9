"""The manual pages, made of what the commands say of themselves: `make man` writes them to docs/man.

They are files in the repository because a wheel is built where nothing of JCache's can be imported.
"""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

import click
from places import ROOT

from jcache import __version__
from jcache.cli.group import COMMANDS, main
from jcache.settings.config import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGES = ROOT / "docs" / "man"


def pages() -> dict[str, str]:
    """The text of each page, by the name of its file."""
    context = click.Context(main, info_name="jcache")
    made = {"jcache.1": page("jcache", "a read cache for remote data", main, [*commands(), *environment()])}
    for name, (_, line) in COMMANDS.items():
        command = main.get_command(context, name)
        assert command is not None
        more = list(inner(command)) if isinstance(command, click.Group) else []
        made[f"jcache-{name}.1"] = page(f"jcache {name}", line[0].lower() + line[1:].rstrip("."), command, more)
    return made


def page(name: str, line: str, command: click.Command, more: list[str]) -> str:
    dashed = name.replace(" ", "-")
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    arguments = [str(parameter.metavar or parameter.name) for parameter in command.params if parameter not in options]
    if isinstance(command, click.Group):
        arguments = ["COMMAND", "[ARGS]..."]
    text, _, codes = inspect.cleandoc(command.help or "").partition("\b\nExit codes:\n")
    lines = [
        f'.TH "{dashed.upper()}" 1 "" "JCache {__version__}" "JCache"',
        ".SH NAME",
        f"{roff(dashed)} \\- {roff(line)}",
        ".SH SYNOPSIS",
        f".B {roff(name)}",
        roff(" ".join(["[OPTIONS]", *arguments])),
        ".SH DESCRIPTION",
        *(line for paragraph in text.strip().split("\n\n") for line in paragraph_of(paragraph)),
        ".SH OPTIONS",
        *(line for option in options for line in option_of(option)),
        *term("-h, --help", "Print this and end."),
        *more,
    ]
    if codes:
        lines.append('.SH "EXIT STATUS"')
        for row in codes.strip().splitlines():
            lines += term(*row.split(maxsplit=1))
    others = [] if dashed == "jcache" else ["jcache"]
    others += [f"jcache-{other}" for other in COMMANDS if f"jcache-{other}" != dashed]
    lines += ['.SH "SEE ALSO"', *(f".BR {roff(other)} (1)," for other in others[:-1]), f".BR {roff(others[-1])} (1)"]
    return "\n".join(lines) + "\n"


def paragraph_of(text: str) -> Iterator[str]:
    yield ".PP"
    if text.startswith("\b\n"):  # click's mark of what is laid out by hand
        yield ".nf"
        yield from map(roff, text.removeprefix("\b\n").splitlines())
        yield ".fi"
    else:
        yield from map(roff, text.splitlines())


def option_of(option: click.Option) -> list[str]:
    value = option.metavar or ""
    if isinstance(option.type, click.Choice):
        value = "|".join(option.type.choices)
    text = option.help or ""
    if option.show_default and option.default is not None:
        text += f" [default: {option.default}]"
    return term(f"{', '.join(option.opts)} {value}".strip(), text)


def commands() -> Iterator[str]:
    yield ".SH COMMANDS"
    for name, (_, line) in COMMANDS.items():
        yield from term(f"jcache-{name}(1)", line)


def inner(group: click.Group) -> Iterator[str]:
    yield ".SH COMMANDS"
    for name, command in group.commands.items():
        arguments = [str(one.metavar) for one in command.params if isinstance(one, click.Argument)]
        yield from term(" ".join([name, "[OPTIONS]", *arguments]), " ".join((command.help or "").split()))
        for option in command.params:
            if isinstance(option, click.Option):
                yield ".RS"
                yield from option_of(option)
                yield ".RE"


def environment() -> Iterator[str]:
    yield ".SH ENVIRONMENT"
    yield "A TOML file, jcache.toml in the cache directory, sets the same: validate = 300."
    for setting in SETTINGS:
        default = "" if setting.default == "-" else f"; {setting.default} if it is not set"
        yield from term(setting.variable, f"{setting.help} ({setting.type}{default})")


def term(name: str, text: str) -> list[str]:
    return [".TP", f".B {roff(name)}", roff(text)]


def roff(text: str) -> str:
    """A line as roff takes it literally."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^(?=[.'])", r"\\&", text)


if __name__ == "__main__":
    PAGES.mkdir(parents=True, exist_ok=True)
    for path in PAGES.iterdir():
        path.unlink()
    for name, text in pages().items():
        (PAGES / name).write_text(text)
