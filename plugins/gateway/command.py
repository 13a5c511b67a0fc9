"""`jcache serve`: remote files over HTTP, through the journals of a cache."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from jcache.activate.notice import say
from jcache.cli.errors import CommandError, WrongInputError
from jcache.cli.options import directory_option, paths, settings_of
from jcache.settings.config import Config

if TYPE_CHECKING:
    from jcache_plugins.gateway.xrootd import Door

__all__ = ["serve"]

_FILE = click.Path(exists=True, dir_okay=False)


@click.command("serve")
@directory_option
@click.option("--origin", metavar="URL", help="Mount this origin: /path is the file of that name below it.")
@click.option(
    "--allow",
    multiple=True,
    metavar="PATTERN",
    help="Forward to these origins: a host, *.host, host:port, https://host/path*, an address, a network. Repeatable.",
)
@click.option("--host", default="127.0.0.1", show_default=True, metavar="ADDRESS", help="Listen there.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 for one that is free.")
@click.option("--reuse-port", is_flag=True, help="Let the gateway that is to replace it listen there, too.")
@click.option("--workers", default=1, show_default=True, type=click.IntRange(1, 256), help="So many processes answer.")
@click.option("--name", "names", multiple=True, metavar="NAME", help="A name that it has for clients. Repeatable.")
@click.option("--validate", metavar="open|never|SECONDS", help="How long a remote file is trusted to be unchanged.")
@click.option("--token-file", type=_FILE, shell_complete=paths("file"), help="Serve who sends a token of this file.")
@click.option("--s3", is_flag=True, help="Serve clients of S3: directories of the origin's first level are buckets.")
@click.option("--s3-keys", type=_FILE, shell_complete=paths("file"), help="Serve who signs with a key of this file.")
@click.option(
    "--xrootd",
    metavar="PORT",
    type=click.IntRange(0, 65535),
    help="Serve root:// there, too, by a real xrootd before it; 0 for one that is free.",
)
@click.option("--cert", type=_FILE, shell_complete=paths("file"), help="Encrypt, with this certificate (PEM).")
@click.option("--key", type=_FILE, shell_complete=paths("file"), help="Its key, where it is in another file.")
@click.option("--client-ca", type=_FILE, shell_complete=paths("file"), help="Serve who has a certificate of these.")
@click.option("--access-log", metavar="FILE", shell_complete=paths("file"), help="Log requests there; - for stdout.")
@click.option("--connections", default=4096, show_default=True, type=click.IntRange(1), help="So many at once.")
@click.option(
    "--origin-requests", default=64, show_default=True, type=click.IntRange(1), help="So many to one origin at once."
)
@click.option("--per-client", type=click.IntRange(1), metavar="N", help="So many requests of one client at once.")
@click.option(
    "--drain",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0, 3600),
    metavar="SECONDS",
    help="How long requests may take yet after SIGTERM.",
)
def serve(
    *,
    directory: Path | None,
    origin: str | None,
    allow: tuple[str, ...],
    host: str,
    port: int,
    reuse_port: bool,
    workers: int,
    names: tuple[str, ...],
    validate: str | None,
    token_file: str | None,
    s3: bool,
    s3_keys: str | None,
    xrootd: int | None,
    cert: str | None,
    key: str | None,
    client_ca: str | None,
    access_log: str | None,
    connections: int,
    origin_requests: int,
    per_client: int | None,
    drain: float,
) -> None:
    """Serve remote files over HTTP, from the cache where it has them.

    With --origin, GET /path is a file of that origin. With --allow, GET /https://host/path is a file of another, and
    http_proxy may name the gateway; private addresses have to be named as they are, and so has what an origin redirects
    to. Nothing is allowed by default.

    It ends with SIGTERM or Ctrl-C, and prints the report of what it read. Sockets that systemd passes go before
    --host and --port. With --workers, each has its share of --connections and --origin-requests.

    \b
    Examples:
      jcache serve --dir /shared/jcache --origin root://eos.example.org//store
      jcache serve --allow '*.example.org' --port 3128
      jcache serve --s3 --origin root://eos.example.org//store   # AWS_ENDPOINT_URL=http://localhost:8080
      jcache serve --xrootd 1094 --origin https://dav.example.org/store   # root://localhost//data/file.root
      curl http://localhost:8080/data/file.root -o file.root

    \b
    Exit codes:
      0  it was told to end, and has ended
      1  it cannot listen there, nor write the log, or xrootd does not start
      2  an option or a setting is wrong
    """
    if origin is None and not allow:
        raise WrongInputError("nothing is served: give --origin URL, --allow PATTERN, or both")
    if s3 and (origin is None or (token_file is not None and s3_keys is None)):
        raise WrongInputError("--s3 goes with --origin; who may is said by --s3-keys, and --token-file is for a proxy")
    if s3_keys is not None and not s3:
        raise WrongInputError("--s3-keys is of use with --s3 only")
    if xrootd is not None and (origin is None or s3 or token_file is not None or cert is not None):
        raise WrongInputError("--xrootd goes with --origin, and without --s3, --token-file and --cert")
    if xrootd is not None and per_client is not None:
        raise WrongInputError("--per-client cannot tell apart the clients of --xrootd")
    if (key is not None or client_ca is not None) and cert is None:
        raise WrongInputError("--key and --client-ca are of use with --cert only")
    config = settings(directory, validate)
    from jcache_plugins.gateway.channel import inherited

    link = inherited()
    door = xrootd_door(host, xrootd) if xrootd is not None and link is None else None

    def started(address: str) -> None:
        say(f"serving at {address}")
        if door is not None:
            door.open(address)

    if workers > 1 and link is None:
        with ended(door):
            code = several(workers, host, port, reuse_port=reuse_port, drain_s=drain, started=started)
        raise click.exceptions.Exit(code)
    if link is not None:
        # Its parent hears of it as well, and tells it.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        import aiohttp  # noqa: F401 - whether it is there
    except ImportError:
        raise CommandError("'jcache serve' needs the Python package 'aiohttp': install jcache[http]") from None
    from jcache.activate import activate

    session = activate(config)
    import fsspec  # noqa: F401 - it is hooked as it is imported, by what is imported below as well

    from jcache_plugins.gateway import serving
    from jcache_plugins.gateway.allowed import PatternError
    from jcache_plugins.gateway.door import tls
    from jcache_plugins.gateway.places import OriginError
    from jcache_plugins.gateway.server import Options

    try:
        encryption = None if cert is None else tls(cert, key, client_ca)
    except OSError as error:
        raise WrongInputError(f"--cert, --key, --client-ca: {error}") from None
    options = Options(
        origin=origin,
        allow=allow,
        requests=-(-origin_requests // workers),
        token_file=token_file,
        access_log=access_log,
        names=names,
        s3=s3,
        key_file=s3_keys,
        per_client=per_client,
    )
    listening = serving.Listening(
        host=host,
        port=port,
        reuse_port=reuse_port,
        connections=-(-connections // workers),
        drain_s=drain,
        tls=encryption,
    )
    try:
        with ended(door):
            serving.serve(session, options, listening, started=started, link=link)
    except (PatternError, OriginError) as error:
        raise WrongInputError(str(error)) from None
    except ValueError as error:
        raise WrongInputError(f"{'--s3-keys' if s3 else '--token-file'}: {error}") from None
    except OSError as error:
        raise CommandError(f"{error.filename or f'{host}:{port}'}: {error.strerror or error}") from None


def xrootd_door(host: str, port: int) -> "Door":
    """Return what lets clients of XRootD in.

    Raises:
        CommandError: There is no xrootd.
    """
    from jcache_plugins.gateway.xrootd import Door, XrootdUnavailableError

    try:
        return Door(host=host, port=port)
    except XrootdUnavailableError as error:
        raise CommandError(f"--xrootd: {error}") from None


@contextlib.contextmanager
def ended(door: "Door | None") -> Iterator[None]:
    """Have a door closed that is opened inside.

    Raises:
        CommandError: It did not stay open.
    """
    try:
        yield
    finally:
        if door is not None:
            door.close()
    if door is not None and door.problem:
        raise CommandError(f"--xrootd: {door.problem}")


def several(
    count: int, host: str, port: int, *, reuse_port: bool, drain_s: float, started: Callable[[str], None]
) -> int:
    """Have several workers serve; return the exit code.

    Raises:
        CommandError: They cannot listen there.
    """
    from jcache.activate import start
    from jcache_plugins.gateway.sockets import have_standard_streams, listen
    from jcache_plugins.gateway.workers import Parent

    start()  # so that it prints their report
    have_standard_streams()
    try:
        listeners = listen(host, port, reuse_port=reuse_port)
    except OSError as error:
        raise CommandError(f"{host}:{port}: {error.strerror or error}") from None
    return Parent(count, listeners, is_offered=reuse_port, drain_s=drain_s, started=started).run()


def settings(directory: Path | None, validate: str | None) -> Config:
    """Return the settings, which are the environment's from now on.

    Raises:
        WrongInputError: One of them is wrong, or there is no cache directory.
    """
    config = settings_of(directory, validate, appname="jcache-serve")
    if config.validate == "open":
        from jcache_plugins.gateway.conditions import TRUST_S

        # Told to the session, other processes of this machine can do with its answers, and it with theirs.
        config = settings_of(directory, f"{TRUST_S:g}", appname="jcache-serve")
    return config
