"""Pack what was built, and what was proved of it, for a release engineer."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from mobilekd import artifacts
from mobilekd.artifacts import (
    Artifact,
    Baseline,
    Dataset,
    DeployedModel,
    LatencyReport,
    MadeBy,
    ParityReport,
    QatStudent,
    SimplifiedModel,
    Student,
    Teacher,
)
from mobilekd.errors import ConfigError
from mobilekd.profile import Profile
from mobilekd.release.evidence import Sources, read_evidence
from mobilekd.release.licences import with_network_licences
from mobilekd.release.pack import PackOptions, write_bundle
from mobilekd.release.provenance import BuildFacts
from mobilekd.release.reference import HOST
from mobilekd.stage import Context, Inputs, Stage
from mobilekd.stages._packages import missing_packages
from mobilekd.versions import code_digest, machine, python_version, tool_version

_ELSEWHERE = {"profile", "command", "pipeline_name", "seed"}
"""Options that have a place of their own in provenance.json."""


class Bundle(Stage):
    """Write bundle/ and bundle.zip.

    In it: models, manifest, labels, a reference pair per model, provenance, bill of materials, reports, measurements.
    """

    needs: ClassVar[tuple[type[Artifact], ...]] = (
        Dataset,
        Teacher,
        Student,
        QatStudent,
        SimplifiedModel,
        ParityReport,
        LatencyReport,
    )
    gathers: ClassVar[tuple[type[Artifact], ...]] = (DeployedModel,)
    welcomes: ClassVar[tuple[type[Artifact], ...]] = (Baseline,)
    makes: ClassVar[type[Artifact]] = artifacts.Bundle
    tools: ClassVar[tuple[str, ...]] = ("mobilekd", "numpy", "cyclonedx-python-lib", "license-expression")
    version: ClassVar[int] = 3
    tells_history: ClassVar[bool] = True

    pipeline_name: str = ""
    """What the report and the manifest call the pipeline; the profile's title stands beside it."""
    licence: str = ""
    """Licence under which the models are released, as an SPDX expression; "not stated" when empty."""
    network_licences: dict[str, str] = Field(default={}, exclude_if=lambda stated: not stated)
    """Licences of the networks' code and weights, as {"timm:resnet18" = "Apache-2.0"}; "not stated" without."""
    reference_image: int = Field(default=0, ge=0)
    """Index in the test split of the image that every model's reference output is made from."""
    seed: int = 0
    """Of the pipeline."""
    command: str = ""
    """Filled in when the pipeline is expanded: the command that repeats the build (command.py)."""
    profile: Profile | None = None
    """Filled in by `for_profile`: what the bundle is for."""

    def for_profile(self, profile: Profile) -> tuple[Stage, ...]:
        """Return this stage with the profile as an option, so that its key depends on it."""
        return (self.model_copy(update={"profile": profile}),)

    def missing(self) -> tuple[str, ...]:
        """Return the packages of the `release` extra that are not installed."""
        return missing_packages("release", ("cyclonedx", "jsonschema", "license_expression"))

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return what the provenance says of this host beside tools: Python, architecture, mobilekd's own code."""
        del scan
        return {"code": code_digest(), "machine": machine(), "python": python_version()}

    def recorded_options(self) -> dict[str, Any]:
        """Return the options that have no place of their own in provenance.json."""
        return {name: value for name, value in super().recorded_options().items() if name not in _ELSEWHERE}

    def run(self, inputs: Inputs, context: Context) -> None:
        """Fill `context.out` with bundle/ and bundle.zip."""
        if self.profile is None:
            raise ConfigError("the bundle stage has no profile", hint="mobilekd build --profile NAME", code="MKD-222")
        sources = Sources(
            dataset=inputs.newest(Dataset).path,
            teacher=inputs.newest(Teacher).path,
            student=inputs.newest(Student).path,
            quantized=inputs.newest(QatStudent).path,
            simplified=inputs.newest(SimplifiedModel).path,
            parity=inputs.newest(ParityReport).path,
            latency=inputs.newest(LatencyReport).path,
            deployed=tuple(model.path for model in inputs.all(DeployedModel)),
            baseline=next((one.path for one in reversed(inputs.all(Baseline))), None),
        )
        options = PackOptions(self.pipeline_name, self.licence, self.reference_image, self._facts(inputs))
        evidence = with_network_licences(read_evidence(self.profile, sources), self.network_licences)
        write_bundle(evidence, options, HOST, context.out, context.scratch)

    def _facts(self, inputs: Inputs) -> BuildFacts:
        tools = {name: tool_version(name) for name in self.tool_names()}
        packed_by = MadeBy(self.label(), self.stage_name(), self.version, self.recorded_options(), {}, tools)
        return BuildFacts(
            command=self.command,
            seed=self.seed,
            packed_by=packed_by,
            made=tuple(inputs),
            python=python_version(),
            machine=machine(),
            code=code_digest(),
        )
