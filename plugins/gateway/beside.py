"""A gateway beside a command: `jcache run --gateway` starts it, in a process of its own, and it ends with that one.

It makes the key and the token that only the command is to have, and tells them on stdout, where nobody else reads.
Neither is ever in a file or on a command line.
"""

import json
import os
import secrets
import signal
import sys
import threading

import click

from jcache.cli.errors import CommandError, WrongInputError
from jcache_plugins.gateway.command import settings

__all__ = ["beside"]

# The command is over by then: nobody waits for what its processes left under way.
DRAIN_S = 1.0
USER = "jcache"
# A batch system, or who ends a group of processes, sends these to the command, which may read on.
FOR_THE_COMMAND = (
    signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM,
)  # fmt: skip
# What its own thread ends it with.
ENDING = signal.SIGRTMIN + 5


@click.command("beside")
@click.option("--s3", is_flag=True)
@click.option("--allow", multiple=True)
def beside(*, s3: bool, allow: tuple[str, ...]) -> None:
    """Serve until stdin ends; a line of JSON on stdout says where, and with which keys."""
    for number in FOR_THE_COMMAND:
        signal.signal(number, signal.SIG_IGN)
    config = settings(None, None)
    try:
        import aiohttp  # noqa: F401 - whether it is there
    except ImportError:
        raise CommandError("--gateway needs the Python package 'aiohttp': install jcache[http]") from None
    from jcache.activate import activate

    session = activate(config)
    import fsspec.config  # it is hooked as it is imported, by what is imported below as well

    if s3 and _has_no_keys():
        fsspec.config.conf.setdefault("s3", {}).setdefault("anon", True)  # for what anybody may read

    from jcache_plugins.gateway import serving
    from jcache_plugins.gateway.allowed import PatternError
    from jcache_plugins.gateway.door import GivenLines
    from jcache_plugins.gateway.places import OriginError
    from jcache_plugins.gateway.server import Options

    key, secret, token = secrets.token_hex(10).upper(), secrets.token_urlsafe(30), secrets.token_urlsafe(30)
    options = Options(
        origin="s3://" if s3 else None,
        allow=allow,
        token_file=GivenLines((token.encode(),)),
        s3=s3,
        key_file=GivenLines((f"{key} {secret}".encode(),)) if s3 else None,
    )

    def started(address: str) -> None:
        told = {"url": address, "user": USER, "token": token, "key": key, "secret": secret}
        click.echo(json.dumps(told))
        threading.Thread(target=_end_with_stdin, name="jcache-gateway-end", daemon=True).start()

    try:
        listening = serving.Listening(port=0, drain_s=DRAIN_S)
        serving.serve(session, options, listening, started=started, signals=(ENDING,))
    except (PatternError, OriginError) as error:
        raise WrongInputError(f"--gateway: {error}") from None
    except OSError as error:
        raise CommandError(f"--gateway: {error.strerror or error}") from None


def _has_no_keys() -> bool:
    """Whether the environment, and what it leads to, has no keys to ask S3 with."""
    try:
        from botocore.session import get_session
    except ImportError:
        return False  # nor is there s3fs, which is said where the origin is mounted
    return get_session().get_credentials() is None


def _end_with_stdin() -> None:
    """Wait until whoever started the gateway has ended or wants it to end; then end it."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os.kill(os.getpid(), ENDING)


if __name__ == "__main__":
    beside()
