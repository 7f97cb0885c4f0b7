"""Bring both graphs into the form that every backend is built from, and read the quantization table."""

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from mobilekd.artifacts import OnnxModel, SimplifiedModel
from mobilekd.errors import StageError
from mobilekd.stage import Context, Inputs, Stage
from mobilekd.stages._packages import missing_packages

if TYPE_CHECKING:
    from onnx import ModelProto


class Simplify(Stage):
    """Options of simplification: none."""

    needs = (OnnxModel,)
    makes = SimplifiedModel
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnxsim")
    version: ClassVar[int] = 2

    def missing(self) -> tuple[str, ...]:
        """Return the packages of the `onnx` extra that are not installed."""
        return missing_packages("onnx", ("onnx", "onnxsim"))

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write float.onnx, qdq.onnx, stripped.onnx and quant_table.json."""
        from mobilekd import graph
        from mobilekd.graph_pairs import merge_repeated_pairs, separate_pairs
        from mobilekd.graph_weights import name_weights
        from mobilekd.quant_table import save_table

        exported = inputs.newest(OnnxModel).path
        with context.progress.bar("simplify: float and int8 graphs", 2) as bar:
            graph.save(_simplified(exported / "float.onnx"), context.out / "float.onnx")
            bar.advance(1)
            merged = separate_pairs(merge_repeated_pairs(_simplified(exported / "qdq.onnx")))
            qdq = graph.snap_biases(name_weights(merged))
            graph.save(qdq, context.out / "qdq.onnx")
            graph.save(graph.strip_qdq(qdq), context.out / "stripped.onnx")
            save_table(graph.read_table(qdq), context.out / "quant_table.json")
            bar.advance(1)
        if floats := graph.float_layers(qdq):
            context.progress.say(f"simplify: {len(floats)} layer(s) stay float: {', '.join(floats[:5])}")


def _simplified(path: Path) -> "ModelProto":
    import onnxsim

    from mobilekd import graph

    model = graph.load(path)
    before = _int8_contents(model)
    simplified, is_same = onnxsim.simplify(model)
    after = _int8_contents(simplified)
    # Older versions of onnxsim folded the weights' DequantizeLinear and shipped float: onnxsim#216.
    if lost := before - after:
        raise StageError(
            f"onnxsim lost {len(lost)} of {len(before)} int8 weights of {path.name}", hint="pip install onnxsim==0.8.1"
        )
    if not is_same:
        raise StageError(f"onnxsim's {path.name} computes something else", hint="report it with the model")
    return graph.pool_globally(graph.canonicalize(simplified))


def _int8_contents(model: "ModelProto") -> set[bytes]:
    """Return the weights stored as int8; equal ones count once, as the simplifier stores them."""
    import onnx

    zero_points = {node.input[2] for node in model.graph.node if node.op_type.endswith("eLinear") and node.input[2:]}
    weights = (one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8)
    return {onnx.numpy_helper.to_array(one).tobytes() for one in weights if one.name not in zero_points}
