"""What, besides the path, decides which object a path means: a table with one rule for each protocol.

A rule turns the path that a file system's methods receive, or a full URL, and the file system's options into an
`Address`. It names the options that it used, or that are idle here; what is left over decides, as far as anybody knows,
which bytes are meant, and enters the identity as well (see `identity.py`).
"""

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from jcache.cache import credentials
from jcache.cache.layout import digest


class Unidentifiable(Exception):  # noqa: N818 (a verdict that leads to a bypass, like a miss; no failure)
    """It cannot be told safely which remote object is meant, so it must not be cached; the message says why."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a program gave to name an object."""

    scheme: str
    """The URL's, else the file system's protocol."""

    rest: str
    """The path, or what stands behind the `://` of a URL."""

    is_url: bool
    options: Mapping[str, object]
    environ: Mapping[str, str]

    def text(self, *names: str) -> str | None:
        """Return the value that options of these names agree on, None where none is given.

        Raises:
            Unidentifiable: Two of them differ, or one is no text.
        """
        given = {value for name in names if (value := _text(self.options, name)) is not None}
        if len(given) > 1:
            raise Unidentifiable(f"the options {', '.join(map(repr, names))} contradict each other")
        return given.pop() if given else None

    def nested(self, name: str) -> Mapping[str, object]:
        """Return an option that is a mapping itself, empty where there is none."""
        value = self.options.get(name)
        return value if isinstance(value, Mapping) else {}

    def environment(self, *names: str) -> str | None:
        """Return the first of these environment variables that is set and not empty."""
        return next((self.environ[name] for name in names if self.environ.get(name)), None)


@dataclass(frozen=True, slots=True)
class Address:
    """Where an object is, free of credentials."""

    scheme: str
    authority: tuple[str, ...]
    """Names between the scheme and the path: a host, an endpoint, an organisation and its repository."""

    path: str
    """As the server sees it, spelt as it was given; begins with a slash unless it is relative to something unknown."""

    extra: tuple[str, ...] = ()
    """What else decides which bytes are meant. It may hold secrets that no rule knows: to be hashed."""

    used: frozenset[str] = frozenset()
    """Options that are in the address already, or have no part in the identity."""


Rule = Callable[[Request], Address]

_LOWER = str.maketrans("ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://", re.ASCII)


def split_scheme(path: str) -> tuple[str, str]:
    """Return the scheme of a URL in lower case, empty for a plain path, and what stands behind its `://`."""
    match = _SCHEME.match(path)
    return (match[1].translate(_LOWER), path[match.end() :]) if match else ("", path)


def host_port(authority: str, default_port: int | None = None) -> str:
    """Return a host and its port as one name, whatever the spelling.

    Args:
        authority: `user:password@host:port`, of which only the host must be there.
        default_port: The port that is left out; None leaves every port where it is.

    Returns:
        `host` or `host:port`, in lower case and without credentials.
    """
    host = authority.rpartition("@")[2].translate(_LOWER)
    name, colon, port = host.rpartition(":")
    if not colon or not (port == "" or (port.isascii() and port.isdigit() and len(port) < 10)):
        return host
    return name if port == "" or int(port) == default_port else f"{name}:{int(port)}"


def endpoint(url: str) -> str:
    """Return the address of a service without credentials, query and `https`, which is the default.

    Args:
        url: `https://host:port/path`, or a host with or without a port.
    """
    scheme, rest = split_scheme(url.strip())
    authority, slash, path = re.split("[?#]", rest, maxsplit=1)[0].partition("/")
    if scheme == "http" and not re.search(r":[0-9]+\Z", authority):
        authority += ":80"
    return host_port(authority, 443) + (slash + path).rstrip("/")


def _text(options: Mapping[str, object], name: str) -> str | None:
    value = options.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, (str, int)):
        raise Unidentifiable(f"option {name!r} is of type {type(value).__name__}, not a text")
    return str(value)


def _split_url(rest: str) -> tuple[str, str]:
    authority, slash, path = rest.partition("/")
    return authority, slash + path


