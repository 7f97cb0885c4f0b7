"""Real networks with random weights, taken through quantization, export and simplification: what converters get."""

import copy
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch

from mobilekd import graph
from mobilekd.backend import Conversion
from mobilekd.graph_pairs import merge_repeated_pairs, separate_pairs
from mobilekd.graph_weights import name_weights
from mobilekd.quant_table import save_table
from mobilekd.quantization import qat
from mobilekd.quantization.lowering import lower
from mobilekd.quantization.scheme import Scheme
from mobilekd.training import networks
from tests.backends.tiny import conversion_in


def write_network(name: str, size: int, folder: Path) -> Conversion:
    """Write float.onnx, qdq.onnx, stripped.onnx, quant_table.json and samples.npy of a network; return the request."""
    torch.manual_seed(0)
    network, images = networks.build(name, 10), torch.randn(16, 3, size, size)
    network.train()
    with torch.no_grad():
        for _ in range(4):  # statistics of BatchNorm that are not the initial ones
            network(images)
    lowered = lower(network.eval(), images[:2])
    prepared = qat.prepare(copy.deepcopy(lowered), Scheme())
    qat.calibrate(prepared, images.split(8))
    qat.snap_biases(prepared)
    for part in ("out", "work"):
        (folder / part).mkdir(parents=True)
    graph.save(_exported(lowered, images[:1]), folder / "float.onnx")
    merged = separate_pairs(merge_repeated_pairs(_exported(qat.convert(prepared), images[:1])))
    qdq = graph.snap_biases(name_weights(merged))
    graph.save(qdq, folder / "qdq.onnx")
    graph.save(graph.strip_qdq(qdq), folder / "stripped.onnx")
    save_table(graph.read_table(qdq), folder / "quant_table.json")
    np.save(folder / "samples.npy", images.numpy())
    return conversion_in(folder)


def _exported(network: torch.nn.Module, image: torch.Tensor) -> onnx.ModelProto:
    import onnxsim

    names = {"input_names": ["image"], "output_names": ["logits"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated parts
        program = torch.onnx.export(network, (image,), dynamo=True, opset_version=18, verbose=False, **names)
    assert program is not None
    simplified, is_same = onnxsim.simplify(graph.canonicalize(program.model_proto))
    assert is_same
    return graph.pool_globally(graph.canonicalize(simplified))
