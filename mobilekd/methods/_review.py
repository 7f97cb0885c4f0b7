"""The fusion layers of `reviewkd`; imports torch, so it is imported when they are built."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate


class Review(nn.Module):
    """The attention-based fusion of Chen et al. 2021 (https://arxiv.org/abs/2104.09044), for every stage."""

    def __init__(self, student: Sequence[int], teacher: Sequence[int], width: int) -> None:
        """Take the channels of the stages, shallow to deep, and the channels inside."""
        super().__init__()
        deepest = len(student) - 1
        self.fusions = nn.ModuleList(
            Fusion(ours, theirs, width, has_deeper=stage < deepest)
            for stage, (ours, theirs) in enumerate(zip(student, teacher, strict=True))
        )

    def forward(self, stages: Sequence[Tensor], sizes: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Return a map for every stage of the teacher, shallow to deep, in its shape.

        Args:
            stages: Of the student, shallow to deep; [batch, channels, height, width] each.
            sizes: Heights and widths of the teacher's.
        """
        found: list[Tensor] = []
        residual: Tensor | None = None
        for fusion, stage, size in reversed(list(zip(self.fusions, stages, sizes, strict=True))):
            answer, residual = fusion(stage, residual, size)
            found.append(answer)
        return found[::-1]


class Fusion(nn.Module):
    """A stage, and what came from the deeper ones, weighed against each other at every place."""

    def __init__(self, student: int, teacher: int, width: int, *, has_deeper: bool) -> None:
        super().__init__()
        self.entry = _normalised(nn.Conv2d(student, width, kernel_size=1, bias=False))
        self.exit = _normalised(nn.Conv2d(width, teacher, kernel_size=3, padding=1, bias=False))
        self.shares = nn.Conv2d(2 * width, 2, kernel_size=1) if has_deeper else None

    def forward(self, stage: Tensor, deeper: Tensor | None, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Return the map in the teacher's channels, and the one that goes to the next shallower stage."""
        fused: Tensor = self.entry(stage)
        if self.shares is not None and deeper is not None:
            enlarged = interpolate(deeper, tuple(fused.shape[-2:]), mode="nearest")
            shares = self.shares(torch.cat([fused, enlarged], dim=1)).sigmoid()
            fused = fused * shares[:, :1] + enlarged * shares[:, 1:]
        if fused.shape[-2:] != torch.Size(size):
            fused = interpolate(fused, tuple(size), mode="nearest")
        return self.exit(fused), fused


def _normalised(convolution: nn.Conv2d) -> nn.Sequential:
    # As the authors start them: a = 1 gives three times the variance that torch's own a = √5 does.
    nn.init.kaiming_uniform_(convolution.weight, a=1)
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))
