"""From the words of a user to a store."""

import ipaddress
import os
import re
from urllib.parse import SplitResult, unquote, urlsplit

from mobilekd.errors import ConfigError, MissingToolError
from mobilekd.paths import path_of
from mobilekd.store.folder import FolderStore
from mobilekd.store.interface import ObjectStore

_FORMS = "a store is /PATH, file:///PATH or s3://BUCKET/PREFIX"
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*")
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_METADATA_ENDPOINT",
)


def open_store(url: str, *, to_read: bool = False) -> ObjectStore:
    """Return the store at a URL; nothing is asked of it yet.

    Args:
        url: /PATH, file:///PATH or s3://BUCKET/PREFIX.
        to_read: True for a store that must be there; a folder that is to be written may be new.

    Raises:
        ConfigError: It is no URL of a store, there is no such folder, or the settings of S3 do not do.
        MissingToolError: obstore is not installed.
    """
    if "://" not in url:
        return _folder(url, to_read=to_read)
    parts = _split(url, "the store")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ConfigError(
            f"{parts.scheme}://…: holds more than a place",
            hint="credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if parts.scheme == "file":
        if parts.netloc not in {"", "localhost"}:
            raise ConfigError(f"{url}: names the host {parts.netloc!r}", hint=f"file:///{parts.netloc}{parts.path}")
        return _folder(unquote(parts.path), to_read=to_read)
    if parts.scheme == "s3":
        return _bucket(url, parts.netloc, parts.path.strip("/"))
    raise ConfigError(f"{url}: there are no stores of the kind {parts.scheme!r}", hint=_FORMS)


def _folder(path: str, *, to_read: bool) -> ObjectStore:
    if not path:
        raise ConfigError("the store has no name", hint=_FORMS)
    folder = path_of(path)
    if to_read and not folder.exists():
        raise ConfigError(f"{path}: there is no such store", hint=_FORMS)
    if folder.is_file():
        raise ConfigError(f"{path}: a file; a store is a folder", hint=_FORMS)
    return FolderStore(folder.absolute())


def _bucket(url: str, bucket: str, prefix: str) -> ObjectStore:
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(
            f"{url}: {bucket!r} is no name of a bucket",
            hint="3 to 63 lower-case letters, digits, dots and hyphens: s3://BUCKET/PREFIX",
        )
    if prefix and not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"{url}: {prefix!r} is no prefix", hint="letters, digits, '.', '_' and '-', in parts by '/'")
    if not any(map(os.environ.get, _CREDENTIALS)):
        raise ConfigError(
            f"{url}: there are no credentials", hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (docs/store.md)"
        )
    endpoint = next(filter(None, map(os.environ.get, _ENDPOINTS)), "")
    _check_endpoint(endpoint)
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    try:
        import obstore  # noqa: F401 - told now, not at the first use
    except ImportError as cause:
        raise MissingToolError(f"{url}: obstore is not installed", hint="pip install 'mobilekd[store]'") from cause
    from mobilekd.store.s3 import Place, S3Store

    return S3Store(Place(bucket, prefix, endpoint.rstrip("/"), region))


def _check_endpoint(endpoint: str) -> None:
    """Refuse an endpoint that would send what is stored, and who stores it, over an open network."""
    if not endpoint:
        return
    parts = _split(endpoint, "AWS_ENDPOINT_URL")
    if parts.username or parts.password:
        raise ConfigError(
            "AWS_ENDPOINT_URL is a URL with a user in it", hint="https://HOST; who asks stands in AWS_ACCESS_KEY_ID"
        )
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ConfigError(f"AWS_ENDPOINT_URL is {endpoint!r}", hint="https://HOST, or http://127.0.0.1:PORT")
    if parts.scheme == "http" and not _is_loopback(parts.hostname):
        raise ConfigError(
            f"AWS_ENDPOINT_URL is {endpoint!r}: http is for this machine only", hint=f"https://{parts.netloc}"
        )


def _split(url: str, name: str) -> SplitResult:
    """Return the parts of a URL; one with an @ may hold a password, and is not quoted."""
    try:
        return urlsplit(url)
    except ValueError as cause:
        told = name if "@" in url else f"{name} is {url!r}"
        raise ConfigError(f"{told}: no URL", hint=_FORMS) from (None if "@" in url else cause)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
