"""From a float network to one that trains with its own rounding, and on to the int8 graph."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torchao.quantization.pt2e import FakeQuantizeBase, allow_exported_model_train_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from mobilekd.errors import StageError
from mobilekd.quantization.quantizer import WEIGHTED, MobileQuantizer, without_in_place
from mobilekd.quantization.scheme import Scheme


def prepare(network: nn.Module, example: Tensor, scheme: Scheme) -> GraphModule:
    """Return the network with fake quant on every tensor that int8 kernels write, and BatchNorm folded.

    The statistics of BatchNorm are frozen and folded into the weights before
    training: what is rounded in training is the very weight that ships
    (Krishnamoorthi 2018, arXiv 1806.08342, section 3.2.2: frozen statistics train better).

    Args:
        network: In float.
        example: [batch, channels, height, width], batch of at least 2.
        scheme: Ranges of activations and weights.

    Raises:
        StageError: The network can't be exported.
    """
    batch = torch.export.Dim.DYNAMIC
    try:
        exported = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},)).module()
    except (torch._dynamo.exc.Unsupported, RuntimeError, ValueError) as cause:
        raise StageError(
            f"the student can't be exported: {str(cause).splitlines()[0]}",
            hint="torch.export needs control flow that does not depend on values; pick another student",
        ) from cause
    assert isinstance(exported, GraphModule)
    prepared = prepare_pt2e(without_in_place(exported), MobileQuantizer(scheme))
    assert isinstance(prepared, GraphModule)
    allow_exported_model_train_eval(prepared)
    return prepared.requires_grad_(requires_grad=True)  # folding makes constants of the weights


def calibrate(prepared: GraphModule, batches: Iterable[Tensor]) -> None:
    """Set every range from the data: weights from their values, activations from a moving minimum and maximum."""
    set_observers(prepared, activations=True)
    for part in _fake_quants(prepared):
        part.enable_observer()
        part.disable_fake_quant()
    with torch.no_grad():
        for images in batches:
            prepared(images)
    for part in _fake_quants(prepared):
        part.enable_fake_quant()
    set_observers(prepared, activations=False)


def set_observers(prepared: GraphModule, *, activations: bool) -> None:
    """Let activation ranges move or not; weight ranges always follow their weights.

    `eval()` does not stop observers: without this an evaluation changes the model.
    """
    for part in _fake_quants(prepared):
        is_moving = activations or part.is_per_channel
        part.enable_observer() if is_moving else part.disable_observer()


def snap_biases(prepared: GraphModule) -> None:
    """Move every bias, in place, to the integer grid of its accumulator: input scale x weight scale.

    All int8 kernels add the bias as int32 on this grid. Rounded here, at the end of training, the network whose
    answers are the reference has the very biases that ship.
    """
    parts = dict(prepared.named_modules(remove_duplicate=False))  # tensors of one scale share one module
    for node in prepared.graph.nodes:
        if node.target not in WEIGHTED or len(node.args) < 3 or node.args[2] is None:
            continue
        image, weight = (parts.get(str(argument.target)) for argument in node.args[:2])
        if isinstance(image, FakeQuantizeBase) and isinstance(weight, FakeQuantizeBase):
            bias = prepared.get_parameter(node.args[2].target)
            grid = image.scale.double() * weight.scale.double()
            with torch.no_grad():
                bias.copy_((bias.double() / grid).round() * grid)


def convert(prepared: GraphModule) -> GraphModule:
    """Return the int8 graph: weights as integers, Q/DQ on activations. The argument is consumed."""
    converted = convert_pt2e(prepared)
    assert isinstance(converted, GraphModule)
    return converted


def trained_scales(prepared: GraphModule) -> tuple[Tensor, ...]:
    """Return the scales that training used, one tensor for each fake quant, in graph order."""
    return tuple(part.scale.detach().clone() for part in _fake_quants(prepared))


def _fake_quants(prepared: GraphModule) -> tuple[FakeQuantizeBase, ...]:
    return tuple(part for part in prepared.modules() if isinstance(part, FakeQuantizeBase))
