"""Bring both graphs into the form that every backend is built from, and read the quantization table."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mobilekd.artifacts import OnnxModel, QatStudent, SimplifiedModel
from mobilekd.errors import StageError
from mobilekd.stage import Context, Inputs, Stage
from mobilekd.stages._packages import missing_packages
from mobilekd.stages._training import network_facts

if TYPE_CHECKING:
    from onnx import ModelProto

    from mobilekd.quant_table import QuantTable


class Simplify(Stage):
    """Options of simplification.

    Attributes:
        require_int8: Fail where a convolution, linear layer or matrix product computes in float.
    """

    needs = (OnnxModel, QatStudent)
    makes = SimplifiedModel
    tools: ClassVar[tuple[str, ...]] = ("onnx", "onnxsim")
    version: ClassVar[int] = 3

    require_int8: bool = False

    def missing(self) -> tuple[str, ...]:
        """Return the packages of the `onnx` extra that are not installed."""
        return missing_packages("onnx", ("onnx", "onnxsim"))

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write float.onnx, qdq.onnx, stripped.onnx and quant_table.json.

        Raises:
            StageError: The simplifier lost something, or a layer is in float and may not be.
        """
        from mobilekd import graph
        from mobilekd.quant_table import save_table
        from mobilekd.table_check import check_matches

        exported = inputs.newest(OnnxModel).path
        decided = decided_layers(network_facts(inputs.newest(QatStudent)))
        with context.progress.bar("simplify: float and int8 graphs", 2) as bar:
            graph.save(_simplified(exported / "float.onnx"), context.out / "float.onnx")
            bar.advance(1)
            qdq, table = int8_form(exported / "qdq.onnx", decided)
            stripped = graph.strip_qdq(qdq)
            check_matches(table, stripped)
            graph.save(qdq, context.out / "qdq.onnx")
            graph.save(stripped, context.out / "stripped.onnx")
            save_table(table, context.out / "quant_table.json")
            bar.advance(1)
        floats = [one for one in table.float_operators if one.operator in graph.WEIGHTED_OPS]
        if floats and self.require_int8:
            told = "".join(f"\n  {one.name!r} ({one.operator}): {one.reason}" for one in floats)
            raise StageError(
                f"simplify.require_int8: {len(floats)} layer(s) compute in float:{told}",
                hint="`mobilekd sensitivity` says what each layer costs in int8",
                code="MKD-424",
            )
        if count := sum(one.is_decided for one in floats):
            context.progress.say(f"simplify: {count} layer(s) compute in float by decision")
        for one in (one for one in floats if not one.is_decided):
            context.progress.say(f"simplify: {one.name} ({one.operator}) computes in float: {one.reason}")


def int8_form(path: Path, decided: Mapping[str, str]) -> "tuple[ModelProto, QuantTable]":
    """Return the exported int8 network in the form that backends are built from, and its quantization table.

    Args:
        path: qdq.onnx of an OnnxModel.
        decided: Layers that were decided to stay float -> who decided it.
    """
    from mobilekd import graph
    from mobilekd.float_operators import find_float_operators, name_float_nodes
    from mobilekd.graph_pairs import merge_repeated_pairs, separate_pairs
    from mobilekd.graph_weights import name_weights

    merged = separate_pairs(merge_repeated_pairs(_simplified(path)))
    qdq = graph.snap_biases(name_weights(merged))
    floats = find_float_operators(qdq, decided)
    return name_float_nodes(qdq, floats), replace(graph.read_table(qdq), float_operators=floats)


def decided_layers(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return the layers that network.json of a QatStudent keeps in float, each with the option that decided it."""
    chosen = (facts["mixed"] or {}).get("layers", ())
    return {layer: "max_top1_drop" if layer in chosen else "keep_float" for layer in facts["keep_float"]}


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
            f"onnxsim lost {len(lost)} of {len(before)} int8 weights of {path.name}",
            hint="pip install onnxsim==0.8.1",
            code="MKD-423",
        )
    if not is_same:
        raise StageError(
            f"onnxsim's {path.name} computes something else", hint="report it with the model", code="MKD-423"
        )
    return graph.pool_globally(graph.canonicalize(simplified))


def _int8_contents(model: "ModelProto") -> set[bytes]:
    """Return the weights stored as int8; equal ones count once, as the simplifier stores them."""
    import onnx

    zero_points = {node.input[2] for node in model.graph.node if node.op_type.endswith("eLinear") and node.input[2:]}
    weights = (one for one in model.graph.initializer if one.data_type == onnx.TensorProto.INT8)
    return {onnx.numpy_helper.to_array(one).tobytes() for one in weights if one.name not in zero_points}
