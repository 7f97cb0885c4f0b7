"""Find and read pipelines/*.toml and devices/*.toml, with --set on top."""

import contextlib
import copy
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mobilekd.device.cpus import CPUS, EMULATED_ABIS
from mobilekd.errors import ConfigError, first_code, one_line
from mobilekd.paths import path_of
from mobilekd.plugins import BACKENDS, STAGES, choices
from mobilekd.profile import Profile
from mobilekd.stage import Stage
from mobilekd.toml_file import MOST_LEVELS, is_flat, read_toml
from mobilekd.unused import without_unused
from mobilekd.validation import Origin, shown, validate

Kind = Literal["pipelines", "devices"]

_NOUN = {"pipelines": "pipeline", "devices": "profile"}
PROFILE_PREFIX = "profile"
_SHOWN_CHARACTERS = 200


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The stages of one file of pipelines/, in order, with their options; `notes`: what of the file does not count."""

    name: str
    description: str
    seed: int
    stages: tuple[Stage, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Override:
    """One --set, or an option that stands for one: the parts of its key, its value, and the option as typed."""

    keys: tuple[str, ...]
    value: Any
    text: str


class _PipelineHead(BaseModel):
    """The top level of a pipeline file; every other key is a table with the options of the stage of that name."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    description: str = ""
    seed: int = Field(default=0, ge=0, lt=2**32)
    stages: tuple[str, ...] = Field(min_length=1)


def shipped_folder(kind: Kind) -> Path:
    """Return where the shipped files of a kind are: inside the wheel, or at the root of a checkout."""
    in_wheel = Path(__file__).parent / "shipped" / kind
    return in_wheel if in_wheel.is_dir() else Path(__file__).parent.parent / kind


def shipped_names(kind: Kind) -> tuple[str, ...]:
    """Return the names of the shipped files of a kind, sorted."""
    return tuple(sorted(path.stem for path in shipped_folder(kind).glob("*.toml")))


def find(kind: Kind, name: str) -> Path:
    """Return the file of a shipped name, or of a path to a .toml file.

    Raises:
        ConfigError: There is no such file; the hint lists the shipped names.
    """
    if name.endswith(".toml") or "/" in name:
        if path_of(name).is_file():
            return path_of(name)
        raise ConfigError(
            f"{one_line(name, _SHOWN_CHARACTERS)} is not a file",
            hint=f"shipped {kind}: {', '.join(shipped_names(kind))}",
            code="MKD-201",
        )
    if name not in shipped_names(kind):
        hint = f"{choices(name, shipped_names(kind))}, or a path to a .toml file"
        raise ConfigError(f"there is no {_NOUN[kind]} {one_line(name)!r}", hint=hint, code="MKD-201")
    return shipped_folder(kind) / f"{name}.toml"


def parse_override(text: str) -> Override:
    """Return one --set; a value that is not TOML is taken as text.

    Example:
        >>> parse_override("distill.epochs=3")
        Override(keys=('distill', 'epochs'), value=3, text='--set distill.epochs=3')
        >>> parse_override("distill.student=timm:mobilenetv3_small_100").value
        'timm:mobilenetv3_small_100'

    Raises:
        ConfigError: There is no `=`, or a part of the key is empty.
    """
    key, equals, value = text.partition("=")
    keys = tuple(part.strip() for part in key.split("."))
    told = f"--set {one_line(text)}"
    if not equals or not all(keys):
        raise ConfigError(f"{told} is not KEY=VALUE", hint="for example --set distill.epochs=5", code="MKD-205")
    if len(keys) > MOST_LEVELS:
        raise ConfigError(f"{told}: the key has {len(keys)} parts, at most {MOST_LEVELS} are known", code="MKD-205")
    with contextlib.suppress(ValueError, RecursionError):
        table = tomllib.loads(f"value = {value}")
        if table.keys() == {"value"} and is_flat(table):
            return Override(keys, table["value"], f"--set {text}")
    return Override(keys, value, f"--set {text}")


def load_profile(name: str, overrides: Sequence[Override] = ()) -> Profile:
    """Return a profile by its shipped name or path, with the --set profile.* applied.

    Raises:
        ConfigError: No such profile, or a key of it does not hold.
    """
    path = find("devices", name)
    ours = [Override(one.keys[1:], one.value, one.text) for one in overrides if one.keys[0] == PROFILE_PREFIX]
    values, origin = _apply(read_toml(path), ours, path)
    profile = validate(Profile, values, origin)
    _check_deployments(profile, origin)
    _check_device(profile, origin)
    return profile


