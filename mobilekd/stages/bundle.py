"""Pack what was built, and what was proved of it, for a release engineer."""

from typing import ClassVar

from pydantic import Field

from mobilekd import artifacts
from mobilekd.artifacts import (
    Artifact,
    Baseline,
    Dataset,
    DeployedModel,
    LatencyReport,
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
from mobilekd.release.reference import HOST
from mobilekd.stage import Context, Inputs, Stage


class Bundle(Stage):
    """Write bundle/ and bundle.zip: models, manifest, labels, a reference pair per model, reports, measurements."""

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
    version: ClassVar[int] = 2  # a .tflite file carries its metadata
    tools: ClassVar[tuple[str, ...]] = ("mobilekd",)

    pipeline_name: str = ""
    """What the report and the manifest call the pipeline; the profile's title stands beside it."""
    licence: str = ""
    """Licence under which the models are released, as an SPDX expression; "not stated" when empty."""
    network_licences: dict[str, str] = Field(default={}, exclude_if=lambda stated: not stated)
    """Licences of the networks' code and weights, as {"timm:resnet18" = "Apache-2.0"}; "not stated" without."""
    reference_image: int = Field(default=0, ge=0)
    """Index in the test split of the image that every model's reference output is made from."""
    profile: Profile | None = None
    """Filled in by `for_profile`: what the bundle is for."""

    def for_profile(self, profile: Profile) -> tuple[Stage, ...]:
        """Return this stage with the profile as an option, so that its key depends on it."""
        return (self.model_copy(update={"profile": profile}),)

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
        options = PackOptions(self.pipeline_name, self.licence, self.reference_image)
        evidence = with_network_licences(read_evidence(self.profile, sources), self.network_licences)
        write_bundle(evidence, options, HOST, context.out, context.scratch)
