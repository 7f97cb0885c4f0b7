"""What a new release changes for the app that loads it: labels, preprocessing, files, inputs and outputs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from mobilekd.backend import TensorFacts
from mobilekd.release.manifest import Manifest, ModelEntry, Preprocessing

Weight = Literal["error", "breaking", "note"]


@dataclass(frozen=True, slots=True)
class Change:
    """One difference that an app sees.

    Attributes:
        weight: "error" gives wrong answers without a sign of it, "breaking" needs a change of the app, "note" none.
        subject: What changed, as "labels" or "tflite-int8 input".
        old, new: The two values, in words.
        says: What it means for the app.
    """

    weight: Weight
    subject: str
    old: str
    new: str
    says: str


def app_changes(old: Manifest, new: Manifest) -> tuple[Change, ...]:
    """Return what an app sees of a new release, the worst first."""
    changes = [
        *_labels(old.labels, new.labels),
        *_preprocessing(old.preprocessing, new.preprocessing),
        *_models({one.deployment: one for one in old.models}, {one.deployment: one for one in new.models}),
    ]
    order = ("error", "breaking", "note")
    return tuple(sorted(changes, key=lambda change: order.index(change.weight)))


def _labels(old: Sequence[str], new: Sequence[str]) -> Iterator[Change]:
    if old == new:
        return
    moved = [(name, at, new.index(name)) for at, name in enumerate(old) if name in new and new.index(name) != at]
    if moved:
        name, was, now = moved[0]
        told = f"an app with the old labels shows {new[was] if was < len(new) else 'nothing'!r} for {name!r}"
        yield Change("error", "order of labels", f"{name!r} is class {was}", f"class {now}", told)
    if lost := [name for name in old if name not in new]:
        yield Change("breaking", "labels", f"has {_few(lost)}", "has not", "the app is never told these classes again")
    if gained := [name for name in new if name not in old]:
        told = f"the output has {len(new)} logits, not {len(old)}" if len(new) != len(old) else "the app needs its text"
        yield Change("breaking", "labels", "has not", f"has {_few(gained)}", told)


def _few(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:3]))
    return f"{shown} and {len(names) - 3} more" if len(names) > 3 else shown


def _preprocessing(old: Preprocessing, new: Preprocessing) -> Iterator[Change]:
    parts = {
        "channel order": (old.channel_order, new.channel_order),
        "input size": (f"{old.height} x {old.width}", f"{new.height} x {new.width}"),
        "resize": (old.resize, new.resize),
        "pixel range": (str(old.value_range), str(new.value_range)),
        "mean": (_numbers(old.mean), _numbers(new.mean)),
        "std": (_numbers(old.std), _numbers(new.std)),
        "formula": (old.formula, new.formula),
    }
    for name, (was, now) in parts.items():
        if was != now:
            told = "an app that prepares images the old way gets worse answers, without an error"
            yield Change("breaking", f"preprocessing: {name}", was, now, told)


def _numbers(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def _models(old: dict[str, ModelEntry], new: dict[str, ModelEntry]) -> Iterator[Change]:
    for name in old.keys() - new.keys():
        yield Change("breaking", name, old[name].file, "not in the bundle", "an app that loads it finds no file")
    for name in new.keys() - old.keys():
        yield Change("note", name, "not in the bundle", new[name].file, "a new model")
    for name in sorted(old.keys() & new.keys()):
        if old[name].file != new[name].file:
            yield Change("breaking", f"{name} file", old[name].file, new[name].file, "the app loads another file")
        yield from _tensor(f"{name} input", old[name].input, new[name].input)
        yield from _tensor(f"{name} output", old[name].output, new[name].output)


def _tensor(subject: str, old: TensorFacts, new: TensorFacts) -> Iterator[Change]:
    was, now = (f"{one.dtype} {'x'.join(map(str, one.shape))} {one.layout}" for one in (old, new))
    if was != now:
        yield Change("breaking", subject, was, now, "the app has to fill or read another array")
    if old.name != new.name:
        yield Change("breaking", f"{subject} name", old.name, new.name, "an app that asks by name finds no tensor")
    if (old.scale, old.zero_point) != (new.scale, new.zero_point):
        told = "an app that has the numbers in its code rounds wrong; one that asks the model does not"
        yield Change("breaking", f"{subject} quantization", _grid(old), _grid(new), told)


def _grid(facts: TensorFacts) -> str:
    return "none" if facts.scale is None else f"scale {facts.scale:.6g}, zero point {facts.zero_point}"
