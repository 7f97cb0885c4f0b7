"""Taking out of a store what nothing names any more."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from mobilekd.shared_cache import STAGES, files_of
from mobilekd.store.channel import all_channels
from mobilekd.store.folder import FolderStore
from mobilekd.store.interface import Head, ObjectStore
from mobilekd.store.objects import OBJECTS, object_name

_PROBES = "probes/"


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """What may be taken away.

    Attributes:
        grace: Nothing newer is: a writer may be between its objects and its pointer.
        stages: Finished stages older than this go too; None keeps all.
        dry_run: Look, and take nothing away.
    """

    grace: timedelta = timedelta(hours=24)
    stages: timedelta | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was taken away, or would be: names, and their bytes together."""

    names: tuple[str, ...]
    freed_bytes: int
    kept: int


def prune_store(store: ObjectStore, options: PruneOptions) -> Pruned:
    """Delete the objects that no channel and no finished stage names.

    Objects are listed before the documents are read, and looked at again right before they are deleted: one that
    somebody put, or wanted again, meanwhile is new and stays.

    Raises:
        VerificationError: A channel can't be read, so what it names is not known; nothing is deleted.
    """
    before = datetime.now(UTC) - options.grace
    objects = list(store.list(OBJECTS))
    named = {
        object_name(file.sha256) for one in all_channels(store) for each in one.releases() for file in each.files()
    }
    gone = [one for one in store.list(_PROBES) if one.modified < before]
    for stage in list(store.list(STAGES)):
        is_unused = options.stages is not None and stage.modified < datetime.now(UTC) - options.stages
        files = files_of(store, stage.name)
        if is_unused or (files is None and stage.modified < before):
            gone.append(stage)
        else:
            named.update(map(object_name, files or ()))
    gone += [one for one in objects if one.name not in named and one.modified < before]
    if not options.dry_run:
        gone = list(_delete(store, gone))
        _delete_unfinished(store, before)
    return Pruned(
        tuple(sorted(one.name for one in gone)),
        sum(one.size_bytes for one in gone),
        len(objects) - sum(one.name.startswith(OBJECTS) for one in gone),
    )


def _delete(store: ObjectStore, heads: list[Head]) -> Iterator[Head]:
    for one in heads:
        now = store.head(one.name)
        if now and now.modified == one.modified:
            store.delete(one.name)
            yield one


def _delete_unfinished(store: ObjectStore, before: datetime) -> None:
    if isinstance(store, FolderStore):
        for path in store.unfinished():
            if path.stat().st_mtime < before.timestamp():
                path.unlink(missing_ok=True)
