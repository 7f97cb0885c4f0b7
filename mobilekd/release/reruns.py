"""Running the models of a bundle again on its reference input."""

from dataclasses import dataclass
from pathlib import Path

from mobilekd.backend import DeployedFacts, Float32
from mobilekd.errors import VerificationError
from mobilekd.release.arrays import read_float32
from mobilekd.release.files import BundleFiles
from mobilekd.release.manifest import Manifest, ModelEntry, Reference
from mobilekd.release.reference import Runtime, error_steps


@dataclass(frozen=True, slots=True)
class Rerun:
    """One model, run again on the reference input: its largest logit error in output steps, and the largest allowed."""

    deployment: str
    max_error_steps: float
    allowed_steps: float

    @property
    def ok(self) -> bool:
        """Return whether the error is rounding."""
        return self.max_error_steps <= self.allowed_steps


class NoRuns:
    """A runtime that runs nothing, for who asked for digests only."""

    def missing(self, backend: str) -> str | None:
        """Return why nothing is run."""
        del backend
        return "not asked for (--no-run)"

    def parity_steps(self, backend: str) -> float:
        """Return the tolerance of a run that never is."""
        del backend
        return 0.0

    def logits(self, backend: str, model: Path, facts: DeployedFacts, image: Float32, scratch: Path) -> Float32:
        """Never called: every backend is missing."""
        raise AssertionError(f"{backend} was run on {model} ({facts.file}, {image.shape}) in {scratch}")


NO_RUNS: Runtime = NoRuns()


@dataclass(frozen=True, slots=True)
class Copies:
    """Files of a bundle, copied out; each copy is digested after it was made."""

    files: BundleFiles
    manifest: Manifest
    folder: Path

    @property
    def scratch(self) -> Path:
        """Return a directory for the exchange with a runtime: no file of the bundle has a name that lies in it."""
        scratch = self.folder / ".scratch"
        scratch.mkdir(exist_ok=True)
        return scratch

    def copy(self, name: str) -> Path:
        """Return the copy of a file."""
        copy = self.folder / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        sha256 = next(entry.sha256 for entry in self.manifest.files if entry.path == name)
        self.files.copy(name, copy, sha256=sha256)
        return copy

    def array(self, name: str) -> Float32:
        """Return a float32 array."""
        return read_float32(self.copy(name), f"{self.files.path}: {name}")


def rerun_all(copies: Copies, runtime: Runtime) -> tuple[tuple[Rerun, ...], tuple[tuple[str, str], ...]]:
    """Run the models of a bundle on its reference input; return what was run, and what was not with the reason.

    Raises:
        VerificationError: An array of the bundle is none, or a model answers in another shape.
    """
    image = copies.array(copies.manifest.reference.input)
    reruns: list[Rerun] = []
    not_run: list[tuple[str, str]] = []
    for model in copies.manifest.models:
        if model.reference is None:
            not_run.append((model.deployment, model.note or "built, not run"))
        elif reason := runtime.missing(model.options.backend):
            not_run.append((model.deployment, reason))
        else:
            reruns.append(_rerun(copies, runtime, model, model.reference, image))
    return tuple(reruns), tuple(not_run)


def _rerun(copies: Copies, runtime: Runtime, model: ModelEntry, reference: Reference, image: Float32) -> Rerun:
    backend, facts = model.options.backend, model.facts()
    expected = copies.array(reference.file)
    got = runtime.logits(backend, copies.copy(model.file), facts, image, copies.scratch)
    if got.shape != expected.shape:
        raise VerificationError(
            f"{copies.files.path}: {model.deployment}: gives logits of shape {list(got.shape)}, "
            f"{reference.file} has {list(expected.shape)}"
        )
    error = error_steps(got, expected, reference.logit_step)
    return Rerun(model.deployment, error, runtime.parity_steps(backend))
