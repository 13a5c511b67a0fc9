"""How commands fail: one line on stderr and an exit code."""

from typing import IO, Any

import click


class CommandError(click.ClickException):
    """The command did not do its work, for a reason that the user can mend."""

    exit_code = 1

    def show(self, file: IO[Any] | None = None) -> None:
        """Print the message in the form of the library's own warnings."""
        from jcache.report.faces.units import visible

        click.echo(f"jcache: {visible(self.format_message())}", file=file, err=file is None)


class WrongInputError(CommandError):
    """A path or a value that was given is wrong."""

    exit_code = 2
