"""What a model answered on the device, against the same file on this host and the trained network, image by image."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mobilekd.quant_table import load_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from mobilekd.backend import Float32


_HALF_STEP = 0.5
_LOGITS = "logits"


@dataclass(frozen=True, slots=True)
class Trained:
    """What the quantized network said when it was trained.

    Attributes:
        logits: [n, classes]; more images than are asked for do no harm.
        step: Scale of the int8 output: one step in units of the logits.
    """

    logits: "Float32"
    step: float


def read_trained(logits: Path, quant_table: Path) -> Trained | None:
    """Return what a quantized network said to the test split; None where its last layer stays float: no step then.

    Args:
        logits: test_logits.npy of it.
        quant_table: Its table of scales.
    """
    table = load_table(quant_table).by_name()
    return Trained(np.load(logits), table[_LOGITS].scale[0]) if _LOGITS in table else None


@dataclass(frozen=True, slots=True)
class FromTrained:
    """How far the device and this host are from the trained network: is what ships what was trained?

    Attributes:
        exact_images, host_exact_images: Images all of whose logits are on the trained step.
        same_answers, host_same_answers: Images with the same highest logit.
        max_steps, host_max_steps: Largest difference of a logit, in whole steps; None where it is not finite.
    """

    exact_images: int
    host_exact_images: int
    same_answers: int
    host_same_answers: int
    max_steps: int | None
    host_max_steps: int | None


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
        max_steps: `max_difference` in whole steps of the int8 output; None where no step is known.
        trained: Both against the trained network; None where that is not known.
    """

    images: int
    exact_images: int
    same_answers: int
    max_difference: float | None
    top1: float | None
    host_top1: float | None
    max_steps: int | None = None
    trained: FromTrained | None = None

    @property
    def is_exact(self) -> bool:
        """Return whether every logit of every image is equal bit by bit."""
        return self.exact_images == self.images


def agree(
    device: "Float32", host: "Float32", labels: "NDArray[np.int64] | None" = None, trained: Trained | None = None
) -> Agreement:
    """Compare the logits [n, classes] of one file on two machines; labels are int64 [n].

    Not-a-number differs from everything, itself too, and an image with one has no answer.

    Example:
        >>> agree(np.float32([[1, 2]]), np.float32([[1, 2]]), np.array([1])).is_exact
        True
    """
    equal = device == host
    worst = float(_apart(device, host).max(initial=0.0))
    answers, expected = _answers(device, -1), _answers(host, -2)
    return Agreement(
        images=len(device),
        exact_images=int(equal.all(axis=1).sum()),
        same_answers=int((answers == expected).sum()),
        max_difference=worst if np.isfinite(worst) else None,
        top1=None if labels is None else float((answers == labels).mean()),
        host_top1=None if labels is None else float((expected == labels).mean()),
        max_steps=round(worst / trained.step) if trained and np.isfinite(worst) else None,
        trained=_from_trained(device, host, trained) if trained else None,
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
                f"answers are not this host's (allowed {100 * (1 - least):.3g} %); {_told(found['max_difference'])}"
            )
    return tuple(sentences)


def _from_trained(device: "Float32", host: "Float32", trained: Trained) -> FromTrained:
    expected = trained.logits[: len(device)]
    answers = _answers(expected, -3)
    found = []
    for logits in (device, host):
        # Two grids of one step differ by the rounding of their float32 multiples, so half a step tells them apart.
        steps = _apart(logits, expected) / trained.step
        worst = float(steps.max(initial=0.0))
        exact = int((steps < _HALF_STEP).all(axis=1).sum())
        same = int((_answers(logits, -1) == answers).sum())
        found.append((exact, same, round(worst) if np.isfinite(worst) else None))
    (exact, same, steps_apart), (host_exact, host_same, host_steps) = found
    return FromTrained(exact, host_exact, same, host_same, steps_apart, host_steps)


def _apart(first: "Float32", second: "Float32") -> "Float32":
    with np.errstate(invalid="ignore"):  # infinity less infinity
        return np.asarray(np.where(first == second, 0, np.abs(first - second)), np.float32)


def _told(max_difference: float | None) -> str:
    return "logits are not numbers" if max_difference is None else f"logits differ by up to {max_difference:.3g}"


def _answers(logits: "Float32", none: int) -> "NDArray[np.int64]":
    """Return the highest class of each image, and `none` where a logit is not a number."""
    found: NDArray[np.int64] = np.where(np.isnan(logits).any(axis=1), none, logits.argmax(axis=1))
    return found
