"""TensorRT: engines built ahead of time, or the package that the board builds its engine from.

Two providers with one API. `tensorrt` (Jetson, data centre), where it is installed, builds for the machine that it
runs on. `tensorrt_rtx` (desktop RTX) builds on any x86 CPU, without a GPU, for a compute capability; its engines are
the same bytes each time, and carry their kernels as source text that the driver compiles at the first start.

Engines are not run here: parity marks them "built, not run".
"""

import ctypes
import importlib
import platform
import shlex
import shutil
from collections.abc import Mapping, Sequence
from ctypes.util import find_library
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mobilekd.backend import Conversion, DeployedFacts, Float32, Session
from mobilekd.errors import ConfigError, MissingToolError, StageError
from mobilekd.process import tail
from mobilekd.profile import Target
from mobilekd.quant_table import load_table

if TYPE_CHECKING:
    from mobilekd.backends._trt_network import Network

_PROVIDERS = ("tensorrt", "tensorrt_rtx")
_MACHINES = {"x86_64": "x86_64", "AMD64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}


class Tensorrt:
    """NVIDIA's runtime."""

    precisions: ClassVar[tuple[str, ...]] = ("fp32", "fp16", "int8")
    symmetries: ClassVar[tuple[str, ...]] = ("symmetric",)
    kernels: ClassVar[tuple[str, ...]] = ("default",)
    tools: ClassVar[tuple[str, ...]] = ("onnx", "tensorrt", "tensorrt_rtx")
    toolchains: ClassVar[tuple[str, ...]] = ()
    depends_on_machine: ClassVar[bool] = True
    output_parity_steps: ClassVar[float] = 1.0

    def missing(self) -> str | None:
        """Return what is not installed."""
        if _provider() is None:
            return "neither tensorrt nor tensorrt_rtx is installed: pip install 'mobilekd[onnx,tensorrt]'"
        return None if util.find_spec("onnx") else "onnx is not installed: pip install 'mobilekd[onnx]'"

    def convert(self, request: Conversion) -> DeployedFacts:
        """Write DEPLOYMENT.engine, or DEPLOYMENT.onnx with a build command where the engine must be built on the board.

        Raises:
            ConfigError: The target names no compute capability, or one that the provider can't build for.
        """
        from mobilekd import graph
        from mobilekd.backends import _onnx_facts, _trt_network

        provider = _provider()
        deployment = request.deployment
        if provider is None:
            raise MissingToolError(
                "TensorRT is not installed", hint="pip install 'mobilekd[onnx,tensorrt]'", code="MKD-302"
            )
        if deployment.io != "float32":
            raise ConfigError(
                f"{deployment.name}: io is {deployment.io!r}", hint='set io = "float32" for tensorrt', code="MKD-230"
            )
        source = _source(request)
        trt = importlib.import_module(provider)
        network = _trt_network.parse(trt, source, request.log)
        is_int8 = deployment.precision == "int8"
        if is_int8:
            _check(request, network)
        floats, others = _trt_network.float_layers(network) if is_int8 else ((), ())
        model = graph.load(source)
        version = f"{provider} {trt.__version__}"
        if _must_pack(provider, request.target):
            file, note = _pack(request, source), f"packed, not built: needs TensorRT on the board; parsed by {version}"
        else:
            file = _build(request, network, provider)
            reason = "this release runs no engines" if _has_gpu() else "no GPU here"
            note = f"built, not run: {reason} ({version}, compute capability {request.target.compute_capability})"
        installed = [name for name in ("onnx", provider) if util.find_spec(name)]
        return DeployedFacts(
            deployment=deployment.model_dump(mode="json"),
            file=file.name,
            runnable=False,
            input=_onnx_facts.tensor_facts(model, "input"),
            output=_onnx_facts.tensor_facts(model, "output"),
            float_ops=floats,
            other_float_ops=others,
            int8_tensors=graph.int8_initializers(model),
            tools={name: metadata.version(name) for name in installed},
            note=note,
            build_command=_board_command(file) if file.suffix == ".onnx" else "",
        )

    def describe(self, model: Path) -> DeployedFacts:
        """Refuse: the file alone does not say enough to feed it."""
        raise StageError(
            f"{model}: a lone TensorRT file does not say how its input is laid out",
            hint="measure it in its bundle: mobilekd bench BUNDLE",
            code="MKD-421",
        )

    def open(self, model: Path, facts: DeployedFacts, *, kernels: str, threads: int) -> Session:
        """Refuse: an engine runs on the GPU that it was built for.

        Raises:
            StageError: Always, with the note of the deployment.
        """
        del kernels, threads
        raise _not_here(model, facts)

    def trace(
        self, model: Path, facts: DeployedFacts, image: Float32, names: Sequence[str], *, kernels: str
    ) -> Mapping[str, Float32]:
        """Refuse, as `open` does.

        Raises:
            StageError: Always, with the note of the deployment.
        """
        del image, names, kernels
        raise _not_here(model, facts)


def _not_here(model: Path, facts: DeployedFacts) -> StageError:
    return StageError(
        f"{model.name} can't run on this machine: {facts.note}", hint="run it on the target", code="MKD-422"
    )


def _provider() -> str | None:
    return next((name for name in _PROVIDERS if util.find_spec(name)), None)


def _has_gpu() -> bool:
    """Return True if the CUDA driver is there and sees a device."""
    library = find_library("cuda")
    if library is None:
        return False
    driver, count = ctypes.CDLL(library), ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _source(request: Conversion) -> Path:
    """Return the ONNX file of a precision; strongly typed networks take their types from it."""
    from mobilekd import graph
    from mobilekd.backends import _onnx_fp16

    if request.deployment.precision == "int8":
        return request.qdq_onnx
    if request.deployment.precision == "fp32":
        return request.float_onnx
    half = request.work / "fp16.onnx"
    graph.save(_onnx_fp16.to_fp16(graph.load(request.float_onnx)), half)
    return half


def _check(request: Conversion, network: "Network") -> None:
    from mobilekd import graph
    from mobilekd.backends import _readback, _trt_network

    model = graph.load(request.qdq_onnx)
    public = graph.public_names(model, graph.index_qdq(model))
    table = load_table(request.quant_table)
    trained = _readback.trained(request.qdq_onnx, table)
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "ConvTranspose")]
    bias = {node.name: node.input[2] for node in convolutions if len(node.input) > 2}
    bias = {node: name for node, name in bias.items() if name in trained.biases}
    names = _trt_network.Names(public, bias)
    _trt_network.check_against_table(request.qdq_onnx, network, table, trained, names)


