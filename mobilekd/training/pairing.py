"""Which modules of student and teacher a distillation compares, and what reads them."""

from collections.abc import Sequence

from torch import Tensor, nn

from mobilekd.errors import ConfigError
from mobilekd.training.strategy import Strategy
from mobilekd.training.taps import Taps, check_paths, tap_paths


def compared(student: nn.Module, teacher: nn.Module, strategy: Strategy, example: Tensor) -> list[tuple[str, str]]:
    """Return paths of modules side by side: the stages that methods share, then the pairs with a method of their own.

    Raises:
        ConfigError: Stages have to be found and there are none.
    """
    shared = _stage_pairs(student, teacher, strategy, example) if strategy.reads("stages") else []
    return [*shared, *((part.student, part.teacher) for part in strategy.parts if part.student)]


def paired(student: Sequence[str], teacher: Sequence[str]) -> list[tuple[str, str]]:
    """Return stages side by side: the deepest with the deepest; what the longer list has more is left out.

    Example:
        >>> paired(["a", "b"], ["x", "y", "z"])
        [('a', 'y'), ('b', 'z')]
    """
    count = min(len(student), len(teacher))
    return list(zip(student[len(student) - count :], teacher[len(teacher) - count :], strict=True))


def _stage_pairs(student: nn.Module, teacher: nn.Module, plan: Strategy, example: Tensor) -> list[tuple[str, str]]:
    given = (len(plan.student_stages), len(plan.teacher_stages))
    if all(given) and given[0] != given[1]:
        raise ConfigError(
            f"student_stages names {given[0]} modules and teacher_stages {given[1]}",
            hint="name as many in both",
            code="MKD-252",
        )
    return paired(
        plan.student_stages or tap_paths(student, example), plan.teacher_stages or tap_paths(teacher, example)
    )


def taps_of(network: nn.Module, paths: tuple[str, ...], strategy: Strategy) -> Taps:
    """Return what reads these stages of a network, and the embedding where a method wants it.

    Raises:
        ConfigError: A path names no module; the first call finds a stage that is no feature map.
    """
    check_paths(network, paths)
    return Taps(network, paths, embedding=strategy.reads("embedding"), stages=bool(paths))
