"""The gateway: which requests it answers, and with what."""

import secrets
import socket
import time
import traceback
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from jcache.activate.notice import say
from jcache.session import Session
from jcache_plugins.gateway.allowed import Allowed, address_of
from jcache_plugins.gateway.answers import answer_file
from jcache_plugins.gateway.bodies import NotCachedError
from jcache_plugins.gateway.channel import Link
from jcache_plugins.gateway.conditions import CacheControl
from jcache_plugins.gateway.door import GivenLines, Tokens, is_name_known
from jcache_plugins.gateway.exchange import Exchange
from jcache_plugins.gateway.failures import failure_of, status_of
from jcache_plugins.gateway.fairness import Queues, TooManyError, client_at
from jcache_plugins.gateway.listing import listed, wants_json
from jcache_plugins.gateway.log import AccessLog
from jcache_plugins.gateway.metrics import Metrics, Numbers, text_of
from jcache_plugins.gateway.places import Place
from jcache_plugins.gateway.s3.service import Service
from jcache_plugins.gateway.s3.signatures import Keys
from jcache_plugins.gateway.targets import BadTargetError, Forwarded, Mounted, Target, parse

__all__ = ["Gateway", "Options"]

METHODS = "GET, HEAD"
# Methods that there are, but not here (RFC 9110, 9; RFC 5789); others are not known.
OTHERS = frozenset({"CONNECT", "DELETE", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"})
# What no origin raises, unless its library has a defect.
DEFECTS = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, TypeError)
HEALTH, METRICS = Mounted(("healthz",)), Mounted(("metrics",))


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a gateway serves, to whom, and how much at once.

    Attributes:
        origin: The URL of the origin that is mounted; None where none is.
        allow: Patterns of what is forwarded to, and redirected to; see `Allowed`.
        requests: How many requests may be made of one origin at once.
        token_file: A file with the tokens of those who may, or its lines; None where all may.
        access_log: Where requests are logged; None for nowhere.
        s3: Whether its clients are S3's, to whom the directories of the origin's first level are buckets.
        key_file: A file with the keys with which their requests are signed, or its lines; None where all may. With
            tokens as well, these are for what is forwarded.
        names: Names by which clients may know it, besides this machine's own; without any, and without tokens, it is
            known by these only where it listens on this machine only.
        per_client: How many requests of one client are answered at once; None for any number.
    """

    origin: str | None = None
    allow: tuple[str, ...] = ()
    requests: int = 64
    token_file: str | GivenLines | None = None
    access_log: str | None = None
    s3: bool = False
    key_file: str | GivenLines | None = None
    names: tuple[str, ...] = ()
    per_client: int | None = None


class Gateway:
    """Answers requests, on the event loop of fsspec's file systems.

    Attributes:
        metrics: What it has done.
        answering: The connections on which a request is being answered.
        ending: Whether connections end with the next answer.
    """

    def __init__(self, session: Session, options: Options, link: Link | None = None) -> None:
        """Ask no origin yet.

        Args:
            session: Whose journals are read.
            options: What is served.
            link: To the parent, where it is one of several workers.

        Raises:
            OriginError: The origin cannot be served.
            PatternError: A pattern is none.
            OSError: A file cannot be read or opened.
            ValueError: A file has not what it should.
        """
        self._session = session
        # By this a request is known that has come round to where it began.
        self._name = f"jcache-{secrets.token_hex(4)}" if link is None else link.name
        self._via = f"1.1 {self._name}"
        self.metrics = Metrics()
        self.answering: set[Any] = set()
        self.ending = False
        self._link = link
        self._allowed = Allowed(options.allow)
        self._tokens = None if options.token_file is None else Tokens(options.token_file)
        self._log = None if options.access_log is None else AccessLog(options.access_log)
        self._queues = Queues(options.per_client)
        self.metrics.waiting = lambda: self._queues.waiting
        self._own: set[str] = set()
        self._names = frozenset(name.lower().rstrip(".") for name in (*options.names, socket.gethostname()))
        self._checks_names = bool(options.names)
        self._mount = self._forward = self._s3 = None
        if options.origin is not None:
            how: dict[str, Any] = {"requests": options.requests, "via": self._via}
            self._mount = Place.mount(options.origin, patterns=options.allow, **how)
        if options.s3 and self._mount is not None:
            self._s3 = Service(self._mount, None if options.key_file is None else Keys(options.key_file))
        self._signs = self._s3 is not None and options.key_file is not None
        # Beside S3, whose clients sign, a proxy is for who has a token.
        if not self._allowed.is_nothing and (self._s3 is None or self._tokens is not None):
            self._forward = Place.forward(self._allowed, requests=options.requests, via=self._via)

    def is_at(self, host: str, port: int) -> None:
        """Take note of an address that clients may name in full: it is the gateway's own, not one to forward to."""
        self._own.add(f"{host.lower()}:{port}")
        address = address_of(host)
        if address is not None and address.is_loopback and self._tokens is None:
            self._checks_names = True

    def open(self) -> None:
        """Prepare to ask origins, on the event loop of their file systems."""
        for place in (self._mount, self._forward):
            if place is not None:
                place.open()

    async def close(self) -> None:
        """Close connections to origins, and the log."""
        for place in (self._mount, self._forward):
            if place is not None:
                await place.close()
        if self._log is not None:
            self._log.close()

    def numbers(self) -> Numbers:
        """Return what it has done, for Prometheus."""
        return self.metrics.numbers(self._session, lost=0 if self._log is None else self._log.lost)

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer a request."""
        exchange = Exchange(request, self._session, via=self._via, is_last=lambda: self.ending)
        self.metrics.under_way += 1
        self.answering.add(request.protocol)
        response: web.StreamResponse
        try:
            response = await self._answer(exchange)
        except Exception as error:  # noqa: BLE001 - the client gets a status for whatever it is
            response = self._failed(exchange, error)
        finally:
            self.answering.discard(request.protocol)
            self.metrics.under_way -= 1
            self._ended(exchange)
        if self.ending and not response.prepared:
            response.force_close()
        return response

    def _tell(self, what: str) -> None:
        """Say what is worth a line with JCACHE_LOG=info; no address, which may hold a secret."""
        if self._session.config.log in {"debug", "info"}:
            say(what)

    def _failed(self, exchange: Exchange, error: Exception) -> web.StreamResponse:
        status, text = failure_of(error)
        headers = exchange.headers()
        if isinstance(error, TooManyError):
            headers["Retry-After"] = "1"
        if isinstance(error, DEFECTS):
            status, text = 500, "Internal Server Error"
            where = traceback.extract_tb(error.__traceback__)[-1]
            say(f"a defect, please report it: {type(error).__name__} at {where.name}, line {where.lineno}")
        if isinstance(error, BadTargetError):
            response = exchange.plain(status, headers, f"{text}\n")
            response.force_close()
            return response
        return exchange.plain(status, headers, f"{text}\n")

    def _ended(self, exchange: Exchange) -> None:
        request, status = exchange.request, exchange.status or 499
        seconds = time.monotonic() - exchange.began_s
        self.metrics.ended(request.method, status, exchange.sent_bytes, exchange.hit_bytes, seconds)
        if exchange.trouble is not None:
            self.metrics.broken += 1
            self._tell(f"an answer was broken off: {type(exchange.trouble).__name__}")
        if self._log is not None:
            line = f"{request.method} {{}} HTTP/{request.version.major}.{request.version.minor}"
            peer = request.remote or "-"
            self._log.note(peer, line, request.raw_path, status=status, nbytes=exchange.sent_bytes)

    async def _answer(self, exchange: Exchange) -> web.StreamResponse:
        request = exchange.request
        if request.method not in {"GET", "HEAD"}:
            return self._not_a_method(exchange)
        if request.version >= (1, 1) and len(request.headers.getall("Host", ())) != 1:
            raise BadTargetError("a request has one Host field")  # RFC 9112, 3.2
        if self._checks_names and not self._is_known(exchange):
            return exchange.plain(421, exchange.headers(), "this gateway has another name; --name gives it one more\n")
        target = self._target(request.raw_path)
        if target == HEALTH:
            return exchange.plain(200, exchange.headers() | {"Cache-Control": "no-store"}, "ok\n")
        client: object = client_at(request.remote)
        is_signed = self._signs and isinstance(target, Mounted) and target != METRICS  # which the service checks
        exchange.is_private = is_signed or self._tokens is not None
        if self._tokens is not None and not is_signed:
            said = [self._tokens.found(exchange.fields.get(name)) for name in ("Authorization", "Proxy-Authorization")]
            token = next((one for one in said if one is not None), None)
            if token is None:
                return self._refusal(exchange)
            client = token
        if target == METRICS and self._signs and self._tokens is None:  # which nobody signs who asks for them
            return exchange.plain(403, exchange.headers(), "metrics are for who has a token, see --token-file\n")
        if target == METRICS:
            text = text_of(self.numbers() if self._link is None else await self._link.total())
            kind = {"Content-Type": "text/plain", "Cache-Control": "no-store"}
            return exchange.plain(200, exchange.headers() | kind, text)
        if self._name in (exchange.fields.get("Via") or ""):
            return exchange.plain(508, exchange.headers(), "the request has come round to where it began\n")
        async with self._queues.turn(client):
            return await self._served(exchange, target)

    async def _served(self, exchange: Exchange, target: Target) -> web.StreamResponse:
        if self._session.late:
            self._session.catch_up()
        await self._session.caches.prepare()
        if self._s3 is not None and isinstance(target, Mounted):
            return await self._s3.answer(exchange, target)
        if isinstance(target, Forwarded):
            if self._s3 is not None and self._forward is None:
                raise BadTargetError("only what is mounted is served to clients of S3")
            self._allowed.check(target)
            assert self._forward is not None, "something is allowed"
            return await self._file(exchange, self._forward, target)
        if self._mount is None:
            raise FileNotFoundError
        if target.is_directory:
            return await self._directory(exchange, self._mount, target)
        try:
            return await self._file(exchange, self._mount, target)
        except Exception as error:
            if status_of(error) != 404:
                raise
            told = isinstance(error, IsADirectoryError)
            if exchange.is_begun or not (told or (not self._mount.is_http and await self._mount.is_directory(target))):
                raise
            # Relative: a path that begins with two slashes would be another host's.
            return exchange.plain(301, exchange.headers() | {"Location": target.below}, "it is a directory\n")

    def _is_known(self, exchange: Exchange) -> bool:
        """Whether a request names the gateway by a name of its own, or has it for a proxy."""
        host = exchange.fields.get("Host")
        return host is None or not exchange.request.raw_path.startswith("/") or is_name_known(host, self._names)

    def _target(self, raw: str) -> Target:
        """Return what a request asks for; a URL of the gateway's own is a path of it (RFC 9112, 3.2.2)."""
        target = parse(raw)
        if isinstance(target, Forwarded) and not raw.startswith("/") and f"{target.host}:{target.port}" in self._own:
            return parse(target.path + target.query)
        return target

    async def _file(self, exchange: Exchange, place: Place, target: Target) -> web.StreamResponse:
        response: web.StreamResponse = await answer_file(exchange, place, place.path(target))
        return response

    async def _directory(self, exchange: Exchange, place: Place, target: Mounted) -> web.StreamResponse:
        if CacheControl.of(exchange.fields).only_if_cached:
            raise NotCachedError
        found = await place.entries(target)
        base = place.path(target).strip("/")
        if len(found) == 1 and str(found[0].get("name", "")).strip("/") == base and found[0].get("type") != "directory":
            raise NotADirectoryError
        as_json = wants_json(exchange.fields.get("Accept") or "")
        path = "/" + "/".join(target.names)
        kind, text = listed(path, found, as_json=as_json, urls=place.is_http)
        headers = exchange.headers() | {"Content-Type": kind, "Vary": "Accept", "Cache-Control": "no-cache"}
        if kind == "text/html":
            headers["Content-Security-Policy"] = "default-src 'none'"
        return exchange.plain(200, headers, text)

    def _refusal(self, exchange: Exchange) -> web.Response:
        """Return the answer to who has no token."""
        is_proxied = not exchange.request.raw_path.startswith("/")
        status, name = (407, "Proxy-Authenticate") if is_proxied else (401, "WWW-Authenticate")
        return exchange.plain(status, exchange.headers() | {name: 'Bearer realm="jcache"'}, "a token is needed\n")

    def _not_a_method(self, exchange: Exchange) -> web.Response:
        status = 405 if exchange.request.method in OTHERS else 501
        response = exchange.plain(status, exchange.headers() | {"Allow": METHODS}, f"only {METHODS}\n")
        response.force_close()  # a body may follow, or another protocol
        return response
