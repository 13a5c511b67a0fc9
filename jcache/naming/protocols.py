"""What, besides the path, decides which object a path means: a table with one rule for each protocol.

A rule turns the path that a file system's methods receive, or a full URL, and the file system's options into an
`Address`. It names the options that it used, or that are idle here; what is left over decides, as far as anybody knows,
which bytes are meant, and enters the identity as well (see `identity.py`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from jcache.naming import credentials, signatures
from jcache.naming.address import (
    LOWER,
    Address,
    Request,
    Rule,
    Unidentifiable,
    endpoint,
    host_port,
    split_scheme,
    split_url,
    version_mark,
)  # fmt: skip
from jcache.naming.amazon import is_amazons, locate_s3

__all__ = ["Address", "Unidentifiable", "locate"]


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
    authority, path = split_url(where)
    if not authority.rpartition("@")[2]:
        raise Unidentifiable("an HTTP URL comes without its host")
    kept, cut = signatures.split_query(query, ignore=request.ignore)
    added, asked = signatures.split_query(_parameters(request.options.get("params")), ignore=request.ignore)
    # Where the client puts the two together, and how it spells them, is its affair: here they stay apart.
    extra = tuple(mark + text for mark, text in (("", kept), ("params ", added)) if text)
    asking = tuple(filter(None, (authority.rpartition("@")[0], cut, asked)))
    owning = tuple(
        (name, value)
        for options in (request.options, request.nested("client_kwargs"))
        for name, value in _headers(options.get("headers"))
        if credentials.is_secret(name) and name not in credentials.ASKING_HEADERS
    )
    host = host_port(authority, ports[request.scheme])
    key = signatures.access_key(cut)
    if key is not None and not is_amazons(host):
        owning += (("key", key),)  # as of an object that s3fs reads
    return Address(request.scheme, (host,), path or "/", extra, used, asking, owning)


def _headers(headers: object) -> list[tuple[str, str]]:
    """Return the request headers of an option, by name in lower case."""
    items = headers.items() if isinstance(headers, Mapping) else ()
    return sorted((str(name).lower(), str(value)) for name, value in items)


def _parameters(params: object) -> str:
    """Return the query that a client's `params` option adds to every URL."""
    if not params:
        return ""
    if isinstance(params, str):
        return params
    items = list(params.items()) if isinstance(params, Mapping) else params
    if not isinstance(items, (list, tuple)) or not all(isinstance(item, (list, tuple)) for item in items):
        raise Unidentifiable(f"option 'params' is of type {type(params).__name__}")
    from urllib.parse import urlencode

    return urlencode(items, doseq=True, errors="surrogatepass")


def _root(request: Request) -> Address:
    path, hostid = request.rest, request.text("hostid")
    if request.is_url:
        authority, path = split_url(path)
        path = path[1:]  # the first slash separates, and an absolute path brings its own
        hostid = hostid or authority
    if not hostid:
        raise Unidentifiable("an XRootD path comes without its host")
    path, _, query = path.partition("?")
    if path.startswith("/"):
        path = "/" + path.lstrip("/")
    kept, cut = signatures.split_query(query, ignore=request.ignore)
    used = frozenset({"hostid", "locate_all_sources", "valid_sources"})
    asking = tuple(filter(None, (hostid.rpartition("@")[0], cut)))
    return Address("root", (host_port(hostid, 1094),), path, (kept,) if kept else (), used, asking)


def _gcs(request: Request) -> Address:
    configured = request.text("endpoint_url") or request.environment("STORAGE_EMULATOR_HOST")
    where = endpoint(configured) if configured else "storage.googleapis.com"
    used = credentials.names("access default_location endpoint_url location project session_kwargs version_aware")
    return Address("gs", (where,), "/" + request.rest.lstrip("/"), version_mark(request, "#", "?generation="), used)


def _azure(request: Request) -> Address:
    rest, named = request.rest, None
    if request.is_url and "@" in rest.partition("/")[0]:  # container@account.dfs.core.windows.net/path
        authority, path = split_url(rest)
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
    return Address("abfs", (given.pop(),), "/" + rest.lstrip("/"), version_mark(request, "?versionid="), used)


def _blob_host(account: str) -> str:
    return f"{account}.blob.core.windows.net".translate(LOWER)


