"""Which ONNX operator is written how in torch: the one table of the torch programs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, numpy_helper
from torch import Tensor
from torch.nn import functional

from mobilekd.backends._torch_call import Call, Constants, Read
from mobilekd.errors import StageError

Rule = Callable[[Call], Tensor | Sequence[Tensor]]


def check(node: NodeProto) -> None:
    """Accept an operator that has a rule.

    Raises:
        StageError: It has none; the hint lists those that have.
    """
    if node.op_type != "QuantizeLinear" and (node.op_type not in RULES or node.domain):
        raise StageError(
            f"no torch form is known of the ONNX operator {node.op_type} ({node.name})",
            hint=f"known: {', '.join(sorted(RULES))}; take it out of the network, or drop the deployment",
        )


def compute(node: NodeProto, read: Read, constants: Constants, *, apart: bool = False) -> Sequence[Tensor]:
    """Return what an operator writes; one that stays apart is written with what XNNPACK does not take for integers."""
    rule = _APART[node.op_type] if apart else RULES[node.op_type]
    result = rule(Call(node, read, constants))
    return (result,) if isinstance(result, Tensor) else result


def constant_nodes(model: ModelProto) -> dict[str, NDArray[Any]]:
    """Return the tensors of Constant nodes by name."""
    found = ((node.output[0], node.attribute[0]) for node in model.graph.node if node.op_type == "Constant")
    return {name: numpy_helper.to_array(one.t) for name, one in found if one.name == "value"}


def _conv(call: Call) -> Tensor:
    """Return a convolution; pads that differ between the two sides become a Pad before it."""
    x, weight, bias = call[0], call[1], call.optional(2)
    rank = weight.dim() - 2
    if call.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        x, pads = _padded_same(call, x, weight.shape[2:]), [0] * (2 * rank)
    else:
        pads = list(call.attribute("pads", [0] * (2 * rank)))
    if pads[:rank] != pads[rank:]:
        x, pads = functional.pad(x, _torch_pads(pads, rank)), [0] * rank
    strides, dilations = call.attribute("strides", [1] * rank), call.attribute("dilations", [1] * rank)
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[rank - 1]
    return convolve(x, weight, bias, list(strides), pads[:rank], list(dilations), call.attribute("group", 1))


def _padded_same(call: Call, x: Tensor, kernel: Sequence[int]) -> Tensor:
    strides = call.attribute("strides", [1] * len(kernel))
    dilations = call.attribute("dilations", [1] * len(kernel))
    begins, ends = [], []
    for size, width, step, gap in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // step) - 1) * step + (width - 1) * gap + 1 - size)
        smaller, larger = total // 2, total - total // 2
        is_upper = call.attribute("auto_pad", b"") == b"SAME_UPPER"
        begins.append(smaller if is_upper else larger)
        ends.append(larger if is_upper else smaller)
    return functional.pad(x, _torch_pads([*begins, *ends], len(kernel)))


def _torch_pads(pads: Sequence[int], rank: int) -> list[int]:
    """Return pads [begins, ends] in torch's order: the last dimension first, begin and end side by side."""
    return [pads[at + side] for at in reversed(range(rank)) for side in (0, rank)]


def _conv_transpose(call: Call) -> Tensor:
    pads = list(call.attribute("pads", [0, 0, 0, 0]))
    if pads[:2] != pads[2:] or "output_shape" in {one.name for one in call.node.attribute}:
        raise StageError(f"ConvTranspose {call.node.name}: torch has no pads that differ between the sides")
    options = [list(call.attribute(name, [default] * 2)) for name, default in (("strides", 1), ("output_padding", 0))]
    dilations = list(call.attribute("dilations", [1, 1]))
    strides, extra = options
    group = call.attribute("group", 1)
    return functional.conv_transpose2d(call[0], call[1], call.optional(2), strides, pads[:2], extra, group, dilations)


