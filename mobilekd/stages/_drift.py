"""Walk deployed int8 models tensor by tensor beside the network that was trained."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mobilekd.backend import DeployedFacts, Float32
from mobilekd.drift import DEFAULT_BOUND_STEPS, Values, Walk, first_drift, measure_drift, stacked, told, worst_tensor
from mobilekd.errors import StageError
from mobilekd.quant_table import load_table
from mobilekd.reference_network import ReferenceNetwork
from mobilekd.worker import trace_model


class Walker:
    """Compares models with one trained network on the same images; the network itself runs once."""

    def __init__(self, simplified: Path, images: Float32, scratch: Path) -> None:
        """Run the trained network.

        Args:
            simplified: The folder of qdq.onnx and quant_table.json.
            images: [n, channels, height, width], normalised.
            scratch: For the exchange with workers.
        """
        self._network = ReferenceNetwork(simplified / "qdq.onnx")
        self._table = load_table(simplified / "quant_table.json").by_name()
        self._images = [image[None] for image in images]
        self._scratch = scratch
        self._reference = [self._network.run(image, {}) for image in self._images]

    def walk(self, model: Path, facts: DeployedFacts, kernels: str) -> Walk:
        """Return the drift of every tensor of one model under one kernel set.

        Raises:
            StageError: The runtime refused or crashed, or has none of the trained network's tensors.
        """
        backend, names = str(facts.deployment["backend"]), self._network.names
        traced = [
            trace_model(backend, model, facts, image, names, kernels=kernels, scratch=self._scratch)
            for image in self._images
        ]
        # A float input is rounded inside the runtime: what stands in the file's tensor is the image itself.
        shared = [name for name in names if all(name in one for one in traced) and not self._is_image(name, traced)]
        if not shared:
            raise StageError(
                f"{model.name} has none of the {len(names)} tensors of the quantization table",
                hint="a fault of the backend's trace; verify.drift_images = 0 builds without the walk",
                code="MKD-422",
            )
        given = [{name: one[name] for name in shared} for one in traced]
        self._check_shapes(model, given[0])
        own = [self._network.run(image, one) for image, one in zip(self._images, given, strict=True)]
        tensors = (
            measure_drift(
                name,
                self._network.operators[name],
                Values(
                    reference=stacked(self._reference, name),
                    own_reference=stacked(own, name),
                    deployed=stacked(given, name),
                    step=self._table[name].scale[0],
                ),
            )
            for name in shared
        )
        return Walk(facts.name, kernels, tuple(tensors), tuple(name for name in names if name not in shared))

    def _is_image(self, name: str, traced: Sequence[Mapping[str, Float32]]) -> bool:
        return all(np.array_equal(one[name], image) for one, image in zip(traced, self._images, strict=True))

    def _check_shapes(self, model: Path, traced: dict[str, Float32]) -> None:
        """Refuse another shape before the trained operators are fed with it."""
        for name, value in traced.items():
            expected = self._reference[0][name].shape
            if value.shape != expected:
                raise StageError(
                    f"{model.name}: tensor {name!r} has shape {list(value.shape)}, trained {list(expected)}",
                    hint="a fault of the backend's trace, or a layer that was converted to another shape",
                    code="MKD-422",
                )


def walk_told(walk: Walk) -> str:
    """Return where a model drifts, for the message of a build that fails."""
    if first := first_drift(walk.tensors, DEFAULT_BOUND_STEPS):
        return f"first tensor that drifts: {told(first)}"
    return f"no tensor passes the bound of {DEFAULT_BOUND_STEPS:g} steps; largest: {told(worst_tensor(walk.tensors))}"
