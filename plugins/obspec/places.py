"""Where a store of obstore has its objects, in the words of fsspec's file systems: an object has one name for both.

A store's configuration is that of its constructor, and what it leaves open obstore takes from the environment. What is
not known here may decide which bytes a path means: such stores are not cached.
"""

import inspect
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import obstore.store

from jcache.naming import Unidentifiable
from jcache.naming.credentials import ASKING_HEADERS, IDLE_HEADERS, names
from jcache_plugins.origins.base import beside

__all__ = ["Place", "place_of", "watch"]

_S3 = names(
    """
    access_key_id bucket checksum_algorithm conditional_put container_authorization_token_file
    container_credentials_full_uri container_credentials_relative_uri copy_if_not_exists default_region
    disable_bulk_delete disable_tagging endpoint endpoint_url_s3 imdsv1_fallback metadata_endpoint region request_payer
    role_arn role_session_name s3_express secret_access_key server_side_encryption session_token skip_signature
    sse_bucket_key_enabled sse_customer_key_base64 sse_kms_key_id sts_endpoint token unsigned_payload
    virtual_hosted_style_request web_identity_token_file
    """
)
_GCS = names(
    "application_credentials bucket bucket_name service_account service_account_key service_account_path skip_signature"
)
_AZURE = names(
    """
    account_key account_name authority_host authority_id bearer_token client_id client_secret container_name
    credential_type disable_tagging encryption_key endpoint fabric_cluster_identifier fabric_session_token
    fabric_token_service_url fabric_workload_host federated_token_file msi_endpoint msi_resource_id object_id sas_key
    skip_signature tenant_id token use_azure_cli use_emulator use_fabric_endpoint
    """
)
_TRUE = frozenset({"1", "true", "on", "yes", "y"})
# The files that fsspec's client of S3 reads, and obstore does not.
_NO_FILES = {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}
# What a URL's path has as it is; obstore escapes the rest.
_PLAIN = "/!$&'()*+,;=:@[]~"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a store's objects are.

    Attributes:
        protocols: The names of the protocol that fsspec reads them by.
        root: What stands before each path.
        options: Those of fsspec's file system that would read there.
        environ: What it would read in the environment.
        is_http: Whether it is any HTTP server, and names are parts of URLs.
        is_asked_for_one: Whether the requests say who asks in a way that a server need not heed.
    """

    protocols: tuple[str, ...]
    root: str
    options: Mapping[str, object]
    environ: Mapping[str, str]
    is_http: bool = False
    is_asked_for_one: bool = False

    def path(self, path: str) -> str | None:
        """Return the path that fsspec has for one of the store; None where obstore makes another one of it."""
        if not path or any(part in {"", ".", ".."} for part in path.split("/")):
            return None
        return self.root + (quote(path, safe=_PLAIN) if self.is_http else path)


class _Settings:
    """What a store was told, and what it took from the environment."""

    def __init__(self, store: Any, known: frozenset[str], *variables: str) -> None:
        self._config: Mapping[str, Any] = store.config or {}
        self._variables = variables
        for name in self._config:
            if name not in known:
                raise Unidentifiable(f"{type(store).__name__}: option {name!r} may decide which bytes are meant")
        if headers := _deciding(_headers(store)):
            raise Unidentifiable(f"{type(store).__name__}: header {headers[0]!r} may decide which bytes are meant")

    def text(self, *options: str) -> str | None:
        """Return the first of these options that is there."""
        for name in options:
            value = self._config.get(name)
            if value not in {None, ""}:
                return str(value)
        variables = (f"{prefix}{name.upper()}" for name in options for prefix in self._variables)
        return next((value for name in variables if (value := os.environ.get(name))), None)

    def flag(self, option: str) -> bool:
        """Whether an option is on."""
        return (self.text(option) or "").lower() in _TRUE


def _headers(store: Any) -> dict[str, str]:
    """Return the headers that a store sends with each request."""
    given = (store.client_options or {}).get("default_headers") or {}
    return {str(name): value.decode() if isinstance(value, bytes) else str(value) for name, value in given.items()}


def _deciding(headers: Mapping[str, str]) -> list[str]:
    return [name for name in headers if name.lower() not in ASKING_HEADERS | IDLE_HEADERS]


def _root(store: Any, container: str | None) -> str:
    if not container:
        raise Unidentifiable(f"{type(store).__name__}: it does not say where its objects are")
    return f"{container}/{store.prefix}/" if store.prefix else f"{container}/"


def _s3(store: Any) -> Place:
    said = _Settings(store, _S3, "AWS_")
    bucket, anonymous = said.text("bucket", "bucket_name"), said.flag("skip_signature")
    endpoint = said.text("endpoint_url_s3") or said.text("endpoint", "endpoint_url")
    options: dict[str, object] = {"anon": True} if anonymous else {}
    environ = dict(_NO_FILES)
    if region := said.text("region", "default_region"):
        environ["AWS_REGION"] = region
    if endpoint is not None and said.flag("virtual_hosted_style_request"):
        scheme, mark, rest = endpoint.partition("://")
        if not rest.startswith(f"{bucket}."):
            raise Unidentifiable("S3Store: the endpoint is that of a bucket, and does not name it")
        endpoint = f"{scheme}{mark}{rest.removeprefix(f'{bucket}.')}"
    if not anonymous:
        options |= {"secret": said.text("secret_access_key"), "token": said.text("session_token", "token")}
        key = None if store.credential_provider else said.text("access_key_id")
        if endpoint is not None and not key:
            # Elsewhere than at Amazon's own they may decide whose bucket this is.
            raise Unidentifiable("S3Store: the endpoint is another one than Amazon's, and it is not told who asks")
        options |= {"key": key, "credential_provider": store.credential_provider}
    if endpoint is not None:
        options["endpoint_url"] = endpoint
    return Place(("s3", "s3a"), _root(store, bucket), options, environ)


def _gcs(store: Any) -> Place:
    said = _Settings(store, _GCS, "GOOGLE_")
    # By other validators than those of fsspec's client, which asks another interface of the same service: each of them
    # would find that what the other recorded is out of date.
    options: dict[str, object] = {"client": "obstore", "credential_provider": store.credential_provider}
    key = said.text("service_account_key")
    file = said.text("service_account", "service_account_path", "application_credentials")
    for text in (key, _content(file)):
        if url := _endpoint(text):
            options["endpoint_url"] = url
    options["token"] = key or file
    return Place(("gs", "gcs"), _root(store, said.text("bucket", "bucket_name")), options, {})


def _content(file: str | None) -> str | None:
    if file is None:
        return None
    try:
        with open(os.path.expanduser(file), encoding="utf-8") as opened:
            return opened.read()
    except (OSError, ValueError) as error:
        raise Unidentifiable(f"GCSStore: {file}: {error}") from error


def _endpoint(key: str | None) -> str | None:
    """Return the address that the key of a service account has for Google's; None for Google's own."""
    try:
        url = json.loads(key or "{}").get("gcs_base_url")
    except (ValueError, AttributeError) as error:
        raise Unidentifiable(f"GCSStore: the key of the service account is none: {error}") from error
    return str(url) if url else None


def _azure(store: Any) -> Place:
    said = _Settings(store, _AZURE, "AZURE_STORAGE_", "AZURE_")
    account, endpoint = said.text("account_name"), said.text("endpoint")
    if said.flag("use_fabric_endpoint"):
        raise Unidentifiable("AzureStore: what is at a Fabric endpoint is not told by account and container")
    options: dict[str, object] = {}
    if said.flag("use_emulator"):
        if os.environ.get("AZURITE_BLOB_STORAGE_URL"):
            raise Unidentifiable("AzureStore: the emulator is not where it is by default")
        options["connection_string"] = "UseDevelopmentStorage=true"
    elif endpoint:
        options["account_host"] = endpoint
    else:
        options["account_name"] = account
    for name in ("account_key", "sas_key", "bearer_token", "token", "client_id", "client_secret"):
        options[f"{name}_secret"] = said.text(name)
    options["credential_provider"] = store.credential_provider
    return Place(("abfs", "az", "abfss"), _root(store, said.text("container_name")), options, {})


def _http(store: Any) -> Place:
    url = str(store.url)
    parts, headers = urlsplit(url), _headers(store)
    if "?" in url or "#" in url:
        raise Unidentifiable("HTTPStore: its URL is no directory's")
    root = url.removesuffix("/") if parts.path == "/" else url
    options: dict[str, object] = {"headers": headers} if headers else {}
    is_for_one = "@" in parts.netloc or len(_deciding(headers)) < len(headers)
    return Place(("http", "https"), f"{root}/", options, {}, is_http=True, is_asked_for_one=is_for_one)


_PLACES: Mapping[str, Callable[[Any], Place]] = {
    "S3Store": _s3,
    "GCSStore": _gcs,
    "AzureStore": _azure,
    "HTTPStore": _http,
}
# Those that take from the environment what they are not told.
_FROM_ENVIRONMENT = ("S3Store", "GCSStore", "AzureStore")


class _Made:
    """What a store's place was when it was made: it took from the environment then, and never looks at it again."""

    def __init__(self, store: Any) -> None:
        self.place: Place | None = None
        self.why_not = f"{type(store).__name__}: it was made before JCache, which cannot tell what the environment was"

    def note(self, store: Any, work_out: Callable[[Any], Place]) -> None:
        """Work it out now."""
        self.why_not = ""
        try:
            self.place = work_out(store)
        except Unidentifiable as error:
            self.why_not = str(error)
        except Exception as error:  # noqa: BLE001 - whatever is odd about a store, it can be made
            self.why_not = f"{type(store).__name__}: {error!r}"