def _http(request: Request) -> Address:
    ports = {"http": 80, "https": 443}
    if not request.is_url or request.scheme not in ports:
        raise Unidentifiable("an HTTP path is not a full URL")
    # Objects in these would otherwise be refused, but none of them decides what a full URL means.
    used = credentials.names(
        "auth cookie_jar cookies proxy proxy_auth proxy_headers same_scheme simple_links size_policy params"
    )
    if not request.options.get("encoded"):
        used |= {"encoded"}  # the client's default
    if getattr(request.options.get("get_client"), "__module__", None) == "fsspec.implementations.http":
        used |= {"get_client"}
    where, _, query = request.rest.partition("#")[0].partition("?")
    # aiohttp takes the authority to end at the first slash or question mark; a backslash is no separator to it.
    authority, path = _split_url(where)
    if not authority.rpartition("@")[2]:
        raise Unidentifiable("an HTTP URL comes without its host")
    extra = credentials.strip_query("&".join([query, *_parameters(request.options.get("params"))]))
    return Address(request.scheme, (host_port(authority, ports[request.scheme]),), path or "/", tuple(extra), used)


def _parameters(params: object) -> list[str]:
    """Return the query items that a client's `params` option adds to every URL."""
    if not params:
        return []
    if isinstance(params, str):
        return [params]
    items = list(params.items()) if isinstance(params, Mapping) else params
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, (list, tuple)) for item in items):
        raise Unidentifiable(f"option 'params' is of type {type(params).__name__}")
    from urllib.parse import urlencode

    return [urlencode(items, doseq=True, errors="surrogatepass")]


# Here the CGI does decide: a member of a ZIP archive, and a file that is named by its identifier.
_ROOT_CGI = frozenset({"xrdcl.unzip", "eos.lfn"})


def _root(request: Request) -> Address:
    path, hostid = request.rest, request.text("hostid")
    if request.is_url:
        authority, path = _split_url(path)
        path = path[1:]  # the first slash separates, and an absolute path brings its own
        hostid = hostid or authority
    if not hostid:
        raise Unidentifiable("an XRootD path comes without its host")
    path, _, query = path.partition("?")
    if path.startswith("/"):
        path = "/" + path.lstrip("/")
    cgi = sorted(item for item in query.split("&") if item.partition("=")[0] in _ROOT_CGI)
    used = frozenset({"hostid", "locate_all_sources", "valid_sources"})
    return Address("root", (host_port(hostid, 1094),), path, tuple(cgi), used)


def _s3(request: Request) -> Address:
    client = request.nested("client_kwargs")
    given = {endpoint(url) for url in (request.text("endpoint_url"), _text(client, "endpoint_url")) if url}
    if len(given) > 1:
        raise Unidentifiable("'endpoint_url' and 'client_kwargs' name two different endpoints")
    if given:
        where = given.pop()
    elif configured := request.environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        where = endpoint(configured)
    else:
        region = _text(client, "region_name") or request.environment("AWS_DEFAULT_REGION", "AWS_REGION")
        where = _aws_partition(region or "") + _aws_configuration(request)
    used = credentials.names("endpoint_url client_kwargs config_kwargs key profile session username version_aware")
    return Address("s3", (where,), "/" + request.rest, (), used)


def _aws_partition(region: str) -> str:
    """Return the name of the world in which the names of buckets are unique."""
    for prefix, name in (("cn-", "s3.amazonaws.com.cn"), ("us-gov-", "s3.us-gov.amazonaws.com")):
        if region.startswith(prefix):
            return name
    return "s3." + region if region.startswith(("us-iso", "eu-iso", "eusc-")) else "s3.amazonaws.com"


