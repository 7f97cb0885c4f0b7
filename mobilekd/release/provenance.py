"""provenance.json: how a bundle was made, as the predicate of SLSA v1 (https://slsa.dev/spec/v1.0/provenance).

No clock, host or folder stands in it: equal builds give equal bytes. Stages that
measure are left out, and of the profile what only they read.

    externalParameters    the command, every stage with its options, the profile, the seed
    internalParameters    the host's architecture, the version of every stage's code
    resolvedDependencies  digests of what came from outside: the user's data, checkpoints and modules, the locks of
                          converters, mobilekd's own code; and of the decoded data set
    builder.version       of Python and of every package whose version can change a byte
    byproducts            digest of what every stage made
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from mobilekd.artifacts import Artifact, Dataset, MadeBy, canonical_json
from mobilekd.errors import VerificationError
from mobilekd.profile import Profile

PROVENANCE = "provenance.json"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE: Final = "urn:mobilekd:build:1"
BUILDER = "urn:mobilekd:builder"
CODE, DATA_SET = "mobilekd code", "data set"


class _Record(BaseModel):
    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        allow_inf_nan=False,
        alias_generator=to_camel,
        validate_by_name=True,
        serialize_by_alias=True,
    )


class Descriptor(_Record):
    """Something with a digest."""

    name: str
    digest: dict[Literal["sha256"], str] = Field(min_length=1)

    @property
    def sha256(self) -> str:
        """Return the digest, as 64 hex digits."""
        return self.digest["sha256"]


class RecordedStage(_Record):
    """One stage of the build, in order; a stage that the profile multiplies stands there once for each deployment."""

    label: str
    stage: str
    options: dict[str, Any]


class RecordedPipeline(_Record):
    """The stages that decide the bundle's digest."""

    name: str
    stages: tuple[RecordedStage, ...]


class ExternalParameters(_Record):
    """What the user chose."""

    command: str
    pipeline: RecordedPipeline
    profile: dict[str, Any]
    seed: int


class InternalParameters(_Record):
    """What mobilekd and the host brought along."""

    machine: str
    stage_versions: dict[str, int]


class BuildDefinition(_Record):
    """What was asked for, and of what it was made."""

    build_type: Literal["urn:mobilekd:build:1"]
    external_parameters: ExternalParameters
    internal_parameters: InternalParameters
    resolved_dependencies: tuple[Descriptor, ...]


class Builder(_Record):
    """Who built, with which versions."""

    id: str
    version: dict[str, str]


class RunDetails(_Record):
    """Who built, and what every stage made."""

    builder: Builder
    byproducts: tuple[Descriptor, ...]


class Provenance(_Record):
    """provenance.json."""

    build_definition: BuildDefinition
    run_details: RunDetails

    @property
    def asked(self) -> ExternalParameters:
        """Return what the user chose."""
        return self.build_definition.external_parameters

    @property
    def dependencies(self) -> dict[str, str]:
        """Return name -> sha256 of what came from outside."""
        return {one.name: one.sha256 for one in self.build_definition.resolved_dependencies}

    @property
    def made(self) -> dict[str, str]:
        """Return label -> sha256 of what each stage made, in the order of the build."""
        return {one.name: one.sha256 for one in self.run_details.byproducts}

    @property
    def tools(self) -> dict[str, str]:
        """Return the versions of what built."""
        return self.run_details.builder.version


@dataclass(frozen=True, slots=True)
class BuildFacts:
    """What a bundle's own stage knows of the build.

    Attributes:
        command: Repeats the build, where pipeline and profile are shipped ones.
        packed_by: The bundle's own stage.
        made: What the stages before it made, in order.
        python: As "3.12".
        machine: As "x86_64".
        code: Digest of mobilekd's own code.
    """

    command: str = ""
    seed: int = 0
    packed_by: MadeBy = field(default_factory=lambda: MadeBy("bundle", "bundle", 1, {}, {}, {}))
    made: Sequence[Artifact] = ()
    python: str = ""
    machine: str = ""
    code: str = ""

    def known(self) -> Iterator[tuple[MadeBy, str]]:
        """Yield how each artifact was made, and its digest; measurements are left out."""
        yield from ((one.made_by, one.digest) for one in self.made if one.made_by)

    def stages(self) -> tuple[MadeBy, ...]:
        """Return the stages that decide the bundle's digest, the last one is the bundle's own."""
        return (*(made_by for made_by, _ in self.known()), self.packed_by)


def provenance_of(build: BuildFacts, pipeline: str, profile: Profile) -> Provenance:
    """Return how a bundle was made."""
    stages = build.stages()
    recorded = tuple(RecordedStage(label=one.label, stage=one.stage, options=dict(one.options)) for one in stages)
    tools = {name: version for one in stages for name, version in sorted(one.tools.items())}
    return Provenance(
        build_definition=BuildDefinition(
            build_type=BUILD_TYPE,
            external_parameters=ExternalParameters(
                command=build.command,
                pipeline=RecordedPipeline(name=pipeline, stages=recorded),
                profile=recorded_profile(profile),
                seed=build.seed,
            ),
            internal_parameters=InternalParameters(
                machine=build.machine, stage_versions={one.label: one.version for one in stages}
            ),
            resolved_dependencies=tuple(_dependencies(build)),
        ),
        run_details=RunDetails(
            builder=Builder(id=BUILDER, version={**tools, "python": build.python}),
            byproducts=tuple(_descriptor(made_by.label, digest) for made_by, digest in build.known()),
        ),
    )


def recorded_profile(profile: Profile) -> dict[str, Any]:
    """Return a profile without its device and how latency is measured, which decide no byte outside measurements/."""
    values = profile.model_dump(mode="json", exclude={"device"})
    return {**values, "benchmark": {"baseline": profile.benchmark.baseline}}


def source_name(label: str, source: str) -> str:
    """Return what a dependency is called that a stage read beside artifacts, as "teacher: checkpoint"."""
    return f"{label}: {source}"


def provenance_text(provenance: Provenance) -> str:
    """Return the text of provenance.json."""
    return canonical_json(provenance.model_dump(mode="json"))


def parse_provenance(content: bytes, where: str) -> Provenance:
    """Return provenance.json, read.

    Raises:
        VerificationError: It is of another build type, or not canonical.
    """
    try:
        provenance = Provenance.model_validate_json(content)
        is_canonical = provenance_text(provenance).encode() == content
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_context=False)[0]
        place = ".".join(map(str, first["loc"])) or "the text"
        raise VerificationError(f"{where}: {place}: {first['msg']}", hint="it is of another version") from cause
    except ValueError as cause:
        raise VerificationError(f"{where}: {cause}") from cause
    if not is_canonical:
        raise VerificationError(f"{where}: not in the canonical form that mobilekd writes")
    return provenance


def _dependencies(build: BuildFacts) -> Iterator[Descriptor]:
    if build.code:
        yield _descriptor(CODE, build.code)
    yield from (_descriptor(DATA_SET, one.digest) for one in build.made if isinstance(one, Dataset) and one.made_by)
    found: Mapping[str, str] = {
        source_name(one.label, name): digest for one in build.stages() for name, digest in sorted(one.sources.items())
    }
    yield from (_descriptor(name, digest) for name, digest in found.items())


def _descriptor(name: str, sha256: str) -> Descriptor:
    return Descriptor(name=name, digest={"sha256": sha256})
