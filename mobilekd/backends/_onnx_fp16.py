"""An ONNX graph in half precision, with float32 input and output."""

import sys

from onnx import ModelProto

from mobilekd import graph
from mobilekd.errors import StageError


def to_fp16(model: ModelProto) -> ModelProto:
    """Return the model with fp16 weights and arithmetic; a Cast at both ends keeps its input and output float32."""
    path = list(sys.path)
    from onnxruntime.transformers.float16 import convert_float_to_float16

    sys.path[:] = path  # the package puts its own folder of scripts on the path when it is imported
    half: ModelProto = convert_float_to_float16(model, keep_io_types=True)
    _sort(half)
    return graph.canonicalize(half)


def _sort(model: ModelProto) -> None:
    """Put nodes behind those they read from; the converter appends its Cast nodes at the end."""
    known = {one.name for one in (*model.graph.input, *model.graph.initializer)} | {""}
    waiting = list(model.graph.node)
    del model.graph.node[:]
    while waiting:
        ready = [node for node in waiting if known.issuperset(node.input)]
        if not ready:
            raise StageError(f"the fp16 graph has a cycle at {waiting[0].name!r}", code="MKD-421")
        model.graph.node.extend(ready)
        known.update(name for node in ready for name in node.output)
        waiting = [node for node in waiting if not known.issuperset(node.output)]