def _aws_configuration(request: Request) -> str:
    """Return a mark of what the user's AWS configuration file says of endpoints; empty where it says nothing."""
    import os.path

    path = request.environment("AWS_CONFIG_FILE") or os.path.join(request.environ.get("HOME") or "~", ".aws", "config")
    lines = _endpoint_lines(os.path.expanduser(path))
    profile = request.text("profile") or request.environment("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
    return "-" + digest(repr((profile, lines)), 16) if lines else ""


@functools.cache
def _endpoint_lines(path: str) -> tuple[str, ...]:
    wanted = re.compile(r"\s*(\[|services\s*=|s3\s*=|endpoint_url\s*=|region\s*=\s*(cn-|us-gov-|us-iso|eu-iso|eusc-))")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = tuple(line.strip() for line in file if wanted.match(line))
    except OSError:  # no file, or none that the AWS library could read either
        return ()
    return lines if any(not line.startswith("[") for line in lines) else ()


def _gcs(request: Request) -> Address:
    configured = request.text("endpoint_url") or request.environment("STORAGE_EMULATOR_HOST")
    where = endpoint(configured) if configured else "storage.googleapis.com"
    used = credentials.names("access default_location endpoint_url location project session_kwargs version_aware")
    return Address("gs", (where,), "/" + request.rest, (), used)


def _azure(request: Request) -> Address:
    rest, named = request.rest, None
    if request.is_url and "@" in rest.partition("/")[0]:  # container@account.dfs.core.windows.net/path
        authority, path = _split_url(rest)
        container, _, where = authority.rpartition("@")
        rest, named = container + path, where.partition(".")[0]
    connection = request.text("connection_string") or request.environment("AZURE_STORAGE_CONNECTION_STRING")
    account, host = request.text("account_name"), request.text("account_host")
    # Which of them wins has changed between versions of the client.
    given = {endpoint(host)} if host else {_blob_host(account)} if account else set()
    if connection and (connected := _connection(connection)):
        given.add(connected)
    if len(given) > 1:
        raise Unidentifiable("the Azure account and the connection string name different accounts")
    fallback = named or request.environment("AZURE_STORAGE_ACCOUNT_NAME")
    if not given and fallback:
        given.add(_blob_host(fallback))
    if not given:
        raise Unidentifiable("an Azure path comes without its storage account")
    used = credentials.names(
        "account_host account_key account_name assume_container_exists client_id connection_string location_mode"
        " request_session tenant_id version_aware"
    )
    return Address("abfs", (given.pop(),), "/" + rest, (), used)


def _blob_host(account: str) -> str:
    return f"{account}.blob.core.windows.net".translate(_LOWER)


def _connection(text: str) -> str | None:
    """Return the endpoint that an Azure connection string names, without its keys."""
    fields = {name.strip().lower(): value for name, _, value in (item.partition("=") for item in text.split(";"))}
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        return "127.0.0.1:10000/devstoreaccount1"
    if blob := fields.get("blobendpoint"):
        return endpoint(blob)
    account, suffix = fields.get("accountname"), fields.get("endpointsuffix") or "core.windows.net"
    return f"{account}.blob.{suffix}".translate(_LOWER) if account else None


def _host(scheme: str, default_port: int, *, user_matters: bool) -> Rule:
    """Return the rule of a protocol whose options name a host and a port.

    Args:
        scheme: The protocol's canonical name.
        default_port: The port that the file system takes by itself.
        user_matters: Whether servers commonly give each user a root of their own, so that a path alone says little.
    """

    def rule(request: Request) -> Address:
        host, port = request.text("host"), request.text("port")
        user = request.text("username", "user")
        path = request.rest
        if request.is_url:
            authority, path = _split_url(path)
            own, _, where = authority.rpartition("@")
            user = user or own.partition(":")[0]
            host = host or where
        # Hadoop's "default" is whatever the configuration of this machine says.
        if not host or (scheme == "hdfs" and host == "default"):
            raise Unidentifiable(f"a path of {scheme} comes without its host")
        if host.count(":") > 1 and not host.startswith("["):
            host = f"[{host}]"  # an IPv6 address as options spell it
        if port and not (request.is_url and re.search(r":[0-9]+\Z", host)):
            host = f"{host}:{port}"
        used = credentials.names(
            "host port username user acct tls kerberos kerb_kwargs kerb_ticket kerb_keytab proxy_to use_https"
            " session_cert session_verify encrypt share_access register_session_retries register_session_retry_wait"
            " register_session_retry_factor host_key_policy look_for_keys allow_agent pkey compress"
        )
        extra = (f"user={user}",) if user and user_matters else ()
        return Address(scheme, (host_port(host, default_port),), path, extra, used)

    return rule


def _github(request: Request) -> Address:
    names = [request.text("org"), request.text("repo"), request.text("sha")]
    path = request.rest
    if request.is_url and "@" in path.partition("/")[0]:  # org:repo@sha/path
        authority, path = _split_url(path)
        owner, _, sha = authority.rpartition("@")
        org, _, repo = owner.partition(":")
        names = [names[0] or org, names[1] or repo, names[2] or sha]
    org, repo, sha = (name or "" for name in names)
    if not org or not repo:
        raise Unidentifiable("a path of github comes without its repository")
    authorities = (org.translate(_LOWER), repo.translate(_LOWER), sha or "HEAD")
    return Address("github", authorities, "/" + path.lstrip("/"), (), frozenset({"org", "repo", "sha", "username"}))


def _gist(request: Request) -> Address:
    gist = request.text("gist_id")
    path = request.rest
    if request.is_url:
        authority, path = _split_url(path)
        gist = gist or authority.rpartition("@")[2]
    if not gist:
        raise Unidentifiable("a path of gist comes without the gist's identifier")
    used = frozenset({"gist_id", "sha", "filenames", "username"})
    return Address("gist", (gist, request.text("sha") or "HEAD"), "/" + path.lstrip("/"), (), used)


def _service(scheme: str, *names: str, variables: tuple[str, ...] = (), default: str | None = None) -> Rule:
    """Return the rule of a protocol whose options name a service, the paths being names within it.

    Args:
        scheme: The protocol's canonical name.
        names: Options that may hold the service's URL or host.
        variables: Environment variables that may do so where no option does.
        default: The service where nothing names one; None refuses.
    """

    def rule(request: Request) -> Address:
        where = request.text(*names) or request.environment(*variables) or default
        if not where:
            raise Unidentifiable(f"a path of {scheme} comes without {' or '.join(names)}")
        return Address(scheme, (endpoint(where),), "/" + request.rest, (), frozenset({*names, "expand_info"}))

    return rule


def _refuse(why: str) -> Rule:
    def rule(request: Request) -> Address:
        raise Unidentifiable(f"{request.scheme}: {why}")

    return rule


def _unknown(request: Request) -> Address:
    # Nothing is known of this path, so nothing is cut that could be a name: a part that may be a password or a
    # signature is moved to where it is hashed.
    where, mark, query = request.rest.partition("?")
    extra = [f"?{item}" for item in credentials.strip_query(query)] if mark else []
    authority, path = _split_url(where)
    user, at, host = authority.rpartition("@")
    if at:
        extra.append(f"{user}@")
        where = host + path
    return Address(request.scheme, (), "/" + where, tuple(extra))


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("http", "https"), _http),
    **dict.fromkeys(("root", "roots", "xroot", "xroots"), _root),
    **dict.fromkeys(("s3", "s3a", "s3n"), _s3),
    **dict.fromkeys(("gs", "gcs"), _gcs),
    **dict.fromkeys(("abfs", "abfss", "az", "wasb", "wasbs"), _azure),
    **dict.fromkeys(("sftp", "ssh"), _host("sftp", 22, user_matters=True)),
    "ftp": _host("ftp", 21, user_matters=True),
    "smb": _host("smb", 445, user_matters=True),
    "webhdfs": _host("webhdfs", 50070, user_matters=False),
    **dict.fromkeys(("hdfs", "arrow_hdfs"), _host("hdfs", 8020, user_matters=False)),
    "github": _github,
    "gist": _gist,
    "hf": _service("hf", "endpoint", variables=("HF_ENDPOINT",), default="huggingface.co"),
    **dict.fromkeys(("jupyter", "jlab"), _service("jupyter", "url")),
    "dbfs": _service("dbfs", "instance"),
    "oss": _service("oss", "endpoint", variables=("OSS_ENDPOINT",)),
    "webdav": _service("webdav", "base_url"),
    **dict.fromkeys(
        ("box", "dropbox", "gdrive", "msgd", "onedrive"), _refuse("what a path means depends on the account that asks")
    ),
    **dict.fromkeys(("file", "local", "asynclocal", "memory", "data", "git", "pyscript"), _refuse("is not remote")),
    **dict.fromkeys(
        (
            "async_wrapper", "asyncwrapper", "blockcache", "cached", "dask", "dir", "dvc", "filecache", "generic",
            "jcache", "libarchive", "reference", "simplecache", "tar", "zip",
        ),
        _refuse("is a view of another file system, which is the one to cache"),
    ),
}  # fmt: skip


def locate(protocols: tuple[str, ...], path: str, options: Mapping[str, object], environ: Mapping[str, str]) -> Address:
    """Return the address of an object, by the rule of its protocol.

    Args:
        protocols: All names of the file system's protocol.
        path: What the file system's methods receive, or a full URL.
        options: The file system's options.
        environ: Environment variables, some of which name endpoints.

    Raises:
        Unidentifiable: It cannot be told safely which object this is.
    """
    names = tuple(name.translate(_LOWER) for name in protocols if name)
    known = next((name for name in names if name in _RULES), None)
    scheme, rest = split_scheme(path)
    rule = _RULES[known] if known else _unknown
    if scheme and (scheme in names or (known and _RULES.get(scheme) is rule)):
        return rule(Request(scheme, rest, True, options, environ))
    if not names:
        raise Unidentifiable("the file system has no protocol")
    return rule(Request(known or names[0], path, False, options, environ))
