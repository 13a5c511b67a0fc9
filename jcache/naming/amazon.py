"""Where an object of S3 is: which service its bucket is at, and whose bucket of that name it is."""

import functools
import os.path
import re

from jcache.naming.address import Address, Request, Unidentifiable, endpoint, text_of, version_mark
from jcache.naming.credentials import names
from jcache.naming.layout import digest

__all__ = ["is_amazons", "locate_s3"]


def locate_s3(request: Request) -> Address:
    """Return the address of an object of S3, or of a service that speaks like it."""
    client = request.nested("client_kwargs")
    given = {endpoint(url) for url in (request.text("endpoint_url"), text_of(client, "endpoint_url")) if url}
    if len(given) > 1:
        raise Unidentifiable("'endpoint_url' and 'client_kwargs' name two different endpoints")
    if given:
        where = given.pop()
    elif configured := request.environment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        where = endpoint(configured)
    else:
        region = text_of(client, "region_name") or request.environment("AWS_DEFAULT_REGION", "AWS_REGION")
        where = _aws_partition(region or "") + _aws_configuration(request)
    used = names("endpoint_url client_kwargs config_kwargs key profile session username version_aware")
    # Elsewhere than at Amazon's own a bucket's name may be unique within a tenant only (Ceph's gateway, say), and the
    # tenant may be told by who asks.
    owning = () if is_amazons(where) else _s3_access_key(request)
    return Address(
        "s3", (where,), "/" + request.rest.lstrip("/"), version_mark(request, "?versionId="), used, owning=owning
    )


def is_amazons(where: str) -> bool:
    """Whether a host is Amazon's own, where a bucket's name is unique in the world."""
    host = where.partition("/")[0]
    return (
        host in {"s3.amazonaws.com", "s3.us-gov.amazonaws.com"}
        or host.endswith((".amazonaws.com", ".amazonaws.com.cn", ".api.aws"))
        or host.startswith(("s3.us-iso", "s3.eu-iso", "s3.eusc-"))
    )


def _s3_access_key(request: Request) -> tuple[object, ...]:
    """Return the name of the account that asks an S3 service, as the client finds it; empty for nobody."""
    if request.options.get("anon"):
        return ()
    client, session = request.nested("client_kwargs"), request.options.get("session")
    given = request.text("key", "username") or text_of(client, "aws_access_key_id")
    given = given or getattr(getattr(session, "_credentials", None), "access_key", None)
    if given:
        return ("key", str(given))
    profile = request.text("profile") or getattr(session, "profile", None)
    if not profile and (named := request.environment("AWS_ACCESS_KEY_ID")):
        return ("key", named)
    profile = str(profile or request.environment("AWS_PROFILE", "AWS_DEFAULT_PROFILE") or "default")
    home = request.environ.get("HOME") or "~"
    for variable, name in (("AWS_SHARED_CREDENTIALS_FILE", "credentials"), ("AWS_CONFIG_FILE", "config")):
        keys = _access_keys(request.environment(variable) or f"{home}/.aws/{name}")
        if key := keys.get(profile) or keys.get(f"profile {profile}"):
            return ("key", key)
    roles = ("AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    role = request.environment(*roles)
    return ("role", role) if role else ()


@functools.cache
def _access_keys(path: str) -> dict[str, str]:
    """Return the access keys of a file of AWS's, by section."""
    found: dict[str, str] = {}
    section = ""
    try:
        with open(os.path.expanduser(path), encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = (part.strip() for part in line.partition("="))
                if name.startswith("["):
                    section = name.strip("[] ")
                elif name == "aws_access_key_id":
                    found[section] = value
    except OSError:  # no file, or none that the AWS library could read either
        return {}
    return found


def _aws_partition(region: str) -> str:
    """Return the name of the world in which the names of buckets are unique."""
    for prefix, name in (("cn-", "s3.amazonaws.com.cn"), ("us-gov-", "s3.us-gov.amazonaws.com")):
        if region.startswith(prefix):
            return name
    return "s3." + region if region.startswith(("us-iso", "eu-iso", "eusc-")) else "s3.amazonaws.com"


def _aws_configuration(request: Request) -> str:
    """Return a mark of what the user's AWS configuration file says of endpoints; empty where it says nothing."""
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
