"""Build a bundle again from what its provenance says, in a new cache, and compare byte for byte.

Nothing is measured: what lies in measurements/ is no part of a bundle's digest.
"""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from mobilekd.artifacts import Bundle
from mobilekd.config import Override
from mobilekd.delivery import deliver
from mobilekd.errors import VerificationError
from mobilekd.pipeline import BuildResult, Workshop, build
from mobilekd.recorded_build import Recorded, check_sources, other_versions, read_recorded, recorded_build
from mobilekd.release.bom import BOM
from mobilekd.release.manifest import MANIFEST, REPORT
from mobilekd.release.provenance import PROVENANCE

Verdict = Literal["same", "different", "missing", "added"]

_RESTATES = (PROVENANCE, BOM, REPORT)
"""Files that change with any other: named last."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """How a bundle that was built again compares.

    Attributes:
        digest, rebuilt: Digests of the bundle and of the one built again.
        files: Name -> verdict; measurements are not compared.
        stage: The first stage that made something else; empty when none did.
        reused: Stages that the given cache had already: they prove nothing.
        versions: What is installed in another version, as (name, recorded, here); empty without --anyway.
    """

    digest: str
    rebuilt: str
    files: Mapping[str, Verdict]
    stage: str
    reused: tuple[str, ...]
    versions: tuple[tuple[str, str, str], ...]
    seconds: float

    @property
    def is_same(self) -> bool:
        """Return whether both have one digest."""
        return self.digest == self.rebuilt

    @property
    def first_file(self) -> str:
        """Return the first file that differs; those that change with any other come last. Empty when none does."""
        changed = [name for name, verdict in self.files.items() if verdict != "same"]
        return min(changed, key=lambda name: (name in _RESTATES, name), default="")

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return {
            "same": self.is_same,
            "digest": self.digest,
            "rebuilt": self.rebuilt,
            "files": [{"path": name, "verdict": verdict} for name, verdict in self.files.items()],
            "first_file": self.first_file,
            "first_stage": self.stage,
            "reused": list(self.reused),
            "versions": [{"name": name, "recorded": was, "here": here} for name, was, here in self.versions],
            "seconds": round(self.seconds, 3),
        }


def reproduce(
    recorded: Recorded, places: Sequence[Override], workshop: Workshop, *, keep: Path | None = None
) -> Reproduction:
    """Build a bundle again and compare.

    Args:
        recorded: The bundle.
        places: Where data and checkpoints of the user lie now.
        workshop: Where to build; its cache is best a new one.
        keep: A folder for what was built; None keeps nothing.

    Raises:
        ConfigError: A place is not given, or holds something else.
        StageError: A stage failed.
    """
    pipeline, profile = recorded_build(recorded, places)
    check_sources(recorded, pipeline, profile, workshop.scanner())
    result = build(pipeline, profile, workshop)
    if keep is not None:
        deliver(result, keep)
    again = read_recorded(result.the(Bundle).path / "bundle")
    return _compared(recorded, again, result)


def check_same(found: Reproduction) -> None:
    """Accept a bundle that came out the same.

    Raises:
        VerificationError: It did not; the message names the first file, and the first stage that made something else.
    """
    if found.is_same:
        return
    stage = f"; the first stage that made something else is {found.stage}" if found.stage else ""
    if found.versions:
        hint = f"{len(found.versions)} versions differ: install those that are recorded"
    else:
        hint = "the versions are those recorded: another kind of CPU rounds sums in another order"
    raise VerificationError(
        f"{found.first_file or MANIFEST} is different: digest {found.rebuilt}, recorded {found.digest}{stage}",
        hint=hint,
    )


@contextmanager
def new_cache(cache: Path | None) -> Iterator[Path]:
    """Give an empty folder for a cache, which is gone afterwards; the given one where there is one."""
    if cache is not None:
        yield cache
        return
    with tempfile.TemporaryDirectory(prefix="mobilekd-reproduce-") as folder:
        yield Path(folder)


def _compared(recorded: Recorded, again: Recorded, result: BuildResult) -> Reproduction:
    made = again.provenance.made
    stages = (label for label, digest in recorded.provenance.made.items() if made.get(label) != digest)
    names = sorted(recorded.files.keys() | again.files.keys(), key=str.encode)
    return Reproduction(
        digest=recorded.digest,
        rebuilt=again.digest,
        files={name: _verdict(recorded.files.get(name), again.files.get(name)) for name in names},
        stage=next(stages, ""),
        reused=tuple(one.name for one in result.stages if one.cached),
        versions=other_versions(recorded.provenance),
        seconds=result.seconds,
    )


def _verdict(recorded: str | None, again: str | None) -> Verdict:
    if recorded is None:
        return "added"
    if again is None:
        return "missing"
    return "same" if recorded == again else "different"
