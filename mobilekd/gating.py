"""Budgets from the command line, the gates of a build or a bundle, and how a command ends on them."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mobilekd.artifacts import Bundle
from mobilekd.delivery import latency_rows, parity_rows
from mobilekd.errors import ConfigError, OverBudgetError
from mobilekd.paths import check_output
from mobilekd.pipeline import BuildResult
from mobilekd.profile import Budget
from mobilekd.release.gate_facts import Facts, Finished, check_comparable, read_finished
from mobilekd.release.gate_files import junit, markdown, write_text
from mobilekd.release.gates import Gate, check
from mobilekd.validation import Origin, validate

_AGAINST = ("release_top1_drop", "release_class_top1_drop")
_CODES = {
    "model_bytes": "MKD-601",
    "bundle_bytes": "MKD-601",
    "top1_drop": "MKD-602",
    "student_top1_drop": "MKD-602",
    "class_top1_drop": "MKD-602",
    "agreement": "MKD-602",
    "error_steps": "MKD-602",
    "p50_ms": "MKD-603",
    "guest_instructions": "MKD-603",
    "peak_memory_bytes": "MKD-603",
    "int8_beats_fp32": "MKD-603",
    "release_top1_drop": "MKD-604",
    "release_class_top1_drop": "MKD-604",
    "licences": "MKD-605",
}
_PERCENT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*%\s*")


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a command tells its gates, beside the table: files, and whether what was not measured fails."""

    strict: bool = False
    junit: Path | None = None
    markdown: Path | None = None

    def check(self, *reads: Path | None) -> None:
        """Refuse files that can't be written, or would overwrite one of the bundles; before any work.

        Raises:
            ConfigError: A folder is not there, or the name is that of a folder, a bundle or the other file.
        """
        bundles = [one for one in reads if one is not None]
        if self.junit is not None:
            check_output("--junit", self.junit, bundles)
        if self.markdown is not None:
            check_output("--markdown", self.markdown, bundles if self.junit is None else [*bundles, self.junit])

    def finish(self, title: str, gates: Sequence[Gate]) -> None:
        """Write the files, and refuse what is over budget.

        Raises:
            OverBudgetError: A budget does not hold, or with `strict` was not measured; every one is named.
        """
        if self.junit is not None:
            write_text(self.junit, junit(title, gates, strict=self.strict))
        if self.markdown is not None:
            write_text(self.markdown, markdown(title, gates))
        failed = [one for one in gates if one.verdict == "over" or (self.strict and one.verdict == "not measured")]
        if failed:
            raise OverBudgetError(
                "\n".join(one.sentence() for one in failed),
                hint="the bundle is built; budgets stand in [budget] of the profile and in --budget",
                code=_CODES[failed[0].budget] if failed[0].verdict == "over" else "MKD-606",
            )


@dataclass(frozen=True, slots=True)
class Limits:
    """What must hold: the budgets, and the last release that some of them compare with."""

    budget: Budget
    against: Finished | None

    def of_bundle(self, facts: Facts) -> tuple[Gate, ...]:
        """Return the gates of a finished bundle.

        Raises:
            ConfigError: Its answers can't be compared with those of the last release.
        """
        if self.against is not None:
            check_comparable(facts, self.against.facts)
        return check(self.budget, facts, self.against.facts if self.against else None)

    def of_build(self, result: BuildResult) -> tuple[Gate, ...]:
        """Return the gates of a build; those of the rows there are when it stopped before the bundle."""
        if self.budget == Budget():
            return ()
        bundle = result.newest(Bundle)
        if bundle is not None:
            return self.of_bundle(read_finished(bundle.path / "bundle").facts)
        return check(self.budget, Facts("the build", parity_rows(result), latency_rows(result)))


def limits_of(budget: Budget, texts: Sequence[str] | None, against: Path | None) -> Limits:
    """Return a profile's budgets with every --budget on top, and the last release, read and checked.

    Raises:
        ConfigError: A --budget does not hold, or --against has nothing there or no budget that needs it.
        VerificationError: The last release is not what was packed.
    """
    limits = with_budgets(budget, texts or ())
    if against is not None and all(getattr(limits, key) is None for key in _AGAINST):
        raise ConfigError(
            f"--against {against} compares nothing: no budget of {' or '.join(_AGAINST)} is set",
            hint="--budget release_top1_drop=0.005",
        )
    return Limits(limits, read_finished(against) if against is not None else None)


def with_budgets(budget: Budget, texts: Sequence[str]) -> Budget:
    """Return budgets with every --budget KEY=VALUE on top.

    Example:
        >>> with_budgets(Budget(), ["top1_drop=0.01", "licences=MIT,Apache-2.0"]).licences
        ('MIT', 'Apache-2.0')

    Raises:
        ConfigError: There is no `=`, no such budget, or the value is of the wrong type or range.
    """
    given, typed = {}, {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise ConfigError(
                f"--budget {text} is not KEY=VALUE", hint=f"for example --budget top1_drop=0.01; keys: {_keys()}"
            )
        key = key.removeprefix("budget.")  # as messages and profiles have it
        _refuse_percent(text, key, value)
        given[key], typed[f"budget.{key}"] = _value(key, value), f"--budget {text}"
    values: Mapping[str, Any] = {**budget.model_dump(exclude_none=True), **given}
    return validate(Budget, values, Origin(Path("--budget"), "budget", typed))


def _value(key: str, text: str) -> Any:
    """Return a value as TOML has it; text that is none is taken as text, and licences may stand between commas."""
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        table = {}
    value = table["value"] if table.keys() == {"value"} else text
    if key == "licences" and isinstance(value, str):
        return [one.strip() for one in value.split(",")]
    return value


def _refuse_percent(text: str, key: str, value: str) -> None:
    if found := _PERCENT.fullmatch(value.strip("\"'")):
        raise ConfigError(
            f"--budget {text}: budget.{key} is {value!r}: a share is written as a fraction",
            hint=f"--budget {key}={float(found[1]) / 100:g}",
        )


def _keys() -> str:
    return ", ".join(Budget.model_fields)
