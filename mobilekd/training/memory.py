"""Out of memory: a batch is computed in smaller and smaller micro-batches, with the same gradient."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mobilekd.errors import StageError
from mobilekd.method import Batch
from mobilekd.stage import Progress
from mobilekd.training.parallel import part

_CPU_WORDS = ("can't allocate memory", "DefaultCPUAllocator", "not enough memory")
_LARGEST_KEPT = 65536  # values of a buffer that is copied whole before each step; larger ones are memory banks


class Split:
    """How many micro-batches a batch is computed in; grows when memory runs out."""

    def __init__(self, title: str, parts: int, progress: Progress) -> None:
        self.parts = parts
        self._title, self._progress = title, progress

    def batches(self, batch: Batch) -> Iterator[Batch]:
        """Yield the micro-batches of a batch in order."""
        count = len(batch.rows)
        parts = min(self.parts, count)
        for index in range(parts):
            yield cut(batch, part(count, parts, index))

    def size(self, count: int) -> int:
        """Return the images of the largest micro-batch of so many images."""
        return -(-count // min(self.parts, count))

    def until_it_fits(self, rows: Tensor, buffers: "Snapshot", compute: Callable[[], None]) -> None:
        """Call `compute`, and again with twice as many micro-batches while memory runs out.

        Args:
            rows: Numbers of the images of this process' batch.
            buffers: What a forward pass moves, as BatchNorm's statistics: put back before another try.
            compute: Starts from empty gradients.

        Raises:
            StageError: Micro-batches of one image do not fit either.
        """
        count = len(rows)
        buffers.take(rows)
        while not fits(compute):
            if self.parts >= count:
                raise StageError(
                    f"{self._title}: one image at a time does not fit into memory",
                    hint="take a smaller network or smaller images, precision = 'bf16', or a device with more memory",
                    code="MKD-401",
                )
            buffers.put_back()
            self.parts = min(2 * self.parts, count)
            self._progress.say(
                f"{self._title}: out of memory; going on with {self.parts} micro-batches"
                f" of at most {self.size(count)} images"
            )


class Snapshot:
    """Buffers as they were before a step.

    Of a large buffer with a row for each training image, as a memory bank is, the rows of the batch are remembered: a
    step may move those alone. Large buffers of another shape are not put back.
    """

    def __init__(self, buffers: Sequence[Tensor], images: int) -> None:
        """Begin with the buffers as they are.

        Args:
            buffers: All that a step may move without a gradient.
            images: In the training split.
        """
        kept = [one for one in buffers if one.numel() <= _LARGEST_KEPT]
        by_kind = [[one for one in kept if one.dtype == kind] for kind in {one.dtype for one in kept}]
        self._pairs = [(now, [one.clone() for one in now]) for now in by_kind]  # by kind: one GPU kernel for each
        self._banks = [one for one in buffers if one.numel() > _LARGEST_KEPT and len(one) == images]
        self._rows = torch.zeros(0, dtype=torch.long)
        self._moved: list[Tensor] = []

    def take(self, rows: Tensor) -> None:
        """Remember the buffers as they are; of a bank the rows of these images."""
        for now, before in self._pairs:
            torch._foreach_copy_(before, now)
        self._rows, self._moved = rows, [bank[rows] for bank in self._banks]

    def put_back(self) -> None:
        """Set the buffers to what they were."""
        for now, before in self._pairs:
            torch._foreach_copy_(now, before)
        for bank, places in zip(self._banks, self._moved, strict=True):
            bank[self._rows] = places


def fits(compute: Callable[[], None]) -> bool:
    """Call `compute` and return whether there was memory enough; if not, what it held on a GPU is free again."""
    try:
        compute()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    else:
        return True
    # Here and not in the handler: while it runs, the exception holds the frames, and they the activations.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return False


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch had too little memory; on the CPU only the words of the error tell."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in _CPU_WORDS)


def cut(batch: Batch, images: slice) -> Batch:
    """Return some images of a batch as a batch."""
    return Batch(
        batch.images[images],
        batch.labels[images],
        batch.targets[images],
        batch.rows[images],
        batch.view,
        batch.progress,
    )