def watch() -> None:
    """Have the places of stores worked out as they are made: by a constructor, from a URL, unpickled, of a subclass.

    This is not undone: a store that is made while nothing is cached may be read when something is.
    """
    for name in _FROM_ENVIRONMENT:
        cls = getattr(obstore.store, name)
        if "__new__" not in vars(cls):
            cls.__new__ = _watched(cls, _PLACES[name])


def _watched(owner: Any, work_out: Callable[[Any], Place]) -> Callable[..., Any]:
    def new(cls: Any, /, *args: Any, **kwargs: Any) -> Any:
        store = super(owner, cls).__new__(cls, *args, **kwargs)
        beside(store, _Made).note(store, work_out)
        return store

    shown = inspect.signature(owner)
    first = inspect.Parameter("cls", inspect.Parameter.POSITIONAL_ONLY)
    new.__signature__ = shown.replace(parameters=[first, *shown.parameters.values()])  # type: ignore[attr-defined]
    return new


def place_of(store: Any) -> Place | None:
    """Return where a store has its objects; None where that is no remote store of obstore's.

    Raises:
        Unidentifiable: It cannot be told which objects it means.
    """
    for base in type(store).__mro__:
        if base.__module__ == "obstore.store" and base.__name__ in _PLACES:
            made = beside(store, _Made)
            if base.__name__ not in _FROM_ENVIRONMENT:
                made.note(store, _PLACES[base.__name__])
            if made.why_not:
                raise Unidentifiable(made.why_not)
            return made.place
    return None