def _must_pack(provider: str, target: Target) -> bool:
    """Return True where the engine can't be built on this machine: a Jetson, seen from anything but a Jetson."""
    if provider == "tensorrt_rtx":
        return target.abi == "aarch64"
    return _MACHINES.get(platform.machine()) != target.abi


def _pack(request: Conversion, source: Path) -> Path:
    file = request.out / f"{request.deployment.name}.onnx"
    shutil.copyfile(source, file)
    return file


def _board_command(file: Path) -> str:
    """Return the command for the board: TensorRT 10's own builder, types taken from the graph."""
    engine = file.with_suffix(".engine").name
    return shlex.join(["trtexec", f"--onnx={file.name}", "--stronglyTyped", f"--saveEngine={engine}"])


def _build(request: Conversion, network: "Network", provider: str) -> Path:
    """Write the engine.

    Raises:
        StageError: The builder gave none; the message has the end of its log.
    """
    trt = network.trt
    config = network.builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if provider == "tensorrt_rtx":
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(trt, request.target), 0)
        if request.target.os == "windows":
            config.runtime_platform = trt.RuntimePlatform.WINDOWS_AMD64
    plan = network.builder.build_serialized_network(network.definition, config)
    if plan is None:
        raise StageError(
            f"TensorRT built no engine of {request.deployment.name}\n{tail(request.log)}",
            hint=f"the whole log: {request.log}",
            code="MKD-421",
        )
    file = request.out / f"{request.deployment.name}.engine"
    file.write_bytes(bytes(memoryview(plan)))
    return file


def _capability(trt: Any, target: Target) -> Any:
    name = "SM" + target.compute_capability.replace(".", "")
    known = {one: value for one, value in trt.ComputeCapability.__members__.items() if one.startswith("SM")}
    if name not in known:
        choices = ", ".join(f"{one[2:-1]}.{one[-1]}" for one in known)
        raise ConfigError(
            f"target.compute_capability is {target.compute_capability!r}, which tensorrt_rtx can't build for",
            hint=f"choose one of {choices}",
            code="MKD-230",
        )
    return known[name]
