"""Out of memory: a batch is computed in smaller and smaller micro-batches, with the same gradient."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from mobilekd.errors import StageError
from mobilekd.method import Batch
from mobilekd.stage import Progress
from mobilekd.training.parallel import part

_CPU_WORDS = ("can't allocate memory", "DefaultCPUAllocator", "not enough memory")
_LARGEST_KEPT = 65536  # values of a buffer; larger ones are memory banks, which a repeated step writes again


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

    def until_it_fits(self, count: int, buffers: "Snapshot", compute: Callable[[], None]) -> None:
        """Call `compute`, and again with twice as many micro-batches while memory runs out.

        Args:
            count: Images of this process' batch.
            buffers: What a forward pass moves, as BatchNorm's statistics: put back before another try.
            compute: Starts from empty gradients.

        Raises:
            StageError: Micro-batches of one image do not fit either.
        """
        buffers.take()
        while not self._fits(compute):
            if self.parts >= count:
                raise StageError(
                    f"{self._title}: one image at a time does not fit into memory",
                    hint="take a smaller network or smaller images, precision = 'bf16', or a device with more memory",
                    code="MKD-401",
                )
            # Here and not in the handler: while it runs, the exception holds the frames, and they the activations.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            buffers.put_back()
            self.parts = min(2 * self.parts, count)
            self._progress.say(
                f"{self._title}: out of memory; going on with {self.parts} micro-batches"
                f" of at most {self.size(count)} images"
            )

    @staticmethod
    def _fits(compute: Callable[[], None]) -> bool:
        try:
            compute()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return False
        return True


class Snapshot:
    """Buffers as they were before a step."""

    def __init__(self, buffers: Sequence[Tensor]) -> None:
        kept = [one for one in buffers if one.numel() <= _LARGEST_KEPT]
        by_kind = [[one for one in kept if one.dtype == kind] for kind in {one.dtype for one in kept}]
        self._pairs = [(now, [one.clone() for one in now]) for now in by_kind]  # by kind: one GPU kernel for each

    def take(self) -> None:
        """Remember the buffers as they are."""
        for now, before in self._pairs:
            torch._foreach_copy_(before, now)

    def put_back(self) -> None:
        """Set the buffers to what they were."""
        for now, before in self._pairs:
            torch._foreach_copy_(now, before)


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
