"""The one training loop: every step depends on the seed and its number alone, so a resumed run equals a whole one."""

import time
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from mobilekd.errors import StageError
from mobilekd.method import Batch
from mobilekd.stage import Progress
from mobilekd.training import checkpoints
from mobilekd.training.data import Images
from mobilekd.training.device import choose, compiled, peak_bytes, slow_precision
from mobilekd.training.evaluation import predict, top1
from mobilekd.training.feeding import Feed
from mobilekd.training.parallel import Group, meet
from mobilekd.training.recipe import Recipe
from mobilekd.training.run import History, Loss, Run, Silent
from mobilekd.training.stepping import Stepper
from mobilekd.training.watching import PULL, Speed

__all__ = ["History", "Loss", "Recipe", "Run", "fit", "predict", "top1"]

_CHECKPOINT_EVERY_S = 10.0
_EPOCH_CHECKPOINT_EVERY_S = 1.0
_WEIGH_EVERY = 100  # steps; it takes as long as two of them
_CPUINFO = Path("/proc/cpuinfo")


def fit(run: Run, recipe: Recipe) -> History:
    """Train in place and return one record an epoch: epoch, loss, lr, each term, top1 on validation, at times pulls.

    The network is on the CPU afterwards. With torchrun every process calls this and gets the same network and history;
    process 0 writes the checkpoint, which all must be able to read.

    Raises:
        StageError: The loss or a gradient is not finite, one image does not fit into memory, or the device, precision
            or compiler that the recipe asks for is not there.
    """
    torch.set_num_threads(recipe.threads)
    training = _Training(run, recipe)
    try:
        training.go()
    finally:
        training.feed.close()
    meet()
    run.network.to("cpu")
    return training.history


