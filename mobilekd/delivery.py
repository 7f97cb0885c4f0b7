"""From the cache to the user's folder: the bundle, its archive, the report, the record; and the result in words."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilekd.artifacts import Artifact, Bundle, LatencyReport, ParityReport, digest_file
from mobilekd.cache import full_disk_is_told
from mobilekd.errors import ConfigError
from mobilekd.paths import check_folder
from mobilekd.pipeline import BuildResult
from mobilekd.record import write_record
from mobilekd.release.gates import Gate

_RECORD = "build.json"


@dataclass(frozen=True, slots=True)
class Delivery:
    """What lies in the user's folder; all but the folder is None when the build stopped before the bundle.

    The digest is that of manifest.json, which carries the digest of every other file but the measurements.
    """

    folder: Path
    archive: Path | None
    digest: str | None
    report: Path | None


def check_place(pipeline: str, profile: str, out: Path) -> None:
    """Refuse a place for the bundle of a build that can't be written, or holds something else; asked before the build.

    Raises:
        ConfigError: It does.
    """
    check_folder("--out", out)
    _check_ours(out / f"{pipeline}-{profile}")


def deliver(result: BuildResult, out: Path) -> Delivery:
    """Copy a build to OUT/PIPELINE-PROFILE/ and OUT/PIPELINE-PROFILE.mobilekd.zip, each replaced in one rename.

    Raises:
        ConfigError: The folder can't be written, or holds something that no build of ours put there.
        StageError: The disk is full.
    """
    name = f"{result.pipeline.name}-{result.profile.name}"
    folder, archive = out / name, out / f"{name}.mobilekd.zip"
    bundle = result.newest(Bundle)
    try:
        with full_disk_is_told(out):
            _check_ours(folder)
            _fill(folder, result, bundle)
            if bundle is None:
                return Delivery(folder, None, None, None)
            _replace_file(bundle.path / "bundle.zip", archive)
    except (PermissionError, NotADirectoryError, FileExistsError) as cause:
        raise ConfigError(
            f"{cause.filename} can't be written: {cause.strerror}", hint="choose --out DIR", code="MKD-262"
        ) from cause
    report = folder / "report.html"
    return Delivery(
        folder, archive, digest_file(bundle.path / "bundle" / "manifest.json"), report if report.is_file() else None
    )


def summary(result: BuildResult, delivery: Delivery, gates: Sequence[Gate]) -> dict[str, Any]:
    """Return what `mobilekd build --json` prints."""
    return {
        "bundle": str(delivery.archive) if delivery.archive else None,
        "folder": str(delivery.folder),
        "digest": delivery.digest,
        "report": str(delivery.report) if delivery.report else None,
        "profile": result.profile.name,
        "pipeline": result.pipeline.name,
        "seconds": round(result.seconds, 3),
        "stages": [
            {"name": one.name, "key": one.key, "cached": one.cached, "seconds": round(one.seconds, 3), "why": one.why}
            for one in result.stages
        ],
        "parity": parity_rows(result),
        "latency": latency_rows(result),
        "over_budget": [gate.sentence() for gate in gates if gate.verdict == "over"],
        "gates": [gate.to_json() for gate in gates],
    }


def parity_rows(result: BuildResult) -> list[dict[str, Any]]:
    """Return the rows of parity.json; empty when the build stopped before it."""
    return list(_document(result.newest(ParityReport), "parity.json").get("rows", []))


def latency_rows(result: BuildResult) -> list[dict[str, Any]]:
    """Return the rows of latency.json, each with where and when it was measured; raw samples stay in the bundle."""
    document = _document(result.newest(LatencyReport), "latency.json")
    where = {key: document[key] for key in ("ran_on", "on_target", "place", "measured") if key in document}
    return [{**where, **row} for row in document.get("rows", [])]


def _document(artifact: Artifact | None, name: str) -> Mapping[str, Any]:
    if artifact is None:
        return {}
    document: Mapping[str, Any] = json.loads((artifact.path / name).read_text(encoding="utf-8"))
    return document


def _check_ours(folder: Path) -> None:
    if folder.exists() and not (folder / _RECORD).is_file():
        raise ConfigError(
            f"{folder} exists and no build made it", hint="move it away, or choose another --out DIR", code="MKD-262"
        )


def _fill(folder: Path, result: BuildResult, bundle: Bundle | None) -> None:
    """Make the folder beside its place, then put it there."""
    fresh, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{word}") for word in ("new", "old"))
    try:
        fresh.mkdir(parents=True)
        if bundle:
            shutil.copytree(bundle.path / "bundle", fresh / "bundle")
            report = fresh / "bundle" / "measurements" / "report.html"
            if report.is_file():
                shutil.copyfile(report, fresh / "report.html")
        write_record(result, fresh / _RECORD)
        if folder.exists():
            folder.rename(old)
        fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def _replace_file(source: Path, place: Path) -> None:
    fresh = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        shutil.copyfile(source, fresh)
        fresh.replace(place)
    finally:
        fresh.unlink(missing_ok=True)
