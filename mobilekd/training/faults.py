"""Where a number that is not finite came from: the batch is computed again, watched layer by layer."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn

from mobilekd.method import Batch
from mobilekd.training.device import eager

Terms = Mapping[str, Tensor]


def first_not_finite(
    modules: Mapping[str, nn.Module], batches: Iterable[Batch], terms: Callable[[Batch], Terms]
) -> tuple[str, Terms]:
    """Return what is not finite first, in words, and the terms of the micro-batch that shows it; "" when all is finite.

    Looked at in this order: parameters, images, outputs of layers as they are computed, terms, gradients from the last
    layer back, statistics of BatchNorm.

    Args:
        modules: The network and the adapters by name; the network's is "".
        batches: The micro-batches of the step.
        terms: The forward pass with the loss.
    """
    named = {f"{name}.{part}".strip("."): value for name, module in modules.items() for part, value in parts(module)}
    found: list[str] = []
    handles = [
        module.register_forward_hook(partial(_note, found, name))
        for name, module in named.items()
        if isinstance(module, nn.Module)
    ]
    parameters = {name: value for name, value in named.items() if isinstance(value, nn.Parameter)}
    spoilt = [f"the parameter {name}" for name, value in parameters.items() if not _is_finite(value)]
    settled = all(_is_finite(one) for module in modules.values() for one in statistics(module))
    moved = [] if settled else ["the statistics of a BatchNorm layer"]
    values: Terms = {}
    try:
        for batch in batches:
            images = [] if _is_finite(batch.images) else ["an image of the batch"]
            with eager(modules[""]):
                values = terms(batch)
            wrong = [f"the term {name}" for name, value in values.items() if not _is_finite(value)]
            if first := [*spoilt, *images, *found, *wrong, *_gradients(parameters, values), *moved]:
                return first[0], values
    finally:
        for handle in handles:
            handle.remove()
    return "", values


def statistics(module: nn.Module) -> list[Tensor]:
    """Return the running means and variances of a module's BatchNorm layers."""
    return [one for name, one in module.named_buffers() if name.endswith(("running_mean", "running_var"))]


def parts(module: nn.Module) -> Iterable[tuple[str, nn.Module | nn.Parameter]]:
    """Yield the layers and parameters of a module by name."""
    yield from ((name, one) for name, one in module.named_modules() if name)
    yield from module.named_parameters()


def _gradients(parameters: Mapping[str, nn.Parameter], values: Terms) -> list[str]:
    for one in parameters.values():
        one.grad = None
    torch.stack(tuple(values.values())).sum().backward()  # type: ignore[no-untyped-call]
    return [
        f"the gradient of {name}"
        for name, one in reversed(list(parameters.items()))
        if one.grad is not None and not _is_finite(one.grad)
    ]


def _note(found: list[str], name: str, module: nn.Module, _inputs: object, output: object) -> None:
    tensors = output if isinstance(output, tuple | list) else (output,)
    if any(isinstance(one, Tensor) and one.is_floating_point() and not _is_finite(one) for one in tensors):
        found.append(f"the output of layer {name} ({type(module).__name__})")


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
