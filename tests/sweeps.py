"""A small sweep whose results are known without training anything."""

from mobilekd.errors import StageError
from mobilekd.sweep_grid import axes_of
from mobilekd.sweep_trial import SweepPlan, TrialRun

AXES = axes_of([], ["resnet10t", "resnet18"], ["kd"], ["distill.temperature=2.0,4.0"])


PLAN = SweepPlan(AXES, seeds=2)


class Runs:
    """A build whose top-1 is known: hotter is better, the larger network too; it keeps what it was asked."""

    def __init__(self, failing: float = 0.0, dying: int = -1, failure: Exception | None = None) -> None:
        self.asked: list[tuple] = []
        self.failing, self.dying = failing, dying
        self.failure = failure or StageError("the loss is not finite")

    def check(self, plan, example, workshop) -> None:
        self.checked = example

    def prepare(self, plan, example, workshop) -> None:
        self.prepared = example

    def student(self, plan, combination, index, workshop) -> TrialRun:
        values = combination.values
        if len(self.asked) == self.dying:
            raise KeyboardInterrupt
        self.asked.append((*values.values(), index))
        hot, is_large = values["distill.temperature"], values["distill.network"] == "timm:resnet18"
        if hot == self.failing:
            raise self.failure
        size = 2000 if is_large else 1000
        return TrialRun(index, 0.5 + hot / 100 + is_large / 10 + index / 50, 0.4, size, size, "a byte a parameter", 1.0)


class Methods(Runs):
    """A build that takes whatever the methods read."""

    def student(self, plan, combination, index, workshop) -> TrialRun:
        self.asked.append(tuple(combination.values.values()))
        return TrialRun(index, 0.5, 0.4, 10, 10, "a byte a parameter", 1.0)
