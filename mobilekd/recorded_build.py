"""What a bundle says of its build: the pipeline and the profile again, and whether this host can repeat it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mobilekd.artifacts import DeployedModel, LatencyReport, write_json
from mobilekd.config import Override, Pipeline
from mobilekd.errors import ConfigError, MissingToolError, VerificationError
from mobilekd.plugins import STAGES
from mobilekd.profile import Profile
from mobilekd.release.bundle import open_checked
from mobilekd.release.manifest import MAX_MANIFEST_BYTES
from mobilekd.release.provenance import CODE, PROVENANCE, Provenance, RecordedStage, parse_provenance, source_name
from mobilekd.scan import Scanner
from mobilekd.stage import GIVEN, Context, Inputs, Stage
from mobilekd.validation import Origin, validate
from mobilekd.versions import code_digest, machine, python_version, tool_version
from mobilekd.wiring import expand


class Unmeasured(Stage):
    """Stands where the bundle's own measurement stood: says that nothing was measured."""

    gathers = (DeployedModel,)
    makes = LatencyReport
    measures: ClassVar[bool] = True

    @classmethod
    def stage_name(cls) -> str:
        """Return a name that no pipeline can have."""
        return "unmeasured"

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write latency.json without a row."""
        del inputs
        nothing = {"host": "", "ran_on": "not measured: a bundle that was built again", "on_target": False}
        write_json(context.out / "latency.json", {**nothing, "measured": "", "rows": []})


@dataclass(frozen=True, slots=True)
class Recorded:
    """A whole bundle, read: its digest, its files with theirs, and how it was made."""

    path: Path
    digest: str
    files: Mapping[str, str]
    provenance: Provenance


def read_recorded(path: Path) -> Recorded:
    """Return a bundle after checking every file against its digest.

    Raises:
        ConfigError: Nothing is there, or the bundle was built before there was provenance.
        VerificationError: It is not what was packed.
    """
    files, manifest, _, digest = open_checked(path)
    if PROVENANCE not in files.names:
        raise ConfigError(
            f"{path} has no {PROVENANCE}: it was built by mobilekd {manifest.mobilekd}, before there was one",
            hint=f"mobilekd build --profile {manifest.profile.name} --pipeline {manifest.pipeline}",
        )
    content = files.read(PROVENANCE, limit_bytes=MAX_MANIFEST_BYTES)
    provenance = parse_provenance(content, f"{path}: {PROVENANCE}")
    return Recorded(path, digest, {one.path: one.sha256 for one in manifest.files}, provenance)


def other_versions(provenance: Provenance) -> tuple[tuple[str, str, str], ...]:
    """Return what is not here as it was when the bundle was built, as (name, recorded, here)."""
    here = {name: tool_version(name) for name in provenance.tools} | {"python": python_version()}
    pairs = [(name, recorded, here[name]) for name, recorded in provenance.tools.items()]
    pairs.append(("machine", provenance.build_definition.internal_parameters.machine, machine()))
    pairs.append((CODE, provenance.dependencies.get(CODE, "")[:12], code_digest()[:12]))
    return tuple((name, was, now) for name, was, now in pairs if was != now)


def check_versions(recorded: Recorded) -> None:
    """Accept a host that has what built the bundle.

    Raises:
        MissingToolError: It has not; every version is told, recorded and here.
    """
    if others := other_versions(recorded.provenance):
        told = "".join(f"\n  {name}: {was or 'not recorded'}, here {now}" for name, was, now in others)
        pins = " ".join(f"'{name}=={was}'" for name, was, _ in others if name in recorded.provenance.tools)
        raise MissingToolError(
            f"{recorded.path} was built with other versions:{told}",
            hint=f"install those{f' (pip install {pins})' if pins else ''}, or go on with --anyway",
        )


def recorded_build(recorded: Recorded, places: Sequence[Override]) -> tuple[Pipeline, Profile]:
    """Return the pipeline and the profile of a bundle, without its measurement.

    Args:
        recorded: The bundle.
        places: Where data and checkpoints of the user lie now, as --set has them.

    Raises:
        ConfigError: A place is not given, or an option is no place.
        VerificationError: The provenance does not hold together.
    """
    asked, origin = recorded.provenance.asked, Origin(Path(f"{recorded.path}: {PROVENANCE}"))
    profile = validate(Profile, asked.profile, origin.below("profile"))
    first = {one.stage: one for one in reversed(asked.pipeline.stages)}
    names = dict.fromkeys(one.stage for one in asked.pipeline.stages)
    _check_places(places, first)
    stages: list[Stage] = [_stage(first[name], places, origin) for name in names]
    stages.insert(len(stages) - 1, Unmeasured())
    given = {"pipeline_name": asked.pipeline.name, "seed": asked.seed}
    stages[-1] = stages[-1].model_copy(update=given)
    pipeline = Pipeline(asked.pipeline.name, "", asked.seed, tuple(stages))
    expanded = [one for one in expand(pipeline, profile) if not one.measures]
    told = [(one.label, one.options) for one in asked.pipeline.stages]
    if [(one.label(), one.recorded_options()) for one in expanded] != told:
        raise VerificationError(f"{recorded.path}: {PROVENANCE}: its stages are not those of its profile")
    return pipeline, profile


def check_sources(recorded: Recorded, pipeline: Pipeline, profile: Profile, scanner: Scanner) -> None:
    """Accept data, checkpoints and modules of the user that are those of the bundle.

    Raises:
        ConfigError: One is another.
    """
    known = recorded.provenance.dependencies
    for stage in expand(pipeline, profile):
        sources = {} if stage.measures or stage.tells_history else stage.recorded_sources(stage.sources(scanner.digest))
        for source, digest in sources.items():
            name = source_name(stage.label(), source)
            if known.get(name, digest) != digest:
                raise ConfigError(f"{name} is not that of the bundle: sha256 {digest}, recorded {known[name]}")


def _stage(recorded: RecordedStage, places: Sequence[Override], origin: Origin) -> Stage:
    """Return a recorded stage as a pipeline has it, with the user's places in it."""
    given = {one.keys[1]: one.value for one in places if one.keys[0] == recorded.stage}
    options: dict[str, Any] = {**recorded.options, **given}
    for name, value in recorded.options.items():
        if GIVEN in str(value) and name not in given:
            key = f"{recorded.stage}.{name}"
            hint = "give the data with --data DIR" if key == "data.path" else f"--set {key}=FILE"
            raise ConfigError(f"the bundle was built from the user's own {key}, whose place is not recorded", hint=hint)
    STAGES.check(recorded.stage, origin.where(recorded.label))
    kind: type[Stage] = STAGES.load(recorded.stage)
    stage = validate(kind, options, origin.below(recorded.stage))
    if changed := [name for name in given if stage.recorded_options()[name] != recorded.options.get(name)]:
        raise ConfigError(
            f"--set {recorded.stage}.{changed[0]} changes what is recorded",
            hint="only places of data and checkpoints can be given",
        )
    return stage


def _check_places(places: Sequence[Override], stages: Mapping[str, RecordedStage]) -> None:
    for one in places:
        is_known = len(one.keys) == 2 and one.keys[0] in stages and one.keys[1] in stages[one.keys[0]].options
        if not is_known:
            raise ConfigError(f"{one.text} is no option of a recorded stage", hint=f"stages: {', '.join(stages)}")
