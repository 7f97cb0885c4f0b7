"""From a float network to a calibrated int8 one without training: the fast path, and where QAT starts."""

import copy
import warnings
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
        equalize: Cross-layer equalization first.
        correct_biases: Bias correction last.
    """

    symmetry: Symmetry = "symmetric"
    activation_range: Calibration = "mse"
    weight_range: Calibration = "mse"
    equalize: bool = False
    correct_biases: bool = False

    def lowered(self, network: nn.Module, example: Tensor) -> GraphModule:
        """Return the float graph that ranges are put on; equalized if asked for."""
        graph = lower(network, example)
        if self.equalize:
            equalize(graph)
        return graph

    def blank(
        self, network: nn.Module, example: Tensor, keep_float: frozenset[str] = frozenset(), *, is_lowered: bool = False
    ) -> GraphModule:
        """Return the network with fake quant and no ranges yet; to be calibrated, or filled from a state dict."""
        if is_lowered:
            with warnings.catch_warnings():  # torch.export's modules warn of their own deprecated parts when copied
                warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
                graph = copy.deepcopy(network)
        else:
            graph = self.lowered(network, example)
        return qat.prepare(graph, example, Scheme(self.symmetry, self.activation_range, self.weight_range), keep_float)

    def calibrated(
        self, lowered: GraphModule, batches: Sequence[Tensor], keep_float: frozenset[str] = frozenset()
    ) -> GraphModule:
        """Return a calibrated network, ready to train or to ship.

        Args:
            lowered: What `lowered` gave; it is not changed.
            batches: Images, [n, channels, height, width] each.
            keep_float: Layers whose weights stay float.
        """
        prepared = self.blank(lowered, batches[0][:2], keep_float, is_lowered=True)
        qat.calibrate(prepared, batches)
        if self.correct_biases:
            correct_biases(prepared, torch.cat(tuple(batches))[:_CORRECTED_IMAGES])
        return prepared
