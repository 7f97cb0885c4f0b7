"""From a float network to a calibrated int8 one without training: the fast path, and where QAT starts."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from mobilekd.quantization import qat
from mobilekd.quantization.equalization import equalize
from mobilekd.quantization.lowering import lower
from mobilekd.quantization.paired import correct_biases
from mobilekd.quantization.ranges import Calibration
from mobilekd.quantization.scheme import Scheme, Symmetry

_CORRECTED_IMAGES = 256


@dataclass(frozen=True, slots=True)
class PostTraining:
    """How a float network becomes a calibrated int8 one.

    Attributes:
        symmetry, activation_range, weight_range: See `Scheme`.
        equalize: Cross-layer equalization first; weights change, the graph does not.
        correct_biases: Bias correction last.
    """

    symmetry: Symmetry = "symmetric"
    activation_range: Calibration = "mse"
    weight_range: Calibration = "mse"
    equalize: bool = False
    correct_biases: bool = False

    def lowered(self, network: nn.Module, images: Tensor) -> GraphModule:
        """Return the float graph that ranges are put on; equalized on the images if asked for."""
        graph = lower(network, images[:2])
        if self.equalize:
            equalize(graph, images[:_CORRECTED_IMAGES])
        return graph

    def blank(self, graph: GraphModule, keep_float: frozenset[str] = frozenset()) -> GraphModule:
        """Return a lowered graph with fake quant and no ranges yet; to be calibrated, or filled from a state dict."""
        scheme = Scheme(self.symmetry, self.activation_range, self.weight_range)
        return qat.prepare(copy.deepcopy(graph), scheme, keep_float)

    def calibrated(
        self, lowered: GraphModule, batches: Sequence[Tensor], keep_float: frozenset[str] = frozenset()
    ) -> GraphModule:
        """Return a calibrated network, ready to train or to ship.

        Args:
            lowered: What `lowered` gave; it is not changed.
            batches: Images, [n, channels, height, width] each.
            keep_float: Layers whose weights stay float.
        """
        prepared = self.blank(lowered, keep_float)
        qat.calibrate(prepared, batches)
        if self.correct_biases:
            correct_biases(prepared, torch.cat(tuple(batches))[:_CORRECTED_IMAGES])
        return prepared
