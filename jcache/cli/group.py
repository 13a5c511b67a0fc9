"""The command group: knows its subcommands by name, and imports the one that is called."""

import importlib

import click

from jcache import __version__
from jcache.cli.errors import CommandError, WrongInputError

# Name: where the command is, and its line in `jcache --help`, which must not cost the import of all of them.
COMMANDS = {
    "run": ("jcache.cli.run:run", "Run a command with the cache switched on."),
    "serve": ("jcache_plugins.gateway.command:serve", "Serve remote files over HTTP, from the cache."),
    "mount": ("jcache_plugins.mount.command:mount", "Mount a remote directory, read-only, through the cache."),
    "report": ("jcache.cli.report:report", "Print what a run's I/O was, from its JSON reports."),
    "profile": ("jcache.cli.profile:profile", "Look at what jobs read, request by request."),
    "warm": ("jcache_plugins.replay.commands:warm", "Fill the cache before a job runs."),
    "replay": ("jcache_plugins.replay.commands:replay", "Make a recorded run's requests again."),
    "whatif": ("jcache.cli.whatif:whatif", "Tell what a run would have read from other caches."),
    "bundle": ("jcache.cli.bundle:bundle", "Carry an analysis away in one file, and look into it."),
    "top": ("jcache.cli.top:top", "Show the jobs that use a cache just now."),
    "ls": ("jcache.cli.ls:ls", "List the remote files that the cache holds bytes of."),
    "info": ("jcache.cli.info:info", "Tell what the cache holds of one remote file."),
    "clean": ("jcache.cli.clean:clean", "Remove journals: the least recently used, the old, some, or all."),
    "pin": ("jcache.cli.pin:pin", "Keep remote files in the cache, whatever its size."),
    "compact": ("jcache.cli.compact:compact", "Merge the segments of journals."),
    "config": ("jcache.cli.config:config", "Print the settings, and where each comes from."),
    "verify": ("jcache.cli.verify:verify_command", "Verify every checksum in the cache; repair it."),
    "doctor": ("jcache.cli.doctor:doctor", "Tell whether a directory is fit to be a cache."),
    "demo": ("jcache.cli.demo:demo", "Show on generated data what the cache does to an analysis."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; one that cannot be imported fails alone."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        """Return the commands in the order in which a newcomer meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's signature
        """Import a command; `None` where there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        module, attribute = COMMANDS[cmd_name][0].split(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as error:
            if error.name is not None and module.startswith(error.name):
                raise CommandError(f"this installation has no command '{cmd_name}'") from None
            raise CommandError(
                f"'jcache {cmd_name}' needs the Python package '{error.name}': install it, or jcache with its extras"
            ) from None
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Name the nearest where there is no such command."""
        name = args[0]
        if name not in COMMANDS and not name.startswith("-") and not ctx.resilient_parsing:
            from difflib import get_close_matches

            near = get_close_matches(name, COMMANDS, n=1)
            hint = f"did you mean '{near[0]}'?" if near else "'jcache --help' lists them"
            raise WrongInputError(f"no such command '{name}'; {hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's signature
        """Write the list of commands without importing one."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="jcache", message="%(prog)s %(version)s")
def main() -> None:
    """Cache exactly those byte ranges of remote files that a job reads, and report what its I/O was.

    Set JCACHE_DIR to a directory and run the job as ever; no command is needed for that.
    """