def load_pipeline(name: str, overrides: Sequence[Override] = ()) -> Pipeline:
    """Return a pipeline by its shipped name or path, with the --set applied.

    Raises:
        ConfigError: No such pipeline, an unknown stage, or a key that does not hold.
    """
    path = find("pipelines", name)
    ours = [one for one in overrides if one.keys[0] != PROFILE_PREFIX]
    values, origin = _apply(read_toml(path), ours, path)
    tables = {key: value for key, value in values.items() if key not in _PipelineHead.model_fields}
    head = validate(_PipelineHead, {key: value for key, value in values.items() if key not in tables}, origin)
    _check_stage_names(head, tables, origin)
    given = {"seed": head.seed, "pipeline_name": head.name}
    stages, refusals = [], []
    notes: list[str] = []
    for one in head.stages:
        try:
            table, told = without_unused(STAGES.load(one), tables.get(one, {}), origin.below(one))
            stages.append(_read_stage(one, table, given, origin))
            notes += told
        except ConfigError as refusal:
            refusals.append(refusal)
    if refusals:
        hints = dict.fromkeys(one.hint for one in refusals if one.hint)
        code = first_code(refusals, ConfigError.exit_code)
        raise ConfigError("\n".join(one.message for one in refusals), hint="; ".join(hints), code=code)
    return Pipeline(head.name, head.description, head.seed, tuple(stages), tuple(notes))


def _read_stage(name: str, table: Mapping[str, Any], given: Mapping[str, Any], origin: Origin) -> Stage:
    """Return a stage with its options; what the pipeline gives goes to the stages that have such an option."""
    stage_class: type[Stage] = STAGES.load(name)
    inherited = {key: value for key, value in given.items() if key in stage_class.model_fields}
    return validate(stage_class, {**inherited, **table}, origin.below(name))


def _check_stage_names(head: _PipelineHead, tables: Mapping[str, Any], origin: Origin) -> None:
    for index, name in enumerate(head.stages):
        STAGES.check(name, origin.where(f"stages[{index}]"))
        if name in head.stages[:index]:
            raise ConfigError(f"{origin.where(f'stages[{index}]')} is {name!r} for the second time", code="MKD-221")
    for name, table in tables.items():
        if name not in head.stages:
            known = (*_PipelineHead.model_fields, *head.stages)
            raise ConfigError(
                f"{origin.where(name)} is not a stage of this pipeline", hint=choices(name, known), code="MKD-221"
            )
        if not isinstance(table, dict):
            raise ConfigError(f"{origin.where(name)} is {shown(table)}; a table of options is needed", code="MKD-221")


def _check_deployments(profile: Profile, origin: Origin) -> None:
    names: set[str] = set()
    for index, one in enumerate(profile.deploy):
        BACKENDS.check(one.backend, origin.where(f"deploy[{index}].backend"))
        if one.io == "int8" and one.precision != "int8":
            where = origin.where(f"deploy[{index}].io")
            raise ConfigError(
                f'{where} is "int8" with precision {one.precision!r}', hint='io = "float32"', code="MKD-230"
            )
        if one.name in names:
            raise ConfigError(f"{origin.where(f'deploy[{index}]')} is {one.name!r} for the second time", code="MKD-230")
        names.add(one.name)


def _check_device(profile: Profile, origin: Origin) -> None:
    name, abi = profile.device.cpu, profile.target.abi
    where = origin.where("device.cpu")
    if name and name not in CPUS:
        raise ConfigError(
            f"{where} is {name!r}; the emulator has no such CPU", hint=choices(name, CPUS), code="MKD-231"
        )
    if name and abi not in EMULATED_ABIS:
        raise ConfigError(
            f"{where} is {name!r}, and the emulator has no {abi} CPUs",
            hint=f"leave device.cpu out, or take a target.abi of {', '.join(EMULATED_ABIS)}",
            code="MKD-231",
        )


def _apply(values: dict[str, Any], overrides: Sequence[Override], path: Path) -> tuple[dict[str, Any], Origin]:
    """Return the values of a file with overrides on top, and where each was written."""
    values = copy.deepcopy(values)
    for one in overrides:
        if not one.keys:
            raise ConfigError(
                f"{one_line(one.text)} names no key",
                hint="for example --set profile.benchmark.timed_runs=50",
                code="MKD-205",
            )
        table = values
        for part in one.keys[:-1]:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{one_line(one.text)}: {one_line(part)!r} of {path} is not a table", code="MKD-205")
        table[one.keys[-1]] = one.value
    return values, Origin(path, overrides={".".join(one.keys): one.text for one in overrides})
