"""The curves of a run, where the user asked for them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mobilekd.stage import Context

if TYPE_CHECKING:
    from mobilekd.training.tensorboard import TensorboardWatch


@contextmanager
def curves(context: Context, name: str, teacher_top1: float | None = None) -> "Iterator[TensorboardWatch | None]":
    """Give what writes a run's curves, where the user asked for them."""
    from mobilekd.training.tensorboard import tensorboard_watch

    watch = tensorboard_watch(context.events, name, context.progress, teacher_top1=teacher_top1)
    try:
        yield watch
    finally:
        if watch is not None:
            watch.close()
