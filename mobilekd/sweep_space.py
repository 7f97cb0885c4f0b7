"""What a combination of a sweep is for its methods: values that none of them reads are left out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from mobilekd.artifacts import canonical_json
from mobilekd.config import Override, find, load_pipeline
from mobilekd.errors import ConfigError
from mobilekd.plugins import METHODS
from mobilekd.stages.distill import Distill
from mobilekd.sweep_grid import METHOD, Axis, Scalar, Values, overrides_for, points
from mobilekd.toml_file import read_toml
from mobilekd.train import LAST

_TEMPERATURE, _OPTIONS = (LAST, "temperature"), (LAST, "method_options")
_CHOOSES = (METHOD, f"{LAST}.soft_weight")
"""Keys that choose what is distilled, and so what is read: soft_weight above 0 adds kd."""


@dataclass(frozen=True, slots=True)
class Combination:
    """One configuration of a student.

    Attributes:
        values: Of the axes that its methods read.
        overrides: Of the pipeline file, in order.
        left_out: A line that names what none of its methods reads; empty when all is read.
        is_first: Whether it is the first of the points that differ only in what is left out.
    """

    values: Values
    overrides: tuple[Override, ...]
    left_out: str
    is_first: bool


@dataclass(frozen=True, slots=True)
class _Read:
    """What methods read: their names, whether one has a temperature, and what that takes out of the pipeline file."""

    names: tuple[str, ...]
    has_temperature: bool
    taken_out: tuple[Override, ...] = ()

    def has_use(self, keys: Sequence[str]) -> bool:
        """Return whether an option counts; what is no option of a known method stays, and is refused elsewhere."""
        if tuple(keys) == _TEMPERATURE:
            return self.has_temperature
        is_of_method = tuple(keys[:2]) == _OPTIONS and len(keys) > 2 and keys[2] in METHODS.names()
        return not is_of_method or keys[2] in self.names


@dataclass(slots=True)
class Space:
    """The combinations of some axes on a pipeline, with overrides that hold for all of them."""

    pipeline: str
    overrides: tuple[Override, ...]
    axes: tuple[Axis, ...]
    _known: dict[str, _Read | None] = field(default_factory=dict)

    def at(self, point: Mapping[str, Scalar]) -> Combination:
        """Return the combination at a point of the grid."""
        read = self._read(point)
        if read is None:
            return Combination(point, (*self.overrides, *overrides_for(point)), "", is_first=True)
        values = {key: value for key, value in point.items() if read.has_use(key.split("."))}
        unread = {one.key: one.choices[0] for one in self.axes if one.key not in values}
        fixed = [one for one in self.overrides if read.has_use(one.keys)]
        texts = [one.text for one in (*read.taken_out, *self.overrides) if one not in fixed]
        texts = [one for one in texts if not one.startswith(tuple(unread))]  # an axis of the same key tells it
        unused = ", ".join((*texts, *unread))
        told = f"{', '.join(read.names)}: no use for {unused}; left out" if unused else ""
        # What is taken out of the file comes first: --set and the axes may set the same keys again.
        overrides = (*read.taken_out, *fixed, *overrides_for(values))
        return Combination(values, overrides, told, all(point[key] == unread[key] for key in unread))

    def combinations(self) -> Iterator[Combination]:
        """Yield each combination once."""
        return (one for one in map(self.at, points(self.axes)) if one.is_first)

    def check(self) -> Combination:
        """Return a combination that is a pipeline.

        Raises:
            ConfigError: A value can't be taken, whatever the method, or none of the methods reads it.
        """
        found = [self._check_choice(axis, choice) for axis in self.axes for choice in axis.choices]
        every = list(self.combinations())
        unread = [one.key for one in self.axes if all(one.key not in each.values for each in every)]
        unread += [one.text for one in self.overrides if all(one not in each.overrides for each in every)]
        if unread:
            raise ConfigError(
                f"{', '.join(unread)}: no method of this sweep reads it",
                hint="leave it out, or add a --method that has it: mobilekd list methods",
                code="MKD-210",
            )
        return found[0]

    def _check_choice(self, axis: Axis, choice: Scalar) -> Combination:
        """Return a combination with a value of an axis: one that no method can take is a mistake of the command."""
        first = {one.key: one.choices[0] for one in self.axes}
        varied = [one for one in self.axes if one.key in _CHOOSES and one is not axis]
        found = [self.at({**first, **point, axis.key: choice}) for point in points(varied)]
        readers = [one for one in found if axis.key in one.values] or found
        refusals = []
        for one in readers:
            try:
                load_pipeline(self.pipeline, one.overrides)
            except ConfigError as refusal:
                refusals.append(refusal)
            else:
                return one
        raise refusals[0]

    def _read(self, point: Mapping[str, Scalar]) -> _Read | None:
        """Return what the methods of a point read; None where they are no pipeline, which its trial will tell."""
        chosen = {key: value for key, value in point.items() if key in _CHOOSES}
        name = canonical_json(chosen)
        if name not in self._known:
            first = {one.key: one.choices[0] for one in self.axes if tuple(one.key.split(".")[:2]) != _OPTIONS}
            values = {**first, **chosen}
            bare = (Override(_TEMPERATURE, None, "sweep"), Override(_OPTIONS, {}, "sweep"))
            try:
                stages = load_pipeline(self.pipeline, [*self.overrides, *overrides_for(values), *bare]).stages
            except ConfigError:
                self._known[name] = None
            else:
                table = read_toml(find("pipelines", self.pipeline)).get(LAST, {})
                self._known[name] = next((_read_of(one, table) for one in stages if isinstance(one, Distill)), None)
        return self._known[name]


def _read_of(distill: Distill, table: Mapping[str, Any]) -> _Read:
    parts = distill.strategy().parts
    names = tuple(one.name for one in parts if not one.student)
    read = _Read(names, any("temperature" in type(one.method).model_fields for one in parts))
    return replace(read, taken_out=_taken_out(table, read))


def _taken_out(table: Mapping[str, Any], read: _Read) -> tuple[Override, ...]:
    found = []
    if "temperature" in table and not read.has_use(_TEMPERATURE):
        found.append(Override(_TEMPERATURE, None, f"{LAST}.temperature of the pipeline"))
    options = table.get("method_options", {})
    if lost := [name for name in options if not read.has_use((*_OPTIONS, name))]:
        kept = {name: value for name, value in options.items() if name not in lost}
        found.append(Override(_OPTIONS, kept, f"{LAST}.method_options of {', '.join(lost)} of the pipeline"))
    return tuple(found)
