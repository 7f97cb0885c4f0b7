"""ExecuTorch: .pte files for XNNPACK, int8 from the trained Q/DQ graph, fp32 from the float student.

A .pte is made of a torch program, so the ONNX graph is written as one first (`_torch_program`). Converting runs in a
process of its own; so does every run, as of all backends.
"""

import contextlib
import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import util
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mobilekd.backend import Conversion, DeployedFacts, Float32, TensorFacts
from mobilekd.backends._torch_convert import check_options, facts_of, run_converter
from mobilekd.errors import MissingToolError, StageError
from mobilekd.profile import Deployment

_WORKER = "mobilekd.backends._executorch_convert"


class Executorch:
    """PyTorch's runtime for devices, with XNNPACK."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "int8")
    symmetries: ClassVar[tuple[str, ...]] = ("symmetric",)
    kernels: ClassVar[tuple[str, ...]] = ("xnnpack",)
    tools: ClassVar[tuple[str, ...]] = ("executorch", "torch", "torchao", "onnx")
    toolchains: ClassVar[tuple[str, ...]] = ()
    depends_on_machine: ClassVar[bool] = False
    output_parity_steps: ClassVar[float] = 1.0

    def missing(self) -> str | None:
        """Return what is not installed."""
        absent = [name for name in ("executorch", "onnx") if util.find_spec(name) is None]
        return f"{', '.join(absent)} is not installed: pip install 'mobilekd[executorch]'" if absent else None

    def convert(self, request: Conversion) -> DeployedFacts:
        """Write DEPLOYMENT.pte; for int8, read every scale, weight and bias back from it.

        Raises:
            ConfigError: The deployment asks for what the backend has not.
            MissingToolError: A package is not installed.
            StageError: An operator has no torch form, or the file is not what the table says.
        """
        deployment = request.deployment
        check_options(deployment, self.precisions)
        if lack := self.missing():
            raise MissingToolError(f"executorch: {lack}")
        file = request.out / f"{deployment.name}.pte"
        found = run_converter(_WORKER, request, file)
        note = _note(found) if deployment.precision == "int8" else ""
        return facts_of(request, file, found, tools=self.tools, runnable=True, note=note)

    def describe(self, model: Path) -> DeployedFacts:
        """Return what a .pte file says of its input and output; int8 when a delegate has int8 tensors."""
        from mobilekd.backends._executorch_file import read_pte

        with _quiet():
            is_int8 = any(one.dtype == "int8" for part in read_pte(model).graphs for one in part.values.values())
            method = _method(model, threads=1)
        deployment = Deployment(backend="executorch", precision="int8" if is_int8 else "fp32")
        return DeployedFacts(
            deployment=deployment.model_dump(mode="json"),
            file=model.name,
            runnable=True,
            input=_edge(model, "input", method.metadata.input_tensor_meta(0)),
            output=_edge(model, "output", method.metadata.output_tensor_meta(0)),
            float_ops=(),
            other_float_ops=(),
            int8_tensors=0,
            tools={},
            note="operators in float: not looked for in a lone file",
        )

    def open(self, model: Path, facts: DeployedFacts, *, kernels: str, threads: int) -> "ExecutorchSession":
        """Load a model on this host."""
        del facts, kernels
        return ExecutorchSession(model, threads=threads)

    def trace(
        self, model: Path, facts: DeployedFacts, image: Float32, names: Sequence[str], *, kernels: str
    ) -> Mapping[str, Float32]:
        """Return the named tensors, from the file beside the model in which each of them is an output.

        Raises:
            StageError: There is no such file (a bundle has none), or its logits are not those of the model.
        """
        from mobilekd.backends._executorch_convert import TRACE, TRACED

        del facts, kernels
        beside = model.with_name(TRACED)
        if not beside.is_file():
            raise StageError(
                f"{model}: no {TRACED} beside it", hint="the verify stage traces what convert has just made"
            )
        traced = ExecutorchSession(model.with_name(TRACE), threads=1)
        found = dict(zip(json.loads(beside.read_text(encoding="utf-8")), traced.run_all(image), strict=True))
        whole = ExecutorchSession(model, threads=1).run_all(image)[0]
        if "logits" in found and not np.array_equal(found["logits"], whole):
            raise StageError(
                f"{model.name}: with every tensor as an output it gives other logits, so no tensor is known"
            )
        return {name: found[name] for name in names if name in found}


class ExecutorchSession:
    """One loaded model."""

    def __init__(self, model: Path, *, threads: int) -> None:
        with _quiet():
            self._method = _method(model, threads=threads)
        self._image: Any = None
        self._outputs: Sequence[Any] = ()

    def load_input(self, image: Float32) -> None:
        """Copy one image; an int8 model rounds it itself."""
        import torch

        self._image = torch.from_numpy(np.array(image, np.float32, order="C"))

    def invoke(self) -> None:
        """Run the model once."""
        self._outputs = self._method.execute((self._image,))

    def read_output(self) -> Float32:
        """Return the logits [classes]."""
        # A copy: the tensors are views of memory that the next run writes.
        return np.array(self._outputs[0].numpy(), np.float32).reshape(-1)

    def run_all(self, image: Float32) -> list[Float32]:
        """Return every output for one image."""
        self.load_input(image)
        self.invoke()
        return [np.array(one.numpy(), np.float32) for one in self._outputs]


def _note(found: Mapping[str, Any]) -> str:
    """Return how much of the model XNNPACK computes, and what of the table is not rounded on its own."""
    absent = [f"{name}: fused away, not rounded on its own" for name in found["absent"]]
    return "; ".join((f"{found['inside']} operators in XNNPACK, {found['outside']} outside", *absent))


def _method(model: Path, *, threads: int) -> Any:
    """Return the method of a file, ready to run.

    Raises:
        StageError: The runtime refused the file.
    """
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime, Verification

    portable_lib._unsafe_reset_threadpool(threads)
    try:
        method = Runtime.get().load_program(model, verification=Verification.InternalConsistency).load_method("forward")
    except RuntimeError as cause:
        raise StageError(f"{model} is no model that ExecuTorch runs: {cause}") from cause
    if method is None:
        raise StageError(f"{model}: the program has no method 'forward'")
    return method


def _edge(model: Path, name: str, tensor: Any) -> TensorFacts:
    shape = tuple(tensor.sizes())
    if len(shape) not in (2, 4):
        raise StageError(f"{model}: its {name} has shape {list(shape)}; an image classifier has 4 and 2 dimensions")
    return TensorFacts(name, shape, "float32", "NCHW" if len(shape) == 4 else "NC")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what ExecuTorch prints of the CPU and warns of itself while it loads: stdout and stderr are the user's."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept, sink = [os.dup(1), os.dup(2)], os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for number, one in enumerate(kept, start=1):
            os.dup2(one, number)
            os.close(one)
        os.close(sink)
