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
        max_difference: Largest absolute difference of two logits.
        top1: Share of right answers on the device; None without labels.
        host_top1: The same on this host.
    """

    images: int
    exact_images: int
    same_answers: int
    max_difference: float
    top1: float | None
    host_top1: float | None

    @property
    def is_exact(self) -> bool:
        """Return whether every logit of every image is equal bit by bit."""
        return self.exact_images == self.images


def agree(device: "Float32", host: "Float32", labels: "NDArray[np.int64] | None" = None) -> Agreement:
    """Compare the logits [n, classes] of one file on two machines; labels are int64 [n].

    Not-a-number on either side is a difference, and a largest one.

    Example:
        >>> agree(np.float32([[1, 2]]), np.float32([[1, 2]]), np.array([1])).is_exact
        True
    """
    exact = (device == host).all(axis=1)
    answers, expected = device.argmax(axis=1), host.argmax(axis=1)
    difference = np.abs(device - host)
    worst = float("inf") if np.isnan(difference).any() else float(difference.max(initial=0.0))
    return Agreement(
        images=len(device),
        exact_images=int(exact.sum()),
        same_answers=int((answers == expected).sum()),
        max_difference=worst,
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
                f"answers are not this host's (allowed {100 * (1 - least):.3g} %), logits differ by up to "
                f"{found['max_difference']:.3g}"
            )
    return tuple(sentences)


def told(agreement: Agreement) -> str:
    """Return the comparison in words.

    Example:
        >>> told(Agreement(200, 200, 200, 0.0, 0.97, 0.97))
        'bit-exact on 200 images'
    """
    if agreement.is_exact:
        return f"bit-exact on {agreement.images} image{'s' * (agreement.images != 1)}"
    differing = agreement.images - agreement.exact_images
    changed = agreement.images - agreement.same_answers
    return (
        f"{differing} of {agreement.images} images differ, by at most {agreement.max_difference:.3g}; "
        f"{changed} answer{'s' * (changed != 1)} changed"
    )