def _gemm(call: Call) -> Tensor:
    """Return a linear layer: the weight is [outputs, inputs] as exported, else it is turned."""
    x, weight = call[0], call[1]
    if call.attribute("alpha", 1.0) != 1.0 or call.attribute("beta", 1.0) != 1.0 or call.attribute("transA", 0):
        raise StageError(f"Gemm {call.node.name}: alpha, beta and transA are not known")
    return functional.linear(x, weight if call.attribute("transB", 0) else weight.t(), call.optional(2))


def _bounds(call: Call) -> tuple[float | None, float | None]:
    low, high = (float(call.constant(at)) if at < len(call) and call.node.input[at] else None for at in (1, 2))
    return low, high


def _clip(call: Call) -> Tensor:
    low, high = _bounds(call)
    if low is not None and high is not None:
        return functional.hardtanh(call[0], low, high)
    return torch.clamp(call[0], low, high)


def _clamp_apart(call: Call) -> Tensor:
    """Return Relu or Clip as the larger and the smaller of two tensors."""
    is_relu = call.node.op_type == "Relu"
    low, high = (0.0, None) if is_relu else _bounds(call)
    result = call[0]
    if low is not None:
        result = torch.maximum(result, torch.full_like(result, low))
    return result if high is None else torch.minimum(result, torch.full_like(result, high))


def _concat_apart(call: Call) -> Tensor:
    """Return Concat with a sum with 0 before it: in int8 XNNPACK wants one scale, and does not load another."""
    first, *others = call.all()
    return torch.cat([first + torch.zeros_like(first), *others], call.attribute("axis", 0))


def _hard_sigmoid(call: Call) -> Tensor:
    slope, shift = call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    return functional.hardtanh(call[0] * slope + shift, 0.0, 1.0)


def _average_pool(call: Call) -> Tensor:
    """Return average pooling.

    XNNPACK's partitioner refuses ceil_mode and count_include_pad wherever they stand; where windows fit and nothing is
    padded they change nothing, and are left out.
    """
    x, kernel = call[0], list(call.attribute("kernel_shape", []))
    strides, pads, ceil = _window(call, kernel)
    if pads[:2] != pads[2:]:
        raise StageError(f"AveragePool {call.node.name}: torch has no pads that differ between the sides")
    counts = bool(call.attribute("count_include_pad", 0)) and any(pads)
    return functional.avg_pool2d(x, kernel, strides, pads[:2], ceil and _hangs_over(x, kernel, strides, pads), counts)


def _max_pool(call: Call) -> Tensor:
    x, kernel = call[0], list(call.attribute("kernel_shape", []))
    strides, pads, ceil = _window(call, kernel)
    if pads[:2] != pads[2:]:
        x, pads = functional.pad(x, _torch_pads(pads, 2), value=float("-inf")), [0, 0, 0, 0]
    dilations = list(call.attribute("dilations", [1, 1]))
    return functional.max_pool2d(
        x, kernel, strides, pads[:2], dilations, ceil and _hangs_over(x, kernel, strides, pads)
    )


def _window(call: Call, kernel: Sequence[int]) -> tuple[list[int], list[int], bool]:
    if len(kernel) != 2 or call.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", b"VALID"):
        raise StageError(f"{call.node.op_type} {call.node.name}: only windows of two dimensions with written pads")
    strides, pads = call.attribute("strides", [1, 1]), call.attribute("pads", [0, 0, 0, 0])
    return list(strides), list(pads), bool(call.attribute("ceil_mode", 0))


def _hangs_over(x: Tensor, kernel: Sequence[int], strides: Sequence[int], pads: Sequence[int]) -> bool:
    sizes = zip(x.shape[2:], kernel, strides, pads[:2], strict=True)
    return any((size + 2 * pad - width) % step for size, width, step, pad in sizes)


def _reduced(operator: Callable[..., Tensor]) -> Rule:
    def rule(call: Call) -> Tensor:
        axes = call.integers(1, "axes") or list(range(call[0].dim()))
        return operator(call[0], axes, bool(call.attribute("keepdims", 1)))

    return rule


def _softmax(operator: Callable[..., Tensor]) -> Rule:
    return lambda call: operator(call[0], call.attribute("axis", -1))