def _connection(text: str) -> str | None:
    """Return the endpoint that an Azure connection string names, without its keys."""
    fields = {name.strip().lower(): value for name, _, value in (item.partition("=") for item in text.split(";"))}
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        return "127.0.0.1:10000/devstoreaccount1"
    if blob := fields.get("blobendpoint"):
        return endpoint(blob)
    account, suffix = fields.get("accountname"), fields.get("endpointsuffix") or "core.windows.net"
    return f"{account}.blob.{suffix}".translate(LOWER) if account else None


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
            authority, path = split_url(path)
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
        if scheme == "sftp":
            user = user or request.environment("LOGNAME", "USER")  # as the client does
        extra = (f"user={user}",) if user and user_matters else ()
        return Address(scheme, (host_port(host, default_port),), path, extra, used)

    return rule


def _github(request: Request) -> Address:
    names = [request.text("org"), request.text("repo"), request.text("sha")]
    path = request.rest
    if request.is_url and "@" in path.partition("/")[0]:  # org:repo@sha/path
        authority, path = split_url(path)
        owner, _, sha = authority.rpartition("@")
        org, _, repo = owner.partition(":")
        names = [names[0] or org, names[1] or repo, names[2] or sha]
    org, repo, sha = (name or "" for name in names)
    if not org or not repo:
        raise Unidentifiable("a path of github comes without its repository")
    authorities = (org.translate(LOWER), repo.translate(LOWER), sha or "HEAD")
    return Address("github", authorities, "/" + path.lstrip("/"), (), frozenset({"org", "repo", "sha", "username"}))


def _gist(request: Request) -> Address:
    gist = request.text("gist_id")
    path = request.rest
    if request.is_url:
        authority, path = split_url(path)
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


def _webdav(request: Request) -> Address:
    address = _service("webdav", "base_url")(request)
    # Servers commonly give each user a root of their own.
    auth = request.options.get("auth")
    user = (str(auth[0]),) if isinstance(auth, (tuple, list)) and auth else ()
    # Slashes in front, and several in a row, mean nothing to the client.
    return address._replace(path=re.sub("/+", "/", address.path), owning=user)


def _refuse(why: str) -> Rule:
    def rule(request: Request) -> Address:
        raise Unidentifiable(f"{request.scheme}: {why}")

    return rule


def _unknown(request: Request) -> Address:
    # Nothing is known of this path, so nothing is cut that could be a name: a part that may be a password or a
    # signature is moved to where it is hashed.
    where, mark, query = request.rest.partition("?")
    kept, cut = signatures.split_query(query, ignore=request.ignore)
    extra = [f"?{kept}"] if mark else []
    authority, path = split_url(where)
    user, at, host = authority.rpartition("@")
    if at:
        extra.append(f"{user}@")
        where = host + path
    # Nor is it known whether each account has a namespace of its own.
    owning = tuple(_secrets(request.options, ()))
    return Address(request.scheme, (), "/" + where, tuple(extra), asking=(cut,) if cut else (), owning=owning)


def _secrets(options: Mapping[Any, object], outer: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield the credentials among options, by the names that lead to them, in a fixed order."""
    for name, value in sorted(options.items(), key=lambda item: str(item[0])):
        where = (*outer, str(name))
        if value is None or (outer and str(name).lower() in credentials.ASKING_HEADERS):
            continue
        if isinstance(value, Mapping):
            yield from _secrets(value, where)
        elif credentials.is_secret(str(name)):
            if not isinstance(value, (str, bytes, int, float, tuple, list)):
                raise Unidentifiable(f"option {'.'.join(where)!r} says who asks, and is a {type(value).__name__}")
            yield where, repr(value)


_RULES: dict[str, Rule] = {
    **dict.fromkeys(("http", "https"), _http),
    **dict.fromkeys(("root", "roots", "xroot", "xroots"), _root),
    **dict.fromkeys(("s3", "s3a", "s3n"), locate_s3),
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
    "webdav": _webdav,
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


def locate(
    protocols: tuple[str, ...],
    path: str,
    options: Mapping[str, object],
    environ: Mapping[str, str],
    *,
    ignore: frozenset[str] = frozenset(),
) -> Address:
    """Return the address of an object, by the rule of its protocol.

    Args:
        protocols: All names of the file system's protocol.
        path: What the file system's methods receive, or a full URL.
        options: The file system's options.
        environ: Environment variables, some of which name endpoints.
        ignore: Parameters of a query that decide nothing.

    Raises:
        Unidentifiable: It cannot be told safely which object this is.
    """
    names = tuple(name.translate(LOWER) for name in protocols if name)
    known = next((name for name in names if name in _RULES), None)
    scheme, rest = split_scheme(path)
    rule = _RULES[known] if known else _unknown
    if scheme and (scheme in names or (known and _RULES.get(scheme) is rule)):
        return rule(Request(scheme, rest, True, options, environ, ignore))
    if not names:
        raise Unidentifiable("the file system has no protocol")
    return rule(Request(known or names[0], path, False, options, environ, ignore))
