"""A teacher made cheaper to run: each BatchNorm folded into the layer before it, module paths kept."""

import copy
from collections import Counter
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from mobilekd.training.taps import evaluating

_LARGEST_ERROR = 1e-3
"""Of the largest logit; what sums in another order leave is 1e-5 and less."""


def folded(network: nn.Module, example: Tensor, keep: Iterable[str] = ()) -> nn.Module:
    """Return a copy in which BatchNorms are part of the convolution or linear layer before them.

    A BatchNorm is folded where it reads what the layer gave, and both run once. Whether something else reads the
    layer's output can't be seen from its modules, so the copy is compared on the example: when its logits differ,
    the network itself comes back, and so it does when there is nothing to fold.

    Args:
        network: In evaluation mode, not trained again.
        example: A few images [batch, channels, height, width] on the network's device.
        keep: Paths of layers whose own output is read; they stay as they are.
    """
    has_norms = any(isinstance(one, nn.modules.batchnorm._BatchNorm) for one in network.modules())
    pairs = _pairs(network, example, frozenset(keep)) if has_norms else []
    if not pairs:
        return network
    copied = copy.deepcopy(network)
    for layer, norm in pairs:
        _fold(copied, layer, norm)
    with torch.no_grad(), evaluating(network), evaluating(copied):
        before, after = network(example), copied(example)
    is_close = bool((after - before).abs().max() <= _LARGEST_ERROR * before.abs().max())
    return copied if is_close else network


def _pairs(network: nn.Module, example: Tensor, keep: frozenset[str]) -> list[tuple[str, str]]:
    """Return paths (layer, BatchNorm) where the second reads the very tensor that the first gave."""
    runs: Counter[str] = Counter()
    gave: dict[int, tuple[str, Tensor]] = {}  # the tensor is held, so that its id stays its own
    found: list[tuple[str, str]] = []
    paths = {module: path for path, module in network.named_modules()}

    def note(module: nn.Module, inputs: tuple[object, ...], output: object) -> None:
        path = paths[module]
        runs[path] += 1
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            before = gave.get(id(inputs[0]))
            if before is not None and before[0] not in keep and _can_fold(module):
                found.append((before[0], path))
        elif isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear) and isinstance(output, Tensor):
            gave[id(output)] = (path, output)

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    try:
        with torch.no_grad(), evaluating(network):
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    norms = Counter(layer for layer, _ in found)
    return [(layer, norm) for layer, norm in found if runs[layer] == runs[norm] == norms[layer] == 1]


def _can_fold(norm: nn.Module) -> bool:
    """Return whether what is left of a BatchNorm is known: nothing, or timm's dropout and activation behind it."""
    is_plain = type(norm) in (nn.BatchNorm1d, nn.BatchNorm2d)
    return getattr(norm, "running_mean", None) is not None and (is_plain or _rest(norm) is not None)


def _rest(norm: nn.Module) -> nn.Module | None:
    """Return what timm's BatchNormAct2d does after the norm; None for another kind of norm."""
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    is_known = type(norm).__name__ == "BatchNormAct2d" and isinstance(drop, nn.Module) and isinstance(act, nn.Module)
    return nn.Sequential(drop, act) if is_known else None  # type: ignore[arg-type]


def _fold(network: nn.Module, layer_path: str, norm_path: str) -> None:
    layer: Any = network.get_submodule(layer_path)
    norm: Any = network.get_submodule(norm_path)
    with torch.no_grad():
        slope = torch.rsqrt(norm.running_var + norm.eps) * (1.0 if norm.weight is None else norm.weight)
        offset = (0.0 if norm.bias is None else norm.bias) - norm.running_mean * slope
        weight = layer.weight * slope.reshape(-1, *(1,) * (layer.weight.ndim - 1))
        bias = offset if layer.bias is None else layer.bias * slope + offset
    layer.weight, layer.bias = (nn.Parameter(one, requires_grad=False) for one in (weight, bias))
    parent, _, name = norm_path.rpartition(".")
    setattr(network.get_submodule(parent), name, _rest(norm) or nn.Identity())