def _reshape(call: Call) -> Tensor:
    x = call[0]
    wanted = call.integers(1)
    assert wanted is not None
    return x.reshape([x.shape[at] if size == 0 else size for at, size in enumerate(wanted)])


def _flatten(call: Call) -> Tensor:
    x, axis = call[0], call.attribute("axis", 1)
    return x.reshape([int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:]))])


def _squeeze(call: Call) -> Tensor:
    axes = call.integers(1, "axes")
    return call[0].squeeze() if axes is None else call[0].squeeze(axes)


def _unsqueeze(call: Call) -> Tensor:
    x, axes = call[0], call.integers(1, "axes") or []
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _slice(call: Call) -> Tensor:
    x, starts, ends = call[0], call.integers(1, "starts"), call.integers(2, "ends")
    assert starts is not None
    assert ends is not None
    axes, steps = call.integers(3, "axes") or list(range(len(starts))), call.integers(4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = x.shape[axis]
        if step < 0:
            places = range(*slice(start, end, step).indices(size))
            x = torch.index_select(x, axis, torch.tensor(list(places)))
        else:
            x = torch.ops.aten.slice.Tensor(x, axis, start, min(end, size), step)
    return x


def _split(call: Call) -> Sequence[Tensor]:
    x, axis = call[0], call.attribute("axis", 0)
    count = len(call.node.output)
    sizes = call.integers(1, "split") or [-(-x.shape[axis] // count)] * count
    if sum(sizes) > x.shape[axis]:
        sizes = [*sizes[:-1], x.shape[axis] - sum(sizes[:-1])]
    return torch.split(x, sizes, axis)


def _gather(call: Call) -> Tensor:
    x, axis, indices = call[0], call.attribute("axis", 0), call.constant(1)
    axis %= x.dim()
    if indices.ndim == 0:
        return x.select(axis, int(indices))
    if indices.ndim > 1:
        raise StageError(f"Gather {call.node.name}: its indices have {indices.ndim} dimensions, known are 0 and 1")
    return torch.index_select(x, axis, call[1] % x.shape[axis] if (indices < 0).any() else call[1])


def _pad(call: Call) -> Tensor:
    x, pads = call[0], call.integers(1, "pads") or []
    mode = call.attribute("mode", b"constant")
    if mode not in (b"constant", b"reflect") or call.integers(3) is not None:
        raise StageError(f"Pad {call.node.name}: mode {mode.decode()!r} or axes are not known")
    if mode == b"reflect":
        rank = x.dim() - 2
        return functional.pad(x, _torch_pads([*pads[2 : 2 + rank], *pads[-rank:]], rank), mode="reflect")
    fill = float(call.constant(2)) if len(call) > 2 else 0.0
    return functional.pad(x, _torch_pads(pads, x.dim()), value=fill)


def _resize(call: Call) -> Tensor:
    x, mode = call[0], call.attribute("mode", b"nearest")
    sizes = call.integers(3)
    if sizes is None:
        scales = call.constant(2).reshape(-1)
        sizes = [int(size * scale) for size, scale in zip(x.shape, scales, strict=True)]
    place = call.attribute("coordinate_transformation_mode", b"half_pixel")
    if mode == b"nearest" and all(new % old == 0 for new, old in zip(sizes[2:], x.shape[2:], strict=True)):
        return functional.interpolate(x, size=sizes[2:], mode="nearest")
    if mode == b"linear" and place in (b"half_pixel", b"pytorch_half_pixel", b"align_corners"):
        return functional.interpolate(x, size=sizes[2:], mode="bilinear", align_corners=place == b"align_corners")
    raise StageError(f"Resize {call.node.name}: {mode.decode()} with {place.decode()} is not known")


def _layer_norm(call: Call) -> Tensor:
    x = call[0]
    shape = list(x.shape[call.attribute("axis", -1) % x.dim() :])
    return functional.layer_norm(x, shape, call[1], call.optional(2), call.attribute("epsilon", 1e-5))


def _group_norm(call: Call) -> Tensor:
    return functional.group_norm(
        call[0], call.attribute("num_groups", 1), call[1], call[2], call.attribute("epsilon", 1e-5)
    )


def _depth_to_space(call: Call) -> Tensor:
    x, block = call[0], call.attribute("blocksize", 1)
    if call.attribute("mode", b"DCR") == b"CRD":
        return functional.pixel_shuffle(x, block)
    batch, channels, height, width = x.shape
    cut = x.reshape([batch, block, block, channels // block**2, height, width]).permute(0, 3, 4, 1, 5, 2)
    return cut.reshape([batch, channels // block**2, height * block, width * block])


def _unary(operator: Callable[[Tensor], Tensor]) -> Rule:
    return lambda call: operator(call[0])


def _binary(operator: Callable[[Tensor, Tensor], Tensor]) -> Rule:
    return lambda call: operator(call[0], call[1])


RULES: Mapping[str, Rule] = {
    "Abs": _unary(torch.abs),
    "Add": _binary(torch.add),
    "AveragePool": _average_pool,
    "Cast": lambda call: call[0],
    "Clip": _clip,
    "Concat": lambda call: torch.cat(call.all(), call.attribute("axis", 0)),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "DepthToSpace": _depth_to_space,
    "Div": _binary(torch.div),
    "Elu": lambda call: functional.elu(call[0], call.attribute("alpha", 1.0)),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Expand": lambda call: call[0].expand(call.integers(1) or []).clone(),
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": lambda call: functional.gelu(call[0], approximate=call.attribute("approximate", b"none").decode()),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda call: torch.mean(call[0], [2, 3], keepdim=True),
    "GlobalMaxPool": lambda call: torch.amax(call[0], [2, 3], keepdim=True),
    "GroupNormalization": _group_norm,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(functional.hardswish),
    "Identity": lambda call: call[0],
    "InstanceNormalization": lambda call: functional.instance_norm(
        call[0], weight=call[1], bias=call[2], eps=call.attribute("epsilon", 1e-5)
    ),
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda call: functional.leaky_relu(call[0], call.attribute("alpha", 0.01)),
    "Log": _unary(torch.log),
    "LogSoftmax": _softmax(torch.log_softmax),
    "MatMul": _binary(torch.matmul),
    "Max": _binary(torch.maximum),
    "MaxPool": _max_pool,
    "Min": _binary(torch.minimum),
    "Mish": _unary(functional.mish),
    "Mul": _binary(torch.mul),
    "Neg": _unary(torch.neg),
    "PRelu": lambda call: functional.prelu(call[0], call[1].reshape(-1)),
    "Pad": _pad,
    "Pow": lambda call: torch.pow(call[0], float(call.constant(1))),
    "Reciprocal": _unary(torch.reciprocal),
    "ReduceL2": _reduced(lambda x, axes, keeps: torch.linalg.vector_norm(x, 2, axes, keepdim=keeps)),
    "ReduceMax": _reduced(lambda x, axes, keeps: torch.amax(x, axes, keepdim=keeps)),
    "ReduceMean": _reduced(lambda x, axes, keeps: torch.mean(x, axes, keepdim=keeps)),
    "ReduceMin": _reduced(lambda x, axes, keeps: torch.amin(x, axes, keepdim=keeps)),
    "ReduceSum": _reduced(lambda x, axes, keeps: torch.sum(x, axes, keepdim=keeps)),
    "Relu": _unary(functional.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": _unary(torch.sigmoid),
    "Slice": _slice,
    "Softmax": _softmax(torch.softmax),
    "Softplus": _unary(functional.softplus),
    "Split": _split,
    "Sqrt": _unary(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _binary(torch.sub),
    "Tanh": _unary(torch.tanh),
    "Transpose": lambda call: call[0].permute(call.attribute("perm", list(range(call[0].dim()))[::-1])),
    "Unsqueeze": _unsqueeze,
}

_APART: Mapping[str, Rule] = {"Relu": _clamp_apart, "Clip": _clamp_apart, "Concat": _concat_apart}
STAYS_APART = frozenset(_APART)
"""Operators that are written otherwise where what they read and what they write have more than one scale."""
