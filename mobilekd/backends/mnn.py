"""MNN: fp32, fp16, and int8 from the quantization table through MNN's compression parameters.

The wheel's own scripts are never run: importing `MNN.tools` runs pip and uploads usage. What MNN 3.6.1 computes
otherwise than trained is written out before conversion (`_mnn_rewrite`); each of those defects has a test in
tests/backends/test_mnn_defects.py; the one of ARM CPUs with i8mm in tests/backends/test_mnn_i8mm.py.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from mobilekd.artifacts import digest_file
from mobilekd.backend import Conversion, DeployedFacts, Float32
from mobilekd.errors import ConfigError, StageError
from mobilekd.process import run_logged, tail
from mobilekd.quant_table import QuantTable, load_table

_WORKER = "mobilekd.backends._mnn_convert"
_SUCCESS = "Converted Success!"
_TIMEOUT_S = 300.0
_OPTIONS = {
    "fp16": ("--fp16",),
    # "fastest": otherwise the layers that share a weight run in float where they are more than four.
    "int8": ("--optimizePrefer", "2"),
}


class Mnn:
    """Alibaba's runtime."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    symmetries: ClassVar[tuple[str, ...]] = ("symmetric",)
    kernels: ClassVar[tuple[str, ...]] = ("default",)
    tools: ClassVar[tuple[str, ...]] = ("mnn", "onnx")
    toolchains: ClassVar[tuple[str, ...]] = ()
    depends_on_machine: ClassVar[bool] = False
    output_parity_steps: ClassVar[float] = 1.0

    def missing(self) -> str | None:
        """Return what is not installed."""
        absent = [name for name, module in (("MNN", "_tools"), ("onnx", "onnx")) if util.find_spec(module) is None]
        return f"{', '.join(absent)} is not installed: pip install 'mobilekd[onnx,mnn]'" if absent else None

    def convert(self, request: Conversion) -> DeployedFacts:
        """Write DEPLOYMENT.mnn; for int8, read every scale, weight and bias back from it."""
        from mobilekd import graph
        from mobilekd.backends import _onnx_facts

        deployment = request.deployment
        if deployment.io != "float32":
            raise ConfigError(
                f"{deployment.name}: MNN has no int8 input", hint='set io = "float32" for backend mnn', code="MKD-230"
            )
        model = graph.load(request.source_onnx)
        file = request.out / f"{deployment.name}.mnn"
        found = _convert_int8(request, file) if deployment.precision == "int8" else _convert_float(request, file)
        return DeployedFacts(
            deployment=deployment.model_dump(mode="json"),
            file=file.name,
            runnable=True,
            input=_onnx_facts.tensor_facts(model, "input"),
            output=_onnx_facts.tensor_facts(model, "output"),
            float_ops=found.float_ops,
            other_float_ops=found.other_float_ops,
            int8_tensors=found.int8_tensors,
            tools={name: metadata.version(name) for name in self.tools},
        )

    def describe(self, model: Path) -> DeployedFacts:
        """Refuse: the file alone does not say enough to feed it."""
        raise StageError(
            f"{model}: a lone MNN file does not say how its input is laid out",
            hint="measure it in its bundle: mobilekd bench BUNDLE",
            code="MKD-421",
        )

    def open(self, model: Path, facts: DeployedFacts, *, kernels: str, threads: int) -> "MnnSession":
        """Load a model on the CPU, precision "high": sums in fp32 where the model is float."""
        del kernels
        return MnnSession(model, facts, threads=threads)

    def trace(
        self, model: Path, facts: DeployedFacts, image: Float32, names: Sequence[str], *, kernels: str
    ) -> Mapping[str, Float32]:
        """Return the named tensors of a file as their readers see them.

        A tensor that a float operator writes and int8 kernels read is rounded by those; so it is here. One that float
        operators read is returned as it is.
        """
        from mobilekd.backends import _mnn_graph
        from mobilekd.backends._mnn_file import read_mnn

        del kernels
        file = read_mnn(model)
        known = _mnn_graph.tensors_by_name(file)
        present = [name for name in names if name in known]
        tensors = [file.tensors[known[name]] for name in present]
        session = MnnSession(model, facts, threads=1, outputs=tensors)
        session.load_input(image)
        session.invoke()
        rounded = _mnn_graph.rounded_by_readers(file)
        values = zip(present, map(_mnn_graph.without_map, tensors, session.read_all()), strict=True)
        return {
            name: _rounded(value, *file.quant[known[name]]) if known[name] in rounded else value
            for name, value in values
        }


def _rounded(value: Float32, scale: float, zero_point: int) -> Float32:
    steps = np.clip(np.rint(value / np.float32(scale)) + zero_point, -128, 127) - zero_point
    return np.asarray(steps * np.float32(scale), np.float32)


