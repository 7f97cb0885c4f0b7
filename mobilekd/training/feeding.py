"""Which images a step sees, and threads that prepare the next batches while the device computes."""

import functools
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor

import torch

from mobilekd.method import Batch
from mobilekd.training.data import Images
from mobilekd.training.parallel import Group
from mobilekd.training.recipe import Recipe
from mobilekd.training.sampling import epoch_rows
from mobilekd.training.views import Views


class Feed:
    """The batches of a run by step, as this process sees them: its share of each."""

    def __init__(self, images: Images, recipe: Recipe, device: torch.device, group: Group) -> None:
        self._labels, self._recipe = images.labels, recipe
        self._views = Views(images, recipe.augmentation, recipe.view_seed, device)
        self.steps_per_epoch = recipe.steps_per_epoch(len(images))
        self.steps = recipe.epochs * self.steps_per_epoch
        self.batch_images = recipe.batch_images(len(images))
        self._share = group.share(self.batch_images)
        # A batch depends on its rows and its view alone, so it does not matter which thread makes which, or when.
        self._workers = recipe.workers or int(device.type == "cuda")
        self._threads = ThreadPoolExecutor(self._workers, "mobilekd-feed") if self._workers else None
        self._coming: deque[tuple[int, Future[Batch]]] = deque()
        self._rows = functools.lru_cache(maxsize=2)(self._epoch_rows)  # a thread may be an epoch ahead

    def batch(self, step: int) -> Batch:
        """Return the batch of a step, and have the next ones prepared."""
        if self._threads is None:
            return self._build(step)
        while self._coming and self._coming[0][0] != step:
            self._coming.popleft()[1].cancel()
        first = step + len(self._coming)
        for coming in range(first, min(step + self._workers + 1, self.steps)):
            self._coming.append((coming, self._threads.submit(self._build, coming)))
        return self._coming.popleft()[1].result()

    def close(self) -> None:
        """End the threads."""
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)

    def _epoch_rows(self, epoch: int) -> torch.Tensor:
        recipe = self._recipe
        rows = epoch_rows(self._labels, recipe.seed, epoch, recipe.train_images, recipe.sampling)
        return torch.from_numpy(rows)

    def _build(self, step: int) -> Batch:
        epoch, index = divmod(step, self.steps_per_epoch)
        rows = self._rows(epoch)[index * self.batch_images : (index + 1) * self.batch_images][self._share]
        return self._views.batch(rows, self._recipe.view(epoch), step / self.steps)
