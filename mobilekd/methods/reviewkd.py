"""Knowledge review (Chen et al. 2021, https://arxiv.org/abs/2104.09044)."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from mobilekd.method import Batch, Method, Outputs, Reads, Sizes

if TYPE_CHECKING:
    from torch import Tensor, nn

_POOLED = (4, 2, 1)


class Reviewkd(Method):
    """Hierarchical context loss between the teacher's stages and the student's, each fused with all deeper ones.

    From the deepest stage to the shallowest, attention-based fusion (ABF) joins a student's stage with what the deeper
    ones gave, and a 3x3 convolution brings it to the teacher's width. The paper ramps the term over 20 epochs: `ramp`.

    Attributes:
        width: Channels in which stages are fused; 0 takes those of the student's widest stage, at most 512.
        weight: 0.6 to 8 by pair in the authors' CIFAR-100 runs; 1 for most.
    """

    reads: ClassVar[frozenset[Reads]] = frozenset({"stages"})

    width: int = Field(default=0, ge=0)

    def adapters(self, student: Outputs, teacher: Outputs, sizes: Sizes) -> "nn.Module | None":
        """Return the fusions, shallow to deep."""
        del sizes
        widths = [stage.shape[1] for stage in student.stages]
        return _fusions(widths, [stage.shape[1] for stage in teacher.stages], self.width or min(512, max(widths)))

    def terms(
        self, student: Outputs, teacher: Outputs, batch: Batch, adapters: "nn.Module | None"
    ) -> "Mapping[str, Tensor]":
        """Return "review"."""
        import torch

        del batch
        assert adapters is not None
        reviewed = adapters([stage.float() for stage in student.stages])
        pairs = zip(reviewed, teacher.stages, strict=True)
        return {"review": torch.stack([hierarchical_loss(one, other.detach().float()) for one, other in pairs]).sum()}


def hierarchical_loss(student: "Tensor", teacher: "Tensor") -> "Tensor":
    """Return the mean squared difference of two maps, whole and averaged to 4x4, 2x2 and 1x1.

    The weights 1, 1/2, 1/4, 1/8 are divided by their sum; levels not smaller than the map are left out. Maps are
    [batch, channels, height, width]; 0-d.
    """
    from torch.nn.functional import adaptive_avg_pool2d, mse_loss

    if student.shape[2:] != teacher.shape[2:]:
        student = adaptive_avg_pool2d(student, (teacher.shape[2], teacher.shape[3]))
    loss, total, weight = mse_loss(student, teacher), 1.0, 1.0
    for size in _POOLED:
        if size < min(teacher.shape[2:]):
            weight /= 2
            ours, theirs = adaptive_avg_pool2d(student, size), adaptive_avg_pool2d(teacher, size)
            loss = loss + weight * mse_loss(ours, theirs)
            total += weight
    return loss / total


def _fusions(student_widths: list[int], teacher_widths: list[int], width: int) -> "nn.Module":
    import torch
    from torch import Tensor, nn
    from torch.nn.functional import interpolate

    class Fusion(nn.Module):
        """Brings one stage to the common width, mixes in the deeper ones by attention, gives the teacher's width."""

        def __init__(self, inputs: int, outputs: int, *, is_deepest: bool) -> None:
            super().__init__()
            self.enter = nn.Sequential(nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width))
            self.leave = nn.Sequential(nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs))
            self.attention = None if is_deepest else nn.Sequential(nn.Conv2d(2 * width, 2, 1), nn.Sigmoid())

        def forward(self, stage: Tensor, deeper: Tensor | None) -> tuple[Tensor, Tensor]:
            """Return the map in the teacher's width, and the one that the next shallower stage takes."""
            fused: Tensor = self.enter(stage)
            if self.attention is not None and deeper is not None:
                grown = interpolate(deeper, size=fused.shape[2:], mode="nearest")
                shares = self.attention(torch.cat([fused, grown], dim=1))
                fused = fused * shares[:, :1] + grown * shares[:, 1:]
            return self.leave(fused), fused

    class Review(nn.Module):
        """Fuses from the deepest stage to the shallowest."""

        def __init__(self) -> None:
            super().__init__()
            last = len(student_widths) - 1
            pairs = zip(student_widths, teacher_widths, strict=True)
            self.fusions = nn.ModuleList(
                Fusion(inputs, outputs, is_deepest=place == last) for place, (inputs, outputs) in enumerate(pairs)
            )

        def forward(self, stages: list[Tensor]) -> list[Tensor]:
            """Return one map a stage, shallow to deep, in the teacher's widths."""
            found: list[Tensor] = []
            deeper: Tensor | None = None
            for fusion, stage in zip(reversed(list(self.fusions)), reversed(stages), strict=True):
                made, deeper = fusion(stage, deeper)
                found.insert(0, made)
            return found

    return Review()
