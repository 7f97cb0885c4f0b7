"""What flows through a TFLite file: the tensors asked for become outputs, which every kernel set leaves alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mobilekd.backend import Float32
from mobilekd.backends._tflite_graph import Graph, Tensor, pack_model, read_model, view
from mobilekd.backends._tflite_session import interpreter


def trace(model: Path, image: Float32, names: Sequence[str], kernels: str) -> Mapping[str, Float32]:
    """Return the real values of tensors for one image, in the shape and layout of ONNX.

    XNNPACK overwrites what it passes on inside, so reading any tensor after a run would be wrong;
    an output it keeps.

    Args:
        model: A file of the writer.
        image: [1, channels, height, width], normalised.
        names: ONNX tensors; those that the file does not have are left out.
        kernels: One of the kernel sets.
    """
    content = read_model(model)
    graph = view(content)
    twins = {name: index for name in names if (index := graph.find(name)) is not None}
    known = {index: _real(data, one) for index, one in enumerate(graph.tensors) if (data := one.data) is not None}
    outputs = list(dict.fromkeys(index for index in twins.values() if index not in (*graph.inputs, *known)))
    content.subgraphs[0].outputs = outputs or list(graph.outputs)
    content.signatureDefs = None
    values = {**known, **_run(pack_model(content), graph, image, outputs, kernels)}
    return {name: _as_onnx(graph, name, values[index]) for name, index in twins.items()}


def _run(model: bytes, graph: Graph, image: Float32, outputs: Sequence[int], kernels: str) -> dict[int, Float32]:
    session = interpreter(model, kernels, threads=1)
    details = session.get_input_details()[0]
    source = graph.tensors[graph.inputs[0]]
    laid_out = np.ascontiguousarray(image.transpose(0, 2, 3, 1), np.float32)
    fed = laid_out if source.dtype != "int8" else _rounded(laid_out, source)
    session.set_tensor(details["index"], fed)
    session.invoke()
    found = [session.get_tensor(one["index"]) for one in session.get_output_details()]
    values = {index: _real(value, graph.tensors[index]) for index, value in zip(outputs, found, strict=False)}
    return {**values, graph.inputs[0]: _real(fed, source)}


def _rounded(image: Float32, tensor: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.int8]]:
    steps = np.rint(image / np.float32(tensor.scale[0])) + tensor.zero_point[0]
    return np.asarray(np.clip(steps, -128, 127), np.int8)


def _real(value: np.ndarray[tuple[int, ...], np.dtype[np.generic]], tensor: Tensor) -> Float32:
    if tensor.dtype != "int8" or len(tensor.scale) != 1:
        return value.astype(np.float32)
    return np.asarray((value.astype(np.float32) - tensor.zero_point[0]) * np.float32(tensor.scale[0]), np.float32)


def _as_onnx(graph: Graph, name: str, value: Float32) -> Float32:
    axes = graph.axes(name, value.ndim)
    return np.ascontiguousarray(value.transpose([axes.index(axis) for axis in range(value.ndim)]))
