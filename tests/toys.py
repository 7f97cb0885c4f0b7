"""A toy pipeline: three stages in a row, two deployments, one measurement. Stages write text, and log that they ran."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from mobilekd.artifacts import Artifact, Dataset, DeployedModel, LatencyReport, Student, Teacher
from mobilekd.config import Pipeline
from mobilekd.profile import Profile
from mobilekd.stage import Bar, Context, Inputs, Stage


@dataclass
class Silent:
    """A watcher that keeps what it was told."""

    lines: list[str] = field(default_factory=list)

    @contextmanager
    def bar(self, title: str, total: int) -> Iterator[Bar]:
        self.lines.append(f"bar {title} {total}")
        yield self

    def advance(self, steps: int = 1, note: str = "") -> None:
        del steps, note

    def say(self, line: str) -> None:
        self.lines.append(line)

    def stage_starts(self, label: str, why: str) -> None:
        self.lines.append(f"start {label}: {why}")

    def stage_ends(self, label: str, note: str, *, cached: bool) -> None:
        self.lines.append(f"{'reuse' if cached else 'end'} {label}: {note}")

    def stage_fails(self, label: str, note: str) -> None:
        self.lines.append(f"fail {label}: {note}")


class Toy(Stage):
    """Writes its inputs and options to one file."""

    option: int = 0
    failure: ClassVar[Callable[[Context], BaseException] | None] = None

    @classmethod
    def stage_name(cls) -> str:
        return cls.__name__.lower()

    def run(self, inputs: Inputs, context: Context) -> None:
        if failure := type(self).failure:
            (context.out / "half").write_text("half")
            raise failure(context)
        read = [inputs.newest(kind) for kind in self.needs] + [one for kind in self.gathers for one in inputs.all(kind)]
        text = "".join((one.path / "content").read_text() for one in read)
        (context.out / "content").write_text(f"{self.label()} {self.option}\n{text}")


class Data(Toy):
    makes = Dataset
    path: str = ""

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        return {"path": scan(Path(self.path))} if self.path else {}


class Train(Toy):
    needs = (Dataset,)
    makes = Teacher


class Distil(Toy):
    needs = (Dataset, Teacher)
    makes = Student


class Deploy(Toy):
    needs = (Student,)
    makes = DeployedModel
    backend: str = ""
    broken: tuple[str, ...] = ()
    lacking: tuple[str, ...] = ()

    def label(self) -> str:
        return f"deploy:{self.backend}"

    def for_profile(self, profile: Profile) -> tuple[Stage, ...]:
        return tuple(self.model_copy(update={"backend": one.backend}) for one in profile.deploy)

    def missing(self) -> tuple[str, ...]:
        return (f"{self.backend} is not installed",) if self.backend in self.lacking else ()

    def run(self, inputs: Inputs, context: Context) -> None:
        from mobilekd.errors import StageError

        if self.backend in self.broken:
            raise StageError(f"{self.backend} refused")
        super().run(inputs, context)


class Measure(Toy):
    gathers: ClassVar[tuple[type[Artifact], ...]] = (DeployedModel,)
    makes = LatencyReport
    measures = True


def toy_pipeline(**changed: Stage) -> Pipeline:
    """Return the toy pipeline with some stages replaced, by name."""
    stages = {"data": Data(), "train": Train(), "distil": Distil(), "deploy": Deploy(), "measure": Measure()}
    return Pipeline("toy", "A toy", 0, tuple({**stages, **changed}.values()))
