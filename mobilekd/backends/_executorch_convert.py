"""ExecuTorch's conversion in a process of its own: `python -m mobilekd.backends._executorch_convert ORDER.json`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.backends._torch_convert import Answer, serve

if TYPE_CHECKING:
    from onnx import ModelProto

    from mobilekd.backends._executorch_lower import Lowered

TRACE, TRACED = "trace.pte", "trace.json"
"""Beside the model: the same network with every rounded tensor as an output, and the names of those."""


def convert(order: Answer) -> Answer:
    """Write the .pte of one deployment and, for int8, what traces it; return what was read back."""
    from mobilekd import graph
    from mobilekd.backends._executorch_lower import lower

    model, file = graph.load(Path(order["source"])), Path(order["file"])
    lowered = lower(model, [model.graph.output[0].name])
    file.write_bytes(lowered.content)
    if not order["table"]:
        return {}
    found = _checked(file, lowered, order)
    _write_trace(model, file.parent)
    return found


def _checked(file: Path, lowered: "Lowered", order: Answer) -> Answer:
    from mobilekd.backends._executorch_check import check
    from mobilekd.backends._executorch_file import read_pte
    from mobilekd.quant_table import load_table

    table = load_table(Path(order["table"]))
    return asdict(check(file, read_pte(file), lowered, Path(order["source"]), table))


def _write_trace(model: "ModelProto", folder: Path) -> None:
    from mobilekd import graph
    from mobilekd.backends._executorch_lower import lower

    index = graph.index_qdq(model)
    public = graph.public_names(model, index)
    real = {public.get(tensor, tensor): name for name, tensor in reversed(tuple(index.rounded.items()))}
    (folder / TRACE).write_bytes(lower(model, list(real.values())).content)
    (folder / TRACED).write_text(json.dumps(list(real)), encoding="utf-8")


if __name__ == "__main__":
    serve(convert)
