"""The contract of a pipeline stage: a frozen record of its options with one verb, `run`."""

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict

from mobilekd.artifacts import Artifact
from mobilekd.profile import Profile

A = TypeVar("A", bound=Artifact)

GIVEN = "<given>"
"""What a bundle's provenance says in place of where a file lies on the machine that built it."""


class Bar(Protocol):
    """One progress bar."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move on by some steps and show a short note, such as the loss."""


class Progress(Protocol):
    """Where a stage shows what it is doing; the console draws it on stderr."""

    def bar(self, title: str, total: int) -> AbstractContextManager[Bar]:
        """Show a bar with a known number of steps while the context is open."""

    def say(self, line: str) -> None:
        """Show one line that stays."""


@dataclass(frozen=True, slots=True)
class Context:
    """What a running stage may touch.

    Attributes:
        out: An empty directory to fill; it becomes the artifact.
        scratch: A directory that survives a kill and is given again to the next try of the same key: checkpoints.
        toolchains: Where isolated converter environments live.
        progress: Where to show progress.
        events: Where a training run writes TensorBoard events; None to write none. Never part of an output.
        soft_labels: Where teachers' logits are kept between builds; None keeps them nowhere.
    """

    out: Path
    scratch: Path
    toolchains: Path
    progress: Progress
    events: Path | None = None
    soft_labels: Path | None = None

    @property
    def devices(self) -> Path:
        """Return where runners, runtimes and emulators for devices are kept: beside the toolchains."""
        return self.toolchains.parent / "devices"


class Inputs:
    """The artifacts made so far, found by type."""

    def __init__(self, made: Sequence[Artifact]) -> None:
        self._made = tuple(made)

    def newest(self, kind: type[A]) -> A:
        """Return the newest artifact of a kind; the pipeline's wiring check has made sure that there is one."""
        return [artifact for artifact in self._made if isinstance(artifact, kind)][-1]

    def all(self, kind: type[A]) -> tuple[A, ...]:
        """Return all artifacts of a kind, oldest first."""
        return tuple(artifact for artifact in self._made if isinstance(artifact, kind))

    def __iter__(self) -> Iterator[Artifact]:
        return iter(self._made)


@dataclass(frozen=True, slots=True)
class Ahead:
    """A stage that comes before another one, as a build finds it; `made` is None where it is not in the cache."""

    stage: "Stage"
    made: Artifact | None


class Stage(BaseModel, abc.ABC):
    """One step of a pipeline. Its fields are its options, and all that can change its output.

    Class attributes:
        needs: Kinds of artifact of which the newest one is read.
        gathers: Kinds of artifact of which all are read.
        welcomes: Kinds of artifact of which the newest one is read where there is one.
        makes: The kind of artifact that `run` fills.
        version: Raise it when the same options make different bytes.
        measures: True for a stage whose output is a measurement: reused with its date, taken again by --remeasure.
        parallel: True for a stage that torchrun's processes run together; `out` counts in process 0 only.
        tools: Distributions whose versions can change the output.
        places: Options that say where a file or folder lies: its content counts (`sources`), not its place.
        tells_history: True for a stage whose output tells how its inputs were made (`Artifact.made_by`).
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    needs: ClassVar[tuple[type[Artifact], ...]] = ()
    gathers: ClassVar[tuple[type[Artifact], ...]] = ()
    welcomes: ClassVar[tuple[type[Artifact], ...]] = ()
    makes: ClassVar[type[Artifact]]
    version: ClassVar[int] = 1
    measures: ClassVar[bool] = False
    parallel: ClassVar[bool] = False
    tools: ClassVar[tuple[str, ...]] = ()
    places: ClassVar[tuple[str, ...]] = ()
    tells_history: ClassVar[bool] = False

    @classmethod
    def stage_name(cls) -> str:
        """Return the name in a pipeline file: the module's file name."""
        return cls.__module__.rpartition(".")[2]

    @classmethod
    def unused(cls, table: Mapping[str, Any], chosen: Mapping[str, str]) -> Mapping[str, str]:
        """Return the dotted keys of a table that options of the command line leave without a use, each with the reason.

        Args:
            table: Options of this stage, of the file and of the command line together, not yet checked.
            chosen: Those of the command line: dotted key -> the option as typed.
        """
        del table, chosen
        return {}

    def label(self) -> str:
        """Return the name of this one in a run: the stage name, and what tells it from its siblings."""
        return self.stage_name()

    def outline(self) -> Mapping[str, str]:
        """Return what a plan says of this stage beside why it runs, a line each; cheap, no imports."""
        return {}

    def for_profile(self, profile: Profile) -> tuple["Stage", ...]:
        """Return the stages that this one becomes for a profile: itself, or one per deployment."""
        del profile
        return (self,)

    def tool_names(self) -> tuple[str, ...]:
        """Return the distributions whose versions enter the key."""
        return self.tools

    def missing(self) -> tuple[str, ...]:
        """Return what is not there to run this stage, a line each with the command that mends it; cheap, no imports."""
        return ()

    def rehearse(self, before: Sequence[Ahead]) -> None:
        """Try in a second or two what `run` would fail at; called before the first stage, of each that is not cached.

        What can't be known before the stages in front have run is left to `run`.

        Args:
            before: The stages in front of this one, in order.

        Raises:
            ConfigError: The one that `run` would raise.
        """
        del before

    def sources(self, scan: Callable[[Path], str]) -> Mapping[str, str]:
        """Return digests of what this stage reads beside its inputs: data folders, checkpoints, code of the user.

        Args:
            scan: Digests a file or folder by content, remembering files that did not change.
        """
        del scan
        return {}

    @abc.abstractmethod
    def run(self, inputs: Inputs, context: Context) -> None:
        """Fill `context.out`.

        Raises:
            MobilekdError: What went wrong, with a hint. What was written so far is thrown away; scratch stays.
        """

    def options(self) -> dict[str, Any]:
        """Return the options as plain JSON values."""
        return self.model_dump(mode="json")

    def recorded_options(self) -> dict[str, Any]:
        """Return the options as provenance has them: a place that was given reads `GIVEN`."""
        return {name: GIVEN if name in self.places and value else value for name, value in self.options().items()}

    def recorded_sources(self, sources: Mapping[str, str]) -> dict[str, str]:
        """Return those of `sources` that are the same wherever this stage runs."""
        return dict(sources)
