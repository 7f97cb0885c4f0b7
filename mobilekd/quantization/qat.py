"""From a float network to one that trains with its own rounding, and on to the int8 graph."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torchao.quantization.pt2e import allow_exported_model_train_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

from mobilekd.errors import StageError
from mobilekd.quantization.fake_quant import FakeQuant, PerChannelFakeQuant, TensorFakeQuant
from mobilekd.quantization.graph_tools import constant, layer_name
from mobilekd.quantization.quantizer import WEIGHTED, MobileQuantizer
from mobilekd.quantization.scheme import Scheme

_LARGEST_BIAS_STEPS = 2.0**30


def prepare(graph: GraphModule, scheme: Scheme, keep_float: frozenset[str] = frozenset()) -> GraphModule:
    """Return a lowered graph with fake quant on every tensor that int8 kernels write; the argument is consumed.

    Args:
        graph: What `lower` gave: BatchNorm is folded, so what is rounded in training is the very weight that ships
            (Krishnamoorthi 2018, arXiv 1806.08342, section 3.2.2: frozen statistics train better).
        scheme: Ranges of activations and weights.
        keep_float: Layers whose weights stay float; names as `layer_nodes` gives them.

    Raises:
        StageError: The network has no layer of a name in `keep_float`.
    """
    known = {layer_name(node.args[1]) for node in graph.graph.nodes if node.target in WEIGHTED}
    if unknown := sorted(keep_float - known):
        raise StageError(
            f"the student has no layer {unknown[0]!r} to keep in float",
            hint=f"its layers: {', '.join(sorted(known))}",
            code="MKD-411",
        )
    prepared = prepare_pt2e(graph, MobileQuantizer(scheme, keep_float))
    assert isinstance(prepared, GraphModule)
    allow_exported_model_train_eval(prepared)
    _name(prepared)
    return prepared


def calibrate(prepared: GraphModule, batches: Iterable[Tensor]) -> None:
    """Set every range from the data: weights from their values, activations from what flows, unrounded.

    Raises:
        StageError: No image was given, or a tensor has values that are not finite (it is named).
    """
    parts = list(_fake_quants(prepared))
    for part in parts:
        part.disable_fake_quant()
        if isinstance(part, TensorFakeQuant):
            part.observe()
    seen = 0
    with torch.no_grad():
        for images in batches:
            prepared(images)
            seen += len(images)
    for part in parts:
        part.enable_fake_quant()
        if isinstance(part, TensorFakeQuant):
            part.set_range()
    if not seen:
        raise StageError("calibration has no images", hint="raise quantize.calibration_images", code="MKD-411")


def learn_scales(prepared: GraphModule) -> None:
    """Let training move every scale: LSQ. Call after `calibrate`, before the optimizer is made."""
    for part in _fake_quants(prepared):
        part.learn()


def settle_scales(prepared: GraphModule) -> None:
    """End training: every scale, and every weight's range, stays as it is."""
    for part in _fake_quants(prepared):
        part.settle()
        if isinstance(part, PerChannelFakeQuant):
            part.follows = False


def snap_biases(prepared: GraphModule) -> None:
    """Move every bias, in place, to the integer grid of its accumulator: input scale x weight scale.

    All int8 kernels add the bias as int32 on this grid. Rounded here, at the end of training, the network whose
    answers are the reference has the very biases that ship. A channel whose weights are all but zero gets a coarser
    scale where its bias would not fit.
    """
    parts = dict(prepared.named_modules(remove_duplicate=False))  # tensors of one scale share one module
    for node in prepared.graph.nodes:
        if node.target not in WEIGHTED or len(node.args) < 3 or node.args[2] is None:
            continue
        image, weight = (parts.get(str(one.target)) for one in node.args[:2])
        if isinstance(image, FakeQuant) and isinstance(weight, FakeQuant):
            bias = constant(prepared, node.args[2])
            assert bias is not None
            step = image.scale.double()
            with torch.no_grad():
                smallest = bias.abs().double() / (step * _LARGEST_BIAS_STEPS)
                weight.scale = torch.maximum(weight.scale, smallest.float())
                grid = step * weight.scale.double()
                bias.copy_((bias.double() / grid).round() * grid)


def convert(prepared: GraphModule) -> GraphModule:
    """Return the int8 graph: weights as integers, Q/DQ on activations. The argument is consumed."""
    settle_scales(prepared)
    converted = convert_pt2e(prepared)
    assert isinstance(converted, GraphModule)
    return converted


def trained_scales(prepared: GraphModule) -> tuple[Tensor, ...]:
    """Return the scales that training used, one tensor for each fake quant, in graph order."""
    return tuple(part.scale.detach().clone() for part in _fake_quants(prepared))


def layer_nodes(prepared: GraphModule) -> Iterator[tuple[str, Node]]:
    """Yield the operators with a weight, each with the name of its layer, in graph order."""
    for node in prepared.graph.nodes:
        if node.target not in WEIGHTED:
            continue
        weight = node.args[1]
        read = weight if constant(prepared, weight) is not None else weight.args[0]
        yield layer_name(read), node


def _fake_quants(prepared: GraphModule) -> Iterator[FakeQuant]:
    return (part for part in prepared.modules() if isinstance(part, FakeQuant))


def _name(prepared: GraphModule) -> None:
    """Tell each fake quant which tensor it rounds: the layer whose weight or output it is, else the operator."""
    parts = dict(prepared.named_modules(remove_duplicate=False))
    names = {node: name for name, node in layer_nodes(prepared)}
    for node in prepared.graph.nodes:
        part = parts.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(part, FakeQuant) and not part.name:
            source = node.args[0]
            if isinstance(part, PerChannelFakeQuant):
                part.name = str(source.target)
            else:
                part.name = names.get(source) or next(
                    (names[one] for one in source.all_input_nodes if one in names), source.name
                )
