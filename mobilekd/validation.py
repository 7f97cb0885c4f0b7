"""A record from what a person wrote; a failure names the file, the key, the value and what is allowed."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from mobilekd.errors import ConfigError, one_line
from mobilekd.plugins import choices

M = TypeVar("M", bound=BaseModel)

_MOST_FAULTS = 20
_KEY_CHARACTERS = 200
_CODES = {"extra_forbidden": "MKD-210", "missing": "MKD-212"}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where values were written.

    Attributes:
        path: The file.
        prefix: The table of the file that is looked at, as "distill"; empty at the top.
        overrides: Dotted key -> the option as typed, for values that do not stand in the file.
    """

    path: Path
    prefix: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)

    def below(self, table: str) -> "Origin":
        """Return the origin of one table of this file."""
        return Origin(self.path, table, self.overrides)

    def key(self, key: str) -> str:
        """Return a key as it is written from the top of the file."""
        return ".".join(part for part in (self.prefix, key) if part)

    def where(self, key: str) -> str:
        """Return what an error about a key starts with, as "pipelines/x.toml: distill.epochs"."""
        full = self.key(key)
        named = one_line(full, _KEY_CHARACTERS)
        for overridden, text in self.overrides.items():
            is_inside = full.startswith((f"{overridden}.", f"{overridden}["))
            if full == overridden or is_inside or overridden.startswith(f"{full}."):
                return f"{one_line(text)}: {named}"
        return f"{self.path}: {named}"


def validate(model: type[M], values: Mapping[str, Any], origin: Origin) -> M:
    """Return a record of a model, read strictly: no text is taken for a number, no key is ignored.

    Raises:
        ConfigError: One line per wrong key.
    """
    _refuse_nan(values, origin)
    try:
        # Strict mode takes an array for a tuple and text for a path only when it reads JSON.
        return model.model_validate_json(json.dumps(values, default=str))
    except ValidationError as cause:
        causes = list(_causes(cause))
        told = [_tell(error, model, values, origin) for error in causes[:_MOST_FAULTS]]
        lines = dict.fromkeys(line for line, _ in told)
        hints = dict.fromkeys(hint for _, hint in told if hint)
        more = [f"{origin.path}: and {len(causes) - _MOST_FAULTS:,} more"] if len(causes) > _MOST_FAULTS else []
        code = _CODES.get(causes[0]["type"], "MKD-211")
        raise ConfigError("\n".join([*lines, *more]), hint="; ".join(hints), code=code) from cause


def dotted(parts: Sequence[int | str]) -> str:
    """Return a key path as people write it.

    Example:
        >>> dotted(["deploy", 1, "backend"])
        'deploy[1].backend'
    """
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts)
    return text.removeprefix(".")


def shown(value: object) -> str:
    """Return a value as the user wrote it, cut to one line."""
    return one_line(json.dumps(value, ensure_ascii=False, default=str))


def _causes(failure: ValidationError) -> Iterator[Mapping[str, Any]]:
    """Yield the errors, without those that only follow from an error further down, as "tuple is too short" does."""
    errors = failure.errors(include_url=False)
    above = {error["loc"][:length] for error in errors for length in range(len(error["loc"]))}
    yield from (error for error in errors if error["loc"] not in above)


def _tell(
    error: Mapping[str, Any], model: type[BaseModel], values: Mapping[str, Any], origin: Origin
) -> tuple[str, str]:
    """Return the line and the hint for one error of pydantic."""
    path = _written_path(error["loc"], values)
    where, kind = origin.where(dotted(path)), error["type"]
    if kind == "extra_forbidden":
        return f"{where} is not an option", choices(str(path[-1]), _option_names(model, error["loc"][:-1]))
    if kind == "missing":
        return f"{where} is missing", ""
    reason = str(error["msg"]).removeprefix("Value error, ")
    if kind == "value_error":
        return (f"{where}: {reason}" if path else f"{origin.path}: {origin.prefix or 'file'}: {reason}"), ""
    expected = re.findall(r"'([^']*)'", error.get("ctx", {}).get("expected", ""))
    hint = choices(str(error["input"]), expected) if kind == "literal_error" else ""
    return f"{where} is {shown(error['input'])}: {reason[:1].lower()}{reason[1:]}", hint


def _written_path(location: Sequence[int | str], values: Any) -> list[int | str]:
    """Return the parts of an error's location that stand in the file; pydantic adds names of union members."""
    path: list[int | str] = []
    for position, part in enumerate(location):
        is_last = position == len(location) - 1
        if isinstance(values, Mapping) and (part in values or is_last):
            path.append(part)
            values = values.get(str(part))
        elif isinstance(values, list) and isinstance(part, int) and part < len(values):
            path.append(part)
            values = values[part]
    return path


def _option_names(model: type[BaseModel], location: Sequence[int | str]) -> tuple[str, ...]:
    """Return the keys that the table at a location may have."""
    tables: list[type[BaseModel]] = [model]
    for part in location:
        fields = [table.model_fields[str(part)] for table in tables if str(part) in table.model_fields]
        tables = [inner for one in fields for inner in _models_in(one.annotation)] or tables
    return tuple(dict.fromkeys(name for table in tables for name in table.model_fields))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _refuse_nan(value: Any, origin: Origin, path: tuple[int | str, ...] = ()) -> None:
    """Refuse nan and inf, and integers beyond TOML's 64 bits, which a fraction would take for inf.

    No option means them, and they have no place in a cache key.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{origin.where(dotted(path))} is {value}: a finite number is needed", code="MKD-211")
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        where = origin.where(dotted(path))
        raise ConfigError(f"{where} is {shown(value)}: a number of at most 64 bits is needed", code="MKD-211")
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _refuse_nan(inner, origin, (*path, key))
    if isinstance(value, list):
        for index, inner in enumerate(value):
            _refuse_nan(inner, origin, (*path, index))
