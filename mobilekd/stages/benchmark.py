"""Measure every deployed model where it will run: what it costs there, and whether it answers as it does here."""

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import PrivateAttr

from mobilekd.artifacts import Artifact, Dataset, DeployedModel, LatencyReport, QatStudent, SimplifiedModel, write_json
from mobilekd.errors import ConfigError, MissingToolError, VerificationError
from mobilekd.paths import devices_folder
from mobilekd.profile import Profile, Tolerance
from mobilekd.stage import Context, Inputs, Stage

if TYPE_CHECKING:
    from mobilekd.benchmarking.agreement import Trained
    from mobilekd.benchmarking.place import Place


class Benchmark(Stage):
    """Options of the measurement, which are the profile's."""

    needs = (Dataset,)
    gathers = (DeployedModel,)
    welcomes: ClassVar[tuple[type[Artifact], ...]] = (QatStudent, SimplifiedModel)
    makes = LatencyReport
    measures: ClassVar[bool] = True
    version: ClassVar[int] = 5  # 5: readings and runtime versions are kept; a device with a burden is not trusted

    profile: Profile | None = None
    """Filled in by `for_profile`: target, device, and how it is measured. The rest of it stays at its defaults, so
    that a changed budget measures nothing again."""

    _chosen: "Place | None" = PrivateAttr(default=None)

    def for_profile(self, profile: Profile) -> tuple[Stage, ...]:
        """Return this stage with what it reads of the profile."""
        kept = {key: getattr(profile, key) for key in ("name", "title", "target", "device", "benchmark")}
        kept["tolerance"] = Tolerance(agreement=profile.tolerance.agreement)
        return (self.model_copy(update={"profile": Profile(**kept, deploy=profile.deploy[:1])}),)

    def missing(self) -> tuple[str, ...]:
        """Return what the chosen place lacks to run models; a device that is not there is told by `sources`."""
        from mobilekd.device import web_runtime
        from mobilekd.device.building import compiler

        if self.profile is None:
            return ()
        try:
            place = self._place()
            if place.kind == "host":
                compiler(platform.machine())
            if place.transport == "web":
                web_runtime.need(devices_folder())
        except MissingToolError as lack:
            return (f"{lack.message} ({lack.hint})",)
        return ()

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return what the measurement is of beside the models: the device that is there now, and this host."""
        from mobilekd.device.web_runtime import pin
        from mobilekd.measurement import host_name

        del scan
        place = self._place()
        runtime = {"runtime": pin().told} if place.transport == "web" else {}
        return {"host": host_name(), "place": place.kind, "on": f"{place.transport} {place.name}", **runtime}

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write latency.json.

        Raises:
            VerificationError: A shipped int8 model answers otherwise on the device than here; it is named.
        """
        from mobilekd.benchmarking.agreement import refusals
        from mobilekd.benchmarking.measure import Bench, Task
        from mobilekd.measurement import Measured
        from mobilekd.training.data import open_split
        from mobilekd.worker import read_facts

        profile = self._profile()
        models = []
        for artifact in inputs.all(DeployedModel):
            facts = read_facts(artifact.path / "deployment.json")
            models.append(Measured(facts.name, artifact.path / facts.file, facts))
        test = open_split(inputs.newest(Dataset).path, "test")
        part = slice(0, max(1, profile.device.images))
        task = Task(models, test.normalized(part), test.labels[part], _trained(inputs))
        bench = Bench(profile, self._place(), context.devices, context.scratch, context.progress, layers=True)
        report: dict[str, Any] = bench.measure(task)
        if wrong := refusals(report["rows"], profile.tolerance.agreement, report["ran_on"]):
            kept = context.scratch / "latency.json"
            write_json(kept, report)
            raise VerificationError(
                "\n".join(wrong), hint=f"drop that deployment for this target; all rows: {kept}", code="MKD-702"
            )
        write_json(context.out / "latency.json", report)

    def _place(self) -> "Place":
        """Return where a command measures: looked for once, so that what the key names is what is measured."""
        from mobilekd.benchmarking.place import choose

        if self._chosen is None:
            self._chosen = choose(self._profile())
        return self._chosen

    def _profile(self) -> Profile:
        if self.profile is None:
            raise ConfigError(
                "the benchmark stage has no profile", hint="mobilekd build --profile NAME", code="MKD-222"
            )
        return self.profile


def _trained(inputs: Inputs) -> "Trained | None":
    """Return what the quantized network said to the test split, where the pipeline has one."""
    from mobilekd.benchmarking.agreement import read_trained

    students, graphs = inputs.all(QatStudent), inputs.all(SimplifiedModel)
    if not students or not graphs:
        return None
    return read_trained(students[-1].path / "test_logits.npy", graphs[-1].path / "quant_table.json")
