"""The `jcache` command: one module per subcommand, imported when it is called."""

from jcache.cli.group import main

__all__ = ["main"]