class MnnSession:
    """One loaded model."""

    def __init__(self, model: Path, facts: DeployedFacts, *, threads: int, outputs: Sequence[str] = ()) -> None:
        with _quiet_stdout():
            from MNN import expr, nn

            config = {"precision": "high", "backend": "CPU", "numThread": threads}
            self._runtime = nn.create_runtime_manager((config,))
            names = [facts.input.name], list(outputs) or [facts.output.name]
            self._net = nn.load_module_from_file(str(model), *names, runtime_manager=self._runtime)
            self._image: Any = expr.placeholder(list(facts.input.shape), expr.NCHW)
        self._outputs: Any = None

    def load_input(self, image: Float32) -> None:
        """Copy one image into the runtime; a quantized model rounds it itself."""
        self._image.write(np.ascontiguousarray(image, np.float32))

    def invoke(self) -> None:
        """Run the model once."""
        self._outputs = self._net.forward([self._image])

    def read_all(self) -> list[Float32]:
        """Return every output of the last run; maps as [1, channels, height, width]."""
        from MNN import expr

        blocked = expr.NC4HW4
        plain = [expr.convert(one, expr.NCHW) if one.data_format == blocked else one for one in self._outputs]
        return [np.array(one.read(), np.float32) for one in plain]

    def read_output(self) -> Float32:
        """Return the logits [classes]."""
        # A copy, taken while the variable lives: `read` gives a view of memory that MNN uses again.
        return np.array(self._outputs[0].read(), np.float32).reshape(-1)


@dataclass(frozen=True, slots=True)
class _Found:
    """What was read back from a file: see `DeployedFacts`."""

    float_ops: tuple[str, ...] = ()
    other_float_ops: tuple[str, ...] = ()
    int8_tensors: int = 0


def _convert_float(request: Conversion, file: Path) -> _Found:
    from mobilekd.backends import _mnn_graph

    params = _mnn_graph.compression_params((), QuantTable(()), digest_file(request.source_onnx))
    _convert(request, request.source_onnx, params, file)
    return _Found()


def _convert_int8(request: Conversion, file: Path) -> _Found:
    from mobilekd import graph
    from mobilekd.backends import _mnn_describe, _mnn_graph, _mnn_layers, _mnn_rewrite, _readback
    from mobilekd.backends._mnn_file import read_mnn

    model, table = graph.load(request.stripped_onnx), load_table(request.quant_table)
    layers = _mnn_layers.int8_layers(model, table)
    source = request.work / "source.onnx"
    trained = _readback.trained(request.qdq_onnx, table)
    _mnn_graph.check_small_scales(layers, table, trained)
    rewritten, layers = _mnn_rewrite.for_converter(model, table, layers)
    graph.save(rewritten, source)
    digest = digest_file(request.stripped_onnx) + digest_file(request.quant_table)
    _convert(request, source, _mnn_graph.compression_params(layers, table, digest), file)
    _mnn_describe.describe(file, _mnn_graph.described(read_mnn(file), table))
    written = read_mnn(file)
    _mnn_graph.check_against_table(file, written, layers, table, trained)
    return _Found(*_mnn_graph.float_ops(written), _mnn_graph.int8_weights(written))


def _convert(request: Conversion, source: Path, params: str, file: Path) -> None:
    params_file = request.work / "compression.json"
    params_file.write_text(params, encoding="utf-8")
    arguments = ["-f", "ONNX", "--modelFile", str(source.resolve()), "--MNNModel", str(file.resolve())]
    arguments += ["--bizCode", "MNN", "--compressionParamsFile", str(params_file.resolve())]
    arguments += _OPTIONS.get(request.deployment.precision, ())
    _run(request, arguments)
    if not file.is_file() or _SUCCESS not in request.log.read_text(encoding="utf-8", errors="replace"):
        raise StageError(
            f"MNN's converter refused {request.source_onnx.name}\n{tail(request.log)}",
            hint=f"the whole log: {request.log}",
            code="MKD-422",
        )


def _run(request: Conversion, arguments: Sequence[str]) -> None:
    argv = [sys.executable, "-m", _WORKER, str(request.work.resolve()), *arguments]
    run_logged(argv, request.log, timeout_s=_TIMEOUT_S)


@contextlib.contextmanager
def _quiet_stdout() -> Iterator[None]:
    """Drop what MNN prints to file descriptor 1 while it is imported and loads: stdout is for results."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    kept, sink = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 1)
        yield
    finally:
        libc.fflush(None)  # C buffers its lines: without this they come out behind our back, later
        os.dup2(kept, 1)
        os.close(kept)
        os.close(sink)
