"""Measure latency, load time and memory of every deployed model that can run here."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from mobilekd.artifacts import Dataset, DeployedModel, LatencyReport, write_json
from mobilekd.errors import MissingToolError, StageError
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
    """Return one latency row for each model that can run here.

    A bundle's rows carry the accuracy of its parity table. A lone model file is fed noise and has no accuracy.

    Raises:
        ConfigError: Nothing is there.
        VerificationError: The bundle is not what was packed.
        StageError: No model of it can run here.
    """
    import tempfile

    import numpy as np

    from mobilekd.measurement import measure
    from mobilekd.release.bundle import unpack_models

    if path.suffix in _LONE_MODELS and path.is_file():
        return _measure_lone(path, profile, progress)
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


_LONE_MODELS = {".tflite": "tflite", ".onnx": "onnxruntime", ".mnn": "mnn", ".engine": "tensorrt"}


def _measure_lone(path: Path, profile: Profile, progress: Progress) -> list[dict[str, Any]]:
    import tempfile

    import numpy as np

    from mobilekd.backend import Backend
    from mobilekd.measurement import Measured, measure
    from mobilekd.plugins import BACKENDS

    backend: Backend = BACKENDS.load(_LONE_MODELS[path.suffix])()
    if lack := backend.missing():
        raise MissingToolError(lack)
    facts = backend.describe(path)
    batch, *rest = facts.input.shape
    height_first = rest if facts.input.layout == "NCHW" else [rest[-1], *rest[:-1]]
    image = np.random.default_rng(0).normal(size=(batch, *height_first)).astype(np.float32)
    with tempfile.TemporaryDirectory(prefix="mobilekd-") as folder:
        report = measure(
            [Measured(path.name, path, facts)],
            image,
            target=profile.target,
            settings=profile.benchmark,
            scratch=Path(folder),
            progress=progress,
        )
    return [{**row, "top1": None} for row in report["rows"]]
