"""What ai_edge_quantizer does: int8 with the ranges it is told, or weights as float16.

Run as a program of its own, `python -m mobilekd.backends._tflite_quantize int8 ORDER.json`
or `... fp16 SOURCE RESULT`, so that whatever it raises or prints ends in the log of the conversion.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mobilekd.artifacts import write_json
from mobilekd.backends._tflite_graph import Graph
from mobilekd.backends._tflite_match import Range, WeightTwin


def write_order(
    path: Path,
    *,
    source: Path,
    result: Path,
    io: str,
    graph: Graph,
    ranges: Mapping[int, Range],
    weights: Mapping[int, WeightTwin],
) -> None:
    """Write what the program reads: the files, the type of input and output, and low and high of every tensor."""
    limits = {graph.tensors[index].name: {"min": [one.low], "max": [one.high]} for index, one in ranges.items()}
    for index, weight in weights.items():
        shape = [-1 if axis == weight.axis else 1 for axis in range(weight.payload.ndim)]
        # 127 * scale / 127 is the table's scale to the last bit in float64, and in float32 it is not.
        top = 127.0 * weight.scales().reshape(shape)
        limits[graph.tensors[index].name] = {"min": (-top).tolist(), "max": top.tolist()}
    write_json(path, {"source": str(source), "result": str(result), "io": io, "limits": limits})


def to_int8(order_file: Path) -> None:
    """Quantize as the order says."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer, recipe

    order = json.loads(order_file.read_text(encoding="utf-8"))
    limits = {
        name: {end: np.array(value, np.float64) for end, value in one.items()} for name, one in order["limits"].items()
    }
    worker = quantizer.Quantizer(order["source"], recipe.static_wi8_ai8())
    if order["io"] == "float32":
        for edge in (qtyping.TFLOperationName.INPUT, qtyping.TFLOperationName.OUTPUT):
            worker.update_quantization_recipe(".*", edge, algorithm_key=algorithm_manager.AlgorithmName.NO_QUANTIZE)
    made = worker.quantize(limits, enable_progress_bar=False, enable_progress_report=False)
    Path(order["result"]).write_bytes(made.quantized_model)


def to_fp16(source: Path, result: Path) -> None:
    """Store the weights of convolutions and linear layers as float16; input, output and arithmetic stay float32."""
    from ai_edge_quantizer import algorithm_manager, qtyping, quantizer

    worker = quantizer.Quantizer(str(source))
    half = qtyping.TensorQuantizationConfig(num_bits=16, dtype=qtyping.TensorDataType.FLOAT)
    config = qtyping.OpQuantizationConfig(
        weight_tensor_config=half, compute_precision=qtyping.ComputePrecision.FLOAT, explicit_dequantize=True
    )
    worker.update_quantization_recipe(
        ".*", qtyping.TFLOperationName.ALL_SUPPORTED, config, algorithm_manager.AlgorithmName.FLOAT_CASTING
    )
    result.write_bytes(worker.quantize(enable_progress_bar=False, enable_progress_report=False).quantized_model)


if __name__ == "__main__":
    if sys.argv[1] == "int8":
        to_int8(Path(sys.argv[2]))
    else:
        to_fp16(Path(sys.argv[2]), Path(sys.argv[3]))
