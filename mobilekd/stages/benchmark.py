"""Measure latency, load time and memory of every deployed model that can run here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mobilekd.artifacts import Dataset, DeployedModel, LatencyReport, write_json
from mobilekd.errors import StageError
from mobilekd.profile import BenchmarkSettings, Profile, Target
from mobilekd.stage import Context, Inputs, Progress, Stage


class Benchmark(Stage):
    """Options of the measurement; target and settings come from the profile."""

    needs = (Dataset,)
    gathers = (DeployedModel,)
    makes = LatencyReport
    measures: ClassVar[bool] = True

    target: Target | None = None
    settings: BenchmarkSettings = BenchmarkSettings()

    def for_profile(self, profile: Profile) -> tuple[Stage, ...]:
        """Return this stage with the profile's target and settings."""
        return (self.model_copy(update={"target": profile.target, "settings": profile.benchmark}),)

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return what the measurement is of beside the models: this host's processor."""
        from mobilekd.measurement import host_name

        del scan
        return {"host": host_name()}

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write latency.json."""
        from mobilekd.measurement import Measured, measure
        from mobilekd.training.data import open_split
        from mobilekd.worker import read_facts

        assert self.target is not None
        models = []
        for artifact in inputs.all(DeployedModel):
            facts = read_facts(artifact.path / "deployment.json")
            models.append(Measured(facts.name, artifact.path / facts.file, facts))
        image = open_split(inputs.newest(Dataset).path, "test").normalized(slice(0, 1))
        report = measure(
            models,
            image,
            target=self.target,
            settings=self.settings,
            scratch=context.scratch,
            progress=context.progress,
        )
        write_json(context.out / "latency.json", report)


def measure_bundle(path: Path, profile: Profile, progress: Progress) -> list[dict[str, Any]]:
    """Return one latency row for each model of a bundle that can run here, with its accuracy from the parity table.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: The bundle is not what was packed.
        StageError: No model of it can run here.
    """
    import tempfile

    import numpy as np

    from mobilekd.measurement import measure
    from mobilekd.release.bundle import unpack_models

    with tempfile.TemporaryDirectory(prefix="mobilekd-") as folder:
        models, image, accuracy = unpack_models(path, Path(folder))
        runnable = [model for model in models if model.facts.runnable]
        if not runnable:
            notes = "; ".join(f"{model.name}: {model.facts.note}" for model in models)
            raise StageError(f"no model of {path} can run on this host: {notes}")
        report = measure(
            runnable,
            np.load(image),
            target=profile.target,
            settings=profile.benchmark,
            scratch=Path(folder),
            progress=progress,
        )
    return [{**row, "top1": accuracy.get(row["deployment"])} for row in report["rows"]]
