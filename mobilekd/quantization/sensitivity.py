"""Which layers int8 hurts most: each alone in int8, the rest of the network unrounded."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeGuard

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from mobilekd.quantization import qat
from mobilekd.quantization.fake_quant import FakeQuant
from mobilekd.quantization.graph_tools import argument, aten, constant
from mobilekd.quantization.quantizer import CLAMPS, MOVES


@dataclass(frozen=True, slots=True)
class LayerCost:
    """What a layer holds and computes.

    Attributes:
        layer: Name of its weight without ".weight".
        operator: As "conv2d" or "depthwise conv2d".
        weights: Elements of the weight.
        macs: Multiply-accumulates for one image.
    """

    layer: str
    operator: str
    weights: int
    macs: int


@dataclass(frozen=True, slots=True)
class LayerSensitivity:
    """What a network loses when one layer alone is int8.

    Attributes:
        layer, operator, weights, macs: See `LayerCost`.
        top1_drop: Top-1 of the unrounded network less top-1 with this layer in int8; a fraction, below 0 for a gain.
        kl: Mean Kullback-Leibler divergence KL(unrounded ‖ this layer in int8) of the softmax answers, in nats.
    """

    layer: str
    operator: str
    weights: int
    macs: int
    top1_drop: float
    kl: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """Layers by what each costs in int8, the worst first.

    Attributes:
        images: How many images were answered.
        top1_float, top1_int8: Top-1 with no rounding, and with all of it.
        layers: By top-1 lost, then by divergence.
    """

    images: int
    top1_float: float
    top1_int8: float
    layers: tuple[LayerSensitivity, ...]


def rank_layers(prepared: GraphModule, batches: Iterable[tuple[Tensor, Tensor]]) -> Ranking:
    """Return every int8 layer with what the network loses when that layer alone is int8.

    Alone in int8 are: the weight, the tensor that the layer writes (behind the clamp fused into it) and, for a layer
    that reads the image, the image. Each fake quant is judged where it stands, though tensors of one scale share one.

    Args:
        prepared: Calibrated; it is not changed. Layers whose weight is not rounded are left out.
        batches: Images [n, channels, height, width] and labels [n].
    """
    layers = tuple(_layers(prepared))
    network = _PartlyRounded(prepared)
    everything = _Layer("", frozenset(network.fake_quants))
    seen, right, right_of, divergence = 0, 0, [0] * (len(layers) + 1), [0.0] * (len(layers) + 1)
    for images, labels in batches:
        expected, answers = network.answers(images, (*layers, everything))
        seen += len(labels)
        right += _right(expected, labels)
        for index, answer in enumerate(answers):
            right_of[index] += _right(answer, labels)
            divergence[index] += _divergence(expected, answer)
    costs = {one.layer: one for one in layer_costs(prepared)}
    rows = [
        LayerSensitivity(
            layer.name,
            costs[layer.name].operator,
            costs[layer.name].weights,
            costs[layer.name].macs,
            top1_drop=(right - right_of[index]) / max(seen, 1),
            kl=divergence[index] / max(seen, 1),
        )
        for index, layer in enumerate(layers)
    ]
    rows.sort(key=lambda row: (-row.top1_drop, -row.kl))
    return Ranking(seen, right / max(seen, 1), right_of[-1] / max(seen, 1), tuple(rows))


def layer_costs(prepared: GraphModule) -> tuple[LayerCost, ...]:
    """Return weights and multiply-accumulates of every layer of a prepared network, in graph order."""
    found: dict[str, LayerCost] = {}
    for name, node in qat.layer_nodes(prepared):
        weight = _weight(prepared, node)
        earlier = found[name].macs if name in found else 0  # a weight that two operators read counts once
        found[name] = LayerCost(name, _operator(node, weight), weight.numel(), earlier + _macs(node, weight))
    return tuple(found.values())


@dataclass(frozen=True, slots=True)
class _Layer:
    """A layer and the fake quants that round for it."""

    name: str
    roundings: frozenset[Node]


class _PartlyRounded(Interpreter):
    """Runs a prepared network with some of its roundings; those of the others pass their input on."""

    def __init__(self, prepared: GraphModule) -> None:
        super().__init__(prepared, garbage_collect_values=True)
        self.submodules = dict(prepared.named_modules(remove_duplicate=False))  # those of shared scales under each name
        self._nodes = tuple(prepared.graph.nodes)
        self.fake_quants = tuple(
            one for one in self._nodes if isinstance(self.submodules.get(str(one.target)), FakeQuant)
        )
        self._active: frozenset[Node] = frozenset()

    def answers(self, images: Tensor, layers: Sequence[_Layer]) -> tuple[Tensor, list[Tensor]]:
        """Return the unrounded logits, and those with the roundings of each layer alone.

        The unrounded network runs once; each layer goes on from where its first rounding stands.
        """
        order = {node: index for index, node in enumerate(self._nodes)}
        starts = [min(order[node] for node in layer.roundings) for layer in layers]
        answers: list[Tensor] = [images] * len(layers)
        image = next(node for node in self._nodes if node.op == "placeholder")
        env: dict[Node, object] = {image: images}
        logits = images
        with torch.no_grad():
            for index, node in enumerate(self._nodes):
                for which in (one for one, start in enumerate(starts) if start == index):
                    answers[which] = self._finish(dict(env), index, layers[which].roundings)
                logits = self._step(node, env, frozenset())
        return logits, answers

    def run_node(self, n: Node) -> object:
        """Compute one node; a rounding that is off gives its input."""
        is_off = n not in self._active and isinstance(self.submodules.get(str(n.target)), FakeQuant)
        return self.env[n.args[0]] if is_off else super().run_node(n)  # type: ignore[index]

    def _finish(self, env: dict[Node, object], start: int, active: frozenset[Node]) -> Tensor:
        logits = torch.empty(0)
        for node in self._nodes[start:]:
            logits = self._step(node, env, active)
        return logits

    def _step(self, node: Node, env: dict[Node, object], active: frozenset[Node]) -> Tensor:
        """Compute a node into the values so far, and drop those that nothing reads any more."""
        self.env, self._active = env, active
        if node.op == "output":
            found = env[next(iter(node.all_input_nodes))]
            assert isinstance(found, Tensor)
            return found
        if node.op != "placeholder":
            env[node] = self.run_node(node)
        for dead in self.user_to_last_uses.get(node, ()):
            env.pop(dead, None)
        return torch.empty(0)


def _layers(prepared: GraphModule) -> Iterator[_Layer]:
    """Yield the layers with a rounded weight, in graph order."""
    parts = dict(prepared.named_modules(remove_duplicate=False))

    def is_rounding(node: object) -> TypeGuard[Node]:
        return isinstance(node, Node) and isinstance(parts.get(str(node.target)), FakeQuant)

    found: dict[str, set[Node]] = {}
    for name, node in qat.layer_nodes(prepared):
        weight = node.args[1]
        if not is_rounding(weight):
            continue
        users = list(node.users)
        written = users[0] if len(users) == 1 and users[0].target in CLAMPS else node
        candidates = (weight, _image_rounding(node, is_rounding), *written.users)
        found.setdefault(name, set()).update(filter(is_rounding, candidates))
    yield from (_Layer(name, frozenset(roundings)) for name, roundings in found.items())


def _image_rounding(layer: Node, is_rounding: Callable[[object], TypeGuard[Node]]) -> Node | None:
    """Return the rounding of the image if the layer reads the image; None for a layer that reads another."""
    source, found = layer.args[0], None
    while isinstance(source, Node) and (is_rounding(source) or source.target in MOVES):
        found = source if is_rounding(source) else found
        source = source.args[0]
    return found if isinstance(source, Node) and source.op == "placeholder" else None


def _weight(prepared: GraphModule, node: Node) -> Tensor:
    read = node.args[1]
    weight = constant(prepared, read)
    if weight is None and isinstance(read, Node):
        weight = constant(prepared, read.args[0])
    assert weight is not None
    return weight


def _operator(node: Node, weight: Tensor) -> str:
    name = str(node.target).split(".")[1]
    is_depthwise = name.startswith("conv") and weight.shape[1] == 1 and len(weight) > 1 and argument(node, 6, 1) != 1
    return f"depthwise {name}" if is_depthwise else name


def _macs(node: Node, weight: Tensor) -> int:
    """Return the products for one image: each weight is used once at every place of the output (transposed: input)."""
    counted = node.args[0] if node.target is aten.conv_transpose2d.input else node
    value = counted.meta.get("val") if isinstance(counted, Node) else None
    assert isinstance(value, Tensor)
    sizes = [int(size) for size in value.shape[1:]]
    places = sizes[:-1] if node.target is aten.linear.default else sizes[1:]
    return weight.numel() * math.prod(places)


def _right(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(dim=1) == labels).sum())


def _divergence(expected: Tensor, answer: Tensor) -> float:
    """Return KL(expected ‖ answer) in nats, summed over the images."""
    sure, told = (logits.double().log_softmax(dim=1) for logits in (expected, answer))
    return float((sure.exp() * (sure - told)).sum())
