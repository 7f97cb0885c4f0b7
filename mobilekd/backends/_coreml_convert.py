"""Core ML's conversion in a process of its own: `python -m mobilekd.backends._coreml_convert ORDER.json`."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mobilekd.backends._torch_convert import Answer, serve

if TYPE_CHECKING:
    from onnx import ModelProto

_RESCALES = "common::distributive_quantized_binary_op_scale_normalization"
"""Divides the scales around a sum by one of them: 0.5, 1 and 1.25 would stand in the file for those of the table."""


def convert(order: Answer) -> Answer:
    """Write the package of one deployment; return what was read back for int8."""
    from mobilekd import graph
    from mobilekd.backends import _coreml_package, _torch_program

    model = graph.load(Path(order["source"]))
    program = _torch_program.exported(model, [model.graph.output[0].name])
    with _torch_program.quiet():
        program = program.run_decompositions({})
        saved = _saved(program, model, Path(order["work"]) / "model.mlpackage")
    origins = {node.name: name for node, name in _torch_program.origins(list(program.graph.nodes))}
    file = Path(order["file"])
    _coreml_package.pack(saved, file)
    return _checked(file, origins, order) if order["table"] else {}


def _saved(program: Any, model: "ModelProto", folder: Path) -> Path:
    import coremltools as ct

    passes = ct.PassPipeline.DEFAULT
    passes.remove_passes({_RESCALES})
    built = ct.convert(
        program,
        outputs=[ct.TensorType(name=model.graph.output[0].name)],
        minimum_deployment_target=ct.target.iOS17,
        # In float16, the default, the scales would be rounded to it.
        compute_precision=ct.precision.FLOAT32,
        pass_pipeline=passes,
        skip_model_load=True,
    )
    built.save(str(folder))
    return folder


def _checked(file: Path, origins: dict[str, str], order: Answer) -> Answer:
    from mobilekd.backends import _coreml_package
    from mobilekd.backends._coreml_check import check
    from mobilekd.quant_table import load_table

    opened = _coreml_package.unpack(file, Path(order["work"]) / "read-back")
    return asdict(check(opened, origins, Path(order["source"]), load_table(Path(order["table"]))))


if __name__ == "__main__":
    serve(convert)
