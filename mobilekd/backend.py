"""The contract of a backend: one runtime family, how to convert for it and how to run it on the host."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from mobilekd.profile import Deployment, Target

Float32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Conversion:
    """Everything that a converter may read, and where it writes.

    Attributes:
        float_onnx: The float student: source of fp32 and fp16.
        qdq_onnx: The trained int8 network with Q/DQ nodes.
        stripped_onnx: qdq_onnx without Q/DQ nodes; weights = int8 x scale; source of int8 where QDQ is not read.
        quant_table: quant_table.json of qdq_onnx.
        target, deployment: What for.
        out: Directory to write the model file into.
        work: Scratch directory, thrown away.
        log: File that keeps the converter's own output.
        toolchains: Where isolated converter environments live.
    """

    float_onnx: Path
    qdq_onnx: Path
    stripped_onnx: Path
    quant_table: Path
    target: Target
    deployment: Deployment
    out: Path
    work: Path
    log: Path
    toolchains: Path

    @property
    def source_onnx(self) -> Path:
        """Return the float graph of this precision: the stripped int8 network for int8, else the float student."""
        return self.stripped_onnx if self.deployment.precision == "int8" else self.float_onnx


@dataclass(frozen=True, slots=True)
class TensorFacts:
    """A model's own input or output, as an app sees it. scale and zero_point only for int8."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    layout: str
    """"NCHW", "NHWC", or "NC" for logits."""
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, slots=True)
class DeployedFacts:
    """What is known of a converted model; deployment.json.

    Attributes:
        file: Name of the model file in the artifact.
        runnable: False for an engine or package that can't run on this host; then `note` says why.
        float_ops: Convolution, linear and matmul layers that do not run in int8, by name.
        other_float_ops: Other operators left in float, as "Softmax node_name".
        int8_tensors: Number of int8 tensors in the file.
        note: What a release engineer must know, as "built, not run: no GPU here".
        build_command: The exact command that finishes the build on the board, where one is needed.
        tools: Versions of what made it.
    """

    deployment: dict[str, object]
    file: str
    runnable: bool
    input: TensorFacts
    output: TensorFacts
    float_ops: tuple[str, ...]
    other_float_ops: tuple[str, ...]
    int8_tensors: int
    tools: dict[str, str]
    note: str = ""
    build_command: str = ""

    @property
    def name(self) -> str:
        """Return the name of the deployment, as "tflite-int8"."""
        return Deployment.model_validate(self.deployment).name

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values."""
        return asdict(self)


class Session(Protocol):
    """One loaded model. Inputs are float32 NCHW whatever the file's own type and layout; outputs float32 logits."""

    def load_input(self, image: Float32) -> None:
        """Copy one image [1, channels, height, width] into the runtime, quantized when the model's input is int8."""

    def invoke(self) -> None:
        """Run the model once on the loaded input: this call, and nothing else, is what latency times."""

    def read_output(self) -> Float32:
        """Return the logits [classes] of the last run, dequantized when the model's output is int8."""


class Backend(Protocol):
    """One runtime family; a class without state, in the file that carries its name."""

    precisions: ClassVar[tuple[str, ...]]
    symmetries: ClassVar[tuple[str, ...]]
    """Schemes of activations that int8 runs with: "symmetric", "asymmetric"."""
    kernels: ClassVar[tuple[str, ...]]
    """Kernel sets that parity checks; the first is what apps use by default."""
    tools: ClassVar[tuple[str, ...]]
    """Distributions whose versions enter the key of a conversion."""
    toolchains: ClassVar[tuple[str, ...]]
    """Isolated environments that the backend converts in; the digests of their locks enter the key of a conversion."""
    depends_on_machine: ClassVar[bool]
    """Whether `convert` writes something else on a host of another architecture, which then enters the key too."""
    output_parity_steps: ClassVar[float]
    """Largest logit error, in output steps, that is rounding and not drift, on the reference pair."""

    def missing(self) -> str | None:
        """Return what is not installed, with the command that mends it; None when ready. Imports nothing heavy."""

    def convert(self, request: Conversion) -> DeployedFacts:
        """Write one model file into `request.out`.

        Raises:
            MissingToolError: A tool is not there.
            StageError: The converter refused or crashed; the message names the log.
        """

    def describe(self, model: Path) -> DeployedFacts:
        """Return what can be read from a model file that comes without a bundle.

        Raises:
            StageError: The file is no model of this runtime, or its format does not say enough to feed it.
        """

    def open(self, model: Path, facts: DeployedFacts, *, kernels: str, threads: int) -> Session:
        """Load a model on this host."""

    def trace(
        self, model: Path, facts: DeployedFacts, image: Float32, names: Sequence[str], *, kernels: str
    ) -> Mapping[str, Float32]:
        """Return what flows through the named tensors of a deployed model for one image.

        Args:
            model: A file that `convert` wrote.
            facts: What its conversion left.
            image: [1, channels, height, width], normalised.
            names: Tensors of stripped.onnx, in graph order.
            kernels: One of `kernels`.

        Returns:
            Real values, dequantized where the file has integers, in the shape and layout that stripped.onnx gives the
            tensor. Tensors that the file does not have (fused away, folded) are left out.
        """
