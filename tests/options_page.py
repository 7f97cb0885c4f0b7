"""The tables of docs/training-options.md, made from the stages' fields; `python -m tests.options_page` writes them.

Default and range are those of the field, the words those of the docstring that has it under "Attributes".
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from mobilekd.stage import Stage
from mobilekd.stages._calibration import CalibrationStage
from mobilekd.stages._distillation import MethodOptions
from mobilekd.stages._training import NetworkStage, TrainingStage
from mobilekd.stages.distill import Distill
from mobilekd.stages.quantize import Quantize
from mobilekd.training.augmentation import Augmentation
from mobilekd.training.recipe import Recipe

PAGE = Path(__file__).parent.parent / "docs" / "training-options.md"
MARK = "<!-- What follows is written by `python -m tests.options_page`. -->\n"

# Title -> the class that has the options, the options, and where their words are.
TABLES: Mapping[str, tuple[type[Stage], tuple[type, ...]]] = {
    "Every training stage": (TrainingStage, (Recipe, Augmentation)),
    "teacher, alone, assistant, distill": (NetworkStage, (NetworkStage,)),
    "assistant, distill, quantize": (MethodOptions, (MethodOptions,)),
    "assistant, distill": (Distill, (Distill,)),
    "quantize: calibration": (CalibrationStage, (CalibrationStage,)),
    "quantize: training, where it differs": (Quantize, (Recipe, Quantize)),
}
_ENTRY = re.compile(r"^    (\w[\w, ]*): (.*)$")
_BOUNDS = {Gt: ("> {}", "gt"), Ge: ("≥ {}", "ge"), Lt: ("< {}", "lt"), Le: ("≤ {}", "le")}
_KINDS = {bool: "true, false", int: "integer", float: "number", str: "text", dict: "table", tuple: "list"}


def written(page: str) -> str:
    """Return the page with its tables as they should be."""
    parts = [f"## {title}\n\n{_table(*one)}" for title, one in TABLES.items()]
    return page.partition(MARK)[0] + MARK + "\n" + "\n".join(parts)


def rows(owner: type[Stage], told_by: tuple[type, ...]) -> Iterator[tuple[str, str, str, str]]:
    """Yield name, default, range and description of the options that a class itself has."""
    words: dict[str, str] = {}
    for one in told_by:
        words |= attributes(one)
    for name in owner.__annotations__:
        if name in owner.model_fields:
            field = owner.model_fields[name]
            yield name, _default(field), _range(field), words.get(name, "")


def attributes(documented: type) -> dict[str, str]:
    """Return what the docstring of a class says of each attribute, in one line."""
    found: dict[str, str] = {}
    names: list[str] = []
    for line in inspect.cleandoc(documented.__doc__ or "").partition("Attributes:\n")[2].splitlines():
        if entry := _ENTRY.match(line):
            names = entry[1].split(", ")
            found |= dict.fromkeys(names, entry[2])
        elif line.startswith(" " * 8):
            found |= {name: f"{found[name]} {line.strip()}" for name in names}
        else:
            break
    return found


def _table(owner: type[Stage], told_by: tuple[type, ...]) -> str:
    lines = ["| option | default | range | |", "|---|---|---|---|"]
    for name, default, span, words in rows(owner, told_by):
        cells = (f"`{name}`", default, span, words)
        lines.append("| " + " | ".join(one.replace("|", "\\|") for one in cells) + " |")
    return "\n".join(lines) + "\n"


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "none: it has to be given"
    value = field.get_default(call_default_factory=True)
    return "not set" if value is None else f"`{json.dumps(value)}`"


def _range(field: FieldInfo) -> str:
    choices = [repr(one) for kind in _kinds(field.annotation) if get_origin(kind) is Literal for one in get_args(kind)]
    if choices:
        return ", ".join(f"`{one}`".replace("'", '"') for one in choices)
    bounds = [
        f"{sign.format(f'{getattr(one, name):g}')}"
        for one in field.metadata
        for kind, (sign, name) in _BOUNDS.items()
        if isinstance(one, kind)
    ]
    kinds = [_KINDS[get_origin(kind) or kind] for kind in _kinds(field.annotation) if kind is not type(None)]
    return ", ".join([" or ".join(kinds), *bounds])


def _kinds(annotation: Any) -> tuple[Any, ...]:
    is_choice = get_origin(annotation) in (Literal, tuple, dict, None)
    return (annotation,) if is_choice else get_args(annotation)


if __name__ == "__main__":
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
