"""Convert the student for one runtime; a profile has one of these for each deployment."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from mobilekd.artifacts import DeployedModel, SimplifiedModel, write_json
from mobilekd.backend import Backend, Conversion
from mobilekd.plugins import BACKENDS
from mobilekd.profile import Deployment, Profile, Target
from mobilekd.stage import Context, Inputs, Stage
from mobilekd.versions import machine

_MACHINE = "machine"


class Convert(Stage):
    """One deployment of a profile; both fields are filled from it."""

    needs = (SimplifiedModel,)
    makes = DeployedModel
    version: ClassVar[int] = 5
    tools: ClassVar[tuple[str, ...]] = ("onnx",)

    target: Target | None = None
    deployment: Deployment | None = None

    def for_profile(self, profile: Profile) -> tuple[Stage, ...]:
        """Return one conversion for each deployment of the profile, float baselines included."""
        return tuple(
            self.model_copy(update={"target": profile.target, "deployment": deployment})
            for deployment in profile.deployments()
        )

    def label(self) -> str:
        """Return "convert:tflite-int8"."""
        return f"{self.stage_name()}:{self.deployment.name}" if self.deployment else self.stage_name()

    def tool_names(self) -> tuple[str, ...]:
        """Return the tools of the backend too."""
        return (*self.tools, *self._backend().tools)

    def missing(self) -> tuple[str, ...]:
        """Return what the backend lacks."""
        line = self._backend().missing()
        return (line,) if line else ()

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return what of a backend can change its output and is no package: locks of toolchains, this host's kind."""
        from mobilekd.toolchain import lock_digest

        del scan
        backend = self._backend()
        locks = {name: lock_digest(name) for name in backend.toolchains}
        return {**locks, _MACHINE: machine()} if backend.depends_on_machine else locks

    def recorded_sources(self, sources: Mapping[str, str]) -> dict[str, str]:
        """Return digests alone: the machine has a place of its own in provenance.json."""
        return {name: digest for name, digest in sources.items() if name != _MACHINE}

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write the model file, deployment.json and convert.log.

        Raises:
            StageError: The table is not that of the graph, or the converter refused.
        """
        from mobilekd import graph
        from mobilekd.quant_table import load_table
        from mobilekd.table_check import check_matches
        from mobilekd.toolchain import install

        assert self.deployment is not None
        assert self.target is not None
        model = inputs.newest(SimplifiedModel).path
        check_matches(load_table(model / "quant_table.json"), graph.load(model / "stripped.onnx"))
        work = context.scratch / "work"
        work.mkdir(parents=True, exist_ok=True)
        for name in self._backend().toolchains:
            install(name, context.toolchains, context.progress)
        with context.progress.bar(self.label(), 1) as bar:
            facts = self._backend().convert(
                Conversion(
                    float_onnx=model / "float.onnx",
                    qdq_onnx=model / "qdq.onnx",
                    stripped_onnx=model / "stripped.onnx",
                    quant_table=model / "quant_table.json",
                    target=self.target,
                    deployment=self.deployment,
                    out=context.out,
                    work=work,
                    log=context.scratch / "convert.log",
                    toolchains=context.toolchains,
                )
            )
            bar.advance(1)
        write_json(context.out / "deployment.json", facts.to_json())

    def _backend(self) -> Backend:
        assert self.deployment is not None
        backend: Backend = BACKENDS.load(self.deployment.backend)()
        return backend
