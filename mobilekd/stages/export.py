"""Write the float student and the trained int8 network as ONNX."""

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.artifacts import Dataset, OnnxModel, QatStudent, Student
from mobilekd.errors import StageError
from mobilekd.stage import Context, Inputs, Stage
from mobilekd.stages._packages import missing_packages
from mobilekd.stages._training import load_network, network_facts

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn
    from torch.fx import GraphModule


class Export(Stage):
    """Options of the ONNX export."""

    needs = (Dataset, Student, QatStudent)
    makes = OnnxModel
    tools: ClassVar[tuple[str, ...]] = ("torch", "torchao", "timm", "onnx", "onnxscript")
    version: ClassVar[int] = 2

    opset: int = Field(default=18, ge=18, le=23)

    def missing(self) -> tuple[str, ...]:
        """Return the packages of the `onnx` extra that are not installed."""
        return missing_packages("onnx", ("onnx", "onnxscript"))

    def run(self, inputs: Inputs, context: Context) -> None:
        """Write float.onnx and qdq.onnx, each for one image."""
        import torch

        from mobilekd.quantization.lowering import lower
        from mobilekd.training.data import open_split

        torch.manual_seed(0)
        torch.set_num_threads(1)
        train = open_split(inputs.newest(Dataset).path, "train")
        two = torch.from_numpy(train.normalized(slice(0, 2)))
        student = inputs.newest(Student)
        with context.progress.bar("export: float and int8 graphs", 2) as bar:
            float_graph = lower(load_network(student), two)
            write_onnx(float_graph, two[:1], context.out / "float.onnx", opset=self.opset)
            bar.advance(1)
            int8_graph = _int8_graph(student, inputs.newest(QatStudent), two)
            write_onnx(int8_graph, two[:1], context.out / "qdq.onnx", opset=self.opset)
            bar.advance(1)


def write_onnx(network: "nn.Module", image: "Tensor", path: "Path", *, opset: int) -> None:
    """Write a network as ONNX, for one image, in canonical form.

    Raises:
        StageError: The exporter gave nothing.
    """
    import warnings

    import torch

    from mobilekd import graph

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter warns of its own deprecated parts
        program = torch.onnx.export(
            network,
            (image,),
            dynamo=True,
            opset_version=opset,
            verbose=False,
            input_names=["image"],
            output_names=["logits"],
        )
    if program is None:
        raise StageError("torch.onnx.export gave no program", hint="pick another student", code="MKD-410")
    graph.save(graph.canonicalize(program.model_proto), path)


def _int8_graph(student: Student, trained: QatStudent, example: "Tensor") -> "GraphModule":
    import safetensors.torch

    from mobilekd.quantization import qat
    from mobilekd.quantization.lowering import lower
    from mobilekd.quantization.post_training import PostTraining

    facts = network_facts(trained)
    graph = lower(load_network(student), example)
    prepared = PostTraining(symmetry=facts["symmetry"]).blank(graph, frozenset(facts["keep_float"]))
    prepared.load_state_dict(safetensors.torch.load_file(trained.path / "model.safetensors"))
    return qat.convert(prepared)