class _Training:
    """A run on its way: epochs, validation, checkpoints."""

    def __init__(self, run: Run, recipe: Recipe) -> None:
        self.run, self.recipe = run, recipe
        self.device = choose(recipe.device)
        self.group = Group(self.device)
        self.progress: Progress = run.progress if self.group.rank == 0 else Silent()
        self.feed = Feed(run.train, recipe, self.device, self.group)
        self.stepper = Stepper(run, recipe, self.device, self.group, self.progress)
        self.step = 0
        self.saved_step = -1
        self.history: History = []
        self.sums: dict[str, Tensor] = {}
        self.best: dict[str, Any] = {}

    def go(self) -> None:
        """Train from where the checkpoint ends."""
        if self._resume():
            return
        cpuinfo = _CPUINFO.read_text(encoding="utf-8", errors="replace") if _CPUINFO.is_file() else ""
        if advice := slow_precision(self.recipe.precision, self.device, cpuinfo):
            self.progress.say(f"{self.run.title}: {advice} [MKD-808]")
        if self.feed.batch_images < self.recipe.batch_size:
            counts = f"{self.feed.batch_images} images, all of an epoch; batch_size asks for {self.recipe.batch_size}"
            self.progress.say(f"{self.run.title}: a batch has {counts}")
        with compiled(self.run.network, self.device, enabled=self.recipe.compile):
            self._train()
        self.stepper.average.take_over()
        if self.best:
            self.run.network.load_state_dict(self.best["network"])
            told = f"epoch {self.best['epoch']} (top-1 {self.best['top1']:.2%})"
            self.progress.say(f"{self.run.title}: the weights of {told} are kept")
        self._save({})

    def _train(self) -> None:
        clock, is_first, note = _Clock(), True, ""
        saves = checkpoints.Pace(_CHECKPOINT_EVERY_S, _EPOCH_CHECKPOINT_EVERY_S)
        self._train_mode()
        with self.progress.bar(self.run.title, self.feed.steps) as bar:
            bar.advance(self.step)
            while self.step < self.feed.steps and not self._has_lost_patience():
                batch = self._step(clock)
                if is_first and self.recipe.compile:
                    took_s = time.monotonic() - clock.started_s
                    self.progress.say(f"{self.run.title}: torch.compile and a step took {took_s:.0f} s")
                is_first = False
                if closes_epoch := self.step % self.feed.steps_per_epoch == 0:
                    note = self._close_epoch(clock, batch)
                    clock = _Clock()
                bar.advance(1, note)
                if saves.is_due(closes_epoch=closes_epoch):
                    with saves.timed():
                        self._save(self.stepper.state() | {"sums": self.sums, "best": self.best})

    def _step(self, clock: "_Clock") -> Batch:
        asked_s = time.monotonic()
        batch = self.feed.batch(self.step)
        clock.waited_s += time.monotonic() - asked_s
        terms = self.stepper.gradients(batch, self.step)
        self._fail_if_bad(self.stepper.bad_step(terms, self.step))
        self.stepper.update(batch)
        for name, value in terms.items():
            self.sums[name] = self.sums[name] + value if name in self.sums else value.double()
        if self.run.on_step is not None and self.group.rank == 0:
            self.run.on_step(self.step, {name: float(value) for name, value in terms.items()})
        clock.steps += 1
        self.step += 1
        return batch

    def _close_epoch(self, clock: "_Clock", batch: Batch) -> str:
        """Validate, add the record of the epoch, and return it as a note."""
        self._fail_if_bad(self.stepper.bad_so_far(self.step))
        means = {name: float(value) / self.feed.steps_per_epoch for name, value in self.sums.items()}
        speed = clock.speed(self.feed.batch_images, self.device)
        epoch = self.step // self.feed.steps_per_epoch
        rate = self.recipe.learning_rate_at((self.step - 1) / self.feed.steps, len(self.run.train))
        record = {"epoch": float(epoch), "loss": sum(means.values()), "lr": rate, **means}
        with self.stepper.average.in_place():
            record["top1"] = self._validated()
            self._keep_if_best(record["top1"], epoch)
        self.sums = {}
        if len(means) > 1 and self._is_time_to_weigh():
            pulls = self.stepper.pulls(batch, self.step - 1)
            record |= {PULL + name: value for name, value in pulls.items()}
        self.history.append(record)
        self._train_mode()
        if self.run.watch is not None and self.group.rank == 0:
            self.run.watch.epoch(record, speed)
        return f"loss {record['loss']:.3f}  top-1 {record['top1']:.2%}  {speed.images_per_s:.0f} img/s"

    def _is_time_to_weigh(self) -> bool:
        """Return whether 100 steps are full since the terms' gradients were last looked at, at the end of an epoch."""
        return self.step // _WEIGH_EVERY > (self.step - self.feed.steps_per_epoch) // _WEIGH_EVERY

    def _validated(self) -> float:
        """Return top-1 on the validation images; each process judges its share."""
        whole = self.run.validation
        share = self.group.share(len(whole))
        images = Images(whole.images[share], whole.labels[share], whole.facts)
        logits = predict(self.run.network, images, self.stepper.split.size(self.feed.batch_images))
        return self.group.total(int((logits.argmax(axis=1) == images.labels).sum())) / len(whole)

    def _keep_if_best(self, top1: float, epoch: int) -> None:
        if self.recipe.patience and (not self.best or top1 > self.best["top1"]):
            state = {name: value.clone() for name, value in self.run.network.state_dict().items()}
            self.best = {"top1": top1, "epoch": epoch, "network": state}

    def _has_lost_patience(self) -> bool:
        return bool(self.best) and len(self.history) - self.best["epoch"] >= self.recipe.patience

    def _train_mode(self) -> None:
        self.run.network.train(self.run.in_train_mode)
        if self.run.adapters is not None:
            self.run.adapters.train()

    def _fail_if_bad(self, step: int) -> None:
        if step >= 0:
            self._fail(step)

    def _fail(self, step: int) -> NoReturn:
        what, terms = self.stepper.explain(self.feed.batch(step), step)
        epoch, index = divmod(step, self.feed.steps_per_epoch)
        named = ", ".join(f"{name} {float(value.detach()):.3g}" for name, value in terms.items())
        kept = f"the last good checkpoint, of step {self.saved_step}, is kept: {self.run.checkpoint}"
        found = f"first of all {what}" if what else "when the batch was computed again, all was finite"
        narrow = self.recipe.precision != "fp32"
        raise StageError(
            f"{self.run.title}: the loss or a gradient is not finite in epoch {epoch + 1}, batch {index + 1} ({named});"
            f" {found}; {kept if self.saved_step >= 0 else 'there is no checkpoint yet'}",
            hint=f"lower the learning rate ({self.recipe.learning_rate})"
            + (f", or set precision = 'fp32' (it is '{self.recipe.precision}')" if narrow else ""),
            code="MKD-402",
        )

    def _save(self, unfinished: dict[str, object]) -> None:
        """Write a checkpoint; of a finished run the network and the history are enough."""
        self._fail_if_bad(self.stepper.bad_so_far(self.step))
        if self.group.rank == 0:
            state = {"step": self.step, "history": self.history, "network": self.run.network.state_dict()}
            whole = state | {"finished": not unfinished} | unfinished
            checkpoints.save(self.run.checkpoint, repr(self.recipe), whole)
        self.saved_step = self.step

    def _resume(self) -> bool:
        """Go on from the checkpoint, if there is one; return whether the run is finished."""
        state = checkpoints.load(self.run.checkpoint, repr(self.recipe), self.run.title, self.progress)
        if state is None:
            return False
        self.run.network.load_state_dict(state["network"])
        self.history, self.step, self.saved_step = state["history"], state["step"], state["step"]
        if state["finished"]:
            return True
        self.stepper.load(state)
        self.sums = {name: value.to(self.device) for name, value in state["sums"].items()}
        self.best = state["best"]
        self.progress.say(f"{self.run.title}: going on from step {self.step}")
        return False


class _Clock:
    """Time of the steps of an epoch."""

    def __init__(self) -> None:
        self.started_s, self.waited_s, self.steps = time.monotonic(), 0.0, 0

    def speed(self, batch_images: int, device: torch.device) -> Speed:
        seconds = max(time.monotonic() - self.started_s, 1e-9)
        return Speed(self.steps * batch_images / seconds, peak_bytes(device), seconds, self.waited_s / seconds)
