"""Does a store keep its conditions? Some accept If-None-Match and If-Match and overwrite all the same."""

import uuid

from mobilekd.errors import ConfigError
from mobilekd.store.interface import ObjectStore


def check_conditional_writes(store: ObjectStore) -> None:
    """Accept a store that refuses to create what is there, and to replace what has changed.

    Writes one object of a byte below probes/, and takes it away.

    Raises:
        ConfigError: The store accepted a write that it had to refuse (named), or refused one that is right.
    """
    name = f"probes/{uuid.uuid4().hex}"
    try:
        faults = _faults(store, name)
    finally:
        store.delete(name)
    if faults:
        raise ConfigError(
            f"{store.url}: {' and '.join(faults)}",
            hint="two writers would lose releases there: use a store with conditional writes, or a local folder",
        )


def _faults(store: ObjectStore, name: str) -> list[str]:
    if not store.put_new(name, b"1"):
        return ["the store refused to create a new object (If-None-Match: *)"]
    faults = []
    if store.put_new(name, b"2"):
        faults.append("the store accepted to create an object that is there (If-None-Match: *)")
    before = store.get(name)
    if before is None or not before.tag:
        return [*faults, "the store gives no ETag"]
    if not store.cas(name, b"3", before.tag):
        faults.append("the store refused an update with the right ETag (If-Match)")
    if store.cas(name, b"4", f'"{"0" * 32}"'):
        faults.append("the store accepted an update with a stale ETag (If-Match)")
    return faults
