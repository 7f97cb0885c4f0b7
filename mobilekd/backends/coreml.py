"""Core ML: an .mlpackage from the trained Q/DQ graph. It runs on macOS and iOS only, so it is built and not run."""

from collections.abc import Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import ClassVar

from mobilekd.backend import Conversion, DeployedFacts, Float32, Session
from mobilekd.backends._torch_convert import check_options, facts_of, run_converter
from mobilekd.errors import MissingToolError, StageError

_WORKER = "mobilekd.backends._coreml_convert"
_NOTE = "built, not run: Core ML runs on macOS only; structure checked"


class Coreml:
    """Apple's runtime."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    symmetries: ClassVar[tuple[str, ...]] = ("symmetric",)
    kernels: ClassVar[tuple[str, ...]] = ("default",)
    tools: ClassVar[tuple[str, ...]] = ("coremltools", "torch", "torchao", "onnx")
    toolchains: ClassVar[tuple[str, ...]] = ()
    depends_on_machine: ClassVar[bool] = False
    output_parity_steps: ClassVar[float] = 1.0

    def missing(self) -> str | None:
        """Return what is not installed."""
        absent = [name for name in ("coremltools", "onnx") if util.find_spec(name) is None]
        return f"{', '.join(absent)} is not installed: pip install 'mobilekd[coreml]'" if absent else None

    def convert(self, request: Conversion) -> DeployedFacts:
        """Write DEPLOYMENT.mlpackage.zip; for int8, read every scale, weight and bias back from it.

        Raises:
            ConfigError: The deployment asks for what the backend has not.
            MissingToolError: A package is not installed.
            StageError: An operator has no form in torch or Core ML, or the file is not what the table says.
        """
        deployment = request.deployment
        check_options(deployment, self.precisions)
        if lack := self.missing():
            raise MissingToolError(f"coreml: {lack}")
        file = request.out / f"{deployment.name}.mlpackage.zip"
        found = run_converter(_WORKER, request, file)
        return facts_of(request, file, found, tools=self.tools, runnable=False, note=_NOTE)

    def describe(self, model: Path) -> DeployedFacts:
        """Refuse: nothing of it can run here."""
        raise StageError(f"{model}: Core ML runs on macOS only", hint="measure it in Xcode's performance report")

    def open(self, model: Path, facts: DeployedFacts, *, kernels: str, threads: int) -> Session:
        """Refuse, with the note of the deployment.

        Raises:
            StageError: Always.
        """
        del kernels, threads
        raise StageError(f"{model.name} can't run on this machine: {facts.note}", hint="run it on the target")

    def trace(
        self, model: Path, facts: DeployedFacts, image: Float32, names: Sequence[str], *, kernels: str
    ) -> Mapping[str, Float32]:
        """Refuse, as `open` does.

        Raises:
            StageError: Always.
        """
        del image, names, kernels
        raise StageError(f"{model.name} can't run on this machine: {facts.note}", hint="run it on the target")
