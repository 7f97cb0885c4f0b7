"""A float network as a graph of operators that every runtime has in int8.

`lower` exports a network and rewrites it without changing what it computes: branches that train apart are merged,
BatchNorm is folded, and what runtimes round differently or have no int8 kernel for is written with operators that they
all share. The float ONNX file, the fake-quant network and the int8 file are all made from this one graph.
"""

import copy
import operator
import traceback
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from mobilekd.errors import StageError
from mobilekd.quantization import adaptive_pooling, folding, rewriting
from mobilekd.quantization.graph_tools import aten, replace

_NO_OPS = {aten.dropout.default, aten.contiguous.default, aten.detach.default, aten.alias.default, aten.clone.default}


def lower(network: nn.Module, example: Tensor) -> GraphModule:
    """Return a graph that computes what the network computes in evaluation mode.

    Args:
        network: In float; it is not changed.
        example: [batch, channels, height, width], batch of at least 2.

    Raises:
        StageError: The network can't be exported; the message has the line of its code that stops it.
    """
    graph = export(merge_branches(network), example)
    passes: tuple[Callable[[GraphModule], None], ...] = (
        _replace_in_place,
        _drop_no_ops,
        folding.compute_constants,
        rewriting.write_out_attention,
        rewriting.flatten_linears,
        rewriting.unify_means,
        adaptive_pooling.fold_adaptive_pools,
        rewriting.shuffle_by_gather,
        folding.fold_batch_norms,
        folding.fold_channel_scales,
        rewriting.pool_by_convolution,
        folding.affines_to_convolutions,
        folding.give_biases,
    )
    for one in passes:
        one(graph)
        graph.graph.eliminate_dead_code()
        graph.recompile()
    graph.delete_all_unused_submodules()
    graph.graph.lint()
    return graph


def merge_branches(network: nn.Module) -> nn.Module:
    """Return a copy whose blocks with several branches in training (RepVGG, MobileOne, FastViT) are one convolution.

    Re-parameterised before QAT: the merged weight is what ships, so it is what must be rounded. timm's blocks say how
    to merge with one of three methods, by the paper that they are from.
    """
    merged = copy.deepcopy(network).eval()
    for part in list(merged.modules()):
        for name in ("fuse", "reparameterize", "switch_to_deploy"):
            merge = getattr(part, name, None)
            if callable(merge) and not isinstance(part, torch.jit.ScriptModule):
                merge()
                break
    return merged


def export(network: nn.Module, example: Tensor) -> GraphModule:
    """Return the operators of a network in evaluation mode; the batch may have any size.

    Raises:
        StageError: See `lower`.
    """
    batch = torch.export.Dim.DYNAMIC
    try:
        exported = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},)).module()
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError, ValueError, TypeError, AssertionError) as cause:
        line = _user_line(cause)
        raise StageError(
            f"the student can't be exported: {_reason(cause)}" + (f"\n  {line}" if line else ""),
            hint="torch.export needs control flow that does not depend on values; change that line, or pick another"
            " student",
            code="MKD-410",
        ) from cause
    assert isinstance(exported, GraphModule)
    return exported


def _reason(cause: BaseException) -> str:
    return next((line for line in str(cause).splitlines() if line.strip()), type(cause).__name__)


def _user_line(cause: BaseException) -> str:
    """Return "FILE:LINE: code" of the innermost line of the network's own code; empty if torch alone is to blame."""
    inside = str(Path(torch.__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(cause.__traceback__)
        if not frame.filename.startswith((inside, "<")) and Path(frame.filename) != Path(__file__)
    ]
    return f"{frames[-1].filename}:{frames[-1].lineno}: {frames[-1].line}" if frames else ""


def _replace_in_place(model: GraphModule) -> None:
    """Replace in-place operators: an in-place ReLU would clamp a tensor before its rounding."""
    for node in model.graph.nodes:
        if not isinstance(node.target, torch._ops.OpOverload):
            continue
        namespace, _, name = node.target._schema.name.partition("::")
        packet = getattr(aten, name.removesuffix("_"), None) if namespace == "aten" and name.endswith("_") else None
        if packet is not None and node.target._overloadname in packet.overloads():
            node.target = getattr(packet, node.target._overloadname)


def _drop_no_ops(model: GraphModule) -> None:
    """Drop what does nothing in evaluation mode; `view`, which asks for contiguous memory, becomes `reshape`."""
    for node in list(model.graph.nodes):
        if node.target == "_guards_fn":  # torch.export's check of the input's shape
            model.graph.erase_node(node)
            continue
        if node.target is aten.view.default:
            node.target = aten.reshape.default
        is_activated = node.target is aten.dropout.default and len(node.args) > 2 and node.args[2]
        if node.target in _NO_OPS and not is_activated:
            replace(node, node.args[0])
        elif node.target is operator.getitem and isinstance(node.args[0], Node) and not node.args[0].users:
            model.graph.erase_node(node)
