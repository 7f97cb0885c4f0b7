"""One step: the gradient of a batch over micro-batches and processes, a look at it, and the optimizer."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mobilekd.method import Batch
from mobilekd.stage import Progress
from mobilekd.training.device import Precision, eager
from mobilekd.training.faults import first_not_finite, statistics
from mobilekd.training.memory import Snapshot, Split, fits
from mobilekd.training.optimization import Average, make_optimizer
from mobilekd.training.parallel import Group
from mobilekd.training.recipe import Recipe
from mobilekd.training.run import Run

_LOOKS_EVERY = {"cpu": 1, "cuda": 50}  # steps between two looks at the numbers: each look waits for the device


class Stepper:
    """All that a step changes: parameters, optimizer, moving average, and the micro-batches of a batch."""

    def __init__(self, run: Run, recipe: Recipe, device: torch.device, group: Group, progress: Progress) -> None:
        """Move the network and the adapters to the device, and give every process those of process 0."""
        self._run, self._recipe, self._device, self._group = run, recipe, device, group
        self._progress = progress
        self._modules = {"": run.network} | ({"adapters": run.adapters} if run.adapters else {})
        for module in self._modules.values():
            module.to(device)
        self._own = [one for one in run.network.parameters() if one.requires_grad]
        added = list(run.adapters.parameters()) if run.adapters else []
        self._parameters = [*self._own, *(one for one in added if one.requires_grad)]
        buffers = [one for module in self._modules.values() for one in module.buffers()]
        group.copy_from_first([*(one.data for one in self._parameters), *buffers])
        self._snapshot = Snapshot(buffers, len(run.train))
        # A memory bank of the adapters is each process' own; statistics of BatchNorm are averaged.
        self._averaged = statistics(run.network) if group.size > 1 else []
        self._optimizer = make_optimizer(self._parameters, recipe)
        self.average = Average([*self._own, *statistics(run.network)], recipe.ema)
        self._precision = Precision(recipe.precision, device)
        self.split = Split(run.title, recipe.accumulation, progress)
        self._first_bad = torch.full((), -1, device=device)

    def gradients(self, batch: Batch, step: int) -> dict[str, Tensor]:
        """Set the gradients of the mean over the whole batch of all processes, and return its terms, detached."""
        terms: dict[str, Tensor] = {}
        whole = self._recipe.batch_images(len(self._run.train))

        def compute() -> None:
            terms.clear()
            self._seed(step)
            self._optimizer.zero_grad(set_to_none=True)
            for part in self.split.batches(batch):
                share = len(part.rows) / whole
                values = self._terms(part)
                loss = torch.stack(tuple(values.values())).sum() * share
                self._precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
                for name, value in values.items():
                    added = value.detach() * share
                    terms[name] = terms[name] + added if name in terms else added

        self.split.until_it_fits(batch.rows, self._snapshot, compute)
        self._exchange(terms, len(batch.rows) / whole)
        return terms

    def update(self, batch: Batch) -> None:
        """Move the parameters along the gradients, and the average after them."""
        for group in self._optimizer.param_groups:
            group["lr"] = self._recipe.learning_rate_at(batch.progress, len(self._run.train))
        self._precision.scaler.step(self._optimizer)
        self._precision.scaler.update()
        self.average.update()

    def bad_step(self, terms: Mapping[str, Tensor], step: int) -> int:
        """Return the first step whose terms or gradients are not finite, else -1.

        On the CPU that is this step; on CUDA it is looked up every 50 steps, so the weights may be spoilt by then.
        """
        values = list(terms.values())
        if not self._precision.is_scaled:  # the scaler skips steps whose gradients overflow, and that is no fault
            gradients = [one.grad for one in self._parameters if one.grad is not None]
            values += torch._foreach_norm(gradients) if gradients else ()
        is_bad = ~torch.isfinite(torch.stack(values)).all()
        self._first_bad = torch.where(is_bad & (self._first_bad < 0), step, self._first_bad)
        return -1 if step % _LOOKS_EVERY[self._device.type] else int(self._first_bad)

    def bad_so_far(self, step: int) -> int:
        """Return the first of the steps before `step` that was not finite or left weights that are not; else -1."""
        held = [*self._parameters, *statistics(self._run.network)]
        norms = torch._foreach_norm([one.detach() for one in held if one.numel()])
        are_finite = not norms or bool(torch.isfinite(torch.stack(list(norms))).all())
        return int(self._first_bad) if are_finite else max(int(self._first_bad), step - 1)

    def explain(self, batch: Batch, step: int) -> tuple[str, Mapping[str, Tensor]]:
        """Return what is not finite first in a step, and the terms that show it."""
        self._seed(step)
        return first_not_finite(self._modules, self.split.batches(batch), self._terms)

    def pulls(self, batch: Batch, step: int) -> dict[str, float]:
        """Return the L2 norm of each term's gradient to the network's weights, and leave all as it was.

        What a term is worth says little of what it does: CRD's contrast never falls to 0. Network and adapters are in
        evaluation mode meanwhile, and one micro-batch speaks for all; a term whose gradient is not finite is left out.
        The graph is kept until all terms are weighed, which takes more memory than a step: where it is lacking, {}.
        """
        self._optimizer.zero_grad(set_to_none=True)
        self._seed(step)
        self._snapshot.take(batch.rows)
        for module in self._modules.values():
            module.eval()
        found: dict[str, Tensor] = {}

        def weigh() -> None:
            with eager(self._run.network):
                terms = self._terms(next(self.split.batches(batch)))
                found.update((name, self._pull(value)) for name, value in terms.items())

        has_failed = not fits(weigh)
        self._snapshot.put_back()
        if self._group.total(int(has_failed)):  # in one process is enough: all must send the same values
            self._progress.say(f"{self._run.title}: too little memory to weigh the terms after step {step + 1}")
            return {}
        self._group.sum_in_place(list(found.values()))
        means = {name: float(value) / self._group.size for name, value in found.items()}
        return {name: value for name, value in means.items() if math.isfinite(value)}

    def _pull(self, term: Tensor) -> Tensor:
        if not term.requires_grad:
            return torch.zeros_like(term)
        scaled = self._precision.scaler.scale(term)
        found = torch.autograd.grad(scaled, self._own, retain_graph=True, allow_unused=True)
        if not (reached := [one for one in found if one is not None]):
            return torch.zeros_like(term)
        whole: Tensor = torch.stack(list(torch._foreach_norm(reached))).norm()
        return whole / self._precision.scaler.get_scale()

    def state(self) -> dict[str, object]:
        """Return what the next step depends on beside the network."""
        return {
            "adapters": self._run.adapters.state_dict() if self._run.adapters else {},
            "optimizer": self._optimizer.state_dict(),
            "average": self.average.state(),
            "scaler": self._precision.scaler.state_dict(),
            "micro_batches": self.split.parts,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned."""
        if self._run.adapters is not None:
            self._run.adapters.load_state_dict(state["adapters"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.average.load(state["average"])
        self._precision.scaler.load_state_dict(state["scaler"])
        self.split.parts = state["micro_batches"]

    def _terms(self, batch: Batch) -> dict[str, Tensor]:
        with self._precision.autocast():
            return {name: value.float() for name, value in self._run.loss(batch).items()}

    def _seed(self, step: int) -> None:
        """Seed the global generator for a step: dropout and stochastic depth draw from it."""
        state = np.random.SeedSequence((self._recipe.seed, step, self._group.rank)).generate_state(1, np.uint64)[0]
        torch.default_generator.manual_seed(int(state >> np.uint64(1)))
        if self._device.type == "cuda":
            torch.cuda.manual_seed(int(state >> np.uint64(1)))

    def _exchange(self, terms: Mapping[str, Tensor], share: float) -> None:
        """Sum gradients and terms, which hold this process' share, over the processes, and average the statistics."""
        if self._group.size == 1:
            return
        for one in self._parameters:
            if one.grad is None:  # unused here, perhaps not elsewhere: all must send as many values
                one.grad = torch.zeros_like(one)
        for buffer in self._averaged:
            buffer.mul_(share)
        gradients = [one.grad for one in self._parameters if one.grad is not None]
        self._group.sum_in_place([*gradients, *terms.values(), *self._averaged])
