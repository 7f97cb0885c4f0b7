"""What obstore says of a failure -> what a person can do about it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from mobilekd.errors import ConfigError, MobilekdError, StoreError

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_DENIED = {"401", "403"}
_NOT_IMPLEMENTED = "501"
_FULL = "507"


@contextmanager
def told(url: str, name: str, endpoint: str, *, may_be_denied: bool = False) -> Iterator[None]:
    """Turn the failures of a store into ConfigError and StoreError.

    What the caller decides by passes: no such object, there already, another version.

    Args:
        url: Of the store.
        name: The object; empty for the bucket itself.
        endpoint: Where it is asked for; empty for the cloud's own.
        may_be_denied: True to go on where the access is refused: listing may be, where reading is not.
    """
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError

    try:
        yield
    except (AlreadyExistsError, PreconditionError):
        raise
    except (BaseError, FileNotFoundError) as cause:
        text = str(cause)
        if isinstance(cause, FileNotFoundError) and "NoSuchBucket" not in text:
            raise
        if may_be_denied and _status(text) in _DENIED and "AccessDenied" in text:
            return
        raise _failure(f"{url}: {name}" if name else url, text, endpoint) from cause


def _failure(where: str, text: str, endpoint: str) -> MobilekdError:
    status, code = _status(text), next(iter(_CODE.findall(text)), "")
    at = f" at {endpoint}" if endpoint else ""
    if code == "NoSuchBucket":
        return ConfigError(f"{where}: there is no such bucket{at}", hint="make it, or check AWS_ENDPOINT_URL")
    if status in _DENIED:
        hint = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and what they may do: docs/store.md lists it"
        return ConfigError(f"{where}: the store refuses the access ({status} {code or 'denied'}){at}", hint=hint)
    if status == _NOT_IMPLEMENTED:
        hint = "a store must know If-None-Match and If-Match on PutObject"
        return ConfigError(f"{where}: the store does not know this request ({status} {code})", hint=hint)
    if status == _FULL or code in {"XMinioStorageFull", "QuotaExceeded"}:
        return StoreError(f"{where}: no space left in the store", hint="mobilekd store prune, or a larger store")
    if "169.254." in text or "credential" in text.lower():
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        return ConfigError(f"{where}: no credentials could be got", hint=hint)
    return StoreError(f"{where}: {_why(text, status, code)}{at}", hint="is AWS_ENDPOINT_URL right, and the network up?")


def _why(text: str, status: str, code: str) -> str:
    if "kind: Timeout" in text or "TimedOut" in text:
        return "no answer in time"
    if "kind: Connect" in text:
        return "no connection"
    if status:
        return f"the store answered {status} {code}".rstrip()
    return text.partition("\n")[0].removeprefix("Generic S3 error: ")


def _status(text: str) -> str:
    return next(iter(_STATUS.findall(text)), "")
