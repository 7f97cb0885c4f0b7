"""Several processes that train one network: torchrun starts them, each computes its share of every batch."""

import atexit
import math
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed
from torch.distributed.rendezvous import rendezvous

from mobilekd.errors import StageError

_LONGEST_WAIT = timedelta(days=7)
"""Process 0 may convert and measure for hours between two trainings. torchrun ends a group that lost a process."""


class Group:
    """The processes of a run; one process is a group of its own."""

    def __init__(self, device: torch.device) -> None:
        """Join the group that RANK and WORLD_SIZE name."""
        self.rank, self.size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        self._device = device
        if self.size > 1:
            join()

    def share(self, count: int) -> slice:
        """Return which of so many images this process takes; the shares are contiguous and differ by at most one.

        Raises:
            StageError: A process would have none.
        """
        if count < self.size:
            raise StageError(
                f"{count} images for {self.size} processes",
                hint="raise batch_size or start fewer processes",
                code="MKD-404",
            )
        return part(count, self.size, self.rank)

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all processes: one all-reduce of all values behind each other."""
        if self.size == 1:
            return
        flat = torch.cat([one.reshape(-1).float() for one in tensors])
        distributed.all_reduce(flat)
        for one, piece in zip(tensors, torch.split(flat, [one.numel() for one in tensors]), strict=True):
            one.copy_(piece.view(one.shape))

    def copy_from_first(self, tensors: Sequence[Tensor]) -> None:
        """Give every process the values of process 0."""
        for one in tensors if self.size > 1 else ():
            values = one.contiguous()
            distributed.broadcast(values, 0)
            one.copy_(values)

    def total(self, number: int) -> int:
        """Return the sum of a number over all processes."""
        if self.size == 1:
            return number
        counter = torch.tensor(number, device=self._device)
        distributed.all_reduce(counter)
        return int(counter)


def join() -> None:
    """Join the other processes once, over gloo on the CPU and nccl on CUDA; the group lasts as long as the process."""
    if distributed.is_initialized():
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=_LONGEST_WAIT))
    _meetings.store = store
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_LONGEST_WAIT)
    atexit.register(distributed.destroy_process_group)


def meet() -> None:
    """Return when every process has called this as often as this one: nobody is within a collective then.

    Processes part only after it. A process that has its sum may end while another still waits for the last bytes of
    it, and gloo resets its connections when it closes them. The processes meet in torchrun's store, not over gloo.
    """
    if distributed.is_initialized():
        _meetings.meet(distributed.get_world_size())


class _Meetings:
    """Meetings of all processes in the store that torchrun keeps."""

    def __init__(self) -> None:
        self.store: Any = None  # torch.distributed.Store
        self.held = 0

    def meet(self, size: int) -> None:
        self.held += 1
        everyone = f"mobilekd/meeting/{self.held}"
        if self.store.add("mobilekd/arrived", 1) == self.held * size:
            self.store.set(everyone, "here")
        self.store.wait([everyone], _LONGEST_WAIT)


_meetings = _Meetings()


def part(count: int, parts: int, index: int) -> slice:
    """Return the index-th of `parts` contiguous parts of `count` things, the larger ones first.

    Example:
        >>> [part(8, 3, index) for index in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
    """
    size = math.floor(count / parts)
    larger = count % parts
    start = index * size + min(index, larger)
    return slice(start, start + size + (index < larger))
