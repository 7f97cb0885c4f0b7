"""Curves of a training run for TensorBoard, written only where the user asks for them; nothing leaves the machine."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mobilekd.stage import Progress
from mobilekd.training.history import terms_of
from mobilekd.training.watching import PULL, Speed

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter


class TensorboardWatch:
    """Writes the scalars of one run; implements `watching.Watch`.

    Tags: top1/validation, top1/teacher, loss/TERM, loss/total, pull/TERM, learning_rate, speed/images_per_s,
    speed/seconds_an_epoch, memory/peak_bytes. The step is the epoch.
    """

    def __init__(self, folder: Path, *, teacher_top1: float | None = None) -> None:
        self._folder, self._teacher_top1 = folder, teacher_top1
        self._writer: SummaryWriter | None = None

    def epoch(self, record: Mapping[str, float], speed: Speed) -> None:
        """Write one epoch and flush it."""
        from torch.utils.tensorboard.writer import SummaryWriter

        step = int(record["epoch"])
        if self._writer is None:  # purge: a resumed run repeats epochs that were written after its checkpoint
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        scalars = {f"loss/{name}": value for name, value in terms_of(record).items()}
        scalars |= {name: value for name, value in record.items() if name.startswith(PULL)}
        scalars |= {"loss/total": record["loss"], "speed/images_per_s": speed.images_per_s}
        scalars["speed/seconds_an_epoch"] = speed.seconds
        for tag, value in (
            ("top1/validation", record.get("top1")),
            ("top1/teacher", self._teacher_top1),
            ("learning_rate", record.get("lr")),
            ("memory/peak_bytes", speed.peak_bytes),
        ):
            if value is not None:
                scalars[tag] = value
        for tag, value in scalars.items():
            self._writer.add_scalar(tag, value, step)
        self._writer.flush()

    def close(self) -> None:
        """End the writer; safe to call twice, and before the first epoch."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def tensorboard_watch(
    events: Path | None, run: str, progress: Progress, *, teacher_top1: float | None = None
) -> TensorboardWatch | None:
    """Return what writes a run's curves below `events`; None when nobody asked, or TensorBoard is not installed.

    Args:
        events: `Context.events`.
        run: Name of the sub-folder, as "distill".
        progress: Where a missing package is told, in one line.
        teacher_top1: On validation; drawn beside the student's.
    """
    if events is None:
        return None
    if importlib.util.find_spec("tensorboard") is None:
        progress.say(f"{run}: no curves in {events}: tensorboard is not installed (pip install 'mobilekd[watch]')")
        return None
    return TensorboardWatch(events / run, teacher_top1=teacher_top1)
