"""The space of a sweep: which keys take which values, and the combinations."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mobilekd.config import Override, parse_override
from mobilekd.errors import ConfigError
from mobilekd.train import method_value, network_name

METHOD = "distill.method"

Scalar = str | int | float | bool
Values = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Axis:
    """One key, as "distill.method", and the values that it takes; several methods in one value have commas."""

    key: str
    choices: tuple[Scalar, ...]


def axes_of(
    teachers: Sequence[str], students: Sequence[str], methods: Sequence[str], choices: Sequence[str]
) -> tuple[Axis, ...]:
    """Return the axes that the command line spans.

    Args:
        teachers: Networks; a bare name is timm's.
        students: The same.
        methods: Each one name, or several with commas between for one student.
        choices: Each KEY=A,B,...

    Raises:
        ConfigError: Nothing to vary, an unknown method, a --set-choice of another form, or a key given twice.
    """
    for text in methods:
        method_value([text])
    found = [
        Axis("teacher.network", tuple(network_name(one) for one in teachers)),
        Axis("distill.network", tuple(network_name(one) for one in students)),
        Axis(METHOD, tuple(methods)),
        *(_parse_choice(text) for text in choices),
    ]
    axes = tuple(Axis(one.key, tuple(dict.fromkeys(one.choices))) for one in found if one.choices)
    keys = [one.key for one in axes]
    if twice := [key for key in keys if keys.count(key) > 1]:
        raise ConfigError(
            f"{twice[0]} is given twice", hint="put all its values in one --set-choice KEY=A,B", code="MKD-205"
        )
    if not axes:
        raise ConfigError(
            "there is nothing to vary",
            hint="for example --method kd --set-choice distill.temperature=2,4",
            code="MKD-205",
        )
    return axes


def _parse_choice(text: str) -> Axis:
    key, _, values = text.partition("=")
    parsed = [parse_override(f"{key}={value}").value for value in values.split(",")] if values else []
    if not parsed or not all(isinstance(one, Scalar) for one in parsed):
        hint = "for example --set-choice distill.temperature=2,4,8"
        raise ConfigError(
            f"--set-choice {text} is not KEY=A,B with text, numbers or true and false", hint=hint, code="MKD-205"
        )
    return Axis(key.strip(), tuple(parsed))


def points(axes: Sequence[Axis]) -> list[dict[str, Scalar]]:
    """Return every combination, the last axis fastest.

    Example:
        >>> points((Axis("a", (1, 2)), Axis("b", (True,))))
        [{'a': 1, 'b': True}, {'a': 2, 'b': True}]
    """
    keys = [one.key for one in axes]
    return [dict(zip(keys, values, strict=True)) for values in itertools.product(*(one.choices for one in axes))]


def grid_size(axes: Sequence[Axis]) -> int:
    """Return the number of combinations."""
    return len(points(axes))


def overrides_for(values: Values) -> list[Override]:
    """Return a combination as overrides of a pipeline."""
    return [
        Override(
            tuple(key.split(".")), method_value([str(value)]) if key == METHOD else value, f"--set-choice {key}={value}"
        )
        for key, value in values.items()
    ]
