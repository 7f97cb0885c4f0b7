"""What a model answered on the device, against what the same file answered on this host, image by image."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilekd.backend import Float32


@dataclass(frozen=True, slots=True)
class Agreement:
    """One model on one device.

    Attributes:
        images: Images that both answered.
        exact_images: Images whose logits are equal bit by bit.
        same_answers: Images with the same highest logit.
        max_difference: Largest absolute difference of two logits; None where it is not a finite number.
        top1: Share of right answers on the device; None without labels.
        host_top1: The same on this host.
    """

    images: int
    exact_images: int
    same_answers: int
    max_difference: float | None
    top1: float | None
    host_top1: float | None

    @property
    def is_exact(self) -> bool:
        """Return whether every logit of every image is equal bit by bit."""
        return self.exact_images == self.images


def agree(device: "Float32", host: "Float32", labels: "NDArray[np.int64] | None" = None) -> Agreement:
    """Compare the logits [n, classes] of one file on two machines; labels are int64 [n].

    Not-a-number differs from everything, itself too, and an image with one has no answer.

    Example:
        >>> agree(np.float32([[1, 2]]), np.float32([[1, 2]]), np.array([1])).is_exact
        True
    """
    equal = device == host
    with np.errstate(invalid="ignore"):  # infinity less infinity
        worst = float(np.where(equal, 0, np.abs(device - host)).max(initial=0.0))
    answers, expected = _answers(device, -1), _answers(host, -2)
    return Agreement(
        images=len(device),
        exact_images=int(equal.all(axis=1).sum()),
        same_answers=int((answers == expected).sum()),
        max_difference=worst if np.isfinite(worst) else None,
        top1=None if labels is None else float((answers == labels).mean()),
        host_top1=None if labels is None else float((expected == labels).mean()),
    )


def refusals(rows: Iterable[Mapping[str, Any]], least: float, where: str) -> tuple[str, ...]:
    """Return a sentence for each shipped int8 model whose answers on the device are not those of this host.

    Kernels of another instruction set round ties otherwise, so logits may be a step apart; answers must be the same on
    the share of images that parity asks for on the host.

    Args:
        rows: Of latency.json; those without `on_device` say nothing.
        least: Smallest share of images with the same answer, as `tolerance.agreement`.
        where: The device, for the sentence.
    """
    sentences = []
    for row in rows:
        found = row.get("on_device")
        if not found or not row["ships"] or row["precision"] != "int8":
            continue
        if found["same_answers"] < least * found["images"]:
            sentences.append(
                f"{row['deployment']} on {where}: {found['images'] - found['same_answers']} of {found['images']} "
                f"answers are not this host's (allowed {100 * (1 - least):.3g} %); {_apart(found['max_difference'])}"
            )
    return tuple(sentences)


def _apart(max_difference: float | None) -> str:
    return "logits are not numbers" if max_difference is None else f"logits differ by up to {max_difference:.3g}"


def _answers(logits: "Float32", none: int) -> "NDArray[np.int64]":
    """Return the highest class of each image, and `none` where a logit is not a number."""
    found: NDArray[np.int64] = np.where(np.isnan(logits).any(axis=1), none, logits.argmax(axis=1))
    return found
