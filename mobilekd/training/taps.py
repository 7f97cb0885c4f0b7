"""What a network computes on the way to its logits: feature maps and the embedding, read with forward hooks."""

import contextlib
import difflib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mobilekd.errors import ConfigError
from mobilekd.method import Outputs

_NEAR = 5


class Taps:
    """A network that answers with `Outputs`.

    The hooks stay until `close`. Stages and classifier are looked for in the first call, by one more forward pass of
    two images in evaluation mode.
    """

    def __init__(
        self, network: nn.Module, stage_paths: tuple[str, ...] | None, *, embedding: bool, stages: bool
    ) -> None:
        """Keep what to read.

        Args:
            network: Images [batch, channels, height, width] -> logits [batch, classes].
            stage_paths: Modules whose outputs are the stages, shallow to deep; None takes `tap_paths`.
            embedding: Whether to read the embedding.
            stages: Whether to read the stages; without both the network gets no hooks.

        Raises:
            ConfigError: A path names no module of the network.
        """
        self._network, self._stage_paths = network, stage_paths
        self._wants_embedding, self._wants_stages = embedding, stages
        self._classifier = ""
        self._seen: dict[str, Tensor] = {}
        self._handles: list[Any] = []
        self._is_ready = not (embedding or stages)
        check_paths(network, stage_paths or ())

    def __call__(self, images: Tensor) -> Outputs:
        """Return the outputs for images [batch, channels, height, width].

        Raises:
            ConfigError: The network has no stages or no classifier, or a stage is no feature map.
        """
        if not self._is_ready:
            self._put_hooks(images[:2])
        self._seen.clear()
        logits = self._network(images)
        seen = dict(self._seen)
        self._seen.clear()
        paths = (self._stage_paths or ()) if self._wants_stages else ()
        embedding = _pooled(seen[f"into {self._classifier}"]) if self._wants_embedding else None
        return Outputs(logits, tuple(_feature_map(seen, path) for path in paths), embedding)

    def close(self) -> None:
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def _put_hooks(self, example: Tensor) -> None:
        modules = dict(self._network.named_modules())
        if self._wants_stages:
            if self._stage_paths is None:
                self._stage_paths = tap_paths(self._network, example)
            for path in dict.fromkeys(self._stage_paths):
                hook = functools.partial(_keep_output, self._seen, path)
                self._handles.append(modules[path].register_forward_hook(hook))
        if self._wants_embedding:
            self._classifier = classifier_path(self._network, example)
            hook = functools.partial(_keep_input, self._seen, f"into {self._classifier}")
            self._handles.append(modules[self._classifier].register_forward_pre_hook(hook))
        self._is_ready = True


def tap_paths(network: nn.Module, example: Tensor) -> tuple[str, ...]:
    """Return the modules that end a network's stages, shallow to deep.

    Those of timm's `feature_info` where it names modules that give feature maps. For other networks: for each height
    and width above 1 x 1 that a feature map has, the modules closest to the root that give it, and of these the last
    to run.

    Args:
        network: Any network; its mode and its statistics stay.
        example: A few images [batch, channels, height, width] on the network's device.

    Raises:
        ConfigError: No module gives a feature map.
    """
    ran = _trace(network, example)
    shapes = {one.path: one.shape for one in ran}
    listed = _feature_info(network)
    if listed and all(path in shapes for path in listed):
        if any(len(shapes[path]) != 4 for path in listed):
            raise _no_stages(network)
        return listed
    maps = [one for one in ran if one.path and len(one.shape) == 4]
    maps = [one for one in maps if one.shape[2:] != (1, 1)] or maps
    chosen: dict[tuple[int, ...], _Ran] = {}
    for one in maps:
        size = one.shape[2:]
        if size not in chosen or one.depth <= chosen[size].depth:
            chosen[size] = one
    if not chosen:
        raise _no_stages(network)
    return tuple(one.path for one in sorted(chosen.values(), key=maps.index))


