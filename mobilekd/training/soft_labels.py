"""The teacher's answers on disk: it runs once for each image and view, not once an epoch.

An answer is a row of numbers: its logits, or all that the methods read of it (answers.py). One file a view,
`view-0003.npy`, in a folder whose name is the digest of all that can change an answer: the teacher, the data, the
augmentation, the seed, the precision, what is read. A row of NaN is an image that was not asked yet, so that a build
that was killed, or one that saw a part of an epoch, leaves every answer it got.
"""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_VERSION = 2  # 2: BatchNorms of the teacher are folded, which moves the last bits
LARGEST_FP16 = 65504.0
_LARGEST_TOP_CLASSES = 31744
_INFINITY_BITS = 0x7C00
_WRITTEN_AT_ONCE = 1 << 24


@dataclass(slots=True)
class Served:
    """Images whose answer was on disk, and images for which the teacher ran."""

    cached: int = 0
    asked: int = 0


class SoftLabels:
    """Answers of one teacher for (image, view), rounded to fp16.

    An answer is the same rounded number whether the teacher gave it now or it was read: a run with a warm cache
    trains on what a run with a cold one did, as far as the teacher answers an image alike in another batch.

    Attributes:
        folder: Where the views lie.
        served: What came from where, counted since this object was made.
    """

    def __init__(self, folder: Path, images: int, classes: int, top: int = 0, title: str = "soft labels") -> None:
        """Open a cache; nothing is written before the first answer.

        Args:
            folder: Of this teacher, these data and this augmentation: see `folder_name`.
            images: In the training split.
            classes: Width of the logits, or of what else is kept.
            top: Keep this many largest logits an image (and what is left over as one value); 0 keeps all of them.
                Of at most 31,744 classes: as halves, larger class numbers would read as NaN.
            title: What `told` calls the answers.
        """
        assert not top or classes <= _LARGEST_TOP_CLASSES
        self.folder, self._title = folder, title
        self.served = Served()
        self._images, self._classes = images, classes
        self._top = top if 0 < top < classes else 0
        self._view = -1
        self._stored: NDArray[np.float16] = np.zeros((0, 0), np.float16)

    @property
    def bytes_per_image(self) -> int:
        """Return the bytes of one image in one view."""
        return 2 * self._width

    @property
    def _width(self) -> int:
        return 2 * self._top + 1 if self._top else self._classes

    def answers(self, rows: Tensor, view: int, ask: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the logits float32 [batch, classes] of some images, on the device of `rows`.

        Args:
            rows: int64 [batch], numbers of the images.
            view: Number of the augmentation.
            ask: Runs the teacher on these images of the batch, given by their places int64 [missing]; called only when
                an answer is missing.
        """
        stored = self._open(view)
        places = rows.cpu().numpy()
        known = stored[places]
        missing = np.flatnonzero(_has_nan(known))
        if len(missing):
            known[missing] = self._packed(ask(torch.from_numpy(missing).to(rows.device)).detach().float().cpu())
            stored[places[missing]] = known[missing]
        self.served.asked += len(missing)
        self.served.cached += len(places) - len(missing)
        return self._unpacked(known).to(rows.device)

    def told(self) -> str:
        """Return one line: how many answers were there, and what an image costs."""
        total = self.served.cached + self.served.asked
        share = self.served.cached / total if total else 0.0
        return (
            f"{self._title}: {self.served.cached:,} of {total:,} answers of the teacher were cached ({share:.1%}),"
            f" {self.bytes_per_image} bytes an image and view, in {self.folder}"
        )

    def _open(self, view: int) -> "NDArray[np.float16]":
        if view != self._view:
            self.folder.mkdir(parents=True, exist_ok=True)
            os.utime(self.folder)  # `mobilekd cache prune` goes by the last use
            path = self.folder / f"view-{view:04d}.npy"
            shape = (self._images, self._width)
            with _alone_in(self.folder):
                self._stored = _existing(path, shape) if path.is_file() else _created(path, shape)
            self._view = view
        return self._stored

    def _packed(self, logits: Tensor) -> "NDArray[np.float16]":
        clamped = logits.clamp(-LARGEST_FP16, LARGEST_FP16)
        if not self._top:
            return clamped.half().numpy()
        values, places = clamped.topk(self._top, dim=1)
        is_left = torch.ones_like(clamped, dtype=torch.bool).scatter_(1, places, value=False)
        left = clamped.masked_fill(~is_left, -torch.inf).logsumexp(1, keepdim=True)
        spread = left - float(np.log(self._classes - self._top))
        # Class numbers travel in the bits of the halves; as values fp16 would round those above 2,048.
        numbers = places.numpy().astype(np.uint16).view(np.float16)
        return np.concatenate([values.numpy().astype(np.float16), spread.numpy().astype(np.float16), numbers], axis=1)

    def _unpacked(self, known: "NDArray[np.float16]") -> Tensor:
        if not self._top:
            return torch.from_numpy(known).float()
        values, spread = known[:, : self._top], known[:, self._top : self._top + 1]
        places = np.ascontiguousarray(known[:, self._top + 1 :]).view(np.uint16).astype(np.int64)
        logits = np.repeat(spread.astype(np.float32), self._classes, axis=1)
        np.put_along_axis(logits, places, values.astype(np.float32), axis=1)
        return torch.from_numpy(logits)


def folder_name(facts: Mapping[str, object]) -> str:
    """Return the name of a cache: a sha256 over all that can change an answer, as 64 hex digits.

    Args:
        facts: Digests of teacher and data, augmentation, seed, precision: plain JSON values.

    Example:
        >>> folder_name({"teacher": "ab"}) == folder_name({"teacher": "ac"})
        False
    """
    text = json.dumps({**facts, "soft_labels": _VERSION}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _has_nan(rows: "NDArray[np.float16]") -> "NDArray[np.bool_]":
    """Return which rows hold a NaN: by the bits, since numpy's isnan of halves is slow."""
    without_sign = rows.view(np.uint16) & np.uint16(0x7FFF)
    return np.asarray((without_sign > _INFINITY_BITS).any(axis=1))


def _existing(path: Path, shape: tuple[int, int]) -> "NDArray[np.float16]":
    try:
        stored: NDArray[np.float16] = np.load(path, mmap_mode="r+")
        if stored.shape == shape and stored.dtype == np.float16:
            return stored
    except (ValueError, EOFError, OSError):  # cut off by a full disk or a crash of the machine: the teacher runs again
        pass
    path.unlink(missing_ok=True)
    return _created(path, shape)


def _created(path: Path, shape: tuple[int, int]) -> "NDArray[np.float16]":
    beside = path.with_name(f"{path.name}.tmp")
    try:
        _write_unasked(beside, shape)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    opened: NDArray[np.float16] = np.load(path, mmap_mode="r+")
    return opened


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a folder: processes that train together come to a new view at the same moment, and one makes its file."""
    with (folder / "lock").open("a", encoding="utf-8") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def _write_unasked(path: Path, shape: tuple[int, int]) -> None:
    """Write rows of NaN, so that every block is there: a page of a full disk would end the process."""
    with path.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, {"descr": "<f2", "fortran_order": False, "shape": shape})
        rows = max(1, _WRITTEN_AT_ONCE // (2 * shape[1]))
        for start in range(0, shape[0], rows):
            stream.write(np.full((min(rows, shape[0] - start), shape[1]), np.nan, np.float16).tobytes())
