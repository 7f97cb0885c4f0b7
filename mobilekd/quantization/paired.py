"""A prepared network run twice at once, unrounded and rounded: layer errors, and biases that make up for rounding."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Interpreter, Node

from mobilekd.quantization.fake_quant import FakeQuant, PerChannelFakeQuant
from mobilekd.quantization.graph_tools import constant
from mobilekd.quantization.quantizer import WEIGHTED

Visit = Callable[[Node, Tensor, Tensor], Tensor]
"""Node, its unrounded and its rounded value -> the rounded value to go on with."""


@dataclass(frozen=True, slots=True)
class LayerError:
    """How well the integers of one tensor carry the signal.

    Attributes:
        name: As the fake quant is called: the layer, else the operator.
        sqnr_db: 10 log10 of signal power over error power, in decibel; the larger the better.
    """

    name: str
    sqnr_db: float


def layer_errors(prepared: GraphModule, images: Tensor) -> tuple[LayerError, ...]:
    """Return the error of every rounded activation, all errors before it included, in graph order."""
    parts = dict(prepared.named_modules(remove_duplicate=False))
    found: list[LayerError] = []

    def measure(node: Node, real: Tensor, rounded: Tensor) -> Tensor:
        part = parts.get(str(node.target)) if node.op == "call_module" else None
        if isinstance(part, FakeQuant) and not isinstance(part, PerChannelFakeQuant):
            signal, error = real.square().sum().item(), (rounded - real).square().sum().item()
            found.append(LayerError(part.name, round(10 * math.log10((signal + 1e-30) / (error + 1e-30)), 2)))
        return rounded

    run_paired(prepared, images, measure)
    return tuple(found)


def correct_biases(prepared: GraphModule, images: Tensor) -> None:
    """Move each bias so that a layer's mean output is that of the unrounded network (Nagel et al. 2019, section 4.2).

    Layer by layer, each with the errors of those before it (the empirical form of arXiv 1906.04721, appendix D).

    Args:
        prepared: Calibrated.
        images: [n, channels, height, width].
    """

    def correct(node: Node, real: Tensor, rounded: Tensor) -> Tensor:
        if node.target not in WEIGHTED or len(node.args) < 3 or not isinstance(node.args[2], Node):
            return rounded
        axis = rounded.ndim - 1 if node.target is torch.ops.aten.linear.default else 1
        shift = (rounded - real).mean(dim=[one for one in range(rounded.ndim) if one != axis])
        bias = constant(prepared, node.args[2])
        assert bias is not None
        bias.sub_(shift)
        view = [1] * rounded.ndim
        view[axis] = -1
        return rounded - shift.reshape(view)

    run_paired(prepared, images, correct)


def run_paired(prepared: GraphModule, images: Tensor, visit: Visit) -> tuple[Tensor, Tensor]:
    """Run a prepared network unrounded and rounded, operator by operator; return both outputs."""
    with torch.no_grad():
        ((real, rounded),) = _Paired(prepared, visit).run((images, images), enable_io_processing=False)
    return real, rounded


class _Paired(Interpreter):
    """Every tensor is a pair (unrounded, rounded); what is no tensor stays single."""

    def __init__(self, prepared: GraphModule, visit: Visit) -> None:
        super().__init__(prepared)
        self.submodules = dict(prepared.named_modules(remove_duplicate=False))  # those of shared scales under each name
        self._visit = visit

    def run_node(self, n: Node) -> object:
        """Compute both values of one node."""
        if n.op in ("placeholder", "output", "get_attr"):
            found = super().run_node(n)
            return (found, found) if n.op == "get_attr" else found
        (reals, options), (rounds, _) = self._arguments(n, 0), self._arguments(n, 1)
        part = self.submodules.get(str(n.target)) if n.op == "call_module" else None
        if isinstance(part, FakeQuant):
            real, rounded = reals[0], part(rounds[0])
        else:
            run = getattr(self, n.op)
            real, rounded = run(n.target, reals, options), run(n.target, rounds, options)
        if isinstance(rounded, Tensor) and rounded.is_floating_point():
            rounded = self._visit(n, real, rounded)
        return real, rounded

    def _arguments(self, node: Node, side: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return a node's arguments with the unrounded (0) or the rounded (1) value of every node that it reads."""

        def value(one: Node) -> Any:
            return self.env[one][side]

        return torch.fx.node.map_arg(node.args, value), torch.fx.node.map_arg(node.kwargs, value)