def _no_stages(network: nn.Module) -> ConfigError:
    return ConfigError(
        f"{type(network).__name__} gives no feature maps [batch, channels, height, width] to distil from",
        hint="use a method that reads logits or the embedding, as kd",
        code="MKD-252",
    )


def classifier_path(network: nn.Module, example: Tensor) -> str:
    """Return the layer that turns the embedding into logits: timm's `get_classifier()`, else the last nn.Linear to run.

    Raises:
        ConfigError: There is none.
    """
    ran = _trace(network, example)
    find = getattr(network, "get_classifier", None)
    named = find() if callable(find) else None
    candidates = [one.path for one in ran if one.module is named and isinstance(named, nn.Linear | nn.Conv2d)]
    candidates = candidates or [one.path for one in ran if isinstance(one.module, nn.Linear)]
    if not candidates:
        raise ConfigError(
            f"{type(network).__name__} runs no nn.Linear, so it has no embedding to distil from",
            hint="use a method that reads logits or stages, or end the network with nn.Linear",
            code="MKD-252",
        )
    return candidates[-1]


def check_paths(network: nn.Module, paths: Sequence[str]) -> None:
    """Accept the paths of modules of a network.

    Raises:
        ConfigError: There is no such module; the hint lists those with a near name.
    """
    known = [path for path, _ in network.named_modules() if path]
    for path in paths:
        if path not in known:
            near = difflib.get_close_matches(path, known, n=_NEAR, cutoff=0.5)
            shown = near or [name for name, _ in network.named_children()]
            raise ConfigError(
                f"{type(network).__name__} has no module {path!r}",
                hint=f"{'close' if near else 'it has'}: {', '.join(shown)}",
                code="MKD-252",
            )


@dataclass(frozen=True, slots=True)
class _Ran:
    """A module that ran: its path and the shape of its output."""

    path: str
    module: nn.Module
    shape: tuple[int, ...]

    @property
    def depth(self) -> int:
        return self.path.count(".")


def _trace(network: nn.Module, example: Tensor) -> list[_Ran]:
    """Return the modules that give one tensor, in the order in which they end."""
    ran: list[_Ran] = []

    def note(path: str, module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor):
            ran.append(_Ran(path, module, tuple(output.shape)))

    hooks = [module.register_forward_hook(functools.partial(note, path)) for path, module in network.named_modules()]
    try:
        with evaluating(network), torch.no_grad():
            network(example)
    finally:
        for hook in hooks:
            hook.remove()
    return ran


@contextlib.contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Put a network into evaluation mode while the context is open; every module gets its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _feature_info(network: nn.Module) -> tuple[str, ...]:
    info = getattr(network, "feature_info", None)
    rows = info if isinstance(info, list) else []
    return tuple(str(row["module"]) for row in rows if isinstance(row, Mapping) and row.get("module"))


def _keep_output(seen: dict[str, Tensor], path: str, _module: nn.Module, _inputs: object, output: Tensor) -> None:
    seen[path] = output


def _keep_input(seen: dict[str, Tensor], key: str, _module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    seen[key] = inputs[0]


def _pooled(features: Tensor) -> Tensor:
    """Return [batch, width] of what a classifier reads: [batch, width], tokens or a map."""
    if features.ndim == 3:
        return features.mean(dim=1)
    return features.mean(dim=(2, 3)) if features.ndim == 4 else features


def _feature_map(seen: Mapping[str, Tensor], path: str) -> Tensor:
    features = seen.get(path)
    if features is None or features.ndim != 4:
        gave = "did not run" if features is None else f"gives {list(features.shape)}"
        raise ConfigError(
            f"module {path!r} {gave}; a stage is a feature map [batch, channels, height, width]",
            hint="name a module whose output is one, as the last block before the resolution halves",
            code="MKD-252",
        )
    return features
