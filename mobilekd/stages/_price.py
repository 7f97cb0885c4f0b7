"""What layers in float cost in time: two int8 networks side by side in ONNX Runtime on this host."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnxruntime
    from torch import Tensor
    from torch.fx import GraphModule

_WARMUP_RUNS = 10
_TIMED_RUNS = 100
_OPSET = 18


def host_wall_ms(networks: "Mapping[str, GraphModule]", image: "Tensor", scratch: Path) -> dict[str, float]:
    """Return the median wall time of each calibrated network, one thread, in milliseconds on this host.

    Each network takes the way to ONNX Runtime that a build's takes. The networks take turns, so that a busy moment of
    the host meets them all.

    Args:
        networks: Name -> network; each is consumed.
        image: [1, channels, height, width].
        scratch: Where the ONNX files go.
    """
    value = image.numpy()
    sessions = {name: _session(network, image, scratch / f"{name}.onnx") for name, network in networks.items()}
    samples: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(_WARMUP_RUNS + _TIMED_RUNS):
        for name, session in sessions.items():
            began = time.perf_counter_ns()
            session.run(None, {"image": value})
            if turn >= _WARMUP_RUNS:
                samples[name].append((time.perf_counter_ns() - began) / 1e6)
    return {name: round(statistics.median(times), 4) for name, times in samples.items()}


def _session(network: "GraphModule", image: "Tensor", path: Path) -> "onnxruntime.InferenceSession":
    import onnxruntime

    from mobilekd.backends._ort_graph import fuse_ready
    from mobilekd.quantization import qat
    from mobilekd.stages.export import write_onnx
    from mobilekd.stages.simplify import int8_form

    qat.settle_scales(network)
    qat.snap_biases(network)
    write_onnx(qat.convert(network), image, path, opset=_OPSET)
    qdq, _ = int8_form(path, {})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    content = fuse_ready(qdq).SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
