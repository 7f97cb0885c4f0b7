"""A batch in another order."""

from dataclasses import replace

import torch
from torch import Tensor

from mobilekd.method import Method, Outputs
from tests.methods.cases import BATCH, adapters_of, batch


def shuffled(method: Method, student: Outputs, teacher: Outputs) -> Tensor:
    order = torch.arange(BATCH).flip(0)
    first, second = (
        Outputs(one.logits[order], tuple(stage[order] for stage in one.stages), one.embedded()[order])
        for one in (student, teacher)
    )
    given = batch()
    moved = replace(given, labels=given.labels[order], targets=given.targets[order], rows=given.rows[order])
    adapters = adapters_of(method, student, teacher)
    return torch.stack(tuple(method.terms(first, second, moved, adapters).values())).sum()
