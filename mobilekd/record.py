"""build.json: what a build did, stage by stage, so that it can be explained and repeated."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mobilekd import __version__
from mobilekd.artifacts import write_json
from mobilekd.keys import HISTORY
from mobilekd.pipeline import BuildResult, StageRecord

SCHEMA = "mobilekd.build/1"


def write_record(result: BuildResult, path: Path) -> None:
    """Write build.json.

    {"schema", "mobilekd", "created", "pipeline", "profile", "seed", "seconds", "stages": [{"name", "key", "cached",
    "why", "seconds", "digest", "created", "made_in_seconds", "version", "options", "inputs", "sources", "tools"}],
    "shared_cache": {"url", "hits", "sent", "notes"}}, the last only for a build that has one.
    """
    document = {
        "schema": SCHEMA,
        "mobilekd": __version__,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "pipeline": result.pipeline.name,
        "profile": result.profile.name,
        "seed": result.pipeline.seed,
        "seconds": round(result.seconds, 3),
        "stages": [_stage(one) for one in result.stages],
        **({"shared_cache": result.shared} if result.shared else {}),
    }
    write_json(path, document)


def _stage(one: StageRecord) -> dict[str, Any]:
    entry = one.entry
    parts = {name: value for name, value in entry.parts.items() if name not in {"stage", HISTORY}}
    return {
        "name": one.name,
        "key": one.key,
        "cached": one.cached,
        "why": one.why,
        "seconds": round(one.seconds, 3),
        "digest": entry.digest,
        "created": entry.created,
        "made_in_seconds": entry.seconds,
        **parts,
    }
