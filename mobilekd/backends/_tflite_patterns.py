"""Groups of ONNX nodes that one TFLite operator computes."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from mobilekd.backends._tflite_source import QUANTIZE, Attribute, Node, Source


def gather_patterns(source: Source) -> None:
    """Rewrite the nodes of a graph.

    A weight that is transposed becomes a weight; GELU written with Erf, GroupNormalization written with
    InstanceNormalization, a bias added behind a MatMul and a Pad before a convolution become one node.
    """
    source.replace_nodes([node for node in source.nodes if not _turns_weight(source, node)])
    source.replace_nodes([_gelu(source, node) or node for node in source.nodes])
    source.replace_nodes([_group_normalization(source, node) or node for node in source.nodes])
    source.replace_nodes([_biased(source, node) or node for node in source.nodes])
    source.replace_nodes([_padded(source, node) or node for node in source.nodes])


def _turns_weight(source: Source, node: Node) -> bool:
    """Store the result of a Transpose of a weight as a weight; return whether the node is one."""
    weight = source.weights.get(node.inputs[0]) if node.op == "Transpose" else None
    if weight is None:
        return False
    order = node.integers("perm", range(weight.payload.ndim)[::-1])
    axis = order.index(weight.axis) if len(weight.scale) > 1 else 0
    source.weights[node.outputs[0]] = replace(weight, payload=weight.payload.transpose(order), axis=axis)
    return True


def _group_normalization(source: Source, node: Node) -> Node | None:
    """Return GroupNormalization for a Reshape to groups, InstanceNormalization, and a Reshape back."""
    normal = source.maker(node.inputs[0]) if node.op == "Reshape" else None
    if normal is None or normal.op != "InstanceNormalization" or len(source.readers(normal.outputs[0])) != 1:
        return None
    cut = source.maker(normal.inputs[0])
    if cut is None or cut.op != "Reshape" or source.shape(cut.inputs[0]) != source.shape(node.outputs[0]):
        return None
    shape, groups = source.shape(cut.inputs[0]), source.shape(cut.outputs[0])[1]
    parameters = [source.constant(name) for name in normal.inputs[1:3]]
    if len(shape) < 3 or shape[1] % groups or any(one is None for one in parameters):
        return None
    names = (f"{node.name}/scale", f"{node.name}/shift")
    for name, values in zip(names, parameters, strict=True):
        assert values is not None
        source.constants[name] = np.repeat(values, shape[1] // groups)
    attributes: dict[str, Attribute] = {"num_groups": groups, "epsilon": normal.number("epsilon", 1e-5)}
    return Node("GroupNormalization", node.name, (cut.inputs[0], *names), node.outputs, attributes)


def _gelu(source: Source, node: Node) -> Node | None:
    """Return Gelu for the last Mul of x * (erf(x / sqrt 2) + 1) * 0.5, whatever the order of its factors."""
    if node.op != "Mul":
        return None
    factors = list(_factors(source, node))
    halves = [one for one in factors if _is(source, one, 0.5)]
    sums = [one for one in factors if _erf_argument(source, one) is not None]
    others = [one for one in factors if one not in halves and one not in sums]
    if (len(halves), len(sums), len(others)) != (1, 1, 1) or _erf_argument(source, sums[0]) != others[0]:
        return None
    return Node("Gelu", node.name, (others[0],), node.outputs, {"approximate": "none"})


def _factors(source: Source, node: Node) -> Iterator[str]:
    """Yield the factors of a product of three, whose inner product only the outer one reads."""
    for name in node.inputs:
        inner = source.maker(name)
        if inner is not None and inner.op == "Mul" and len(source.readers(name)) == 1:
            yield from inner.inputs
        else:
            yield name


def _erf_argument(source: Source, name: str) -> str | None:
    """Return x where a tensor is erf(x / sqrt 2) + 1."""
    total = source.maker(name)
    if total is None or total.op != "Add":
        return None
    terms = [one for one in total.inputs if not _is(source, one, 1.0)]
    erf = source.maker(terms[0]) if len(terms) == 1 else None
    scaled = source.maker(erf.inputs[0]) if erf is not None and erf.op == "Erf" else None
    if scaled is None or scaled.op not in ("Div", "Mul"):
        return None
    factor = np.sqrt(2.0) if scaled.op == "Div" else np.sqrt(0.5)
    rest = [one for one in scaled.inputs if not _is(source, one, factor)]
    return rest[0] if len(rest) == 1 else None


def _is(source: Source, name: str, value: float) -> bool:
    content = source.constant(name)
    return content is not None and content.size == 1 and bool(np.isclose(content.item(), value, rtol=1e-5))


def _biased(source: Source, node: Node) -> Node | None:
    """Return MatMul with a bias as third input for the Add of a constant vector behind a MatMul by a constant."""
    if node.op != "Add":
        return None
    for product, bias in (node.inputs, node.inputs[::-1]):
        maker, vector = source.maker(product), source.constant(bias)
        if maker is None or maker.op != "MatMul" or vector is None or len(maker.inputs) != 2:
            continue
        weight = source.shape(maker.inputs[1])
        is_linear = source.is_constant(maker.inputs[1]) and len(weight) == 2
        if is_linear and vector.size == weight[1] == vector.shape[-1] and len(source.readers(product)) == 1:
            return Node("MatMul", node.name, (*maker.inputs, bias), node.outputs, {})
    return None


def _padded(source: Source, node: Node) -> Node | None:
    """Return a convolution that pads by itself, for one behind a Pad with zeros of height and width."""
    if node.op != "Conv" or node.text("auto_pad", "NOTSET") != "NOTSET":
        return None
    pad = _pad_before(source, node.inputs[0])
    if pad is None or len(source.shape(node.inputs[0])) != 4:
        return None
    amounts = source.constant(pad.inputs[1])
    fill = source.constant(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] else np.zeros(())
    is_plain = pad.text("mode", "constant") == "constant" and len(pad.inputs) < 4
    if amounts is None or fill is None or np.any(fill) or not is_plain or len(amounts) != 8:
        return None
    if np.any(amounts[[0, 1, 4, 5]]) or np.any(amounts < 0):
        return None
    own = node.integers("pads", (0, 0, 0, 0))
    pads = tuple(int(own[i] + amounts[at]) for i, at in enumerate((2, 3, 6, 7)))
    return replace(node, inputs=(pad.inputs[0], *node.inputs[1:]), attributes={**node.attributes, "pads": pads})


def _pad_before(source: Source, name: str) -> Node | None:
    """Return the Pad that writes a tensor, also where it is rounded at the scale that it has already."""
    maker = source.maker(name)
    if maker is not None and maker.op == QUANTIZE:
        pad = source.maker(maker.inputs[0])
        before = source.rounded.get(pad.inputs[0]) if pad is not None and pad.op == "Pad" else None
        return pad if before is not None and before.quant == source.rounded[name].quant else None
    return maker if maker is not None and maker.op == "Pad" else None
