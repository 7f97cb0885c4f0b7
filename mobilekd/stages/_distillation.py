"""Options of a distillation, and the strategy and objective that they give."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from mobilekd.method import Method, Sizes
from mobilekd.plugins import METHODS, choices
from mobilekd.stage import Stage
from mobilekd.training.networks import check_name
from mobilekd.training.strategy import Part, Strategy, settled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from mobilekd.training.data import Images
    from mobilekd.training.objective import Objective, TeacherNetwork

Option = bool | int | float | str
"""The value of an option of a method."""


class LayerPair(BaseModel):
    """One pair of layers with a method of its own.

    Attributes:
        student, teacher: Paths of modules that give feature maps, as "layer1" or "blocks.2".
        method: A method that reads stages.
        weight: In place of the method's own.
        options: Of the method.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    student: str = Field(min_length=1)
    teacher: str = Field(min_length=1)
    method: str
    weight: float | None = Field(default=None, ge=0)
    options: dict[str, Option] = {}

    @model_validator(mode="after")
    def _method_holds(self) -> Self:
        if self.part().method.reads != {"stages"}:
            raise ValueError(f"method {self.method!r} does not compare feature maps alone, so it can't take two layers")
        return self

    def part(self) -> Part:
        """Return the pair as a strategy has it."""
        weight = {} if self.weight is None else {"weight": self.weight}
        return Part(self.method, read_method(self.method, {**self.options, **weight}), self.student, self.teacher)


class ExtraTeacher(BaseModel):
    """One more teacher: a network by name, its checkpoint, and its weight with combine = "weighted"."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    network: str
    checkpoint: str = Field(min_length=1)
    weight: float = Field(default=1.0, gt=0)

    @field_validator("network")
    @classmethod
    def _network_is_known(cls, name: str) -> str:
        return check_name(name)


class MethodOptions(Stage):
    """What is distilled.

    Attributes:
        method: A distillation method or several; `mobilekd list methods`.
        method_options: Options of methods by name; their own `weight` among them.
        temperature: Of every method that has one and does not get its own in method_options.
        soft_weight: Share of the teacher's logits in the loss (papers call it alpha, some the other way round): the
            labels weigh 1 - soft_weight. Without it 0.9 with kd, else the labels weigh 1 and the methods their own.
    """

    method: str | tuple[str, ...] = "kd"
    method_options: dict[str, dict[str, Option]] = Field(default_factory=dict)
    temperature: float | None = Field(default=None, gt=0)
    soft_weight: float | None = Field(default=None, ge=0, le=1)

    @field_validator("method")
    @classmethod
    def _methods_are_known(cls, names: str | tuple[str, ...]) -> str | tuple[str, ...]:
        listed = (names,) if isinstance(names, str) else names
        for name in listed:
            _known_method(name)
        if len(set(listed)) < len(listed):
            raise ValueError("a method is named twice; options of its own per layer go into layers")
        return names

    @model_validator(mode="after")
    def _methods_take_the_options(self) -> Self:
        strategy = self.strategy()
        names = [part.name for part in strategy.parts if not part.student]
        for name in self.method_options:
            if name not in names:
                raise ValueError(f"method_options has {name!r}, which is not distilled; {choices(name, names)}")
        if not strategy.parts:
            raise ValueError("no method is named; give method, layers or a soft_weight above 0")
        if self.temperature is not None and not any("temperature" in _fields(part.method) for part in strategy.parts):
            raise ValueError(f"temperature is set, and none of {', '.join(names)} has one; leave it out")
        return self

    @classmethod
    def unused(cls, table: Mapping[str, Any], chosen: Mapping[str, str]) -> Mapping[str, str]:
        """Return what was written for other methods than those that are chosen in their place."""
        options = table.get("method_options", {})
        if "method" not in chosen or not isinstance(options, dict):
            return {}
        rest = {name: value for name, value in table.items() if name not in ("temperature", "method_options")}
        try:
            parts = cls.model_validate_json(json.dumps(rest, default=str)).strategy().parts
        except ValidationError:
            return {}  # what is wrong is told when all options are read
        taken = {part.name for part in parts if not part.student}
        keys = [f"method_options.{name}" for name in options if name in METHODS.names() and name not in taken]
        if "temperature" in table and not any("temperature" in _fields(part.method) for part in parts):
            keys.append("temperature")
        return dict.fromkeys(keys, f"{chosen['method']} has no use for it")

    def outline(self) -> Mapping[str, str]:
        """Return the loss, and when the teacher runs."""
        strategy = self.strategy()
        return {"loss": strategy.describe(), "teacher": strategy.teacher_use(is_cached=self._keeps_answers())}

    def _keeps_answers(self) -> bool:
        """Return whether what the methods read of the teacher is kept."""
        return False

    def strategy(self) -> Strategy:
        """Return what the options mean together."""
        names = (self.method,) if isinstance(self.method, str) else self.method
        methods = {name: self._configured(name) for name in names}
        return settled(methods, self.soft_weight, self._configured("kd"), self._layer_parts())

    def objective(
        self,
        student: "nn.Module",
        teachers: "Sequence[TeacherNetwork]",
        train: "Images",
        strategy: Strategy | None = None,
    ) -> "Objective":
        """Return the loss of a student in training; `strategy` stands in place of that of the options."""
        import torch

        from mobilekd.training.objective import Objective

        example = torch.from_numpy(train.normalized(slice(0, 2)))
        sizes = Sizes(len(train), len(train.facts.classes))
        chosen = strategy or self.strategy()
        return Objective(student, teachers, chosen, example=example, sizes=sizes, seed=getattr(self, "seed", 0))

    def _configured(self, name: str) -> Method:
        given: dict[str, Option] = {}
        if self.temperature is not None and "temperature" in METHODS.load(name).model_fields:
            given["temperature"] = self.temperature
        return read_method(name, {**given, **self.method_options.get(name, {})})

    def _layer_parts(self) -> tuple[Part, ...]:
        return ()


def read_method(name: str, options: Mapping[str, Option]) -> Method:
    """Return a distillation method with its options set.

    Raises:
        ValueError: There is no such method or option, or a value is out of range; the message lists the choices.
    """
    method: type[Method] = METHODS.load(_known_method(name))
    for option in options:
        if option not in method.model_fields:
            raise ValueError(f"method {name!r} has no option {option!r}; {choices(option, method.model_fields)}")
    try:
        return method.model_validate(dict(options))
    except ValidationError as cause:
        first = cause.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ValueError(f"method {name!r}: {where} is {first['input']!r}: {first['msg']}") from cause


def _known_method(name: str) -> str:
    if name not in METHODS.names():
        raise ValueError(f"there is no method {name!r}; {choices(name, METHODS.names())}")
    return name


def _fields(method: Method) -> Mapping[str, Any]:
    return type(method).model_fields
