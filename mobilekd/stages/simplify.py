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

    def missing(self) -> tuple[str, ...]:
        """Return the packages of the `onnx` extra that are not installed."""
        return missing_packages("onnx", ("onnx", "onnxsim"))

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write float.onnx, qdq.onnx, stripped.onnx and quant_table.json."""
        from mobilekd import graph
        from mobilekd.graph_pairs import merge_repeated_pairs
        from mobilekd.quant_table import save_table

        exported = inputs.newest(OnnxModel).path
        with context.progress.bar("simplify: float and int8 graphs", 2) as bar:
            graph.save(_simplified(exported / "float.onnx"), context.out / "float.onnx")
            bar.advance(1)
            merged = merge_repeated_pairs(_simplified(exported / "qdq.onnx"))
            qdq = graph.snap_biases(graph.name_weights(merged))
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
    before = graph.int8_initializers(model)
    simplified, is_same = onnxsim.simplify(model)
    after = graph.int8_initializers(simplified)
    # Older versions of onnxsim folded the weights' DequantizeLinear and shipped float: onnxsim#216.
    if after != before:
        raise StageError(
            f"onnxsim left {after} of {before} int8 weights in {path.name}", hint="pip install onnxsim==0.8.1"
        )
    if not is_same:
        raise StageError(f"onnxsim's {path.name} computes something else", hint="report it with the model")
    return graph.pool_globally(graph.canonicalize(simplified))
